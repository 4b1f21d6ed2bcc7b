//! Opening an image: its layers are indexed once, its tree is merged once; both are kept.
//!
//! ```text
//! CACHE/images/DIGEST.*          the catalogue: which images there are, and who uses them
//! CACHE/blobs/sha256/DIGEST     a manifest, configuration or layer that was fetched
//! CACHE/names/DIGEST            what a tag in a registry meant last
//! CACHE/layers/DIGEST.index     what a layer's tar says
//! CACHE/layers/DIGEST-*.index   what its table of contents says, with the table's own digest
//! CACHE/layers/DIGEST-*.content what of it was read
//! CACHE/trees/DIGEST.tree       the merged tree of an image
//! CACHE/trees/DIGEST-*.tree     the same, where layers were opened by their tables
//! CACHE/traces/DIGEST.trace     what was read of an image after its last start
//! ```
//!
//! What is kept is checked when it is read, and made again where it is damaged or of another version. Several daemons
//! may share a cache.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::OciImage;
use crate::ahead::{Demand, Recorder};
use crate::backend::{LayerCache, Shared};
use crate::blob::{BlobError, Sha256Digest};
use crate::catalogue::Catalogue;
use crate::content::{ContentError, HostBoot, LayerContent, Room};
use crate::image::{Image, ImageError, ImageName, Layer, Platform};
use crate::index::{IndexError, IndexOptions, IndexProgress, LayerIndex, build_index};
use crate::registry;
use crate::room::CacheRoom;
use crate::toc::{TocLayer, TocReference, read_toc};
use crate::tree::{Tree, TreeBuilder, TreeError};

/// The most layers that are indexed at once: each may take 128 MiB for its decoder.
const INDEXED_AT_ONCE: usize = 4;

/// How many are indexed at once at least: fetching leaves processors idle.
const FETCHED_AT_ONCE: usize = 3;

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
    /// Limits and sizes for layers that are indexed.
    pub index: IndexOptions,
    /// Told how far the indexing of a layer is, about once per MiB, by several threads. Never called where all layers
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
    fn is_of_content(&self) -> bool {
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
        let indexes = indexes(&image, &layers, options)?;
        let tree = tree(&image, &indexes, &trees)?;
        let room = options.cache_limit;
        let room: Option<Arc<dyn Room>> = match room {
            Some(limit) => Some(Arc::new(CacheRoom::new(&options.cache, limit))),
            None => None,
        };
        let mut opened: HashMap<Sha256Digest, LayerCache> = HashMap::new();
        let mut caches = Vec::new();
        for (layer, index) in image.layers.iter().zip(indexes) {
            let cache = match opened.get(&layer.digest) {
                Some(cache) => cache.clone(),
                None => layer_cache(&image, layer, index, (&layers, options.boot, room.clone()))?,
            };
            opened.insert(layer.digest, cache.clone());
            caches.push(cache);
        }
        let shared = Shared {
            tree,
            layers: caches,
            recorder: Recorder::new(
                &options
                    .cache
                    .join("traces")
                    .join(format!("{}.trace", image.digest.hex())),
            ),
            demand: Demand::default(),
        };
        let mut opened = Self::new(shared, image.digest, image.config, lease);
        opened.notice = image.notice;
        Ok(opened)
    }
}

fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::Cache { path, source }
}

fn layer_cache(
    image: &Image,
    layer: &Layer,
    index: Arc<LayerIndex>,
    (folder, boot, room): (&Path, HostBoot, Option<Arc<dyn Room>>),
) -> Result<LayerCache, OpenError> {
    let source = image.open_layer(layer)?;
    let content = LayerContent::open_in(folder, index, source, boot, room).map_err(|source| {
        let layer = layer.digest;
        OpenError::Content { layer, source }
    })?;
    let descriptor = content.descriptor().try_clone_to_owned();
    Ok(LayerCache {
        descriptor: Arc::new(descriptor.map_err(cache_error(folder))?),
        content: Arc::new(content),
    })
}

/// The indexes of all layers, those that are missing made by a few threads.
fn indexes(
    image: &Image,
    folder: &Path,
    options: &Options,
) -> Result<Vec<Arc<LayerIndex>>, OpenError> {
    let mut distinct: HashMap<Sha256Digest, usize> = HashMap::new();
    for (number, layer) in image.layers.iter().enumerate() {
        distinct.entry(layer.digest).or_insert(number);
    }
    let mut numbers: Vec<usize> = distinct.into_values().collect();
    numbers.sort_unstable();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((HashMap::new(), None));
    let work = || {
        while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(layer) = image.layers.get(number) else {
                continue;
            };
            let index = index(image, number, layer, folder, options);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match index {
                Ok(index) => drop(done.0.insert(layer.digest, Arc::new(index))),
                Err(error) => {
                    done.1.get_or_insert(error);
                    next.store(numbers.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = processors.clamp(FETCHED_AT_ONCE, INDEXED_AT_ONCE);
    let workers = workers.min(numbers.len());
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    let (done, failed) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    let indexes = image.layers.iter().map(|layer| {
        let missing = || io::Error::other("a layer was not indexed");
        done.get(&layer.digest)
            .cloned()
            .ok_or_else(missing)
            .map_err(cache_error(folder))
    });
    indexes.collect()
}

/// The index of a layer, as it was kept or made now.
fn index(
    image: &Image,
    number: usize,
    layer: &Layer,
    folder: &Path,
    options: &Options,
) -> Result<LayerIndex, OpenError> {
    let path = folder.join(format!("{}.index", layer.digest.hex()));
    let kept = kept(&path, layer, None);
    if kept.is_none()
        && options.by_contents
        && let Some(index) = by_contents(image, layer, folder, options)?
    {
        return Ok(index);
    }
    let index = match kept {
        Some(index) => index,
        None => {
            let index = match build(image, number, layer, options) {
                // What had been fetched before may have been wrong, or what was sent now.
                Err(error) if error.is_of_content() && image.discard_layer(layer) => {
                    build(image, number, layer, options)?
                }
                other => other?,
            };
            index.store(&path).map_err(cache_error(&path))?;
            index
        }
    };
    match index.blob.diff_id == layer.diff_id {
        true => Ok(index),
        false => Err(OpenError::DiffId {
            layer: layer.digest,
            diff_id: layer.diff_id,
            found: index.blob.diff_id,
        }),
    }
}

/// An index that was kept, of the layer as a whole or from a table of contents. One that is damaged, or another layer's,
/// is as good as none.
fn kept(path: &Path, layer: &Layer, toc: Option<Sha256Digest>) -> Option<LayerIndex> {
    let index = LayerIndex::load(path).ok()?;
    let blob = &index.blob;
    let found = (blob.digest, blob.size, blob.contents);
    (found == (layer.digest, layer.size, toc)).then_some(index)
}

/// The index of a layer by its table of contents, as it was kept or made now; none where there is no such table, or it
/// is of no use.
///
/// What one image says of a layer is not believed for another: the table's digest is in the name.
fn by_contents(
    image: &Image,
    layer: &Layer,
    folder: &Path,
    options: &Options,
) -> Result<Option<LayerIndex>, OpenError> {
    let Some(reference) = layer.toc else {
        return Ok(None);
    };
    let (hex, toc) = (layer.digest.hex(), reference.digest());
    let path = folder.join(format!("{hex}-{}.index", toc.short_hex()));
    if let Some(index) = kept(&path, layer, Some(toc)) {
        return Ok(Some(index));
    }
    let source = image.open_layer(layer)?;
    let wanted = TocLayer {
        digest: layer.digest,
        size: layer.size,
        diff_id: layer.diff_id,
    };
    match read_toc(&*source, wanted, &reference, &options.index) {
        Ok(index) => {
            index.store(&path).map_err(cache_error(&path))?;
            Ok(Some(index))
        }
        Err(error) => {
            tracing::info!("layer {} is read as a whole: {error}", layer.digest);
            Ok(None)
        }
    }
}

/// Reads a layer once, and verifies it as a whole.
fn build(
    image: &Image,
    number: usize,
    layer: &Layer,
    options: &Options,
) -> Result<LayerIndex, OpenError> {
    let progress = |progress: IndexProgress| {
        (options.progress)(Progress {
            layer: number,
            layers: image.layers.len(),
            read: progress.compressed,
            size: layer.size,
        });
    };
    let reader = image.read_layer(layer)?;
    let index = build_index(reader, &options.index, progress).map_err(|source| {
        let layer = layer.digest;
        OpenError::Index { layer, source }
    })?;
    match index.blob.digest == layer.digest {
        true => Ok(index),
        false => Err(OpenError::Digest {
            layer: layer.digest,
            found: index.blob.digest,
        }),
    }
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

/// What a tree is called: it belongs to certain entries of its layers, and so to the tables that they are from.
fn tree_name(image: Sha256Digest, indexes: &[Arc<LayerIndex>]) -> String {
    let mut tables = Vec::new();
    for (number, index) in indexes.iter().enumerate() {
        if let Some(toc) = index.blob.contents {
            tables.extend(number.to_le_bytes());
            tables.extend(toc.0);
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
