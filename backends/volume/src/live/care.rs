//! Care of what is in the bucket: checkpoints, from which other hosts begin, and the removal of what nothing names any
//! more. Both happen beside the rounds: no round waits for them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::Live;
use super::extents::{live_bytes, objects};
use super::local::Local;
use super::open::RemoteOptions;
use super::retention::Retention;
use super::shipped::Shipping;
use crate::bucket::{ABANDONED, Checkpoint, Named, ObjectId, Remote, ShipError};

/// A checkpoint is made after this time, if anything was appended to the log.
const CHECKPOINT_AGE: Duration = Duration::from_secs(600);
/// Daemons that end early make no checkpoint: one that finds so many log objects makes one first of all.
const LONG_LOG: u64 = 500;

/// When the next checkpoint is due, and the last one.
#[derive(Debug)]
pub(super) struct Care {
    /// A checkpoint is due after so many bytes of log.
    after: u64,
    /// Bytes of log since the last one.
    logged: u64,
    last: Instant,
    cleaning: Cleaning,
    retention: Arc<Retention>,
    under_way: Option<UnderWay>,
}

/// When objects are removed.
#[derive(Debug, Clone, Copy)]
struct Cleaning {
    every: Duration,
    min_age: Duration,
}

/// A checkpoint that is being stored, and the clean-up that follows.
#[derive(Debug)]
struct UnderWay {
    /// Ends when the checkpoint is stored, or was not.
    stored: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl Care {
    pub(super) fn new(options: &RemoteOptions, remote: &Remote) -> Self {
        let head = options.runtime.block_on(remote.head());
        let log = remote.end().seq.saturating_sub(head.base().seq);
        Self {
            after: options.checkpoint_after,
            logged: if log < LONG_LOG {
                0
            } else {
                options.checkpoint_after
            },
            last: Instant::now(),
            cleaning: Cleaning {
                every: options.clean_every,
                min_age: options.clean_age,
            },
            retention: Arc::default(),
            under_way: None,
        }
    }

    /// So many bytes of log were appended.
    pub(super) fn logged(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.logged = self.logged.saturating_add(bytes);
    }

    /// Stores the shipped image, from which another host begins, if the log has become long.
    pub(super) fn checkpoint_if_due(&mut self, live: &Live, shipping: &Shipping, local: &Local) {
        let old = self.logged > 0 && self.last.elapsed() >= CHECKPOINT_AGE;
        let busy = self
            .under_way
            .as_ref()
            .is_some_and(|one| !one.task.is_finished());
        if (self.logged < self.after && !old) || busy {
            return;
        }
        (self.logged, self.last) = (0, Instant::now());
        let path = local.checkpoint();
        let removed = local.remove_checkpoint().map_err(vfsd_backend::Error::from);
        if let Err(error) = removed.and_then(|()| shipping.copy(&path)) {
            tracing::warn!(%error, "volume: no checkpoint was made");
            return;
        }
        let (remote, point) = (live.remote.clone(), shipping.point());
        let (local, cleaning) = (local.clone(), self.cleaning);
        let (sparse_later, retention) = (live.sparse.clone(), self.retention.clone());
        let (done, stored) = oneshot::channel();
        let task = async move {
            let stored = remote.checkpoint(&path, point).await;
            if stored.is_ok()
                && let Err(error) = retention.tend(&remote, since_1970().as_secs()).await
            {
                tracing::warn!(%error, "volume: the snapshots of the last hours are not as they should be");
            }
            let named = match stored {
                Ok(checkpoint) if cleaning.is_due(&local) => named_here(&path, &checkpoint).await,
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "volume: no checkpoint was stored");
                    None
                }
            };
            if let Err(error) = local.remove_checkpoint() {
                tracing::debug!(%error, "volume: the copy for a checkpoint stays");
            }
            let _ = done.send(());
            if let Some(named) = named {
                let sparse = cleaning.clean(&remote, &local, named).await;
                sparse_later.lock().extend(sparse);
            }
        };
        let task = live.runtime.spawn(task.in_current_span());
        self.under_way = Some(UnderWay { stored, task });
    }

    /// Waits until the checkpoint that is under way is stored. A clean-up ends where it is.
    pub(super) fn finish(&mut self, live: &Live) {
        if let Some(UnderWay { stored, task }) = self.under_way.take() {
            live.runtime.block_on(async {
                // Failures were told.
                let _ = stored.await;
                task.abort();
                let _ = task.await;
            });
        }
    }
}

/// What the extents in the file of HEAD's checkpoint name.
pub(super) fn named_in(path: &Path, checkpoint: u64) -> std::io::Result<Named> {
    let live = live_bytes(path)?;
    Ok(Named {
        checkpoints: [checkpoint].into(),
        objects: live.keys().copied().collect(),
        live,
        ..Named::default()
    })
}

/// What the extents of a checkpoint that is here name.
async fn named_here(path: &Path, checkpoint: &Checkpoint) -> Option<Named> {
    let path = path.to_owned();
    let id = checkpoint.id;
    let read = tokio::task::spawn_blocking(move || named_in(&path, id)).await;
    match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(named) => Some(named),
        Err(error) => {
            tracing::warn!(%error, "volume: a checkpoint cannot be read, nothing is removed from the bucket");
            None
        }
    }
}

impl Cleaning {
    /// Whether the last clean-up was long ago: one of an earlier daemon of this host counts.
    fn is_due(self, local: &Local) -> bool {
        let last = local.last_cleaning().map(Duration::from_secs);
        match last.and_then(|last| since_1970().checked_sub(last)) {
            Some(since) => since >= self.every,
            // There was none, or the clock was set back.
            None => true,
        }
    }

    /// Answers the objects whose content is worth moving.
    async fn clean(self, remote: &Arc<Remote>, local: &Local, named: Named) -> Vec<ObjectId> {
        let view = remote.view().await;
        if let Err(error) = view.drop_abandoned(ABANDONED).await {
            tracing::warn!(%error, "volume: snapshots that nobody needs any more stay");
        }
        let named = view.named(local.path(), named, objects).await;
        let cleaned = match named {
            Ok(named) => remote.collect(&named, self.min_age).await,
            Err(error) => Err(error.into()),
        };
        match cleaned {
            Ok(mut cleaned) => {
                let removed = cleaned.removed();
                tracing::info!(
                    objects = removed.objects,
                    bytes = removed.bytes,
                    "volume: removed from the bucket what is not needed any more"
                );
                if let Some(error) = &cleaned.failure {
                    tracing::warn!(%error, objects = cleaned.failed, "volume: objects cannot be deleted");
                }
                if let Err(error) = local.write_last_cleaning(since_1970().as_secs()) {
                    tracing::debug!(%error, "volume: the time of a clean-up is not kept");
                }
                std::mem::take(&mut cleaned.sparse)
            }
            // The rounds tell of it.
            Err(ShipError::Fenced) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "volume: what is not needed any more stays in the bucket");
                Vec::new()
            }
        }
    }
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}
