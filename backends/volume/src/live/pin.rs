//! Snapshots that hold what is read for a while.
//!
//! Who reads a volume that somebody else has, to copy or to show it, keeps what it reads from being removed by a snapshot of
//! its own. It is renewed while it is needed, so that one whose owner was killed is known by its age.

use std::io;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::bucket::{RENEWAL, Snapshot, View};

/// Nobody waits longer for a store that does not answer: the snapshot goes by its age.
const LONGEST_END: Duration = Duration::from_secs(5);

/// A snapshot that is given up when this value is dropped, which blocks the thread: it may be none of the runtime.
#[derive(Debug)]
pub(crate) struct Pin {
    view: View,
    snapshot: Snapshot,
    runtime: Handle,
    renewing: JoinHandle<()>,
}

impl Pin {
    /// A name for a snapshot that no other has.
    ///
    /// # Errors
    /// There are no random bytes.
    pub(super) fn name(purpose: &str) -> io::Result<String> {
        Ok(format!("{purpose}-{:032x}", super::open::random()?))
    }

    /// Renews a temporary snapshot for as long as this value is there.
    pub(super) fn new(view: View, snapshot: Snapshot, runtime: &Handle) -> Self {
        Self::renewed(RENEWAL, view, snapshot, runtime)
    }

    pub(super) fn renewed(
        every: Duration,
        view: View,
        snapshot: Snapshot,
        runtime: &Handle,
    ) -> Self {
        let renewing = renew(every, view.clone(), snapshot.name.clone());
        Self {
            renewing: runtime.spawn(renewing.in_current_span()),
            view,
            snapshot,
            runtime: runtime.clone(),
        }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.renewing.abort();
        let name = &self.snapshot.name;
        let given_up = self.runtime.block_on(async {
            let deleting = self.view.delete_snapshot(name);
            tokio::time::timeout(LONGEST_END, deleting).await
        });
        let stays = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, snapshot = name, "volume: a temporary snapshot stays for a day");
        };
        match given_up {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => stays(&error),
            Err(error) => stays(&error),
        }
    }
}

async fn renew(every: Duration, view: View, name: String) {
    loop {
        tokio::time::sleep(every).await;
        match view.renew_snapshot(&name).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    snapshot = name,
                    "volume: the snapshot that held what is read is gone: what the volume no longer needs is removed"
                );
                return;
            }
            // It stands for a day.
            Err(error) => {
                tracing::warn!(%error, snapshot = name, "volume: a snapshot was not renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use vfsd_object_store::{RetryPolicy, Store};

    use super::*;
    use crate::bucket::Term;
    use crate::live::snapshot::snapshot_now;
    use crate::{Bucket, Volume, VolumeOptions};

    #[test]
    fn what_is_held_is_renewed_and_then_given_up() {
        let store = Store::over(Arc::new(InMemory::new()), RetryPolicy::default());
        let runtime = vfsd_testkit::runtime().handle();
        let options = VolumeOptions::default();
        let made = Volume::create_remote(&store, "p", &options);
        runtime.block_on(made).unwrap();
        let (bucket, scratch) = (Bucket::from(&store), tempfile::tempdir().unwrap());
        let name = Pin::name("reading").unwrap();
        assert_ne!(name, Pin::name("reading").unwrap());
        let what = (name.as_str(), Term::Temporary);
        let made = snapshot_now(&bucket, "p", what, scratch.path(), runtime).unwrap();
        let view = runtime.block_on(View::open(&bucket, "p")).unwrap();
        let pin = Pin::renewed(Duration::from_millis(1), view.clone(), made, runtime);
        let find = || runtime.block_on(view.find_snapshot(&name)).unwrap();
        let renewed = (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            find().is_some_and(|found| found != *pin.snapshot())
        });
        assert!(renewed, "it is another object than it was");
        drop(pin);
        assert_eq!(find(), None);
    }
}
