//! Making files, and giving them names.

use std::sync::Arc;

use vfsd_backend::posix::ACL_DEFAULT;
use vfsd_backend::{
    AttributeChanges, Caller, Capabilities, Created, Entry, Errno, FileKind, Name, Node, OpenFlags,
    OpenRequest, Opened, RenameFlags, Result, XattrFlags, XattrName,
};

use crate::file::OverlayFile;
use crate::layers::UpperLayer;
use crate::nested;
use crate::new::{Inode, New, What};
use crate::node::{OverlayNode, Place};
use crate::work::{DAEMON, rename};
use crate::xattr::{Marks, OPAQUE, Opacity, is_absent};

/// The name of a file in a directory of the work directory.
const MADE: &[u8] = b"made";

impl OverlayNode {
    /// Makes something under a name that is not there.
    ///
    /// # Errors
    /// EEXIST when it is; those of the upper.
    pub(crate) async fn make(self: &Arc<Self>, name: Name<'_>, new: New) -> Result<Entry> {
        self.check_free(name).await?;
        self.copy_up(None).await?;
        let _names = self.shared.names.write().await;
        let spot = self.spot(name).await?;
        if spot.found.is_some() {
            return Err(Errno::EXIST.into());
        }
        let (entry, marks, _) = self.make_at(name, &new, spot.whiteout).await?;
        let place = Place::new(self, name);
        let (node, attributes) = Self::made(&self.shared, entry, marks, Some(place));
        Ok(node.entry(attributes))
    }

    /// EEXIST if a name of this directory is there, before anything is copied for it.
    async fn check_free(self: &Arc<Self>, name: Name<'_>) -> Result<()> {
        self.check_directory()?;
        let _names = self.shared.names.read().await;
        match self.find(name).await? {
            Some(_) => Err(Errno::EXIST.into()),
            None if self.is_removed() => Err(Errno::NOENT.into()),
            None => Ok(()),
        }
    }

    /// Makes and opens a regular file, or opens the one that has the name.
    ///
    /// # Errors
    /// EEXIST when the name is there and must not be; those of the upper.
    pub(crate) async fn create_file(
        self: &Arc<Self>,
        name: Name<'_>,
        caller: Caller,
        flags: OpenFlags,
        inode: Inode,
    ) -> Result<Created> {
        self.check_directory()?;
        self.copy_up(None).await?;
        let names = self.shared.names.write().await;
        let spot = self.spot(name).await?;
        if let Some((node, _)) = spot.found {
            drop(names);
            return node.open_found(flags).await;
        }
        let new = New {
            caller,
            what: What::File(flags),
            inode,
        };
        let (entry, marks, opened) = self.make_at(name, &new, spot.whiteout).await?;
        let opened = opened.ok_or(Errno::IO)?;
        let place = Place::new(self, name);
        let (node, attributes) = Self::made(&self.shared, entry, marks, Some(place));
        Ok(created(node, attributes, opened, flags))
    }

    /// Makes and opens a file without a name.
    ///
    /// # Errors
    /// Those of the upper.
    pub(crate) async fn create_unnamed(
        self: &Arc<Self>,
        caller: Caller,
        flags: OpenFlags,
        inode: Inode,
    ) -> Result<Created> {
        self.check_directory()?;
        self.copy_up(None).await?;
        if self.is_removed() {
            return Err(Errno::NOENT.into());
        }
        let directory = self.upper().ok_or(Errno::IO)?;
        let made = directory.tmpfile(caller, flags, inode.get()?).await?;
        let marks = Marks::default();
        let (node, attributes) = Self::made(&self.shared, made.entry, marks, None);
        Ok(created(node, attributes, made.opened, flags))
    }

    /// Opens a file that a request to create one has found.
    async fn open_found(self: Arc<Self>, flags: OpenFlags) -> Result<Created> {
        if flags.contains(OpenFlags::EXCLUSIVE) {
            return Err(Errno::EXIST.into());
        }
        match self.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR.into()),
            FileKind::Symlink => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::BADF.into()),
        }
        let capabilities = self.shared.capabilities;
        let request = OpenRequest {
            flags,
            // Whether the caller may keep set-id bits is not known here, so they go.
            kill_privileges: capabilities.contains(Capabilities::KILL_PRIVILEGES),
        };
        let opened = self.open_file(request).await?;
        let attributes = self.attributes().await?;
        Ok(Created {
            entry: self.entry(attributes),
            opened,
        })
    }

    /// Makes something in the upper's directory.
    async fn make_at(
        &self,
        name: Name<'_>,
        new: &New,
        whiteout: bool,
    ) -> Result<(Entry, Marks, Option<Opened>)> {
        if self.is_removed() {
            return Err(Errno::NOENT.into());
        }
        let upper = self.shared.upper()?;
        let directory = self.gaining(name)?;
        let mut marks = Marks::default();
        let is_device = matches!(new.what, What::Whiteout);
        if is_device {
            self.mark_devices().await?;
        }
        if whiteout || is_device {
            if new.is_directory() {
                marks.opacity = Opacity::Opaque;
            }
            let (entry, opened) = self.make_elsewhere(upper, directory, name, new).await?;
            return Ok((entry, marks, opened));
        }
        let (mut entry, opened) = new.make(directory, name).await?;
        if new.is_directory() && !self.lowers().is_empty() {
            // The lower may get such a name.
            marks.opacity = Opacity::Opaque;
            let namespace = self.shared.namespace;
            match namespace.set(entry.node.as_ref(), OPAQUE, b"y").await {
                Ok(()) => entry.attributes = entry.node.getattr().await?,
                Err(error) => {
                    directory.rmdir(name).await?;
                    return Err(error);
                }
            }
        }
        Ok((entry, marks, opened))
    }

    /// Makes something elsewhere and moves it to its name, over a whiteout or not: at no time does the name show
    /// what is below, or half of what is made. It is made in a directory that passes on what the real one does.
    ///
    /// # Errors
    /// Those of the upper.
    pub(crate) async fn make_elsewhere(
        &self,
        upper: &UpperLayer,
        directory: &Arc<dyn Node>,
        name: Name<'_>,
        new: &New,
    ) -> Result<(Entry, Option<Opened>)> {
        let temporary = upper.work.temporary();
        let scratch = New {
            caller: DAEMON,
            what: What::Directory,
            inode: Inode::with(0o700),
        };
        let (scratch, _) = scratch.make(&upper.work.node, temporary.name()?).await?;
        let made = async {
            pass_on(directory, &scratch.node).await?;
            let made = Name::new(MADE)?;
            let (mut entry, opened) = new.make(&scratch.node, made).await?;
            let namespace = self.shared.namespace;
            let node = entry.node.as_ref();
            let flags = match new.what {
                What::Directory => {
                    namespace.set(node, OPAQUE, b"y").await?;
                    RenameFlags::EXCHANGE
                }
                What::Whiteout => {
                    nested::mark(namespace, node).await?;
                    RenameFlags::empty()
                }
                _ => RenameFlags::empty(),
            };
            rename(&scratch.node, made, directory, name, flags).await?;
            // Its name, and perhaps a mark, came after it was made.
            entry.attributes = entry.node.getattr().await?;
            if matches!(new.what, What::Whiteout) {
                entry.attributes = nested::as_device(entry.attributes);
            }
            Ok((entry, opened))
        }
        .await;
        upper.work.discard(&temporary).await;
        made
    }

    /// Gives `target` a name in this directory.
    ///
    /// # Errors
    /// EPERM for a directory, EEXIST when the name is there; those of the upper.
    pub(crate) async fn make_link(
        self: &Arc<Self>,
        target: &Arc<Self>,
        name: Name<'_>,
    ) -> Result<Entry> {
        self.check_free(name).await?;
        if target.kind == FileKind::Directory {
            return Err(Errno::PERM.into());
        }
        self.copy_up(None).await?;
        target.copy_up(None).await?;
        let upper = self.shared.upper()?;
        let _names = self.shared.names.write().await;
        if self.is_removed() {
            return Err(Errno::NOENT.into());
        }
        let spot = self.spot(name).await?;
        if spot.found.is_some() {
            return Err(Errno::EXIST.into());
        }
        let directory = self.gaining(name)?;
        if target.has_other_number() {
            self.mark_impure().await?;
        }
        if target.is_nested_whiteout() {
            self.mark_devices().await?;
        }
        let file = target.upper().ok_or(Errno::IO)?;
        if spot.whiteout {
            let temporary = upper.work.temporary();
            upper
                .work
                .node
                .link(file.as_ref(), temporary.name()?)
                .await?;
            let flags = RenameFlags::empty();
            let renamed = upper
                .work
                .rename_to(&temporary, directory, name, flags)
                .await;
            if let Err(error) = renamed {
                upper.work.discard(&temporary).await;
                return Err(error);
            }
        } else {
            directory.link(file.as_ref(), name).await?;
        }
        target.is_found_at(self, name);
        let attributes = target.attributes().await?;
        Ok(target.clone().entry(attributes))
    }
}

/// Gives `scratch` what decides over owner and rights of new files in `directory`.
async fn pass_on(directory: &Arc<dyn Node>, scratch: &Arc<dyn Node>) -> Result<()> {
    let attributes = directory.getattr().await?;
    let changes = AttributeChanges {
        uid: Some(attributes.uid),
        gid: Some(attributes.gid),
        permissions: Some(attributes.permissions),
        ..AttributeChanges::default()
    };
    scratch.setattr(changes).await?;
    let name = XattrName::new(ACL_DEFAULT)?;
    match directory.getxattr(name).await {
        Ok(acl) => scratch.setxattr(name, &acl, XattrFlags::empty()).await,
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn created(
    node: Arc<OverlayNode>,
    attributes: vfsd_backend::Attributes,
    opened: Opened,
    flags: OpenFlags,
) -> Created {
    let file = OverlayFile::new(node.clone(), opened.file, flags, true);
    Created {
        entry: node.entry(attributes),
        opened: Opened {
            file: Arc::new(file),
            caching: opened.caching,
        },
    }
}
