//! A finished tree, as it is asked.

use std::ops::Range;

use vfsd_backend::{Attributes, Device, FileKind, Timestamp};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::DataExtent;

use super::records::{ChildRecord, ExtentRecord, NodeRecord, XattrRecord};

/// A node of one [`Tree`]. Of another tree it means another node, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// The inode number: 1 for the root.
    pub fn inode(self) -> u64 {
        u64::from(self.0).saturating_add(1)
    }
}

/// The merged tree of an image. It never changes.
///
/// What is not there, or is not of the type that is asked for, is `None` or empty.
pub struct Tree {
    /// All records, checked: see [`records`](super::records).
    pub(super) bytes: Vec<u8>,
    pub(super) sections: Sections,
    pub(super) layers: u32,
    pub(super) figures: Figures,
}

/// Where the records stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Sections {
    pub(super) nodes: Range<usize>,
    pub(super) children: Range<usize>,
    pub(super) extents: Range<usize>,
    pub(super) xattrs: Range<usize>,
    pub(super) pool: Range<usize>,
}

/// Sums over a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Nodes; a file with several names is one.
    pub nodes: u64,
    /// Sizes of all regular files together, in bytes.
    pub size: u64,
    /// What of it stands in a layer; the rest are holes.
    pub data: u64,
    /// Blocks of 4096 bytes that the regular files take, each rounded up.
    pub blocks: u64,
}

/// Where the content of a regular file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content<'a> {
    /// The layer's number: 0 is the lowest.
    pub layer: u32,
    /// The number that its entry has in the layer.
    pub entry: u32,
    /// Bytes; at most `i64::MAX`.
    pub size: u64,
    extents: &'a [ExtentRecord],
}

impl Content<'_> {
    /// The pieces in the uncompressed tar, ascending, without overlap, within the size. What none covers is
    /// a hole.
    pub fn extents(&self) -> impl DoubleEndedIterator<Item = DataExtent> + ExactSizeIterator + '_ {
        self.extents.iter().map(ExtentRecord::extent)
    }

    /// The first piece that ends after `offset`, found by halving.
    pub fn extent_after(&self, offset: u64) -> Option<DataExtent> {
        let place = self.extents.partition_point(|record| {
            let extent = record.extent();
            extent.file_offset.saturating_add(extent.length) <= offset
        });
        self.extents.get(place).map(ExtentRecord::extent)
    }
}

impl ExtentRecord {
    pub(super) fn extent(&self) -> DataExtent {
        DataExtent {
            file_offset: self.file_offset.get(),
            tar_offset: self.tar_offset.get(),
            length: self.length.get(),
        }
    }
}

impl PartialEq for ExtentRecord {
    fn eq(&self, other: &Self) -> bool {
        self.extent() == other.extent()
    }
}

impl Eq for ExtentRecord {}

impl Tree {
    /// The root.
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// How many layers it was made of.
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// Sums over the tree.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// All nodes, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let count = u32::try_from(self.figures.nodes).unwrap_or(u32::MAX);
        (0..count).map(NodeId)
    }

    /// The node with this inode number.
    pub fn by_inode(&self, inode: u64) -> Option<NodeId> {
        let place = inode
            .checked_sub(1)
            .filter(|&place| place < self.figures.nodes)?;
        u32::try_from(place).ok().map(NodeId)
    }

    /// What a directory has under a name.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = self.child_records(directory);
        let place = children.binary_search_by(|child| self.name(child.name.get()).cmp(name));
        Some(NodeId(children.get(place.ok()?)?.node.get()))
    }

    /// The names in a directory, sorted by bytes, from position `from` on.
    pub fn children(
        &self,
        directory: NodeId,
        from: usize,
    ) -> impl ExactSizeIterator<Item = (&[u8], NodeId)> + '_ {
        let children = self.child_records(directory).get(from..);
        children
            .unwrap_or_default()
            .iter()
            .map(|child| (self.name(child.name.get()), NodeId(child.node.get())))
    }

    /// The directory that a directory is in; of the root, itself.
    pub fn parent(&self, directory: NodeId) -> Option<NodeId> {
        let record = self.record(directory);
        (record.kind() == FileKind::Directory).then(|| NodeId(record.c.get()))
    }

    /// The type of a node.
    pub fn kind(&self, node: NodeId) -> FileKind {
        self.record(node).kind()
    }

    /// The attributes of a node. Its times are all that of its last change.
    pub fn attributes(&self, node: NodeId) -> Attributes {
        let record = self.record(node);
        let kind = record.kind();
        let modified = Timestamp {
            seconds: record.modified_seconds.get(),
            nanoseconds: record.modified_nanoseconds.get(),
        };
        let device = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => Device {
                major: record.a.get(),
                minor: record.b.get(),
            },
            _ => Device::default(),
        };
        let blocks = match kind {
            FileKind::Regular => self.data(&record).div_ceil(512),
            _ => 0,
        };
        Attributes {
            inode: node.inode(),
            kind,
            permissions: u32::from(record.mode.get()) & 0o7777,
            links: record.links.get(),
            uid: record.uid.get(),
            gid: record.gid.get(),
            device,
            size: record.size.get(),
            blocks,
            block_size: 4096,
            accessed: modified,
            modified,
            changed: modified,
            born: None,
            mount_root: false,
        }
    }

    /// Where the content of a regular file is.
    pub fn content(&self, node: NodeId) -> Option<Content<'_>> {
        let record = self.record(node);
        (record.kind() == FileKind::Regular).then(|| Content {
            layer: record.a.get(),
            entry: record.b.get(),
            size: record.size.get(),
            extents: self.extent_records(&record),
        })
    }

    /// The target of a symbolic link.
    pub fn target(&self, node: NodeId) -> Option<&[u8]> {
        let record = self.record(node);
        let length = usize::try_from(record.size.get()).unwrap_or(usize::MAX);
        (record.kind() == FileKind::Symlink).then(|| self.pooled(record.a.get(), length))
    }

    /// The extended attributes of a node, sorted by name.
    pub fn xattrs(&self, node: NodeId) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + '_ {
        let records = self.xattr_records(&self.record(node));
        records.iter().map(|record| self.xattr_of(record))
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, node: NodeId, name: &[u8]) -> Option<&[u8]> {
        let records = self.xattr_records(&self.record(node));
        let place = records.binary_search_by(|record| self.name(record.name.get()).cmp(name));
        Some(self.xattr_of(records.get(place.ok()?)?).1)
    }

    fn xattr_of(&self, record: &XattrRecord) -> (&[u8], &[u8]) {
        let length = usize::try_from(record.length.get()).unwrap_or(usize::MAX);
        (
            self.name(record.name.get()),
            self.pooled(record.value.get(), length),
        )
    }

    /// Bytes of a file that are no holes.
    pub(super) fn data(&self, record: &NodeRecord) -> u64 {
        let extents = self.extent_records(record).iter();
        extents.fold(0, |sum: u64, extent| {
            sum.saturating_add(extent.length.get())
        })
    }

    pub(super) fn record(&self, node: NodeId) -> NodeRecord {
        let nodes: &[NodeRecord] = self.section(&self.sections.nodes);
        nodes.get(node.0 as usize).copied().unwrap_or_default()
    }

    pub(super) fn child_records(&self, directory: NodeId) -> &[ChildRecord] {
        let record = self.record(directory);
        match record.kind() {
            FileKind::Directory => piece(
                self.section(&self.sections.children),
                record.a.get(),
                record.b.get(),
            ),
            _ => &[],
        }
    }

    pub(super) fn extent_records(&self, record: &NodeRecord) -> &[ExtentRecord] {
        match record.kind() {
            FileKind::Regular => piece(
                self.section(&self.sections.extents),
                record.c.get(),
                record.d.get(),
            ),
            _ => &[],
        }
    }

    pub(super) fn xattr_records(&self, record: &NodeRecord) -> &[XattrRecord] {
        piece(
            self.section(&self.sections.xattrs),
            record.xattrs.get(),
            record.xattr_count.get(),
        )
    }

    /// A name in the pool, after the byte that has its length.
    pub(super) fn name(&self, place: u32) -> &[u8] {
        let length = self.pooled(place, 1).first().copied().unwrap_or(0);
        self.pooled(place.saturating_add(1), length.into())
    }

    pub(super) fn pooled(&self, place: u32, length: usize) -> &[u8] {
        let place = place as usize;
        let pool = self.bytes.get(self.sections.pool.clone());
        pool.and_then(|pool| pool.get(place..place.saturating_add(length)))
            .unwrap_or_default()
    }

    pub(super) fn section<T>(&self, range: &Range<usize>) -> &[T]
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        let bytes = self.bytes.get(range.clone()).unwrap_or_default();
        <[T]>::ref_from_bytes(bytes).unwrap_or_default()
    }
}

impl NodeRecord {
    /// The type. Only a record that was not checked has none; it is taken for a FIFO, which has nothing else.
    pub(super) fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode.get().into()).unwrap_or(FileKind::Fifo)
    }
}

/// `count` records from `first` on; none where they are not there.
pub(super) fn piece<T>(records: &[T], first: u32, count: u32) -> &[T] {
    let first = first as usize;
    records
        .get(first..first.saturating_add(count as usize))
        .unwrap_or_default()
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("layers", &self.layers)
            .field("figures", &self.figures)
            .finish_non_exhaustive()
    }
}
