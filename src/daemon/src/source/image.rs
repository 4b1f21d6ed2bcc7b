//! `oci:LAYOUT[:TAG]`, `docker-archive:FILE[:NAME]`, `docker://REGISTRY/NAME[:TAG]`: an image, to be read.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Span;
use vfsd_oci::catalogue::Catalogue;
use vfsd_oci::content::HostBoot;
use vfsd_oci::image::{Image, ImageName, Platform};
use vfsd_oci::referrer::{IndexFrom, PushedIndexes, push_indexes};
use vfsd_oci::registry::{self, AuthFiles, BadReference, Reference};
use vfsd_oci::{Counters, OciImage, Progress};

use super::image_figures::figures;
use super::image_upkeep::{Bound, Upkeep};
use super::{CacheSettings, Kind, Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};
use crate::signals::ending_at_once;
use crate::together::Work;
use crate::waiting::Waiting;

/// An image, as the command line names it.
#[derive(Debug, Clone)]
pub(crate) struct ImageSource {
    name: ImageName,
    /// What was found ahead.
    found: Arc<Mutex<Option<Image>>>,
    /// What is asked for it and read of it.
    counters: Arc<Counters>,
}

/// What an operator decides about images.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageSettings {
    /// Where indexes, trees and content are kept.
    pub(crate) cache: CacheSettings,
    /// Which of several an image is to be for.
    pub(crate) platform: Option<Platform>,
    /// Registries that are asked by plain http.
    pub(crate) insecure: Vec<String>,
    /// Where credentials are, instead of the user's files.
    pub(crate) auth_file: Option<PathBuf>,
    /// Registries, each with a host where its images are looked for first.
    pub(crate) mirrors: Vec<(String, String)>,
    /// No registry is asked for anything.
    pub(crate) offline: bool,
    /// Where indexes of layers are from that were not read yet.
    pub(crate) index_from: IndexFrom,
    /// What the guest has not read yet is fetched while it reads nothing.
    pub(crate) background_fill: bool,
}

impl Default for ImageSettings {
    /// What holds when nothing is said.
    fn default() -> Self {
        Self {
            cache: CacheSettings::default(),
            platform: None,
            insecure: Vec::new(),
            auth_file: None,
            mirrors: Vec::new(),
            offline: false,
            index_from: IndexFrom::default(),
            background_fill: true,
        }
    }
}

impl ImageSettings {
    /// Whether there is something that only an image is asked for.
    pub(crate) fn is_given(&self) -> bool {
        let usual = Self {
            cache: self.cache.clone(),
            ..Self::default()
        };
        *self != usual
    }

    /// The catalogue of the cache.
    ///
    /// # Errors
    /// When there is no folder for it.
    pub(crate) fn catalogue(&self) -> Result<Catalogue, Failure> {
        Ok(Catalogue::new(&cache(self)?))
    }

    fn registries(&self) -> registry::Settings {
        let mut settings = registry::Settings {
            insecure: self.insecure.clone(),
            mirrors: self.mirrors.clone(),
            offline: self.offline,
            ..registry::Settings::default()
        };
        if let Some(file) = &self.auth_file {
            settings.auth = AuthFiles::only(file.clone());
        }
        settings
    }

    fn options(&self, name: ImageName, cache: PathBuf) -> vfsd_oci::Options {
        let mut options = vfsd_oci::Options::new(name, cache);
        options.platform.clone_from(&self.platform);
        options.registries = self.registries();
        options.cache_limit = self.cache.size;
        options.index_from = self.index_from;
        options
    }
}

/// Reads what stands behind `oci:`.
///
/// # Errors
/// When that is nothing.
pub(super) fn read_layout(word: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    Ok(Arc::new(layout(word)?))
}

/// Reads what stands behind `docker-archive:`.
///
/// # Errors
/// When that is nothing.
pub(super) fn read_archive(word: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    Ok(Arc::new(archive(word)?))
}

/// Reads what stands behind `docker://`.
///
/// # Errors
/// When it names no image.
pub(super) fn read_registry(word: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    Ok(Arc::new(in_registry(word.to_str().unwrap_or_default())?))
}

fn layout(word: &OsStr) -> Result<ImageSource, SourceError> {
    check_named(word, "oci:LAYOUT[:TAG]")?;
    Ok(ImageSource::new(ImageName::layout(word)))
}

fn archive(word: &OsStr) -> Result<ImageSource, SourceError> {
    check_named(word, "docker-archive:FILE[:NAME]")?;
    Ok(ImageSource::new(ImageName::archive(word)))
}

fn in_registry(word: &str) -> Result<ImageSource, SourceError> {
    let reference = word
        .parse()
        .map_err(|error: BadReference| SourceError::Wrong(error.to_string()))?;
    Ok(ImageSource::new(ImageName::Registry(reference)))
}

fn check_named(word: &OsStr, form: &str) -> Result<(), SourceError> {
    if word.is_empty() {
        return Err(SourceError::Wrong(format!("no image named: use {form}")));
    }
    Ok(())
}

impl ImageSource {
    fn new(name: ImageName) -> Self {
        Self {
            name,
            found: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// Reads a word of a command line that names an image.
    ///
    /// # Errors
    /// When it names none.
    pub(crate) fn parse(word: &str) -> Result<Self, SourceError> {
        if let Some(rest) = word.strip_prefix("docker://") {
            in_registry(rest)
        } else if let Some(rest) = word.strip_prefix("oci:") {
            layout(OsStr::new(rest))
        } else if let Some(rest) = word.strip_prefix("docker-archive:") {
            archive(OsStr::new(rest))
        } else {
            Err(SourceError::Wrong(
                "use docker://REGISTRY/NAME[:TAG], oci:LAYOUT[:TAG] or docker-archive:FILE[:NAME]"
                    .to_owned(),
            ))
        }
    }

    /// How registries are asked for this image.
    fn registries(&self, settings: &ImageSettings) -> registry::Settings {
        registry::Settings {
            counters: Arc::clone(&self.counters),
            ..settings.registries()
        }
    }

    /// Finds the image and reads its configuration.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub(crate) fn find(&self, settings: &ImageSettings) -> Result<Image, Failure> {
        let (platform, cache) = (settings.platform.as_ref(), cache(settings)?);
        let registries = self.registries(settings);
        let _waiting = self.waiting();
        let found = Image::open(&self.name, platform, &cache, &registries);
        found.map_err(Failure::run).inspect(|image| {
            if let Some(notice) = &image.notice {
                tracing::warn!("{notice}");
            }
        })
    }

    /// Fetches and indexes the layers of the image that are not in the cache yet, each as a whole.
    ///
    /// # Errors
    /// When the image is damaged, or the cache cannot be written to.
    pub(crate) fn index(
        &self,
        settings: &ImageSettings,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<OciImage, Failure> {
        let options = self.whole(settings, progress)?;
        let opened = OciImage::open(&options).map_err(Failure::run)?;
        if let Some(notice) = opened.notice() {
            tracing::warn!("{notice}");
        }
        keep_within(settings, &options);
        Ok(opened)
    }

    /// Pushes the indexes of the image's layers to its registry; fetches and indexes before what is not in the cache yet.
    ///
    /// # Errors
    /// As for [`index`](Self::index); an image that is in no registry, or in one that does not take them.
    pub(crate) fn push_index(
        &self,
        settings: &ImageSettings,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<PushedIndexes, Failure> {
        let options = self.whole(settings, progress)?;
        let pushed = push_indexes(&options).map_err(Failure::run)?;
        keep_within(settings, &options);
        Ok(pushed)
    }

    /// Options to read each layer as a whole.
    fn whole(
        &self,
        settings: &ImageSettings,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<vfsd_oci::Options, Failure> {
        let mut options = settings.options(self.name.clone(), cache(settings)?);
        options.known_as = Some(self.canonical()?.to_string());
        // Until the first layer is read.
        let waiting = Mutex::new(Some(self.waiting()));
        options.progress = Box::new(move |told| {
            drop(
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
            progress(told);
        });
        options.by_contents = false;
        Ok(options)
    }

    /// Tells the log that it is waited for, if that lasts.
    fn waiting(&self) -> Waiting {
        let image = self.to_string();
        Waiting::new(move || tracing::warn!("{image} is still being looked for"))
    }

    /// The same image, at a path that does not depend on where the daemon is.
    fn canonical(&self) -> Result<ImageName, Failure> {
        let Some(path) = self.path() else {
            return Ok(self.name.clone());
        };
        let path = path.canonicalize().map_err(|error| {
            Failure::run(format!(
                "cannot serve {self}: {error}; name an image that exists"
            ))
        })?;
        Ok(moved(&self.name, &path))
    }

    fn lock_found(&self) -> MutexGuard<'_, Option<Image>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the image lies, when it lies on this host.
    fn path(&self) -> Option<&Path> {
        path(&self.name)
    }
}

/// Keeps the cache within the size that it has, if it has one.
fn keep_within(settings: &ImageSettings, options: &vfsd_oci::Options) {
    if let Some(limit) = settings.cache.size {
        let counters = Arc::clone(&options.registries.counters);
        Bound::new(&options.cache, limit, counters).keep();
    }
}

fn path(name: &ImageName) -> Option<&Path> {
    match name {
        ImageName::Layout { path, .. } | ImageName::Archive { path, .. } => Some(path),
        ImageName::Registry(_) => None,
    }
}

/// The same image at another path.
fn moved(name: &ImageName, place: &Path) -> ImageName {
    let mut name = name.clone();
    if let ImageName::Layout { path, .. } | ImageName::Archive { path, .. } = &mut name {
        place.clone_into(path);
    }
    name
}

/// The image that a tag leads to now, by its digest: found again without asking.
fn pinned(reference: &Reference, image: &Image) -> Result<ImageName, Failure> {
    let (registry, repository) = (reference.registry(), reference.repository());
    format!("{registry}/{repository}@{}", image.digest)
        .parse()
        .map(ImageName::Registry)
        .map_err(|error: BadReference| Failure::run(error))
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Storage for ImageSource {
    fn is_read_only(&self, _: &StorageOptions) -> bool {
        true
    }

    fn is(&self, kind: Kind) -> bool {
        kind == Kind::Image
    }

    fn check(&self) -> Result<(), Failure> {
        self.canonical().map(drop)
    }

    fn ahead(&self, options: &StorageOptions) -> Vec<Work<()>> {
        if self.path().is_some() {
            return Vec::new();
        }
        let (image, settings) = (self.clone(), options.image.clone());
        vec![Box::new(move || {
            let found = image.find(&settings)?;
            *image.lock_found() = Some(found);
            Ok(())
        })]
    }

    fn lasting_name(&self) -> String {
        match self.path() {
            Some(path) => moved(&self.name, &super::lasting(path)).to_string(),
            None => self.to_string(),
        }
    }

    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        // An image that is not there is told by its name on the host, before there is a socket; and
        // only here are the operator's credentials to be had.
        let ahead = self.lock_found().take();
        let found = match ahead {
            Some(found) => found,
            None => ending_at_once(|| self.find(&options.image))?,
        };
        let cache = cache(&options.image)?;
        let canonical = self.canonical()?;
        let entered = Catalogue::new(&cache).enter(Some(&canonical.to_string()), &found);
        let lease = entered.map_err(|error| unusable(&cache, &error))?;
        let mut shares = vec![Share::at(cache, false)];
        let name = match &self.name {
            ImageName::Registry(reference) => pinned(reference, &found)?,
            name => name.clone(),
        };
        if let Some(path) = path(&canonical) {
            shares.push(Share::at(path.to_owned(), true));
        }
        let needs = Needs {
            network: self.path().is_none(),
            ..Needs::default()
        };
        let places: Vec<PathBuf> = shares.iter().map(|share| share.path.clone()).collect();
        // Inside the sandbox there is nothing that says it.
        let boot = HostBoot::current();
        let (settings, shown) = (options.image.clone(), self.to_string());
        let (counters, in_registry) = (Arc::clone(&self.counters), self.path().is_none());
        let registries = match &self.name {
            ImageName::Registry(reference) if !settings.offline => {
                self.registries(&settings).with_credentials(reference)
            }
            _ => self.registries(&settings),
        };
        Ok(Prepared {
            shares,
            needs,
            private: false,
            open: Box::new(move |given| {
                let Some(kept) = given.roots.first() else {
                    return Err(Failure::run(format!(
                        "cannot serve {shown}: no cache was taken along"
                    )));
                };
                let name = match given.roots.get(1) {
                    Some(place) => moved(&name, &place.path),
                    None => name,
                };
                let mut options = settings.options(name, kept.path.clone());
                options.progress = Box::new(log_progress());
                options.known_as = None;
                options.boot = boot;
                options.registries = registries;
                let opened = OciImage::open(&options);
                drop(lease);
                let opened = opened.map_err(|error| {
                    let told = given.roots.iter().zip(&places);
                    Failure::run(told.fold(error.to_string(), |told, (root, place)| {
                        root.on_host(place, &told)
                    }))
                })?;
                let opened = Arc::new(opened);
                let (doubted, image) = (opened.doubted_layers(), opened.digest());
                if doubted > 0 {
                    let compared = match settings.background_fill && !settings.offline {
                        true => "until they have been fetched and compared",
                        false => "and not compared: nothing is fetched ahead of the guest",
                    };
                    tracing::info!(
                        "the indexes of {doubted} layers of {image} are borrowed, {compared}"
                    );
                }
                let upkeep = Upkeep {
                    cache: kept.path.clone(),
                    limit: settings.cache.size,
                    ahead: settings.background_fill,
                    offline: settings.offline,
                    counters: Arc::clone(&counters),
                };
                upkeep.begin(&opened, &given.runtime)?;
                let image = Arc::downgrade(&opened);
                let look = move || figures(&counters, image.upgrade().as_deref(), in_registry);
                given.figures.add(&shown, look);
                Ok(opened)
            }),
        })
    }
}

/// Tells the log of each tenth of a layer that is indexed.
fn log_progress() -> impl Fn(Progress) + Send + Sync {
    let told = Mutex::new(Vec::new());
    // Each layer has a thread.
    let span = Span::current();
    move |progress| {
        let tenths = progress.read.saturating_mul(10) / progress.size.max(1);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = progress.layers.max(told.len());
        told.resize(layers, 0);
        let Some(last) = told.get_mut(progress.layer).filter(|last| **last < tenths) else {
            return;
        };
        *last = tenths;
        tracing::info!(
            parent: &span,
            "indexing layer {} of {}: {}0 % of {} bytes",
            progress.layer.saturating_add(1),
            progress.layers,
            tenths,
            progress.size
        );
    }
}

/// The cache's folder, made unless it is there.
fn cache(settings: &ImageSettings) -> Result<PathBuf, Failure> {
    settings.cache.folder()
}

fn unusable(cache: &Path, error: &io::Error) -> Failure {
    Failure::run(format!(
        "cannot use the cache {}: {error}; choose another with --cache-dir",
        cache.display()
    ))
}
