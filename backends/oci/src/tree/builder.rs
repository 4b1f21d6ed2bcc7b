//! Layers put on each other, entry by entry.
//!
//! A layer is read once, in the order of its tar, as container runtimes do. What belongs to the layer itself
//! is never hidden by its own whiteouts, wherever in the tar they stand: each name knows the last
//! layer that touched it.

use std::collections::BTreeMap;

use vfsd_backend::Timestamp;

use crate::{DataExtent, EntryKind, LayerEntry};

use super::arena::{Arena, Body, Child, Description, Index, ROOT};
use super::error::{Problem, TreeError, shown};
use super::path::{self, Meaning};
use super::walk::{Place, walk};
use super::{Tree, freeze};

/// How many files an image may have, unless told otherwise: 4,194,304, which take about 1 GiB while layers
/// are merged.
pub const DEFAULT_FILE_LIMIT: u32 = 1 << 22;

/// The longest value of an extended attribute, and of all names of one file together (`XATTR_SIZE_MAX`,
/// `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 1 << 16;

/// Makes a [`Tree`] from layers, given from the lowest up.
///
/// ```
/// use vfsd_backend::Timestamp;
/// use vfsd_oci::tree::TreeBuilder;
/// use vfsd_oci::{EntryKind, LayerEntry};
///
/// let mut builder = TreeBuilder::new(Timestamp::default());
/// builder.begin_layer();
/// builder.entry(0, LayerEntry {
///     path: b"etc/".to_vec(),
///     kind: EntryKind::Directory,
///     permissions: 0o755,
///     uid: 0,
///     gid: 0,
///     modified: Timestamp::default(),
///     xattrs: Vec::new(),
/// })?;
/// let tree = builder.finish()?;
/// assert!(tree.lookup(tree.root(), b"etc").is_some());
/// # Ok::<(), vfsd_oci::tree::TreeError>(())
/// ```
#[derive(Debug)]
pub struct TreeBuilder {
    arena: Arena,
    created: Timestamp,
    /// Layers begun; the present one is this less 1.
    layers: u32,
}

impl TreeBuilder {
    /// An empty tree. Directories that no layer describes, the root among them, get `created` as their time: that
    /// of the image.
    pub fn new(created: Timestamp) -> Self {
        Self::with_limit(created, DEFAULT_FILE_LIMIT)
    }

    /// As [`new`](Self::new), for at most `limit` files.
    pub fn with_limit(created: Timestamp, limit: u32) -> Self {
        Self {
            arena: Arena::new(undescribed(created, 0), limit),
            created,
            layers: 0,
        }
    }

    /// Begins the next layer up.
    pub fn begin_layer(&mut self) {
        self.end_layer();
        self.layers = self.layers.saturating_add(1);
    }

    /// Puts an entry of the present layer on the tree. `number` is its place in the layer: it is what
    /// [`Content::entry`](super::Content::entry) says later.
    ///
    /// # Errors
    /// An entry that makes no sense, with its path and what is wrong; see [`Problem`]. The tree is of no use then.
    pub fn entry(&mut self, number: u32, entry: LayerEntry) -> Result<(), TreeError> {
        let path = entry.path.clone();
        self.apply(number, entry)
            .map_err(|problem| self.error(number, &path, problem))
    }

    /// The tree of the layers so far.
    ///
    /// # Errors
    /// [`Problem::TooLarge`] when names and attributes come to 4 GiB.
    pub fn finish(mut self) -> Result<Tree, TreeError> {
        self.end_layer();
        freeze::freeze(&self.arena, self.layers)
            .map_err(|problem| self.error(u32::MAX, b"", problem))
    }

    fn error(&self, entry: u32, path: &[u8], problem: Problem) -> TreeError {
        TreeError {
            layer: self.present(),
            entry,
            path: shown(path),
            problem,
        }
    }

    fn present(&self) -> u32 {
        self.layers.saturating_sub(1)
    }

    /// Takes away what AUFS left: until here hard links of the layer may lead there.
    fn end_layer(&mut self) {
        let names = self.arena.children(ROOT).into_iter().flatten();
        let names: Vec<Box<[u8]>> = names
            .filter(|(name, _)| path::is_aufs(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.arena.detach(ROOT, &name);
        }
    }

    fn apply(&mut self, number: u32, entry: LayerEntry) -> Result<(), Problem> {
        let components = path::clean(&entry.path)?;
        let Some((&name, parents)) = components.split_last() else {
            return self.root_entry(&entry);
        };
        let of_aufs = components.first().is_some_and(|first| path::is_aufs(first));
        if of_aufs && components.len() == 1 {
            return Ok(());
        }
        let parent = walk(&self.arena, parents)?;
        match path::meaning(name)? {
            Meaning::File => self.file(parent, name, number, &entry),
            _ if of_aufs => Ok(()),
            Meaning::Opaque => {
                if let Some(directory) = parent.node() {
                    self.hide_below(directory, false);
                }
                Ok(())
            }
            Meaning::Whiteout(hidden) => {
                if let Some(directory) = parent.node() {
                    self.hide(directory, hidden);
                }
                Ok(())
            }
        }
    }

    fn root_entry(&mut self, entry: &LayerEntry) -> Result<(), Problem> {
        if entry.kind != EntryKind::Directory {
            return Err(Problem::RootNotADirectory);
        }
        let description = self.description(entry)?;
        if let Some(root) = self.arena.node_mut(ROOT) {
            root.description = description;
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: Place,
        name: &[u8],
        number: u32,
        entry: &LayerEntry,
    ) -> Result<(), Problem> {
        // What is linked is looked for first: it may be what the name stands for now.
        let linked = match &entry.kind {
            EntryKind::HardLink { target } => Some(self.linked(target)?),
            _ => None,
        };
        let directory = self.make(parent)?;
        let layer = self.present();
        let there = self.arena.child(directory, name);
        let node = match (linked, there) {
            (Some(linked), Some(there)) if there.node == linked => {
                self.touch(directory, name);
                return Ok(());
            }
            (Some(linked), _) => linked,
            (None, Some(there))
                if entry.kind == EntryKind::Directory && self.arena.is_directory(there.node) =>
            {
                let description = self.description(entry)?;
                if let Some(node) = self.arena.node_mut(there.node) {
                    node.description = description;
                }
                self.touch(directory, name);
                return Ok(());
            }
            (None, _) => {
                let description = self.description(entry)?;
                let body = body(layer, number, &entry.kind)?;
                self.arena.add(description, body)?
            }
        };
        if there.is_some() {
            // A hard link may lead into what is removed now: it is held by a name more meanwhile.
            self.hold(node, true);
            self.arena.detach(directory, name);
            self.hold(node, false);
        }
        self.arena.attach(directory, name, Child { node, layer })
    }

    fn hold(&mut self, node: Index, held: bool) {
        if let Some(node) = self.arena.node_mut(node) {
            node.links = match held {
                true => node.links.saturating_add(1),
                false => node.links.saturating_sub(1),
            };
        }
    }

    fn touch(&mut self, directory: Index, name: &[u8]) {
        let layer = self.present();
        let children = self.arena.children_mut(directory);
        if let Some(child) = children.and_then(|children| children.get_mut(name)) {
            child.layer = layer;
        }
    }

    /// The file that a hard link leads to. The last component is not followed.
    fn linked(&self, target: &[u8]) -> Result<Index, Problem> {
        let nothing = || Problem::LinkToNothing(shown(target));
        let components = path::clean(target)?;
        let Some((name, parents)) = components.split_last() else {
            return Err(Problem::LinkToDirectory(shown(target)));
        };
        let directory = walk(&self.arena, parents)?.node().ok_or_else(nothing)?;
        let child = self.arena.child(directory, name).ok_or_else(nothing)?;
        match self.arena.is_directory(child.node) {
            true => Err(Problem::LinkToDirectory(shown(target))),
            false => Ok(child.node),
        }
    }

    /// The directory at a place, made with those above it where it is missing. All of them are touched.
    fn make(&mut self, place: Place) -> Result<Index, Problem> {
        let layer = self.present();
        let mut directory = ROOT;
        for step in &place.there {
            self.touch(directory, &step.name);
            directory = step.node;
        }
        for name in &place.missing {
            let description = undescribed(self.created, layer);
            let body = Body::Directory(BTreeMap::new());
            let node = self.arena.add(description, body)?;
            self.arena.attach(directory, name, Child { node, layer })?;
            directory = node;
        }
        Ok(directory)
    }

    /// Takes away what lower layers have under a name.
    fn hide(&mut self, directory: Index, name: &[u8]) {
        match self.arena.child(directory, name) {
            Some(child) if child.layer < self.present() => self.arena.detach(directory, name),
            Some(child) => self.hide_below(child.node, true),
            None => {}
        }
    }

    /// Takes away what lower layers have in a directory, and with `itself` also what they say of it. What this
    /// layer touched stays, without what is from below: as if the whiteout had come first.
    fn hide_below(&mut self, directory: Index, itself: bool) {
        let layer = self.present();
        let mut directories = vec![(directory, itself)];
        while let Some((directory, itself)) = directories.pop() {
            let Some(children) = self.arena.children(directory) else {
                continue;
            };
            let mut lower = Vec::new();
            for (name, child) in children {
                match child.layer < layer {
                    true => lower.push(name.clone()),
                    false => directories.push((child.node, true)),
                }
            }
            for name in lower {
                self.arena.detach(directory, &name);
            }
            let description = undescribed(self.created, layer);
            if let Some(node) = self.arena.node_mut(directory)
                && itself
                && node.description.layer < layer
            {
                node.description = description;
            }
        }
    }

    fn description(&self, entry: &LayerEntry) -> Result<Description, Problem> {
        let holds_user = matches!(entry.kind, EntryKind::Regular { .. } | EntryKind::Directory);
        let mut xattrs = Vec::new();
        let mut names: usize = 0;
        for (name, value) in &entry.xattrs {
            // The kernel gives them to regular files and directories alone.
            if name.starts_with(b"user.") && !holds_user {
                continue;
            }
            names = names.saturating_add(name.len()).saturating_add(1);
            let named = vfsd_backend::XattrName::new(name).is_ok();
            if !named || value.len() > XATTR_MAX || names > XATTR_MAX {
                return Err(Problem::Xattr(shown(name)));
            }
            xattrs.push((name.as_slice().into(), value.as_slice().into()));
        }
        xattrs.sort_unstable();
        let permissions = match entry.kind {
            // Whatever a tar says: Linux gives links no others.
            EntryKind::Symlink { .. } => 0o777,
            _ => entry.permissions & 0o7777,
        };
        Ok(Description {
            permissions,
            uid: entry.uid,
            gid: entry.gid,
            modified: entry.modified,
            xattrs: xattrs.into_boxed_slice(),
            layer: self.present(),
        })
    }
}

/// What is said of a directory that no layer describes.
fn undescribed(created: Timestamp, layer: u32) -> Description {
    Description {
        permissions: 0o755,
        uid: 0,
        gid: 0,
        modified: created,
        xattrs: Box::default(),
        layer,
    }
}

fn body(layer: u32, number: u32, kind: &EntryKind) -> Result<Body, Problem> {
    Ok(match kind {
        EntryKind::Regular { size, data } => {
            if !extents_fit(*size, data) {
                return Err(Problem::Extents);
            }
            Body::Regular {
                layer,
                entry: number,
                size: *size,
                data: data.as_slice().into(),
            }
        }
        EntryKind::Directory => Body::Directory(BTreeMap::new()),
        EntryKind::Symlink { target } => match vfsd_backend::LinkTarget::new(target) {
            Ok(_) => Body::Symlink(target.as_slice().into()),
            Err(_) => return Err(Problem::LinkTarget),
        },
        EntryKind::Fifo => Body::Fifo,
        EntryKind::CharDevice(device) => Body::CharDevice(*device),
        EntryKind::BlockDevice(device) => Body::BlockDevice(*device),
        // Its node is another entry's.
        EntryKind::HardLink { target } => return Err(Problem::LinkToNothing(shown(target))),
    })
}

/// Whether extents are ascending, without overlap and within a file that has this size.
pub(super) fn extents_fit(size: u64, extents: &[DataExtent]) -> bool {
    let mut end = 0;
    i64::try_from(size).is_ok()
        && extents.iter().all(|extent| {
            let begins = extent.file_offset >= end && extent.length > 0;
            end = extent.file_offset.saturating_add(extent.length);
            let tar_end = extent.tar_offset.checked_add(extent.length);
            begins && end <= size && tar_end.is_some_and(|end| i64::try_from(end).is_ok())
        })
}
