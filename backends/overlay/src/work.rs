//! The work directory: where files are made before they get their names in the upper.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::posix::ACL_DEFAULT;
use vfsd_backend::{
    AttributeChanges, Caller, Device, Entry, Errno, Error, FileKind, Lookup, Name, Node, Rename,
    RenameFlags, Result, XattrName,
};

use crate::merge::entries_of;
use crate::new::{Inode, New, What};
use crate::xattr::is_absent;

/// Directories deep that leftovers are removed; nothing that is made here is deeper.
const DEPTH: usize = 4;

/// The directory `work` in the work directory, as the kernel has it too.
pub(crate) struct WorkDirectory {
    pub(crate) node: Arc<dyn Node>,
    next: AtomicU64,
}

/// The daemon itself.
pub(crate) const DAEMON: Caller = Caller {
    identity: None,
    pid: 0,
};

/// A name in the work directory that nothing else has.
#[derive(Debug)]
pub(crate) struct Temporary(String);

impl Temporary {
    pub(crate) fn name(&self) -> Result<Name<'_>> {
        Ok(Name::new(self.0.as_bytes())?)
    }
}

impl WorkDirectory {
    /// Finds or makes it, and removes what an earlier run has left in it.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn open(outer: &Arc<dyn Node>, namespace_name: &str) -> Result<Self> {
        let node = directory_in(outer, namespace_name).await?;
        let work = Self {
            node,
            next: AtomicU64::new(1),
        };
        // What is made here must have no rights but those that it is given. It may be the kernel's,
        // which has mode 0.
        let changes = AttributeChanges {
            permissions: Some(0o700),
            ..AttributeChanges::default()
        };
        work.node.setattr(changes).await?;
        match work.node.removexattr(XattrName::new(ACL_DEFAULT)?).await {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        empty(&work.node, DEPTH).await?;
        Ok(work)
    }

    pub(crate) fn temporary(&self) -> Temporary {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Temporary(format!("#{number:x}"))
    }

    /// Moves what was made here to its place.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn rename_to(
        &self,
        temporary: &Temporary,
        parent: &Arc<dyn Node>,
        name: Name<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        rename(&self.node, temporary.name()?, parent, name, flags).await
    }

    /// Puts a whiteout in the place of a file of the upper, which goes.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn whiteout_over(
        &self,
        parent: &Arc<dyn Node>,
        name: Name<'_>,
        kind: FileKind,
    ) -> Result<()> {
        let temporary = self.temporary();
        make_whiteout(&self.node, temporary.name()?).await?;
        // A directory cannot be replaced by what is none.
        let flags = match kind {
            FileKind::Directory => RenameFlags::EXCHANGE,
            _ => RenameFlags::empty(),
        };
        let renamed = self.rename_to(&temporary, parent, name, flags).await;
        if renamed.is_err() || kind == FileKind::Directory {
            self.discard(&temporary).await;
        }
        renamed
    }

    /// Removes what was made here and is not needed, as far as possible: the rest goes at the next
    /// start.
    pub(crate) async fn discard(&self, temporary: &Temporary) {
        let Ok(name) = temporary.name() else {
            return;
        };
        if let Err(error) = remove(&self.node, name, DEPTH).await {
            tracing::warn!(%error, "a leftover stays in the work directory until the next start");
        }
    }
}

/// Renames inside of the upper.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn rename(
    parent: &Arc<dyn Node>,
    name: Name<'_>,
    new_parent: &Arc<dyn Node>,
    new_name: Name<'_>,
    flags: RenameFlags,
) -> Result<()> {
    let rename = Rename {
        name,
        new_parent: new_parent.as_ref(),
        new_name,
        flags,
    };
    parent.rename(DAEMON, rename).await
}

/// Makes a whiteout under a name that is not there.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn make_whiteout(parent: &Arc<dyn Node>, name: Name<'_>) -> Result<()> {
    let new = New {
        caller: DAEMON,
        what: What::Special(FileKind::CharDevice, Device::default()),
        inode: Inode::with(0),
    };
    new.make(parent, name).await.map(drop)
}

/// Finds or makes a directory that only the daemon uses.
///
/// # Errors
/// Those of the storage; ENOTDIR when the name is another file's.
pub(crate) async fn directory_in(parent: &Arc<dyn Node>, name: &str) -> Result<Arc<dyn Node>> {
    let name = Name::new(name.as_bytes())?;
    let node = match parent.lookup(name).await? {
        Lookup::Found(entry) => entry.node,
        Lookup::Missing { .. } => {
            let new = New {
                caller: DAEMON,
                what: What::Directory,
                inode: Inode::with(0o700),
            };
            let (entry, _): (Entry, _) = new.make(parent, name).await?;
            entry.node
        }
    };
    match node.kind() {
        FileKind::Directory => Ok(node),
        _ => Err(Errno::NOTDIR.into()),
    }
}

/// Removes all that is in a directory, so many directories deep.
pub(crate) async fn empty(directory: &Arc<dyn Node>, depth: usize) -> Result<()> {
    for name in entries_of(directory).await?.names() {
        remove(directory, Name::new(name)?, depth).await?;
    }
    Ok(())
}

/// Removes a name with all that is below it, so many directories deep.
async fn remove(parent: &Arc<dyn Node>, name: Name<'_>, depth: usize) -> Result<()> {
    let gone = |result: Result<()>| match result {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        other => other,
    };
    match parent.unlink(name).await {
        Err(error) if error.is(Errno::ISDIR) || error.is(Errno::PERM) => {}
        other => return gone(other),
    }
    match parent.rmdir(name).await {
        Err(error) if error.is(Errno::NOTEMPTY) || error.is(Errno::EXIST) => {}
        other => return gone(other),
    }
    let depth = depth.checked_sub(1).ok_or(Error::Errno(Errno::NOTEMPTY))?;
    if let Lookup::Found(entry) = parent.lookup(name).await? {
        Box::pin(empty(&entry.node, depth)).await?;
    }
    gone(parent.rmdir(name).await)
}
