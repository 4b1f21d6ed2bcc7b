//! A file of the overlay: which files of the layers it is, and where it has a name.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use vfsd_backend::posix::LockTable;
use vfsd_backend::{Attributes, Entry, Errno, FileKind, Name, Node, Result};

use crate::ask::Base;
use crate::known_names::KnownNames;
use crate::layers::{Layer, Shared};
use crate::metacopy;
use crate::nested;
use crate::numbers::Number;
use crate::parts::{Lowers, Part, Parts};
use crate::table::Key;
use crate::whiteout::is_device;
use crate::xattr::Marks;

/// A name of a file: where it is copied up to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<OverlayNode>,
    pub(crate) name: Box<[u8]>,
}

impl Place {
    pub(crate) fn new(parent: &Arc<OverlayNode>, name: Name<'_>) -> Self {
        Self {
            parent: parent.clone(),
            name: name.as_bytes().into(),
        }
    }

    fn is(&self, parent: &OverlayNode, name: Name<'_>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.parent), parent) && *self.name == *name.as_bytes()
    }
}

/// A file of the overlay. There is one for each that is in use.
pub(crate) struct OverlayNode {
    this: Weak<Self>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) kind: FileKind,
    /// A program's character device 0/0, which is a regular file in its layer.
    nested_whiteout: bool,
    /// The inode number that programs see: it stays when the file is copied up.
    number: Number,
    pub(crate) serial: u64,
    /// Its file in the upper, if it has one by now.
    upper: OnceLock<Box<UpperPart>>,
    /// The lower file that it is, or was copied from; or the directories that are merged.
    lowers: Lowers,
    /// One of its names. `None` for the root, and for what has none any more.
    place: Mutex<Option<Place>>,
    /// Links that programs see, less those of the file that stands for it.
    links_changed: AtomicI64,
    /// A directory that was removed.
    removed: AtomicBool,
    /// A file that may have its content in a layer below.
    doubtful: AtomicBool,
    seldom: OnceLock<Box<Seldom>>,
}

/// What few nodes ever need.
struct Seldom {
    copying: tokio::sync::Mutex<()>,
    locks: LockTable,
}

/// A file in the upper.
struct UpperPart {
    node: Arc<dyn Node>,
    inode: u64,
    marks: Mutex<Marks>,
    /// A directory's.
    names: Option<Arc<KnownNames>>,
}

impl OverlayNode {
    /// Makes the node of a file, or finds the one that was made meanwhile. `number` is the inode number that
    /// is shown, if it is not that of the topmost lower file, or of the upper's.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        mut parts: Parts,
        number: Option<Number>,
        links_changed: i64,
        place: Option<Place>,
    ) -> Arc<Self> {
        let keys = [parts.upper.as_ref(), parts.lowers.as_slice().first()];
        let keys = keys.map(|part| part.map(Part::key));
        let lower = parts.lowers.as_slice().first();
        let own = lower.or(parts.upper.as_ref());
        let own = own.map_or((Layer::UPPER, 0), |part| (part.layer, part.inode));
        let own = shared.numbers.of(own.0, own.1);
        let kind = parts.attributes.kind;
        if kind == FileKind::Directory
            && let Some((_, above)) = parts.lowers.as_mut_slice().split_last_mut()
        {
            for part in above {
                part.names.get_or_insert_default();
            }
        }
        let upper = parts.upper.map(|part| {
            Box::new(UpperPart {
                node: part.node,
                inode: part.inode,
                marks: Mutex::new(part.marks),
                names: part
                    .names
                    .or_else(|| (kind == FileKind::Directory).then(Arc::default)),
            })
        });
        let top = upper.as_ref().map(|_| Layer::UPPER);
        let top = top.or(parts.lowers.as_slice().first().map(|part| part.layer));
        let doubtful =
            top.is_some_and(|layer| metacopy::may_be_one(shared, layer, &parts.attributes));
        let node = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            shared: shared.clone(),
            kind,
            // One of the overlay's own is no node.
            nested_whiteout: is_device(&parts.attributes),
            number: number.unwrap_or(own),
            serial: shared.next_serial(),
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            lowers: parts.lowers,
            place: Mutex::new(place),
            links_changed: AtomicI64::new(links_changed),
            removed: AtomicBool::new(false),
            doubtful: AtomicBool::new(doubtful),
            seldom: OnceLock::new(),
        });
        shared.nodes.enter(keys, node)
    }

    /// The node of a file that was just made in the upper, with its attributes as programs see them.
    pub(crate) fn made(
        shared: &Arc<Shared>,
        entry: Entry,
        marks: Marks,
        place: Option<Place>,
    ) -> (Arc<Self>, Attributes) {
        let parts = Parts {
            upper: Some(Part {
                layer: Layer::UPPER,
                inode: entry.attributes.inode,
                names: (entry.node.kind() == FileKind::Directory)
                    .then(|| Arc::new(KnownNames::none())),
                node: entry.node,
                marks,
            }),
            lowers: Lowers::One(None),
            attributes: entry.attributes,
        };
        let node = Self::new(shared, parts, None, 0, place);
        let attributes = node.shown(entry.attributes);
        (node, attributes)
    }

    /// The node itself, to be handed out or kept.
    pub(crate) fn this(&self) -> Result<Arc<Self>> {
        Ok(self.this.upgrade().ok_or(Errno::STALE)?)
    }

    /// Whether it is a program's character device 0/0, which is a regular file in its layer.
    pub(crate) fn is_nested_whiteout(&self) -> bool {
        self.nested_whiteout
    }

    /// The inode number that programs see.
    pub(crate) fn number(&self) -> u64 {
        self.number.shown
    }

    /// All of its number.
    pub(crate) fn whole_number(&self) -> Number {
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
            names: part.names.clone(),
        })
    }

    /// The directories of the layers that it consists of, the topmost first.
    pub(crate) fn bases(&self) -> impl Iterator<Item = Base<'_>> {
        let upper = self.upper.get().map(|part| Base {
            layer: Layer::UPPER,
            node: &part.node,
            names: part.names.as_deref(),
        });
        upper
            .into_iter()
            .chain(self.lowers().iter().map(Part::base))
    }

    /// Notes that it was copied up.
    pub(crate) fn is_in_upper(&self, node: Arc<dyn Node>, inode: u64) {
        let key = Key {
            layer: Layer::UPPER,
            identity: node.identity(),
        };
        let part = UpperPart {
            node,
            inode,
            marks: Mutex::default(),
            names: (self.kind == FileKind::Directory).then(|| Arc::new(KnownNames::none())),
        };
        // It is copied up once, under the lock for that.
        if self.upper.set(Box::new(part)).is_ok() {
            self.shared.nodes.add(key, &self.this);
        }
    }

    /// Whether names in its directory in the upper may be of files that show another number than their own.
    pub(crate) fn is_impure(&self) -> bool {
        self.upper
            .get()
            .is_some_and(|part| part.marks.lock().impure)
    }

    /// Its directory in the upper, which is about to get a name, or to keep it. The names must be locked to change.
    ///
    /// # Errors
    /// EIO for what is not in the upper: it was to be copied up before.
    pub(crate) fn gaining(&self, name: Name<'_>) -> Result<&Arc<dyn Node>> {
        let upper = self.upper.get().ok_or(Errno::IO)?;
        if let Some(names) = &upper.names {
            names.gains(name, &self.shared.names_memory);
        }
        Ok(&upper.node)
    }

    /// Notes that the marks of its directory in the upper were changed.
    pub(crate) fn change_marks(&self, change: impl FnOnce(&mut Marks)) {
        if let Some(upper) = self.upper.get() {
            change(&mut upper.marks.lock());
        }
    }

    /// The lower files, the topmost first.
    pub(crate) fn lowers(&self) -> &[Part] {
        self.lowers.as_slice()
    }

    /// The file that stands for it now. There is always one.
    ///
    /// # Errors
    /// None that is met.
    pub(crate) fn real(&self) -> Result<&Arc<dyn Node>> {
        match self.upper() {
            Some(node) => Ok(node),
            None => Ok(&self.lowers().first().ok_or(Errno::IO)?.node),
        }
    }

    /// Whether it is a directory of several layers.
    pub(crate) fn is_merged(&self) -> bool {
        match self.upper() {
            Some(_) => !self.lowers().is_empty(),
            None => self.lowers().len() > 1,
        }
    }

    /// Whether it shows another inode number than its file in the upper.
    pub(crate) fn has_other_number(&self) -> bool {
        self.upper.get().is_some_and(|upper| {
            self.number() != self.shared.numbers.of(Layer::UPPER, upper.inode).shown
        })
    }

    /// Whether this lower file has several names that must find one copy.
    pub(crate) fn is_indexable(&self, attributes: &Attributes) -> bool {
        // Inode numbers are of one file system, that of the layer's root.
        self.kind != FileKind::Directory
            && attributes.links > 1
            && self.lowers().first().is_some_and(|part| {
                let root = self.shared.root_lowers().iter();
                root.filter(|root| root.layer == part.layer)
                    .any(|root| root.node.identity().device == part.node.identity().device)
            })
    }

    fn seldom(&self) -> &Seldom {
        self.seldom.get_or_init(|| {
            Box::new(Seldom {
                copying: tokio::sync::Mutex::new(()),
                locks: LockTable::new(self.shared.lock_budget.clone()),
            })
        })
    }

    /// Held while it is copied up.
    pub(crate) fn copying(&self) -> &tokio::sync::Mutex<()> {
        &self.seldom().copying
    }

    pub(crate) fn locks(&self) -> &LockTable {
        &self.seldom().locks
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    /// Remembers a name, if none is known.
    pub(crate) fn is_found_at(&self, parent: &Self, name: Name<'_>) {
        let mut place = self.place.lock();
        if place.is_none()
            && self.kind != FileKind::Directory
            && let Ok(parent) = parent.this()
        {
            *place = Some(Place::new(&parent, name));
        }
    }

    /// Notes a name that it has now, in the place of another.
    pub(crate) fn is_moved_to(&self, parent: &Arc<Self>, name: Name<'_>) {
        let previous = self.place.lock().replace(Place::new(parent, name));
        drop(previous);
    }

    /// Notes that it has lost a name.
    pub(crate) fn has_lost(&self, parent: &Self, name: Name<'_>) {
        let mut place = self.place.lock();
        let lost = match place.as_ref() {
            Some(known) if known.is(parent, name) => place.take(),
            _ => None,
        };
        drop(place);
        drop(lost);
        if self.kind == FileKind::Directory {
            self.removed.store(true, Ordering::Release);
        }
    }

    /// Whether it is a directory that was removed.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Whether it may have its content in a layer below.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    /// Notes that it has its content itself.
    pub(crate) fn is_whole(&self) {
        self.doubtful.store(false, Ordering::Release);
    }

    /// Links that programs see, less those of the file that stands for it.
    pub(crate) fn links_changed(&self) -> i64 {
        self.links_changed.load(Ordering::Acquire)
    }

    pub(crate) fn change_links(&self, by: i64) {
        self.links_changed.fetch_add(by, Ordering::AcqRel);
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
        let links = match self.kind {
            FileKind::Directory if self.is_removed() => 0,
            // The subdirectories of a directory of several layers are not counted, as by the kernel.
            FileKind::Directory if self.is_merged() => 1,
            FileKind::Directory => attributes.links,
            _ => {
                let links = i64::from(attributes.links).saturating_add(self.links_changed());
                u32::try_from(links).unwrap_or(0)
            }
        };
        let attributes = match self.nested_whiteout {
            true => nested::as_device(attributes),
            false => attributes,
        };
        Attributes {
            inode: self.number(),
            links,
            mount_root: false,
            ..attributes
        }
    }

    /// The attributes now.
    ///
    /// # Errors
    /// Those of the layer.
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
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        let upper = self.upper().map(|node| Key {
            layer: Layer::UPPER,
            identity: node.identity(),
        });
        let keys = [upper, self.lowers().first().map(Part::key)];
        self.shared.nodes.forget(keys, self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert!(
            size_of::<OverlayNode>() <= 184,
            "{}",
            size_of::<OverlayNode>()
        );
    }
}
