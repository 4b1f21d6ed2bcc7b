//! A file of the overlay.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use vfsd_backend::{
    AccessMask, Answer, Attributes, Caller, Capabilities, Directory, Entry, Errno, FileKind,
    FsStatistics, FsXattr, Lookup, Name, Node, NodeIdentity, OpenRequest, Opened, Result,
    XattrName,
};

use crate::directory::OverlayDirectory;
use crate::file::OverlayFile;
use crate::layers::{Layer, Shared};
use crate::resolve::{Found, Part, Parts, resolve};
use crate::table::Key;
use crate::xattr::Marks;

/// A name of a file: where it is copied up to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<OverlayNode>,
    #[expect(dead_code, reason = "there is no upper yet")]
    pub(crate) name: Box<[u8]>,
}

/// A file of the overlay. There is one for each that is in use.
pub(crate) struct OverlayNode {
    this: Weak<Self>,
    pub(crate) shared: Arc<Shared>,
    kind: FileKind,
    /// The inode number that programs see: it stays when the file is copied up.
    number: u64,
    serial: u64,
    /// Its file in the upper, if it has one by now.
    upper: OnceLock<UpperPart>,
    /// The lower file that it is, or was copied from; or the directories that are merged.
    lowers: Vec<Part>,
    /// One of its names. `None` for the root, and for what has none any more.
    place: Mutex<Option<Place>>,
}

/// A file in the upper.
pub(crate) struct UpperPart {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) inode: u64,
    pub(crate) marks: Mutex<Marks>,
}

impl OverlayNode {
    /// The node at the top.
    pub(crate) fn root(shared: &Arc<Shared>, parts: Parts) -> Arc<Self> {
        Self::new(shared, parts, None)
    }

    /// Makes the node of a file, or finds the one that was made meanwhile.
    fn new(shared: &Arc<Shared>, parts: Parts, place: Option<Place>) -> Arc<Self> {
        let keys: Vec<Key> = parts
            .upper
            .iter()
            .chain(parts.lowers.first())
            .map(Part::key)
            .collect();
        // Directories that are merged have the number of the topmost lower one.
        let number = parts.lowers.first().or(parts.upper.as_ref());
        let number = number.map_or(0, |part| shared.numbers.shown(part.layer, part.inode));
        let upper = parts.upper.map(|part| UpperPart {
            node: part.node,
            inode: part.inode,
            marks: Mutex::new(part.marks),
        });
        let node = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            shared: shared.clone(),
            kind: parts.attributes.kind,
            number,
            serial: shared.next_serial(),
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            lowers: parts.lowers,
            place: Mutex::new(place),
        });
        shared.nodes.enter(&keys, node)
    }

    /// The node itself, to be handed out or kept.
    pub(crate) fn this(&self) -> Result<Arc<Self>> {
        Ok(self.this.upgrade().ok_or(Errno::STALE)?)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its file in the upper.
    pub(crate) fn upper(&self) -> Option<&Arc<dyn Node>> {
        self.upper.get().map(|part| &part.node)
    }

    /// Its directory in the upper, as a search goes through it.
    pub(crate) fn upper_part(&self) -> Option<Part> {
        self.upper.get().map(|part| Part {
            layer: Layer::UPPER,
            node: part.node.clone(),
            inode: part.inode,
            marks: part.marks.lock().clone(),
        })
    }

    /// The lower files, the topmost first.
    pub(crate) fn lowers(&self) -> &[Part] {
        &self.lowers
    }

    /// The file that stands for it now.
    ///
    /// # Errors
    /// None: there is always one.
    pub(crate) fn real(&self) -> Result<&Arc<dyn Node>> {
        match self.upper() {
            Some(node) => Ok(node),
            None => Ok(&self.lowers.first().ok_or(Errno::IO)?.node),
        }
    }

    /// Whether it is a directory of several layers.
    pub(crate) fn is_merged(&self) -> bool {
        match self.upper() {
            Some(_) => !self.lowers.is_empty(),
            None => self.lowers.len() > 1,
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    /// ENOTDIR for anything but a directory.
    pub(crate) fn check_directory(&self) -> Result<()> {
        match self.kind {
            FileKind::Directory => Ok(()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Attributes of the file that stands for it, as programs see them.
    pub(crate) fn shown(&self, attributes: Attributes) -> Attributes {
        // The subdirectories of a directory of several layers are not counted, as by the kernel.
        let links = match self.kind == FileKind::Directory && self.is_merged() {
            true => 1,
            false => attributes.links,
        };
        Attributes {
            inode: self.number,
            links,
            mount_root: false,
            ..attributes
        }
    }

    /// The attributes now.
    pub(crate) async fn attributes(&self) -> Result<Attributes> {
        Ok(self.shown(self.real()?.getattr().await?))
    }

    /// The answer to a request that found or made this node, with attributes as programs see them.
    pub(crate) fn entry(self: Arc<Self>, attributes: Attributes) -> Entry {
        let ttl = self.shared.ttl();
        Entry {
            node: self,
            attributes,
            entry_ttl: ttl,
            attribute_ttl: ttl,
        }
    }

    /// What a name in this directory stands for. The names must not change meanwhile.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn find(
        self: &Arc<Self>,
        name: Name<'_>,
    ) -> Result<Option<(Arc<Self>, Attributes)>> {
        let (node, attributes) = match resolve(self, name).await? {
            Found::Missing => return Ok(None),
            Found::Known(node, attributes) => {
                node.is_found_at(self, name);
                (node, attributes)
            }
            Found::New(parts) => {
                let attributes = parts.attributes;
                let place = Place {
                    parent: self.clone(),
                    name: name.as_bytes().into(),
                };
                (Self::new(&self.shared, parts, Some(place)), attributes)
            }
        };
        // The name may be a lower one of a file that was copied up meanwhile.
        let attributes = match node.upper().is_some() && !node.lowers.is_empty() {
            true => node.attributes().await?,
            false => node.shown(attributes),
        };
        Ok(Some((node, attributes)))
    }

    /// Remembers a name, if none is known.
    fn is_found_at(&self, parent: &Arc<Self>, name: Name<'_>) {
        let mut place = self.place.lock();
        if place.is_none() {
            *place = Some(Place {
                parent: parent.clone(),
                name: name.as_bytes().into(),
            });
        }
    }
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        let keys: Vec<Key> = self
            .upper_part()
            .iter()
            .chain(self.lowers.first())
            .map(Part::key)
            .collect();
        self.shared.nodes.forget(&keys, self);
    }
}

impl Node for OverlayNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.number,
            generation: self.serial,
        }
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        match self.real() {
            Ok(real) => real.getattr().map(|attributes| self.shown(attributes)),
            Err(error) => Answer::error(error),
        }
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        Answer::later(async move {
            self.check_directory()?;
            let this = self.this()?;
            let _names = self.shared.names.read().await;
            Ok(match this.find(name).await? {
                Some((node, attributes)) => Lookup::Found(node.entry(attributes)),
                None => Lookup::Missing {
                    ttl: self.shared.ttl(),
                },
            })
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        match self.real() {
            Ok(real) => real.readlink(),
            Err(error) => Answer::error(error),
        }
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        if request.flags.modifies() {
            return Answer::error(Errno::ROFS);
        }
        match self.real() {
            Ok(real) => real.open(request).and_then(move |opened| {
                let file = OverlayFile::new(self.this()?, opened.file);
                Ok(Opened {
                    file: Arc::new(file),
                    caching: opened.caching,
                })
            }),
            Err(error) => Answer::error(error),
        }
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::now(|| {
            self.check_directory()?;
            Ok(Arc::new(OverlayDirectory::new(self.this()?)) as Arc<dyn Directory>)
        })
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        if mask.contains(AccessMask::WRITE) {
            return Answer::error(Errno::ROFS);
        }
        match self.real() {
            Ok(real) => real.access(caller, mask),
            Err(error) => Answer::error(error),
        }
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        if !self.shared.capabilities.contains(Capabilities::XATTR) {
            return Answer::not_supported();
        }
        let stored = match self.shared.namespace.stored(name.as_bytes()) {
            Ok(stored) => stored,
            Err(error) => return Answer::error(error),
        };
        match self.real() {
            Ok(real) if stored.len() == name.as_bytes().len() => real.getxattr(name),
            Ok(real) => {
                let stored = stored.into_owned();
                Answer::later(async move { real.getxattr(XattrName::new(&stored)?).await })
            }
            Err(error) => Answer::error(error),
        }
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        if !self.shared.capabilities.contains(Capabilities::XATTR) {
            return Answer::not_supported();
        }
        let namespace = self.shared.namespace;
        match self.real() {
            Ok(real) => real
                .listxattr()
                .map(move |stored| namespace.shown_list(&stored)),
            Err(error) => Answer::error(error),
        }
    }

    fn getflags(&self) -> Answer<'_, u32> {
        match self.real() {
            Ok(real) => real.getflags(),
            Err(error) => Answer::error(error),
        }
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        match self.real() {
            Ok(real) => real.getfsxattr(),
            Err(error) => Answer::error(error),
        }
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        match self.real() {
            Ok(real) => real.statfs(),
            Err(error) => Answer::error(error),
        }
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
