//! Whether records make a tree. What passes here is asked without further checks that could fail.

use vfsd_backend::{FileKind, LinkTarget, Name, XattrName};

use super::builder::extents_fit;
use super::records::{ChildRecord, ExtentRecord, NodeRecord, XattrRecord};
use super::view::{Figures, NodeId, Tree};

/// The sums over a tree that is one; otherwise what is wrong.
pub(super) fn validate(tree: &Tree) -> Result<Figures, &'static str> {
    let nodes: &[NodeRecord] = tree.section(&tree.sections.nodes);
    let root = nodes.first().ok_or("no root")?;
    if root.kind() != FileKind::Directory || root.c.get() != 0 {
        return Err("the root is not a directory");
    }
    let mut check = Check {
        tree,
        nodes,
        named: vec![0; nodes.len()],
        next_child: 0,
        next_extent: 0,
        next_xattr: 0,
    };
    let mut figures = Figures::default();
    for (place, record) in nodes.iter().enumerate() {
        let node = NodeId(u32::try_from(place).map_err(|_| "too many nodes")?);
        check.node(node, record)?;
        figures.nodes = figures.nodes.saturating_add(1);
        if record.kind() == FileKind::Regular {
            let data = tree.data(record);
            figures.size = figures.size.saturating_add(record.size.get());
            figures.data = figures.data.saturating_add(data);
            figures.blocks = figures.blocks.saturating_add(data.div_ceil(4096));
        }
    }
    check.names()?;
    Ok(figures)
}

struct Check<'a> {
    tree: &'a Tree,
    nodes: &'a [NodeRecord],
    /// How many names lead to each node.
    named: Vec<u32>,
    // Records are in the order of the nodes that have them, without gaps.
    next_child: u32,
    next_extent: u32,
    next_xattr: u32,
}

impl Check<'_> {
    fn node(&mut self, node: NodeId, record: &NodeRecord) -> Result<(), &'static str> {
        let kind = FileKind::from_mode(record.mode.get().into()).ok_or("a node without a type")?;
        if record.modified_nanoseconds.get() >= 1_000_000_000 {
            return Err("a time with more than a second of nanoseconds");
        }
        self.xattrs(record)?;
        match kind {
            FileKind::Directory => self.directory(node, record)?,
            FileKind::Regular => self.regular(record)?,
            FileKind::Symlink => {
                let target = self.tree.target(node).unwrap_or_default();
                let whole = u64::try_from(target.len()) == Ok(record.size.get());
                if !whole || LinkTarget::new(target).is_err() {
                    return Err("the target of a symbolic link");
                }
            }
            FileKind::Socket => return Err("a socket"),
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {}
        }
        let sized = matches!(kind, FileKind::Regular | FileKind::Symlink);
        match sized || record.size.get() == 0 {
            true => Ok(()),
            false => Err("a size of what has none"),
        }
    }

    fn directory(&mut self, node: NodeId, record: &NodeRecord) -> Result<(), &'static str> {
        let records = self.tree.child_records(node);
        advance(&mut self.next_child, record.a.get(), record.b.get())?;
        if records.len() != record.b.get() as usize {
            return Err("children that are not there");
        }
        let mut before: &[u8] = b"";
        let mut links: u32 = 2;
        for child in records {
            let name = self.tree.name(child.name.get());
            if Name::new(name).is_err() || name <= before {
                return Err("names that are not sorted");
            }
            before = name;
            links = links.saturating_add(self.child(node, child)?);
        }
        match record.links.get() == links {
            true => Ok(()),
            false => Err("the links of a directory"),
        }
    }

    /// 1 for a directory.
    fn child(&mut self, parent: NodeId, child: &ChildRecord) -> Result<u32, &'static str> {
        let place = child.node.get() as usize;
        let (Some(record), Some(named)) = (self.nodes.get(place), self.named.get_mut(place)) else {
            return Err("a name of a node that is not there");
        };
        *named = named.saturating_add(1);
        if record.kind() != FileKind::Directory {
            return Ok(0);
        }
        // Numbers grow from the root down, so that no directory is below itself.
        match record.c.get() == parent.0 && child.node.get() > parent.0 && *named == 1 {
            true => Ok(1),
            false => Err("a directory in another one than its parent"),
        }
    }

    fn regular(&mut self, record: &NodeRecord) -> Result<(), &'static str> {
        let records: &[ExtentRecord] = self.tree.extent_records(record);
        advance(&mut self.next_extent, record.c.get(), record.d.get())?;
        if records.len() != record.d.get() as usize {
            return Err("content that is not there");
        }
        let extents: Vec<_> = records.iter().map(ExtentRecord::extent).collect();
        if !extents_fit(record.size.get(), &extents) {
            return Err("content that contradicts the size");
        }
        match record.a.get() < self.tree.layers {
            true => Ok(()),
            false => Err("content in a layer that is not there"),
        }
    }

    fn xattrs(&mut self, record: &NodeRecord) -> Result<(), &'static str> {
        let records: &[XattrRecord] = self.tree.xattr_records(record);
        advance(
            &mut self.next_xattr,
            record.xattrs.get(),
            record.xattr_count.get(),
        )?;
        if records.len() != record.xattr_count.get() as usize {
            return Err("extended attributes that are not there");
        }
        let mut before: &[u8] = b"";
        let mut names: usize = 0;
        for record in records {
            let name = self.tree.name(record.name.get());
            let length = record.length.get() as usize;
            let value = self.tree.pooled(record.value.get(), length);
            if XattrName::new(name).is_err() || name <= before || value.len() != length {
                return Err("an extended attribute");
            }
            names = names.saturating_add(name.len()).saturating_add(1);
            if names > 1 << 16 || length > 1 << 16 {
                return Err("extended attributes that are too long");
            }
            before = name;
        }
        Ok(())
    }

    /// Whether each node has as many names as it says, and nothing is left over.
    fn names(&self) -> Result<(), &'static str> {
        for (place, (record, &named)) in self.nodes.iter().zip(&self.named).enumerate() {
            let expected = match record.kind() {
                FileKind::Directory => u32::from(place != 0),
                _ => record.links.get(),
            };
            if named != expected || (named == 0 && place != 0) {
                return Err("the links of a file");
            }
        }
        let tree = self.tree;
        let children: &[ChildRecord] = tree.section(&tree.sections.children);
        let extents: &[ExtentRecord] = tree.section(&tree.sections.extents);
        let xattrs: &[XattrRecord] = tree.section(&tree.sections.xattrs);
        let counts = [
            (children.len(), self.next_child),
            (extents.len(), self.next_extent),
            (xattrs.len(), self.next_xattr),
        ];
        match counts.iter().all(|(have, used)| *have == *used as usize) {
            true => Ok(()),
            false => Err("records that belong to no node"),
        }
    }
}

/// Takes `count` records that begin where the last ones ended.
fn advance(next: &mut u32, first: u32, count: u32) -> Result<(), &'static str> {
    if first != *next {
        return Err("records out of order");
    }
    *next = next.checked_add(count).ok_or("too many records")?;
    Ok(())
}
