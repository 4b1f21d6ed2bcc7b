//! What is to be made, kept for as long as the making takes.

use std::sync::Arc;

use vfsd_backend::{
    Caller, Device, Entry, FileKind, LinkTarget, Name, NewDevice, NewInode, Node, OpenFlags,
    Opened, Result, SecurityContext, XattrName,
};

/// A new inode that owns what it consists of.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    permissions: u32,
    umask: u32,
    security: Option<(Vec<u8>, Vec<u8>)>,
}

impl From<NewInode<'_>> for Inode {
    fn from(inode: NewInode<'_>) -> Self {
        Self {
            permissions: inode.permissions,
            umask: inode.umask,
            security: inode
                .security
                .map(|label| (label.name.as_bytes().to_vec(), label.value.to_vec())),
        }
    }
}

impl Inode {
    /// With these permissions and nothing else.
    pub(crate) fn with(permissions: u32) -> Self {
        Self {
            permissions,
            umask: 0,
            security: None,
        }
    }

    pub(crate) fn get(&self) -> Result<NewInode<'_>> {
        let security = match &self.security {
            None => None,
            Some((name, value)) => Some(SecurityContext {
                name: XattrName::new(name)?,
                value,
            }),
        };
        Ok(NewInode {
            permissions: self.permissions,
            umask: self.umask,
            security,
        })
    }
}

/// What is to be made.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A regular file, to be opened so.
    File(OpenFlags),
    Directory,
    Symlink(Vec<u8>),
    Special(FileKind, Device),
    /// What becomes a whiteout of another overlay, once it is marked so.
    Whiteout,
}

/// A request to make something.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) caller: Caller,
    pub(crate) what: What,
    pub(crate) inode: Inode,
}

impl New {
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory)
    }

    /// Makes it in a directory of a layer.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn make(
        &self,
        parent: &Arc<dyn Node>,
        name: Name<'_>,
    ) -> Result<(Entry, Option<Opened>)> {
        let (caller, inode) = (self.caller, self.inode.get()?);
        let entry = match &self.what {
            What::File(flags) => {
                let flags = *flags | OpenFlags::EXCLUSIVE;
                let created = parent.create(caller, name, flags, inode).await?;
                return Ok((created.entry, Some(created.opened)));
            }
            What::Directory => parent.mkdir(caller, name, inode).await?,
            What::Symlink(target) => {
                let target = LinkTarget::new(target)?;
                parent.symlink(caller, name, target, inode).await?
            }
            What::Special(kind, device) => {
                let new = NewDevice {
                    kind: *kind,
                    device: *device,
                    inode,
                };
                parent.mknod(caller, name, new).await?
            }
            What::Whiteout => {
                let new = NewDevice {
                    kind: FileKind::Regular,
                    device: Device::default(),
                    inode,
                };
                parent.mknod(caller, name, new).await?
            }
        };
        Ok((entry, None))
    }
}
