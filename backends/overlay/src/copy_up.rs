//! Copying a file to the upper before it is changed for the first time, as fs/overlayfs/copy_up.c does it.
//!
//! The copy is made in the work directory with all that belongs to it, and then gets its name by one
//! rename: whatever happens, the upper has all of it or nothing.

use std::sync::Arc;

use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT};
use vfsd_backend::{
    AttributeChanges, Attributes, Errno, FileKind, Name, Node, OpenFlags, OpenRequest, RenameFlags,
    Result, SetTime, XattrFlags, XattrName,
};

use crate::content;
use crate::layers::UpperLayer;
use crate::nested;
use crate::new::{Inode, New, What};
use crate::node::{OverlayNode, Place};
use crate::origin::handle_of;
use crate::work::{DAEMON, Temporary, rename};
use crate::xattr::{INODE, NLINK, ORIGIN, is_unsupported, names};

/// A copy, before it has its name.
struct Copied {
    node: Arc<dyn Node>,
    /// Those of the lower file.
    attributes: Attributes,
    /// What it says of where it comes from, as the kernel has it.
    origin: Option<Vec<u8>>,
}

/// Whether a copy was made.
enum Done {
    Yes,
    /// The file was moved meanwhile, to where its directory is not in the upper yet.
    Moved,
}

impl OverlayNode {
    /// Makes sure that the file is in the upper, its directories first. With `keep` only so many bytes of
    /// its content are needed.
    ///
    /// # Errors
    /// EROFS without an upper; those of the layers.
    pub(crate) async fn copy_up(self: &Arc<Self>, keep: Option<u64>) -> Result<()> {
        if self.upper().is_some() {
            return Ok(());
        }
        let upper = self.shared.upper()?;
        loop {
            let mut above = Vec::new();
            let mut place = self.place();
            while let Some(known) = place {
                if known.parent.upper().is_some() {
                    break;
                }
                place = known.parent.place();
                above.push(known.parent);
            }
            let mut all_there = true;
            while let Some(directory) = above.pop() {
                match directory.copy_up_alone(upper, None).await? {
                    Done::Yes => {}
                    Done::Moved => all_there = false,
                }
            }
            if all_there && let Done::Yes = self.copy_up_alone(upper, keep).await? {
                return Ok(());
            }
        }
    }

    async fn copy_up_alone(
        self: &Arc<Self>,
        upper: &UpperLayer,
        keep: Option<u64>,
    ) -> Result<Done> {
        let _copying = self.copying().lock().await;
        if self.upper().is_some() {
            return Ok(Done::Yes);
        }
        let temporary = upper.work.temporary();
        let done = match self.make_copy(upper, &temporary, keep).await {
            Ok(copy) => self.give_name(upper, &temporary, copy).await,
            Err(error) => Err(error),
        };
        if !matches!(done, Ok(Done::Yes)) {
            upper.work.discard(&temporary).await;
        }
        done
    }

    /// Makes the copy in the work directory.
    async fn make_copy(
        &self,
        upper: &UpperLayer,
        temporary: &Temporary,
        keep: Option<u64>,
    ) -> Result<Copied> {
        self.check_content().await?;
        let lower = &self.lowers().first().ok_or(Errno::IO)?.node;
        let attributes = lower.getattr().await?;
        let what = match attributes.kind {
            FileKind::Regular => What::File(OpenFlags::READ | OpenFlags::WRITE),
            FileKind::Directory => What::Directory,
            FileKind::Symlink => What::Symlink(lower.readlink().await?),
            kind => What::Special(kind, attributes.device),
        };
        let new = New {
            caller: DAEMON,
            what,
            inode: Inode::with(0o700),
        };
        let (entry, opened) = new.make(&upper.work.node, temporary.name()?).await?;
        if let Some(opened) = opened {
            let length = keep.map_or(attributes.size, |keep| keep.min(attributes.size));
            if length > 0 {
                let request = OpenRequest {
                    flags: OpenFlags::READ,
                    kill_privileges: false,
                };
                let from = lower.open(request).await?;
                content::copy(from.file.as_ref(), opened.file.as_ref(), length).await?;
                from.file.release().await?;
                // A host that loses power must not find the name without the content.
                match opened.file.fsync(true).await {
                    Err(error) if is_unsupported(&error) => {}
                    other => other?,
                }
            }
            opened.file.release().await?;
        }
        let copy = entry.node;
        self.copy_attributes(lower, &copy, &attributes, &entry.attributes)
            .await?;
        if self.is_nested_whiteout() {
            nested::mark(self.shared.namespace, copy.as_ref()).await?;
        }
        if attributes.kind != FileKind::Directory {
            let number = self.whole_number().stored();
            self.note(&copy, INODE, number.as_bytes()).await?;
        }
        let origin = handle_of(lower.as_ref()).await?;
        if let Some(origin) = &origin {
            self.note(&copy, ORIGIN, origin).await?;
        }
        Ok(Copied {
            node: copy,
            attributes,
            origin,
        })
    }

    /// Notes something of a copy, if such a file can carry it: a symbolic link has no `user.*`.
    async fn note(&self, copy: &Arc<dyn Node>, mark: &str, value: &[u8]) -> Result<()> {
        match self.shared.namespace.set(copy.as_ref(), mark, value).await {
            Err(error) if error.is(Errno::PERM) || is_unsupported(&error) => Ok(()),
            other => other,
        }
    }

    /// Gives a copy owner, extended attributes, mode and times.
    async fn copy_attributes(
        &self,
        from: &Arc<dyn Node>,
        to: &Arc<dyn Node>,
        attributes: &Attributes,
        made: &Attributes,
    ) -> Result<()> {
        if (made.uid, made.gid) != (attributes.uid, attributes.gid) {
            let changes = AttributeChanges {
                uid: Some(attributes.uid),
                gid: Some(attributes.gid),
                ..AttributeChanges::default()
            };
            to.setattr(changes).await?;
        }
        self.copy_xattrs(from, to).await?;
        // A change of owner takes set-id bits away, so that the mode comes after it.
        let is_symlink = attributes.kind == FileKind::Symlink;
        let changes = AttributeChanges {
            permissions: (!is_symlink).then_some(attributes.permissions),
            accessed: Some(SetTime::At(attributes.accessed)),
            modified: Some(SetTime::At(attributes.modified)),
            ..AttributeChanges::default()
        };
        to.setattr(changes).await.map(drop)
    }

    async fn copy_xattrs(&self, from: &Arc<dyn Node>, to: &Arc<dyn Node>) -> Result<()> {
        let list = match from.listxattr().await {
            Err(error) if is_unsupported(&error) => return Ok(()),
            other => other?,
        };
        for name in names(&list) {
            // The overlay's own say something of the lower layer. Escaped ones are a program's.
            if self.shared.namespace.shown(name).is_none() {
                continue;
            }
            let xattr = XattrName::new(name)?;
            let value = match from.getxattr(xattr).await {
                Err(error) if error.is(Errno::NODATA) => continue,
                other => other?,
            };
            let flags = XattrFlags::empty();
            match to.setxattr(xattr, &value, flags).await {
                // What decides over rights must not be lost (ovl_must_copy_xattr).
                Err(error) if is_unsupported(&error) && !must_be_copied(name) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes an empty, opaque directory with the attributes of this one in the work directory.
    ///
    /// # Errors
    /// Those of the upper.
    pub(crate) async fn make_empty_copy(
        &self,
        upper: &UpperLayer,
        temporary: &Temporary,
    ) -> Result<()> {
        let own = self.upper().ok_or(Errno::IO)?;
        let attributes = own.getattr().await?;
        let new = New {
            caller: DAEMON,
            what: What::Directory,
            inode: Inode::with(0o700),
        };
        let (entry, _) = new.make(&upper.work.node, temporary.name()?).await?;
        let namespace = self.shared.namespace;
        namespace
            .set(entry.node.as_ref(), crate::xattr::OPAQUE, b"y")
            .await?;
        let number = self.whole_number().stored();
        namespace
            .set(entry.node.as_ref(), INODE, number.as_bytes())
            .await?;
        self.copy_attributes(own, &entry.node, &attributes, &entry.attributes)
            .await
    }

    /// Gives a copy its name: from here on the file is in the upper.
    async fn give_name(
        self: &Arc<Self>,
        upper: &UpperLayer,
        temporary: &Temporary,
        copied: Copied,
    ) -> Result<Done> {
        let Copied {
            node: copy,
            attributes,
            origin,
        } = copied;
        let _names = self.shared.names.write().await;
        let indexed = self.is_indexable(&attributes);
        let place = self.place();
        if let Some(place) = &place
            && place.parent.upper().is_none()
        {
            return Ok(Done::Moved);
        }
        if indexed {
            // All lower names find it there.
            let others = i64::from(attributes.links).saturating_sub(1);
            self.store_links(&copy, others.saturating_add(self.links_changed()))
                .await?;
            upper
                .index
                .enter(&upper.work, temporary, self.whole_number().key, origin)
                .await?;
            self.change_links(others);
        } else if place.is_none() {
            // Nobody can find it by a name. It lives as long as it is in use.
            upper.work.discard(temporary).await;
        }
        if let Some(Place { parent, name }) = &place {
            let name = Name::new(name)?;
            let directory = parent.gaining(name)?;
            parent.mark_impure().await?;
            if self.is_nested_whiteout() {
                parent.mark_devices().await?;
            }
            let before = directory.getattr().await?;
            if indexed {
                self.link_copy(&copy, directory, name).await?;
            } else {
                let flags = RenameFlags::NOREPLACE;
                rename(&upper.work.node, temporary.name()?, directory, name, flags).await?;
            }
            // For programs nothing has happened in the directory.
            let changes = AttributeChanges {
                accessed: Some(SetTime::At(before.accessed)),
                modified: Some(SetTime::At(before.modified)),
                ..AttributeChanges::default()
            };
            if let Err(error) = directory.setattr(changes).await {
                tracing::debug!(%error, "the times of a directory have moved by a copy-up");
            }
        }
        let inode = copy.identity().inode;
        self.is_in_upper(copy, inode);
        Ok(Done::Yes)
    }

    /// Gives the copy of a file with several lower names one of them in the upper.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn link_copy(
        &self,
        copy: &Arc<dyn Node>,
        directory: &Arc<dyn Node>,
        name: Name<'_>,
    ) -> Result<()> {
        // Meanwhile relative to the lower file's, which do not change with the new name.
        if let Some(lower) = self.lowers().first() {
            let [lower, upper] = [&lower.node, copy].map(|node| node.getattr());
            let (lower, upper) = (lower.await?.links, upper.await?.links);
            let links = i64::from(upper).saturating_add(self.links_changed());
            let more = links.saturating_sub(i64::from(lower));
            let value = format!("L{more:+}");
            self.note(copy, NLINK, value.as_bytes()).await?;
        }
        directory.link(copy.as_ref(), name).await?;
        self.change_links(-1);
        self.store_links(copy, self.links_changed()).await
    }

    /// Keeps by how much the links that programs see are more than those of the upper's file.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn store_links(&self, file: &Arc<dyn Node>, more: i64) -> Result<()> {
        let value = format!("U{more:+}");
        self.note(file, NLINK, value.as_bytes()).await
    }

    /// Notes, before the first such name is there, that files of this directory show other inode
    /// numbers than their own.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn mark_impure(&self) -> Result<()> {
        let Some(directory) = self.upper_part() else {
            return Ok(());
        };
        if directory.marks.impure {
            return Ok(());
        }
        let namespace = self.shared.namespace;
        namespace
            .set(directory.node.as_ref(), crate::xattr::IMPURE, b"y")
            .await?;
        self.change_marks(|marks| marks.impure = true);
        Ok(())
    }
}

fn must_be_copied(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT || name.starts_with(b"security.")
}
