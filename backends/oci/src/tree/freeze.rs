//! From the arena to flat records: numbers are given, children sorted, names pooled.

use std::collections::HashMap;

use vfsd_backend::{Device, FileKind};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::Tree;
use super::arena::{Arena, Body, Description, Index, ROOT};
use super::error::Problem;
use super::records::{ChildRecord, ExtentRecord, Header, MAGIC, NodeRecord, VERSION, XattrRecord};

/// A node that has no number yet.
const UNNUMBERED: u32 = u32::MAX;

#[derive(Default)]
struct Flat {
    nodes: Vec<NodeRecord>,
    children: Vec<ChildRecord>,
    extents: Vec<ExtentRecord>,
    xattrs: Vec<XattrRecord>,
    pool: Vec<u8>,
    /// Names that are in the pool: most occur in many directories.
    names: HashMap<Box<[u8]>, u32>,
}

/// The tree of what is reachable in `arena`.
pub(super) fn freeze(arena: &Arena, layers: u32) -> Result<Tree, Problem> {
    let mut flat = Flat::default();
    let mut numbers = vec![UNNUMBERED; arena.places()];
    // Breadth first: the list grows while it is walked.
    let mut order: Vec<(Index, u32)> = vec![(ROOT, 0)];
    let mut next: usize = 0;
    if let Some(root) = numbers.get_mut(ROOT as usize) {
        *root = 0;
    }
    while let Some(&(index, parent)) = order.get(next) {
        let own = count(next)?;
        next = next.saturating_add(1);
        let first_child = count(flat.children.len())?;
        let mut subdirectories: u32 = 0;
        for (name, child) in arena.children(index).into_iter().flatten() {
            let Some(number) = numbers.get_mut(child.node as usize) else {
                continue;
            };
            if *number == UNNUMBERED {
                *number = count(order.len())?;
                order.push((child.node, own));
            }
            let node = U32::new(*number);
            let name = flat.name(name)?;
            flat.children.push(ChildRecord { name, node });
            subdirectories = subdirectories.saturating_add(arena.is_directory(child.node).into());
        }
        let Some(node) = arena.node(index) else {
            continue;
        };
        let mut record = flat.described(&node.description)?;
        record.links = U32::new(node.links);
        let kind = match &node.body {
            Body::Directory(children) => {
                record.links = U32::new(subdirectories.saturating_add(2));
                record.a = U32::new(first_child);
                record.b = U32::new(count(children.len())?);
                record.c = U32::new(parent);
                FileKind::Directory
            }
            Body::Regular {
                layer,
                entry,
                size,
                data,
            } => {
                record.size = U64::new(*size);
                record.a = U32::new(*layer);
                record.b = U32::new(*entry);
                record.c = U32::new(count(flat.extents.len())?);
                record.d = U32::new(count(data.len())?);
                flat.extents.extend(data.iter().map(|extent| ExtentRecord {
                    file_offset: U64::new(extent.file_offset),
                    tar_offset: U64::new(extent.tar_offset),
                    length: U64::new(extent.length),
                }));
                FileKind::Regular
            }
            Body::Symlink(target) => {
                record.size = U64::new(u64::from(count(target.len())?));
                record.a = flat.bytes(target)?;
                FileKind::Symlink
            }
            Body::Fifo => FileKind::Fifo,
            Body::CharDevice(device) => device_node(&mut record, *device, FileKind::CharDevice),
            Body::BlockDevice(device) => device_node(&mut record, *device, FileKind::BlockDevice),
        };
        let mode = kind.mode_bits() | node.description.permissions;
        record.mode = U16::new(u16::try_from(mode).unwrap_or(0));
        flat.nodes.push(record);
    }
    flat.into_tree(layers)
}

fn device_node(record: &mut NodeRecord, device: Device, kind: FileKind) -> FileKind {
    record.a = U32::new(device.major);
    record.b = U32::new(device.minor);
    kind
}

impl Flat {
    fn described(&mut self, description: &Description) -> Result<NodeRecord, Problem> {
        let first = count(self.xattrs.len())?;
        for (name, value) in &description.xattrs {
            let record = XattrRecord {
                name: self.name(name)?,
                value: self.bytes(value)?,
                length: U32::new(count(value.len())?),
            };
            self.xattrs.push(record);
        }
        Ok(NodeRecord {
            uid: U32::new(description.uid),
            gid: U32::new(description.gid),
            modified_seconds: description.modified.seconds.into(),
            modified_nanoseconds: U32::new(description.modified.nanoseconds),
            xattrs: U32::new(first),
            xattr_count: U32::new(count(description.xattrs.len())?),
            ..NodeRecord::default()
        })
    }

    /// The place of a name in the pool.
    fn name(&mut self, name: &[u8]) -> Result<U32, Problem> {
        if let Some(&place) = self.names.get(name) {
            return Ok(U32::new(place));
        }
        let length = u8::try_from(name.len()).map_err(|_| Problem::NameTooLong(name.len()))?;
        let place = self.bytes(&[length])?;
        self.bytes(name)?;
        self.names.insert(name.into(), place.get());
        Ok(place)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<U32, Problem> {
        let place = count(self.pool.len())?;
        self.pool.extend_from_slice(bytes);
        // Its end can be told too.
        count(self.pool.len())?;
        Ok(U32::new(place))
    }

    fn into_tree(self, layers: u32) -> Result<Tree, Problem> {
        let header = Header {
            magic: MAGIC,
            version: U32::new(VERSION),
            layers: U32::new(layers),
            nodes: U32::new(count(self.nodes.len())?),
            children: U32::new(count(self.children.len())?),
            extents: U32::new(count(self.extents.len())?),
            xattrs: U32::new(count(self.xattrs.len())?),
            pool: U32::new(count(self.pool.len())?),
        };
        drop(self.names);
        let sections = [
            header.as_bytes(),
            self.nodes.as_bytes(),
            self.children.as_bytes(),
            self.extents.as_bytes(),
            self.xattrs.as_bytes(),
            &self.pool,
        ];
        Tree::from_bytes(sections.concat()).map_err(|_| Problem::TooLarge)
    }
}

fn count(length: usize) -> Result<u32, Problem> {
    u32::try_from(length).map_err(|_| Problem::TooLarge)
}
