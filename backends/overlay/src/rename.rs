//! Moving names, over any combination of layers.

use std::sync::Arc;

use vfsd_backend::{Attributes, Caller, Errno, FileKind, Name, Node, RenameFlags, Result};

use crate::layers::UpperLayer;
use crate::merge::{entries_of, list};
use crate::node::OverlayNode;
use crate::resolve::is_in_lowers;
use crate::spot::Spot;
use crate::work::rename;
use crate::xattr::{OPAQUE, Opacity, REDIRECT};

/// The longest redirect that the kernel follows, in bytes.
const REDIRECT_MAX: usize = 256;

/// A rename, whose ends are named.
pub(crate) struct Move<'a> {
    /// Owns the whiteout that is left, if one is.
    pub(crate) caller: Caller,
    pub(crate) from: &'a Arc<OverlayNode>,
    pub(crate) name: Name<'a>,
    pub(crate) to: &'a Arc<OverlayNode>,
    pub(crate) new_name: Name<'a>,
    pub(crate) flags: RenameFlags,
}

/// What a rename concerns.
struct Ends {
    old: Spot,
    moved: Arc<OverlayNode>,
    new: Spot,
    /// What has the new name: it is replaced, or exchanged.
    other: Option<(Arc<OverlayNode>, Attributes)>,
}

impl Move<'_> {
    /// Does it.
    ///
    /// # Errors
    /// Those of renameat2(2); EXDEV for a directory of a lower layer where redirects are not written.
    pub(crate) async fn make(&self) -> Result<()> {
        self.from.check_directory()?;
        self.to.check_directory()?;
        if self.exchanges() && self.flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL.into());
        }
        let upper = self.from.shared.upper()?;
        loop {
            let names = self.from.shared.names.read().await;
            let Some(ends) = self.find().await? else {
                return Ok(());
            };
            drop(names);
            self.copy_up(&ends).await?;
            let _names = self.from.shared.names.write().await;
            let Some(ends) = self.find().await? else {
                return Ok(());
            };
            if self.is_copied_up(&ends) {
                return self.commit(upper, ends).await;
            }
        }
    }

    fn exchanges(&self) -> bool {
        self.flags.contains(RenameFlags::EXCHANGE)
    }

    fn is_in_one_directory(&self) -> bool {
        Arc::ptr_eq(self.from, self.to)
    }

    /// What is there now; `None` if there is nothing to do, because both names are of one file.
    async fn find(&self) -> Result<Option<Ends>> {
        let old = self.from.spot(self.name).await?;
        let new = self.to.spot(self.new_name).await?;
        let (moved, _) = old.found.clone().ok_or(Errno::NOENT)?;
        let other = new.found.clone();
        if self.to.is_removed() || (self.exchanges() && other.is_none()) {
            return Err(Errno::NOENT.into());
        }
        if self.flags.contains(RenameFlags::NOREPLACE) && other.is_some() {
            return Err(Errno::EXIST.into());
        }
        if is_within(self.to, &moved) {
            return Err(Errno::INVAL.into());
        }
        if let Some((other, _)) = &other {
            if is_within(self.from, other) {
                return Err(match self.exchanges() {
                    true => Errno::INVAL.into(),
                    false => Errno::NOTEMPTY.into(),
                });
            }
            if Arc::ptr_eq(other, &moved) {
                return Ok(None);
            }
            if !self.exchanges() {
                check_kinds(&moved, other)?;
            }
        }
        // In the order of ovl_rename().
        self.check_redirects(&moved, other.as_ref())?;
        if let Some((other, _)) = &other
            && !self.exchanges()
            && other.kind == FileKind::Directory
            && !list(other, &[]).await?.is_empty()
        {
            return Err(Errno::NOTEMPTY.into());
        }
        Ok(Some(Ends {
            old,
            moved,
            new,
            other,
        }))
    }

    /// EXDEV where a directory would need a redirect, and none may be written.
    fn check_redirects(
        &self,
        moved: &Arc<OverlayNode>,
        other: Option<&(Arc<OverlayNode>, Attributes)>,
    ) -> Result<()> {
        let other = other.filter(|_| self.exchanges());
        let needed = [Some(moved), other.map(|(other, _)| other)]
            .into_iter()
            .flatten()
            .any(|node| node.kind == FileKind::Directory && !node.lowers().is_empty());
        match needed && !moved.shared.redirects {
            true => Err(Errno::XDEV.into()),
            false => Ok(()),
        }
    }

    async fn copy_up(&self, ends: &Ends) -> Result<()> {
        self.from.copy_up(None).await?;
        self.to.copy_up(None).await?;
        ends.moved.copy_up(None).await?;
        match &ends.other {
            Some((other, _)) if self.exchanges() => other.copy_up(None).await,
            Some((other, _)) => other.prepare_to_lose_a_name().await,
            None => Ok(()),
        }
    }

    /// Whether all is copied up that has to be: it may have changed meanwhile.
    fn is_copied_up(&self, ends: &Ends) -> bool {
        let there = |node: &OverlayNode| node.upper().is_some();
        let other = match &ends.other {
            Some((other, _)) if self.exchanges() => there(other),
            Some((other, attributes)) => other.is_prepared_to_lose_a_name(attributes),
            None => true,
        };
        there(self.from) && there(self.to) && there(&ends.moved) && other
    }

    async fn commit(&self, upper: &UpperLayer, ends: Ends) -> Result<()> {
        let from = self.from.gaining(self.name)?;
        let to = self.to.gaining(self.new_name)?;
        let Ends {
            old,
            moved,
            new,
            other,
        } = ends;
        link_up(self.from, self.name, &moved, old.in_upper).await?;
        if self.exchanges() {
            let (other, _) = other.ok_or(Errno::NOENT)?;
            link_up(self.to, self.new_name, &other, new.in_upper).await?;
            self.prepare(&moved, self.name, self.from, self.to).await?;
            self.prepare(&other, self.new_name, self.to, self.from)
                .await?;
            rename(from, self.name, to, self.new_name, RenameFlags::EXCHANGE).await?;
            moved.is_moved_to(self.to, self.new_name);
            other.is_moved_to(self.from, self.name);
            return Ok(());
        }
        self.prepare(&moved, self.name, self.from, self.to).await?;
        if let Some((other, _)) = &other
            && other.kind == FileKind::Directory
            && new.in_upper
        {
            self.to.mark_impure().await?;
            make_really_empty(upper, to, self.new_name, other).await?;
        }
        let leaves = self.flags.contains(RenameFlags::WHITEOUT);
        // For a moment it is one of this overlay: the name does not show what is below.
        let below = leaves || is_in_lowers(self.from, self.name).await?;
        let is_directory = moved.kind == FileKind::Directory;
        let flags = match (below, new.whiteout) {
            (true, false) => RenameFlags::WHITEOUT,
            // The two change places.
            (true, true) => RenameFlags::EXCHANGE,
            // A directory cannot replace what is none.
            (false, true) if is_directory => RenameFlags::EXCHANGE,
            (false, _) => RenameFlags::empty(),
        };
        rename(from, self.name, to, self.new_name, flags).await?;
        moved.is_moved_to(self.to, self.new_name);
        if flags == RenameFlags::EXCHANGE && !below {
            from.unlink(self.name).await?;
        }
        if leaves {
            self.from.put_device(upper, self.name, self.caller).await?;
        }
        if let Some((other, _)) = other {
            let in_upper = new.in_upper;
            other
                .has_lost_a_name(self.to, self.new_name, in_upper)
                .await?;
        }
        Ok(())
    }

    /// Gives a file that moves from one directory to another the marks that it needs there.
    async fn prepare(
        &self,
        node: &Arc<OverlayNode>,
        name: Name<'_>,
        parent: &Arc<OverlayNode>,
        new_parent: &Arc<OverlayNode>,
    ) -> Result<()> {
        if node.has_other_number() {
            new_parent.mark_impure().await?;
        }
        if node.is_nested_whiteout() {
            new_parent.mark_devices().await?;
        }
        if node.kind != FileKind::Directory {
            return Ok(());
        }
        let own = node.upper_part().ok_or(Errno::IO)?;
        let namespace = node.shared.namespace;
        if node.lowers().is_empty() {
            let opaque = own.marks.opacity == Opacity::Opaque;
            if !opaque && !new_parent.lowers().is_empty() {
                namespace.set(own.node.as_ref(), OPAQUE, b"y").await?;
                node.change_marks(|marks| marks.opacity = Opacity::Opaque);
            }
            return Ok(());
        }
        let is_known = own
            .marks
            .redirect
            .as_ref()
            .is_some_and(|known| known.starts_with(b"/") || self.is_in_one_directory());
        if is_known {
            return Ok(());
        }
        let redirect = match self.is_in_one_directory() {
            true => name.as_bytes().to_vec(),
            false => path_below(node, name, parent)?,
        };
        namespace
            .set(own.node.as_ref(), REDIRECT, &redirect)
            .await?;
        node.change_marks(|marks| marks.redirect = Some(redirect.into()));
        Ok(())
    }
}

/// Whether a directory is another, or below it.
fn is_within(directory: &Arc<OverlayNode>, above: &Arc<OverlayNode>) -> bool {
    let mut at = directory.clone();
    loop {
        if Arc::ptr_eq(&at, above) {
            return true;
        }
        match at.place() {
            Some(place) => at = place.parent,
            None => return false,
        }
    }
}

/// ENOTDIR or EISDIR when one cannot replace the other.
fn check_kinds(moved: &OverlayNode, other: &OverlayNode) -> Result<()> {
    let is_directory = |node: &OverlayNode| node.kind == FileKind::Directory;
    match (is_directory(moved), is_directory(other)) {
        (true, false) => Err(Errno::NOTDIR.into()),
        (false, true) => Err(Errno::ISDIR.into()),
        _ => Ok(()),
    }
}

/// Gives a copy the name in the upper that only the lower layer has so far.
async fn link_up(
    parent: &Arc<OverlayNode>,
    name: Name<'_>,
    node: &Arc<OverlayNode>,
    in_upper: bool,
) -> Result<()> {
    if in_upper || node.kind == FileKind::Directory {
        return Ok(());
    }
    let directory = parent.gaining(name)?;
    let file = node.upper().ok_or(Errno::IO)?;
    parent.mark_impure().await?;
    if node.is_nested_whiteout() {
        parent.mark_devices().await?;
    }
    node.link_copy(file, directory, name).await
}

/// The path of a directory in the layers below, from the overlay's root: that of the names it has, and
/// had before they were changed.
fn path_below(node: &OverlayNode, name: Name<'_>, parent: &Arc<OverlayNode>) -> Result<Vec<u8>> {
    let mut path: Vec<u8> = Vec::new();
    let mut component = redirect_of(node).unwrap_or_else(|| name.as_bytes().to_vec());
    let mut at = parent.clone();
    loop {
        let absolute = component.starts_with(b"/");
        path = match absolute {
            true => [&component, &*path].concat(),
            false => [b"/", &*component, &*path].concat(),
        };
        if path.len() > REDIRECT_MAX {
            return Err(Errno::XDEV.into());
        }
        let place = match at.place() {
            Some(place) if !absolute => place,
            _ => return Ok(path),
        };
        component = redirect_of(&at).unwrap_or_else(|| place.name.into_vec());
        at = place.parent;
    }
}

fn redirect_of(node: &OverlayNode) -> Option<Vec<u8>> {
    node.upper_part()?.marks.redirect.map(Vec::from)
}

/// Takes the whiteouts out of a directory of the upper that shows nothing and is to be replaced: an
/// opaque one takes its place, with the same attributes.
async fn make_really_empty(
    upper: &UpperLayer,
    parent: &Arc<dyn Node>,
    name: Name<'_>,
    node: &Arc<OverlayNode>,
) -> Result<()> {
    let own = node.upper().ok_or(Errno::IO)?;
    if entries_of(own).await?.is_empty() {
        return Ok(());
    }
    let temporary = upper.work.temporary();
    let made = async {
        node.make_empty_copy(upper, &temporary).await?;
        upper
            .work
            .rename_to(&temporary, parent, name, RenameFlags::EXCHANGE)
            .await
    }
    .await;
    upper.work.discard(&temporary).await;
    made
}
