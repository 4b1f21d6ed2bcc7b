//! The tree while layers are put on it: nodes in a vector, children in a sorted map for each directory.

use std::collections::BTreeMap;

use vfsd_backend::{Device, Timestamp};

use crate::DataExtent;

use super::error::Problem;

/// A node's place in the arena.
pub(super) type Index = u32;

/// The root's place.
pub(super) const ROOT: Index = 0;

pub(super) type Xattrs = Box<[(Box<[u8]>, Box<[u8]>)]>;

/// What a node says of itself, whatever it is.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Timestamp,
    pub(super) xattrs: Xattrs,
    /// The layer that said so.
    pub(super) layer: u32,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) description: Description,
    pub(super) body: Body,
    /// Names that lead here.
    pub(super) links: u32,
}

#[derive(Debug)]
pub(super) enum Body {
    Directory(BTreeMap<Box<[u8]>, Child>),
    Regular {
        layer: u32,
        entry: u32,
        size: u64,
        data: Box<[DataExtent]>,
    },
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice(Device),
    BlockDevice(Device),
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) node: Index,
    /// The last layer that named it, or something below it: what an upper layer hides is what it has
    /// not touched itself.
    pub(super) layer: u32,
}

#[derive(Debug)]
pub(super) struct Arena {
    nodes: Vec<Node>,
    /// Places of nodes that lost their last name.
    free: Vec<Index>,
    limit: u32,
}

impl Arena {
    /// A tree of at most `limit` nodes that is a root alone.
    pub(super) fn new(root: Description, limit: u32) -> Self {
        Self {
            nodes: vec![Node {
                description: root,
                body: Body::Directory(BTreeMap::new()),
                links: 1,
            }],
            free: Vec::new(),
            limit,
        }
    }

    /// The number of places, used or not.
    pub(super) fn places(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, index: Index) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    pub(super) fn node_mut(&mut self, index: Index) -> Option<&mut Node> {
        self.nodes.get_mut(index as usize)
    }

    /// A new node without a name.
    pub(super) fn add(&mut self, description: Description, body: Body) -> Result<Index, Problem> {
        let node = Node {
            description,
            body,
            links: 0,
        };
        if let Some(index) = self.free.pop() {
            if let Some(place) = self.node_mut(index) {
                *place = node;
            }
            return Ok(index);
        }
        let index = Index::try_from(self.nodes.len()).unwrap_or(Index::MAX);
        if index >= self.limit {
            return Err(Problem::TooManyFiles(self.limit));
        }
        self.nodes.push(node);
        Ok(index)
    }

    /// The children of a directory; of what is none, nothing.
    pub(super) fn children(&self, index: Index) -> Option<&BTreeMap<Box<[u8]>, Child>> {
        match &self.node(index)?.body {
            Body::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub(super) fn children_mut(&mut self, index: Index) -> Option<&mut BTreeMap<Box<[u8]>, Child>> {
        match &mut self.node_mut(index)?.body {
            Body::Directory(children) => Some(children),
            _ => None,
        }
    }

    pub(super) fn child(&self, directory: Index, name: &[u8]) -> Option<Child> {
        self.children(directory)?.get(name).copied()
    }

    pub(super) fn is_directory(&self, index: Index) -> bool {
        self.children(index).is_some()
    }

    /// Gives `node` a name that is free.
    pub(super) fn attach(
        &mut self,
        directory: Index,
        name: &[u8],
        child: Child,
    ) -> Result<(), Problem> {
        let node = self.node_mut(child.node).ok_or(Problem::TooLarge)?;
        node.links = node.links.checked_add(1).ok_or(Problem::TooManyLinks)?;
        if let Some(children) = self.children_mut(directory) {
            children.insert(name.into(), child);
        }
        Ok(())
    }

    /// Takes a name away, with all that is below it. A file that has another name stays.
    pub(super) fn detach(&mut self, directory: Index, name: &[u8]) {
        let removed = self
            .children_mut(directory)
            .and_then(|children| children.remove(name));
        let mut nodes: Vec<Index> = removed.map(|child| child.node).into_iter().collect();
        // A list, not a recursion: a layer can make directories as deep as it likes.
        while let Some(index) = nodes.pop() {
            let Some(node) = self.node_mut(index) else {
                continue;
            };
            node.links = node.links.saturating_sub(1);
            if node.links > 0 {
                continue;
            }
            let body = std::mem::replace(&mut node.body, Body::Fifo);
            node.description.xattrs = Box::default();
            if let Body::Directory(children) = body {
                nodes.extend(children.into_values().map(|child| child.node));
            }
            self.free.push(index);
        }
    }
}
