//! The bucket's side of a volume over a store in memory, also one that fails.

mod checkpoints;
mod collect;
mod complete;
mod damage;
mod failures;
mod model;
mod oldest;
mod owners;
mod race;
mod sealed;
mod wild;

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use parking_lot::Mutex;
use vfsd_object_store::store::{Fault, FaultStore, Faults};
use vfsd_object_store::{RetryPolicy, Store};

use super::*;
use crate::meta::journal::Lsn;
use crate::quota::Quota;

/// What happens to requests now and then.
const FAULTS: [(Fault, u32); 7] = [
    (Fault::LostReply, 60),
    (Fault::Unavailable, 60),
    (Fault::Conflict, 40),
    (Fault::ShortBody, 60),
    (Fault::BrokenBody, 60),
    (Fault::Delay(Duration::from_secs(1)), 40),
    (Fault::Stall, 20),
];

/// A bucket that several daemons reach, each through faults of its own.
#[derive(Clone)]
struct Bucket(Arc<InMemory>);

/// What one daemon has of the bucket.
struct Way {
    store: Store,
    faults: Arc<FaultStore>,
}

impl Bucket {
    fn new() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    fn way(&self, per_mille: &[(Fault, u32)], seed: u64) -> Way {
        let faults = Faults {
            per_mille: per_mille.to_vec(),
            seed,
        };
        let faults = Arc::new(FaultStore::new(self.0.clone(), faults));
        let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(10));
        Way {
            store: Store::over(faults.clone(), policy),
            faults,
        }
    }

    fn steady(&self) -> Store {
        self.way(&[], 0).store
    }

    /// With a volume in it.
    async fn with_volume() -> Self {
        let bucket = Self::new();
        let root = vec![(1, b"root".to_vec())];
        Remote::create(&bucket.steady(), "vol", root, Quota::default())
            .await
            .unwrap();
        bucket
    }
}

fn opener(instance: &str, takeover: bool) -> Opener {
    Opener {
        takeover,
        ..Opener::new(instance, format!("host of {instance}"))
    }
}

async fn open(store: &Store, instance: &str, takeover: bool) -> Result<Opened, BucketError> {
    Remote::open(store, "vol", &opener(instance, takeover)).await
}

/// One more record, `text`.
fn record(remote: &Remote, text: &str) -> Sealed {
    let lsn = remote.end().lsn + 1;
    let records = vec![(lsn, text.as_bytes().to_vec())];
    let inline = remote.inline().unwrap();
    remote.seal(lsn, records, Vec::new(), inline).unwrap()
}

/// All records of a volume from the start, as whoever opens it next reads them.
async fn history(store: &Store) -> Vec<(Lsn, String)> {
    let opened = open(store, "reader", true).await.unwrap();
    let records = Mutex::new(Vec::new());
    let end = opened.remote.follow(Point::START, |object, point| {
        assert_eq!((object.seq, object.last), (point.seq, point.lsn));
        let text = |record| String::from_utf8(record).unwrap();
        let texts = object
            .records
            .into_iter()
            .map(|(lsn, record)| (lsn, text(record)));
        records.lock().extend(texts);
        Ok::<_, BucketError>(())
    });
    assert_eq!(end.await.unwrap(), opened.remote.end());
    records.into_inner()
}

/// A clock that is set by hand.
#[derive(Clone, Default)]
struct HandClock(Arc<Mutex<Duration>>);

impl HandClock {
    fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || *time.lock())
    }

    fn forward(&self, by: Duration) {
        *self.0.lock() += by;
    }
}
