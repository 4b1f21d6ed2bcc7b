//! The indexes of an image's layers: those that were kept, and those that are made, or borrowed, now.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blob::Sha256Digest;
use crate::image::{Image, Layer};
use crate::index::{IndexProgress, LayerIndex, build_index};
use crate::open::cache_error;
use crate::referrer::Borrower;
use crate::toc::{TocLayer, read_toc};
use crate::turn::Turn;
use crate::{OpenError, Options, Progress};

/// The most layers that are indexed at once: each may take 128 MiB for its decoder.
const INDEXED_AT_ONCE: usize = 4;

/// How many are indexed at once at least: fetching leaves processors idle.
const FETCHED_AT_ONCE: usize = 3;

/// The indexes of all layers, those that are missing made by a few threads, or borrowed where there is a borrower.
pub(crate) fn indexes(
    image: &Image,
    folder: &Path,
    options: &Options,
    borrower: Option<&Borrower<'_>>,
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
            let index = index(image, number, layer, (folder, options, borrower));
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
    (folder, options, borrower): (&Path, &Options, Option<&Borrower<'_>>),
) -> Result<LayerIndex, OpenError> {
    let path = LayerIndex::own_path(folder, layer.digest);
    let kept = kept(&path, layer, None);
    if kept.is_none()
        && options.by_contents
        && let Some(index) = by_contents(image, layer, folder, options)?
    {
        return Ok(index);
    }
    if kept.is_none()
        && let Some(borrower) = borrower.filter(|borrower| !borrower.is_last_resort())
        && let Some(index) = borrower.index(layer)?
    {
        return Ok(index);
    }
    let index = match kept {
        Some(index) => index,
        None => match make(image, number, layer, (folder, options)) {
            Err(error) if !error.is_of_content() => {
                let last = borrower.filter(|borrower| borrower.is_last_resort());
                let borrowed = last.map(|borrower| borrower.index(layer)).transpose()?;
                return borrowed.flatten().ok_or(error);
            }
            made => made?,
        },
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

/// The index of a layer, made here and kept in `folder`, by one process at a time: the others find it.
fn make(
    image: &Image,
    number: usize,
    layer: &Layer,
    (folder, options): (&Path, &Options),
) -> Result<LayerIndex, OpenError> {
    let path = LayerIndex::own_path(folder, layer.digest);
    let _turn = Turn::take(folder, layer.digest).map_err(cache_error(folder))?;
    if let Some(index) = kept(&path, layer, None) {
        return Ok(index);
    }
    let index = match build(image, number, layer, options) {
        // What had been fetched before may have been wrong, or what was sent now.
        Err(error) if error.is_of_content() && image.discard_layer(layer) => {
            build(image, number, layer, options)?
        }
        other => other?,
    };
    index.store(&path).map_err(cache_error(&path))?;
    Ok(index)
}

/// An index that was kept, of the layer as a whole or from a table of contents. One that is damaged, or another layer's,
/// is as good as none.
fn kept(path: &Path, layer: &Layer, toc: Option<Sha256Digest>) -> Option<LayerIndex> {
    let index = LayerIndex::load(path).ok()?;
    let blob = &index.blob;
    let found = (blob.digest, blob.size, blob.contents, index.borrowed);
    (found == (layer.digest, layer.size, toc, None)).then_some(index)
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
