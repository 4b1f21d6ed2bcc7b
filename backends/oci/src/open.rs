//! Opening an image: its layers are indexed once, its tree is merged once; both are kept.
//!
//! ```text
//! CACHE/images/DIGEST.*          the catalogue: which images there are, and who uses them
//! CACHE/blobs/sha256/DIGEST     a manifest, configuration or layer that was fetched
//! CACHE/names/DIGEST            what a tag in a registry meant last
//! CACHE/layers/DIGEST.index     what a layer's tar says
//! CACHE/layers/DIGEST-*.index   what its table of contents says, with the table's own digest, or others say of it, with
//!                               that of the artifact
//! CACHE/layers/DIGEST-*.content what of it was read
//! CACHE/trees/DIGEST.tree       the merged tree of an image
//! CACHE/trees/DIGEST-*.tree     the same, where layers were opened by their tables, or by what others say
//! CACHE/traces/DIGEST.trace     what was read of an image after its last start
//! ```
//!
//! What is kept is checked when it is read, and made again where it is damaged or of another version. Several daemons
//! may share a cache.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use crate::OciImage;
use crate::ahead::{Demand, Recorder};
use crate::backend::{LayerCache, Shared};
use crate::blob::{BlobError, Sha256Digest};
use crate::catalogue::Catalogue;
use crate::content::{ContentError, HostBoot, LayerContent, Room};
use crate::image::{Image, ImageError, ImageName, Layer, Platform};
use crate::index::{IndexError, IndexOptions, LayerIndex};
use crate::layers;
use crate::referrer::{Borrower, Doubts, IndexFrom};
use crate::registry;
use crate::room::CacheRoom;
use crate::toc::TocReference;
use crate::tree::{Tree, TreeBuilder, TreeError};

/// What to open, and how.
pub struct Options {
    /// The image.
    pub name: ImageName,
    /// What machine it must be for; see [`Image::open`].
    pub platform: Option<Platform>,
    /// The folder of the cache, which is made if it is missing.
    pub cache: PathBuf,
    /// How registries are asked, for an image in one.
    pub registries: registry::Settings,
    /// What the cache's catalogue calls the image; by default its name. None for one that is there under its name
    /// already.
    pub known_as: Option<String>,
    /// Which boot of the host this is: for a process in a sandbox, that of before it entered it.
    pub boot: HostBoot,
    /// Bytes that the cache may take. What was read the longest time ago is taken away then, also from images in use, and
    /// read again when it is needed.
    pub cache_limit: Option<u64>,
    /// Whether a layer that has not been read yet is opened by its table of contents, where it has one. Such a layer is
    /// verified chunk by chunk, never as a whole.
    pub by_contents: bool,
    /// Where the index of a layer is from that has neither been read nor has a table of contents.
    pub index_from: IndexFrom,
    /// Limits and sizes for layers that are indexed.
    pub index: IndexOptions,
    /// Told how far the indexing of a layer is, some times per MiB, by several threads. Never called where all layers
    /// have been indexed before.
    pub progress: Box<dyn Fn(Progress) + Send + Sync>,
}

impl Options {
    /// Options for an image, for the host's platform, and without anybody who is told of progress.
    pub fn new(name: ImageName, cache: PathBuf) -> Self {
        Self {
            known_as: Some(name.to_string()),
            name,
            platform: None,
            cache,
            registries: registry::Settings::default(),
            boot: HostBoot::current(),
            cache_limit: None,
            by_contents: true,
            index_from: IndexFrom::Off,
            index: IndexOptions::default(),
            progress: Box::new(|_| {}),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("platform", &self.platform)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// How far the indexing of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The layer's number: 0 is the lowest.
    pub layer: usize,
    /// How many the image has.
    pub layers: usize,
    /// Bytes of it that were read.
    pub read: u64,
    /// Bytes that it has.
    pub size: u64,
}

/// Why an image could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It was not found, or is not what it says.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer is no tar, or cannot be decoded.
    #[error("layer {layer}: {source}")]
    Index {
        /// Its digest.
        layer: Sha256Digest,
        /// Why.
        source: IndexError,
    },
    /// A layer is not what its digest says.
    #[error("layer {layer} is damaged, it is {found}: copy the image again")]
    Digest {
        /// The digest that it should have.
        layer: Sha256Digest,
        /// The digest that it has.
        found: Sha256Digest,
    },
    /// A layer decodes to something else than the image's configuration says.
    #[error(
        "layer {layer} decodes to {found}, not to {diff_id} as the image says: build the image again"
    )]
    DiffId {
        /// The layer.
        layer: Sha256Digest,
        /// What the configuration says.
        diff_id: Sha256Digest,
        /// What it is.
        found: Sha256Digest,
    },
    /// The layers make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The cache cannot be used.
    #[error("the cache {path}: {source}")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// The cache of a layer's content cannot be used.
    #[error("layer {layer}: {source}")]
    Content {
        /// The layer.
        layer: Sha256Digest,
        /// Why.
        source: ContentError,
    },
}

impl OpenError {
    /// Whether a layer's bytes were wrong, rather than not to be had.
    pub(crate) fn is_of_content(&self) -> bool {
        match self {
            Self::Index {
                source: IndexError::Blob(BlobError::Io(error)),
                ..
            } => error.kind() == io::ErrorKind::InvalidData,
            Self::Index { .. } | Self::Digest { .. } => true,
            _ => false,
        }
    }
}

impl OciImage {
    /// Finds an image, and does what has not been done before: index its layers, each verified as a whole on the way or
    /// by its table of contents, and merge them. Blocks, for as long as it takes to decode what is new.
    ///
    /// The files that contents are read from are opened here; nothing is looked for by its path later.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let image = Image::open(
            &options.name,
            options.platform.as_ref(),
            &options.cache,
            &options.registries,
        )?;
        let catalogue = Catalogue::new(&options.cache);
        let lease = catalogue
            .enter(options.known_as.as_deref(), &image)
            .map_err(cache_error(&options.cache))?;
        let layers = options.cache.join("layers");
        let trees = options.cache.join("trees");
        for folder in [&layers, &trees] {
            std::fs::create_dir_all(folder).map_err(cache_error(folder))?;
        }
        let borrower = Borrower::new(&image, &layers, options);
        let mut indexes = layers::indexes(&image, &layers, options, borrower.as_ref())?;
        let mut assembled = assemble(&image, &indexes, options);
        if let Err(error) = &assembled
            && indexes.iter().any(|index| index.borrowed.is_some())
        {
            tracing::warn!("the borrowed indexes are not used: {error}");
            indexes = layers::indexes(&image, &layers, options, None)?;
            assembled = assemble(&image, &indexes, options);
        }
        let (tree, caches) = assembled?;
        let (digest, config, notice) = (image.digest, image.config.clone(), image.notice.clone());
        let tree_path = trees.join(tree_name(digest, &indexes));
        drop(borrower);
        let doubts = Doubts::new(image, &indexes, &layers, tree_path, &options.index);
        let shared = Shared {
            tree,
            layers: caches,
            recorder: Recorder::new(
                &options
                    .cache
                    .join("traces")
                    .join(format!("{}.trace", digest.hex())),
            ),
            demand: Demand::default(),
            refuted: AtomicBool::new(false),
        };
        let mut opened = Self::new(shared, digest, config, (lease, doubts));
        opened.notice = notice;
        Ok(opened)
    }
}

pub(crate) fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::Cache { path, source }
}

/// The tree, and the cached contents of the layers.
fn assemble(
    image: &Image,
    indexes: &[Arc<LayerIndex>],
    options: &Options,
) -> Result<(Tree, Vec<LayerCache>), OpenError> {
    let (layers, trees) = (options.cache.join("layers"), options.cache.join("trees"));
    let tree = tree(image, indexes, &trees)?;
    let room = options.cache_limit;
    let room: Option<Arc<dyn Room>> = match room {
        Some(limit) => {
            let counters = Arc::clone(&options.registries.counters);
            Some(Arc::new(CacheRoom::new(&options.cache, limit, counters)))
        }
        None => None,
    };
    let mut opened: HashMap<Sha256Digest, LayerCache> = HashMap::new();
    let mut caches = Vec::new();
    for (layer, index) in image.layers.iter().zip(indexes) {
        let cache = match opened.get(&layer.digest) {
            Some(cache) => cache.clone(),
            None => layer_cache(image, layer, index, &layers, (options, room.clone()))?,
        };
        opened.insert(layer.digest, cache.clone());
        caches.push(cache);
    }
    Ok((tree, caches))
}

fn layer_cache(
    image: &Image,
    layer: &Layer,
    index: &LayerIndex,
    folder: &Path,
    (options, room): (&Options, Option<Arc<dyn Room>>),
) -> Result<LayerCache, OpenError> {
    let source = image.open_layer(layer)?;
    let counters = Arc::clone(&options.registries.counters);
    let content = LayerContent::open_in(folder, index, source, options.boot, room, counters);
    let content = content.map_err(|source| {
        let layer = layer.digest;
        OpenError::Content { layer, source }
    })?;
    let descriptor = content.descriptor().try_clone_to_owned();
    Ok(LayerCache {
        descriptor: Arc::new(descriptor.map_err(cache_error(folder))?),
        content: Arc::new(content),
    })
}

/// The merged tree, as it was kept or made now.
fn tree(image: &Image, indexes: &[Arc<LayerIndex>], folder: &Path) -> Result<Tree, OpenError> {
    let path = folder.join(tree_name(image.digest, indexes));
    if let Ok(tree) = Tree::load(&path)
        && belongs(&tree, indexes)
    {
        return Ok(tree);
    }
    let mut builder = TreeBuilder::new(image.config.created_at());
    for (layer, index) in image.layers.iter().zip(indexes) {
        builder.begin_layer();
        let of_format = layer.toc.is_some_and(|toc| toc.has_files_of_format());
        for (number, entry) in (0..).zip(&index.entries) {
            if !of_format || !TocReference::is_of_format(&entry.path) {
                builder.entry(number, entry.clone())?;
            }
        }
    }
    let tree = builder.finish()?;
    tree.store(&path).map_err(cache_error(&path))?;
    Ok(tree)
}

/// What a tree is called: it belongs to certain entries of its layers, and so to the tables, or the artifacts, that they
/// are from.
fn tree_name(image: Sha256Digest, indexes: &[Arc<LayerIndex>]) -> String {
    let mut tables = Vec::new();
    for (number, index) in indexes.iter().enumerate() {
        if let Some(origin) = index.blob.contents.or(index.borrowed) {
            tables.extend(number.to_le_bytes());
            tables.extend(origin.0);
        }
    }
    match tables.is_empty() {
        true => format!("{}.tree", image.hex()),
        false => format!(
            "{}-{}.tree",
            image.hex(),
            Sha256Digest::of(&tables).short_hex()
        ),
    }
}

/// Whether a tree's contents are where the indexes have files of these sizes.
fn belongs(tree: &Tree, indexes: &[Arc<LayerIndex>]) -> bool {
    let fits = |node| {
        let Some(content) = tree.content(node) else {
            return true;
        };
        let index = indexes.get(usize::try_from(content.layer).unwrap_or(usize::MAX));
        let entry = usize::try_from(content.entry).unwrap_or(usize::MAX);
        let entry = index.and_then(|index| index.entries.get(entry));
        entry.is_some_and(|entry| {
            matches!(&entry.kind, crate::EntryKind::Regular { size, .. } if *size == content.size)
        })
    };
    usize::try_from(tree.layers()) == Ok(indexes.len()) && tree.nodes().all(fits)
}
