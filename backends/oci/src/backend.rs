//! An image, open, as a storage.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, Entry, Errno, FsStatistics, Locator, Node, Ttl,
};

use crate::ahead::{Demand, Recorder};
use crate::blob::Sha256Digest;
use crate::catalogue::Lease;
use crate::content::LayerContent;
use crate::image::Config;
use crate::node::ImageNode;
use crate::referrer::Doubts;
use crate::tree::{NodeId, Tree};

/// An image that is served as it is: a tree that never changes, whose contents are decoded when they are first read.
///
/// All but contents is in memory and answered at once. The guest may keep names, misses, attributes and contents
/// for ever.
pub struct OciImage {
    root: Arc<ImageNode>,
    pub(crate) digest: Sha256Digest,
    pub(crate) config: Config,
    pub(crate) notice: Option<String>,
    lease: Lease,
    doubts: Arc<Doubts>,
}

impl OciImage {
    pub(crate) fn new(
        shared: Shared,
        digest: Sha256Digest,
        config: Config,
        (lease, doubts): (Lease, Doubts),
    ) -> Self {
        let root = shared.tree.root();
        Self {
            root: Arc::new(ImageNode::new(Arc::new(shared), root)),
            digest,
            config,
            notice: None,
            lease,
            doubts: Arc::new(doubts),
        }
    }

    /// What the image is known by: see [`Image::digest`](crate::image::Image::digest).
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// What runs in the image.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What whoever opened it should be told: see [`Image::notice`](crate::image::Image::notice).
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Keeps the image from being removed from the cache; to be renewed now and then.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The merged tree.
    pub fn tree(&self) -> &Tree {
        &self.root.shared().tree
    }

    /// Ends the recording of what is read after the start, once its time is over: to be called now and then.
    pub fn tick(&self) {
        self.recorder().tick();
    }

    /// The layers that may be others than is shown.
    pub(crate) fn doubts(&self) -> &Arc<Doubts> {
        &self.doubts
    }

    /// Shows nothing any more: what was shown was not what the layers are.
    pub(crate) fn refute(&self) {
        self.root.shared().refuted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.root.shared().recorder
    }

    pub(crate) fn demand(&self) -> &Demand {
        &self.root.shared().demand
    }

    /// How much of its contents is on this host.
    pub fn fill(&self) -> Fill {
        let mut seen = HashSet::new();
        let contents = self.contents().filter(|it| seen.insert(it.blob().digest));
        contents.fold(Fill::default(), |fill, content| {
            let (all, resident) = content.bytes();
            let local = match content.is_distant() {
                true => resident,
                false => all,
            };
            Fill {
                bytes: fill.bytes.saturating_add(all),
                local: fill.local.saturating_add(local),
                resident: fill.resident.saturating_add(resident),
            }
        })
    }

    /// The cached contents of the layers, from the lowest up. A layer that the image has twice is one.
    pub fn contents(&self) -> impl Iterator<Item = &Arc<LayerContent>> {
        let layers = self.root.shared().layers.iter();
        layers.map(|layer| &layer.content)
    }
}

/// How much of an image is on this host. A layer that it has twice counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// What the layers of the image decode to.
    pub bytes: u64,
    /// Of that, what is read without asking anybody else: the cache has it, or the layer as it was fetched.
    pub local: u64,
    /// Of that, what is decoded and in the cache.
    pub resident: u64,
}

impl Backend for OciImage {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::IMMUTABLE | Capabilities::REOPEN | Capabilities::XATTR
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        let shared = self.root.shared();
        if let Err(errno) = shared.is_shown() {
            return Answer::error(errno);
        }
        let found = locator
            .inode()
            .and_then(|inode| shared.tree.by_inode(inode));
        match found {
            Some(id) => Answer::ok(Arc::new(ImageNode::new(shared.clone(), id))),
            None => Answer::error(Errno::STALE),
        }
    }

    /// Ends the recording of what is read after the start, and makes durable what was decoded.
    fn close(&self) -> vfsd_backend::Result<()> {
        self.recorder().finish();
        // One that fails does not keep the others from it.
        let mut closed = Ok(());
        for content in self.contents() {
            closed = closed.and(content.sync());
        }
        Ok(closed?)
    }
}

impl std::fmt::Debug for OciImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OciImage")
            .field("digest", &self.digest)
            .field("tree", self.tree())
            .finish_non_exhaustive()
    }
}

/// What all nodes of an image have in common.
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    /// By the number that the tree calls them by.
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) recorder: Recorder,
    pub(crate) demand: Demand,
    /// The layers turned out to be others than is shown.
    pub(crate) refuted: AtomicBool,
}

/// The cached content of a layer.
#[derive(Clone)]
pub(crate) struct LayerCache {
    pub(crate) content: Arc<LayerContent>,
    /// The cache file, to be handed out.
    pub(crate) descriptor: Arc<OwnedFd>,
}

impl Shared {
    /// Whether the guest may see any of it.
    pub(crate) fn is_shown(&self) -> std::result::Result<(), Errno> {
        match self.refuted.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Errno::IO),
        }
    }

    pub(crate) fn attributes(&self, node: NodeId) -> Attributes {
        self.tree.attributes(node)
    }

    /// What a name stands for.
    pub(crate) fn entry(self: &Arc<Self>, node: NodeId) -> Entry {
        Entry {
            attributes: self.attributes(node),
            node: Arc::new(ImageNode::new(self.clone(), node)),
            entry_ttl: Ttl::Forever,
            attribute_ttl: Ttl::Forever,
        }
    }

    /// The figures of a file system that is full.
    pub(crate) fn statistics(&self) -> FsStatistics {
        let figures = self.tree.figures();
        FsStatistics {
            blocks: figures.blocks,
            files: figures.nodes,
            block_size: 4096,
            fragment_size: 4096,
            name_max: 255,
            ..FsStatistics::default()
        }
    }
}
