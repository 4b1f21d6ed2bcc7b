//! Layers of an open image whose indexes were made by others, and what becomes of them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::borrow;
use super::compare::{Compared, agrees, compare};
use crate::OciImage;
use crate::ahead::{LOOK, Pause, Stopped};
use crate::content::{ContentError, forget_content, rename_content};
use crate::image::{Image, Layer};
use crate::index::{IndexOptions, LayerIndex};

/// Layers that have not been compared yet with the indexes by which they are read.
pub(crate) struct Doubts {
    image: Image,
    layers: Mutex<Vec<Doubt>>,
    /// The folder of indexes and contents.
    folder: PathBuf,
    /// The merged tree, in its folder.
    tree: PathBuf,
    options: IndexOptions,
}

/// A layer and its index.
#[derive(Clone)]
struct Doubt {
    layer: Layer,
    index: Arc<LayerIndex>,
}

impl Doubts {
    /// Of the layers of an image, in their order. `tree` is the file of the tree that the indexes make.
    pub(crate) fn new(
        image: Image,
        indexes: &[Arc<LayerIndex>],
        folder: &Path,
        tree: PathBuf,
        options: &IndexOptions,
    ) -> Self {
        let mut layers: Vec<Doubt> = Vec::new();
        for (layer, index) in image.layers.iter().zip(indexes) {
            let is_new = layers.iter().all(|it| it.layer.digest != layer.digest);
            if index.borrowed.is_some() && is_new {
                layers.push(Doubt {
                    layer: layer.clone(),
                    index: Arc::clone(index),
                });
            }
        }
        Self {
            image,
            layers: Mutex::new(layers),
            folder: folder.to_owned(),
            tree,
            options: options.clone(),
        }
    }

    /// How many layers there are of which nothing has been compared.
    pub(crate) fn count(&self) -> usize {
        self.layers.lock().len()
    }

    /// Ends the doubts that an index which was made here meanwhile ends, by another daemon or a pull. Whether no layer
    /// turned out to be another than was shown.
    fn settle_known(&self) -> bool {
        let doubts = self.layers.lock().clone();
        doubts.iter().all(|doubt| {
            let Ok(own) = LayerIndex::load(&self.own(&doubt.layer)) else {
                return true;
            };
            let layer = &doubt.layer;
            if (own.blob.digest, own.blob.size) != (layer.digest, layer.size) {
                return true;
            }
            match agrees(&own, &doubt.index) {
                Some(true) => self.settle(doubt, Compared::Right(own)),
                Some(false) => {
                    let why = "the index that this host has made says otherwise";
                    self.settle(doubt, Compared::Wrong(Some(own), why))
                }
                None => true,
            }
        })
    }

    /// Acts on what a comparison has shown, and says whether the index was right.
    fn settle(&self, doubt: &Doubt, compared: Compared) -> bool {
        let Doubt { layer, index } = doubt;
        let (own, why) = match compared {
            Compared::Right(own) => (Some(own), None),
            Compared::Wrong(own, why) => (own, Some(why)),
        };
        let digest = layer.digest;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!("the cache of layer {digest} cannot be changed: {error}");
        };
        if let Some(own) = &own
            && let Err(error) = own.store(&self.own(layer))
        {
            failed(&error);
        }
        let kept = match (&own, why) {
            (Some(own), None) => rename_content(&self.folder, index, own),
            _ => forget_content(&self.folder, index),
        };
        if let Err(error) = kept {
            failed(&error);
        }
        let artifact = index.borrowed.unwrap_or(digest);
        let borrowed = borrow::path(&self.folder, digest, artifact);
        for path in [Some(borrowed), why.map(|_| self.tree.clone())] {
            match path.map_or(Ok(()), std::fs::remove_file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed(&error),
                _ => {}
            }
        }
        match why {
            None => {
                self.layers.lock().retain(|it| it.layer.digest != digest);
                tracing::info!("the borrowed index of layer {digest} is right");
            }
            Some(why) => tracing::error!(
                "the index of layer {digest} in {artifact} is wrong, {why}: the image is not served any more. Start \
                 again: what this host has found is used then; and find out who has pushed that"
            ),
        }
        why.is_none()
    }

    fn own(&self, layer: &Layer) -> PathBuf {
        LayerIndex::own_path(&self.folder, layer.digest)
    }
}

impl OciImage {
    /// How many layers are read by indexes that others have made, and have not been compared with them yet.
    pub fn doubted_layers(&self) -> usize {
        self.doubts().count()
    }

    /// Takes note of what others have found out of the layers. Whether the image may be served.
    pub(crate) fn settle_known(&self) -> bool {
        let is_right = self.doubts().settle_known();
        if !is_right {
            self.refute();
        }
        is_right
    }

    /// Reads each layer as a whole whose index was made by others, and compares it with that: quickly while nobody has waited
    /// for content for as long as `quiet`. Blocks.
    ///
    /// # Errors
    /// Why it has ended before all were compared.
    pub(crate) fn compare_layers(
        image: &Weak<Self>,
        quiet: Duration,
        may_go_on: &dyn Fn() -> bool,
        failed: &dyn Fn(&ContentError),
    ) -> Result<(), Stopped> {
        let mut pause = Pause::default();
        loop {
            let opened = image.upgrade().ok_or(Stopped::Closed)?;
            if !opened.settle_known() {
                return Err(Stopped::Refuted);
            }
            let doubts = Arc::clone(opened.doubts());
            drop(opened);
            let next = doubts.layers.lock().first().cloned();
            let Some(doubt) = next else {
                return Ok(());
            };
            if !may_go_on() {
                return Err(Stopped::Refused);
            }
            let read = doubts.image.read_layer(&doubt.layer);
            let compared = read.map_err(io::Error::other).and_then(|reader| {
                let patient = Patient {
                    image,
                    quiet,
                    reader,
                };
                compare(patient, &doubt.index, &doubts.options)
            });
            let opened = image.upgrade().ok_or(Stopped::Closed)?;
            match compared.map(|compared| doubts.settle(&doubt, compared)) {
                Ok(true) => pause = Pause::default(),
                Ok(false) => {
                    opened.refute();
                    return Err(Stopped::Refuted);
                }
                Err(error) => {
                    failed(&error.into());
                    drop(opened);
                    pause.rest(image)?;
                }
            }
        }
    }
}

/// How long a guest that is never quiet holds up the next mebibyte: other processes may wait for the layer, and until it
/// was compared nobody knows whether what the guest reads is right.
const HELD_UP: Duration = Duration::from_millis(500);

/// A layer, read while the guest waits for nothing, and slowly while it does.
struct Patient<'a, R> {
    image: &'a Weak<OciImage>,
    quiet: Duration,
    reader: R,
}

impl<R: Read> Read for Patient<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = Instant::now();
        loop {
            let Some(image) = self.image.upgrade() else {
                return Err(io::Error::other("the image is closed"));
            };
            if image.demand().is_quiet_for(self.quiet) || begin.elapsed() >= HELD_UP {
                break;
            }
            drop(image);
            std::thread::sleep(LOOK);
        }
        self.reader.read(buffer)
    }
}
