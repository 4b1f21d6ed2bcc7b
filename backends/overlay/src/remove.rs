//! Removing names. A whiteout stays only where a lower layer has the name.

use std::sync::Arc;

use vfsd_backend::{Errno, FileKind, Name, Node, RenameFlags, Result};

use crate::layers::UpperLayer;
use crate::merge::{entries_of, list};
use crate::node::OverlayNode;
use crate::resolve::is_in_lowers;
use crate::work::{make_whiteout, rename};

impl OverlayNode {
    /// Removes a name: that of a directory if `directory`, otherwise that of anything else.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOTDIR, ENOTEMPTY; those of the upper.
    pub(crate) async fn remove(self: &Arc<Self>, name: Name<'_>, directory: bool) -> Result<()> {
        self.check_directory()?;
        let upper = self.shared.upper()?;
        // What is refused is refused before something is copied.
        let node = {
            let _names = self.shared.names.read().await;
            let (node, _) = self.find(name).await?.ok_or(Errno::NOENT)?;
            node.check_removable(directory).await?;
            node
        };
        node.prepare_to_lose_a_name().await?;
        self.copy_up(None).await?;

        let _names = self.shared.names.write().await;
        let spot = self.spot(name).await?;
        let (node, _) = spot.found.ok_or(Errno::NOENT)?;
        node.check_removable(directory).await?;
        let parent = self.gaining(name)?;
        let below = is_in_lowers(self, name).await?;
        match (spot.in_upper, below) {
            (true, true) => {
                upper.work.whiteout_over(parent, name, node.kind).await?;
            }
            (true, false) if directory => remove_directory(upper, parent, name, &node).await?,
            (true, false) => parent.unlink(name).await?,
            (false, true) => make_whiteout(parent, name).await?,
            (false, false) => return Err(Errno::NOENT.into()),
        }
        node.has_lost_a_name(self, name, spot.in_upper).await
    }

    /// EISDIR, ENOTDIR or ENOTEMPTY if it cannot be removed so.
    async fn check_removable(self: &Arc<Self>, directory: bool) -> Result<()> {
        match (self.kind == FileKind::Directory, directory) {
            (true, false) => Err(Errno::ISDIR.into()),
            (false, true) => Err(Errno::NOTDIR.into()),
            (true, true) if !list(self, &[]).await?.is_empty() => Err(Errno::NOTEMPTY.into()),
            _ => Ok(()),
        }
    }

    /// Copies a lower file with several names up before one goes: the rest is counted there.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn prepare_to_lose_a_name(self: &Arc<Self>) -> Result<()> {
        if self.upper().is_none() {
            let attributes = self.real()?.getattr().await?;
            if self.is_indexable(&attributes) {
                self.copy_up(None).await?;
            }
        }
        Ok(())
    }

    /// Whether a name that it loses now needs [`prepare_to_lose_a_name`](Self::prepare_to_lose_a_name)
    /// first.
    pub(crate) fn is_prepared_to_lose_a_name(&self, attributes: &vfsd_backend::Attributes) -> bool {
        self.upper().is_some() || !self.is_indexable(attributes)
    }

    /// Notes that it has lost a name, which the upper had or not.
    ///
    /// # Errors
    /// Those of the upper, from which the count of links is kept.
    pub(crate) async fn has_lost_a_name(
        &self,
        parent: &Self,
        name: Name<'_>,
        in_upper: bool,
    ) -> Result<()> {
        self.has_lost(parent, name);
        if self.kind == FileKind::Directory {
            return Ok(());
        }
        if !in_upper {
            self.change_links(-1);
        }
        let (Some(file), Some(upper)) = (self.upper(), &self.shared.upper) else {
            return Ok(());
        };
        if !in_upper {
            self.store_links(file, self.links_changed()).await?;
        }
        // One that was not copied up, or that a lower layer has a name of.
        if self.lowers().is_empty() && self.links_changed() == 0 {
            return Ok(());
        }
        if self.attributes().await?.links == 0 {
            let key = self.whole_number().key;
            upper.index.remove(key, file.as_ref()).await?;
        }
        Ok(())
    }
}

/// Removes a directory of the upper that shows nothing, but may have whiteouts in it.
async fn remove_directory(
    upper: &UpperLayer,
    parent: &Arc<dyn Node>,
    name: Name<'_>,
    node: &OverlayNode,
) -> Result<()> {
    let own = node.upper().ok_or(Errno::IO)?;
    if entries_of(own).await?.is_empty() {
        return parent.rmdir(name).await;
    }
    let temporary = upper.work.temporary();
    let flags = RenameFlags::NOREPLACE;
    rename(parent, name, &upper.work.node, temporary.name()?, flags).await?;
    upper.work.discard(&temporary).await;
    Ok(())
}
