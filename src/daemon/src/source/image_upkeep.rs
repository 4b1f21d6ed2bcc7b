//! What a daemon does for an image while it serves it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use vfsd_oci::OciImage;
use vfsd_oci::catalogue::Catalogue;

/// What was read of an image is made durable this often, so that a host that stops need not read it again.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// How often the size of the cache is looked at.
const SIZE_PERIOD: Duration = Duration::from_secs(5);

/// Makes what is read durable now and then, says that the image is used, and keeps the cache within its size.
pub(super) fn look_after(
    image: &Arc<OciImage>,
    cache: PathBuf,
    limit: Option<u64>,
    runtime: &Handle,
) {
    let again = Arc::downgrade(image);
    runtime.spawn(every(SYNC_PERIOD, again, sync));
    if let Some(limit) = limit {
        let bound = Bound::new(cache, limit);
        let again = Arc::downgrade(image);
        runtime.spawn(every(SIZE_PERIOD, again, move |_| {
            bound.keep();
        }));
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
    warned: std::sync::atomic::AtomicBool,
}

impl Bound {
    pub(super) fn new(cache: impl AsRef<Path>, limit: u64) -> Self {
        Self {
            catalogue: Catalogue::new(cache.as_ref()),
            limit,
            warned: false.into(),
        }
    }

    /// Removes what is too much, and says whether there is room now.
    pub(super) fn keep(&self) -> bool {
        let warn = |text: String| {
            if !self.warned.swap(true, std::sync::atomic::Ordering::Relaxed) {
                tracing::warn!("{text}");
            }
        };
        match self.catalogue.evict(self.limit) {
            Ok(evicted) if evicted.left <= self.limit => true,
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
