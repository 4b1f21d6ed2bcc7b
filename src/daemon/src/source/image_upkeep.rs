//! What a daemon does for an image while it serves it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::Span;
use vfsd_oci::catalogue::{Catalogue, slack};
use vfsd_oci::content::ContentError;
use vfsd_oci::{Counters, OciImage, Stopped};

use crate::exit::Failure;

/// What was read of an image is made durable this often, so that a host that stops need not read it again.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// How often the size of the cache is looked at.
const SIZE_PERIOD: Duration = Duration::from_secs(5);

/// How long the guest waits for nothing before the rest of an image is fetched.
const QUIET: Duration = Duration::from_secs(1);

/// Requests for what was read at the last start that are under way at once.
const AT_ONCE: usize = 4;

/// What is to be done.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// The folder of the cache.
    pub(super) cache: PathBuf,
    /// Bytes that it may take.
    pub(super) limit: Option<u64>,
    /// What the guest will read, and in the end all, is made ready before it asks.
    pub(super) ahead: bool,
    /// No registry is to be asked.
    pub(super) offline: bool,
    /// What is counted of the image.
    pub(super) counters: Arc<Counters>,
}

impl Upkeep {
    /// Makes what is read durable now and then, says that the image is used, keeps the cache within its size, and
    /// fetches ahead; as long as the image is served.
    ///
    /// # Errors
    /// There can be no thread for it.
    pub(super) fn begin(self, image: &Arc<OciImage>, runtime: &Handle) -> Result<(), Failure> {
        // The log says which of several exports the image is, whoever writes it.
        let span = Span::current();
        let of_image = span.clone();
        let sync = move |image: &OciImage| of_image.in_scope(|| sync(image));
        runtime.spawn(every(SYNC_PERIOD, Arc::downgrade(image), sync));
        let bound = self
            .limit
            .map(|limit| Bound::new(&self.cache, limit, self.counters));
        let bound = bound.map(Arc::new);
        if let Some(bound) = bound.clone() {
            let (image, span) = (Arc::downgrade(image), span.clone());
            runtime.spawn(every(SIZE_PERIOD, image, move |_| {
                span.in_scope(|| bound.keep());
            }));
        }
        if !self.ahead {
            return Ok(());
        }
        let image = Arc::downgrade(image);
        std::thread::Builder::new()
            .name("image-ahead".to_owned())
            .spawn(move || {
                span.in_scope(|| fetch_ahead(&image, bound.as_deref(), self.offline));
            })
            .map(drop)
            .map_err(|error| Failure::run(format!("cannot start a thread: {error}")))
    }
}

/// First what was read at the last start, then the rest.
fn fetch_ahead(image: &Weak<OciImage>, bound: Option<&Bound>, offline: bool) {
    let failed = |error: &ContentError| {
        tracing::warn!("the image could not be fetched ahead of the guest: {error}");
    };
    let has_room = || bound.is_none_or(Bound::keep);
    if !has_room() {
        return;
    }
    match OciImage::prefetch(image, AT_ONCE) {
        Err(error) if !offline => failed(&error),
        _ => {}
    }
    if offline {
        return;
    }
    match OciImage::fetch_rest(image, QUIET, has_room, failed) {
        Stopped::Complete => tracing::info!("all of the image is on this host"),
        Stopped::Refused => tracing::info!("the rest of the image is left out: the cache is full"),
        // What is wrong was told when it was found.
        Stopped::Closed | Stopped::Refuted => {}
    }
}

/// Does something now and then, as long as the image is served.
async fn every(
    period: Duration,
    image: Weak<OciImage>,
    what: impl Fn(&OciImage) + Send + Sync + 'static,
) {
    let what = Arc::new(what);
    loop {
        tokio::time::sleep(period).await;
        let Some(image) = image.upgrade() else {
            return;
        };
        let what = Arc::clone(&what);
        if tokio::task::spawn_blocking(move || what(&image))
            .await
            .is_err()
        {
            return;
        }
    }
}

fn sync(image: &OciImage) {
    image.tick();
    if let Err(error) = image.lease().renew() {
        tracing::warn!("the image's cache does not know that it is used: {error}");
    }
    for content in image.contents() {
        if let Err(error) = content.sync() {
            tracing::warn!("the image's cache is not durable: {error}");
        }
    }
}

/// A cache that is to stay within a size.
#[derive(Debug)]
pub(super) struct Bound {
    catalogue: Catalogue,
    limit: u64,
    counters: Arc<Counters>,
    warned: std::sync::atomic::AtomicBool,
}

impl Bound {
    pub(super) fn new(cache: impl AsRef<Path>, limit: u64, counters: Arc<Counters>) -> Self {
        Self {
            catalogue: Catalogue::new(cache.as_ref()),
            limit,
            counters,
            warned: false.into(),
        }
    }

    /// Removes what is too much, and says whether there is room for more than the guest asks for: what is in use is not
    /// taken away for that.
    pub(super) fn keep(&self) -> bool {
        let warn = |text: String| {
            if !self.warned.swap(true, std::sync::atomic::Ordering::Relaxed) {
                tracing::warn!("{text}");
            }
        };
        let evicted = self.catalogue.evict(self.limit);
        if let Ok(evicted) = &evicted {
            self.counters.evicted(evicted.bytes);
        }
        match evicted {
            Ok(evicted) if evicted.left <= self.limit => {
                evicted.left.saturating_add(slack(self.limit)) <= self.limit
            }
            Ok(evicted) => {
                warn(format!(
                    "the cache of images takes {} bytes instead of {}: what it has is in use",
                    evicted.left, self.limit
                ));
                false
            }
            Err(error) => {
                warn(format!("the cache of images cannot be kept small: {error}"));
                false
            }
        }
    }
}
