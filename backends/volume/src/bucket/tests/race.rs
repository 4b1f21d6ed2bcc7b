//! Daemons that take a volume from each other, over stores that fail.

use std::collections::HashMap;

use object_store::ObjectStore;

use super::model::{Daemon, text};
use super::wild::{Chance, Wild};
use super::*;

/// What a daemon was told to be in the bucket.
type Acknowledged = Arc<Mutex<Vec<(Point, Lsn, String)>>>;

struct Race {
    seed: u64,
    bucket: Bucket,
    acknowledged: Acknowledged,
}

impl Race {
    async fn new(seed: u64) -> Self {
        Self {
            seed,
            bucket: Bucket::with_volume().await,
            acknowledged: Arc::default(),
        }
    }

    fn store(&self, daemon: u64) -> Store {
        let seed = self.seed * 16 + daemon;
        let below: Arc<dyn ObjectStore> = self.bucket.0.clone();
        let wild = Arc::new(Wild::new(below, seed, 30));
        let faults = Faults {
            per_mille: FAULTS.to_vec(),
            seed,
        };
        let policy = RetryPolicy::new(Duration::from_secs(20), Duration::from_secs(5));
        Store::over(Arc::new(FaultStore::new(wild, faults)), policy)
    }

    /// Opens the volume, writes, is overtaken, opens it again.
    async fn daemon(&self, number: u64) {
        let chance = Chance::new(self.seed * 31 + number);
        let store = self.store(number);
        let mut written = 0;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(chance.below(3000))).await;
            // Ownership is always too old to be believed, so that an object may be deleted at any age.
            let clock = HandClock::default();
            let ticking = clock.clone();
            let opener = Opener {
                takeover: true,
                clock: Arc::new(move || {
                    ticking.forward(Duration::from_secs(3600));
                    *ticking.0.lock()
                }),
                ..Opener::new(format!("daemon {number}"), "host")
            };
            let mut daemon = match Daemon::open(&store, &opener).await {
                Ok(daemon) => daemon,
                Err(BucketError::Fenced(_) | BucketError::Store { .. }) => continue,
                Err(error) => panic!("seed {}: {error}", self.seed),
            };
            for _ in 0..6 {
                written += 1;
                match self.step(&mut daemon, &chance, number, written).await {
                    Ok(()) => {}
                    Err(ShipError::Fenced) => break,
                    Err(ShipError::Store(BucketError::Store { .. })) => {}
                    Err(error) => panic!("seed {}: {error}", self.seed),
                }
            }
            if chance.below(4) == 0 {
                // A daemon whose store fails at the end is one that was killed.
                let _ = daemon.remote.close().await;
            }
        }
    }

    async fn step(
        &self,
        daemon: &mut Daemon,
        chance: &Chance,
        number: u64,
        written: u64,
    ) -> Result<(), ShipError> {
        let (ino, text) = text(chance, number, written);
        let inline = chance.below(2) == 0;
        let point = daemon.write(ino, &text, inline).await?;
        self.acknowledged.lock().push((point, point.lsn, text));
        match chance.below(6) {
            0 => {
                daemon.checkpoint().await?;
            }
            1 => match daemon.collect().await {
                Ok(_) | Err(ShipError::Store(BucketError::Uncovered(_))) => {}
                Err(error) => return Err(error),
            },
            2 => tokio::time::sleep(Duration::from_millis(chance.below(5000))).await,
            _ => {}
        }
        Ok(())
    }

    /// What is in the bucket when all is over.
    async fn verify(&self) {
        // Late writes arrive.
        tokio::time::sleep(Duration::from_secs(200)).await;
        let store = self.bucket.steady();
        let daemon = Daemon::open(&store, &opener("judge", true)).await;
        let daemon = daemon.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let records: HashMap<Lsn, &str> = daemon
            .state
            .records
            .iter()
            .map(|(lsn, text)| (*lsn, text.as_str()))
            .collect();
        let total = u64::try_from(daemon.state.records.len()).unwrap();
        assert_eq!(total, daemon.remote.end().lsn, "seed {}", self.seed);
        let mut winners = HashMap::new();
        for (point, lsn, text) in self.acknowledged.lock().iter() {
            assert_eq!(records.get(lsn), Some(&text.as_str()), "seed {}", self.seed);
            let other = winners.insert(point.seq, text.clone());
            assert_eq!(other, None, "seed {}: two winners", self.seed);
        }
        daemon.verify_content().await;
        let view = daemon.remote.view().await;
        let report = view
            .check(daemon.state.frames(), CheckLevel::Content)
            .await
            .unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "seed {}", self.seed);
    }
}

async fn race(seeds: std::ops::Range<u64>, daemons: u64) -> usize {
    let mut acknowledged = 0;
    for seed in seeds {
        let race = Race::new(seed).await;
        let running = (0..daemons).map(|number| race.daemon(number));
        futures_util::future::join_all(running).await;
        race.verify().await;
        acknowledged += race.acknowledged.lock().len();
    }
    acknowledged
}

/// I1: whatever a log object names is in the bucket. I2: a checkpoint holds nothing newer than its point. I7: for one number at
/// most one daemon sees success.
#[tokio::test(start_paused = true)]
async fn i1_i2_i7_two_daemons_that_take_a_volume_from_each_other_lose_nothing() {
    let acknowledged = race(0..60, 2).await;
    assert!(acknowledged > 300, "{acknowledged}");
}

#[tokio::test(start_paused = true)]
async fn five_daemons_that_take_a_volume_from_each_other_lose_nothing() {
    let acknowledged = race(1000..1030, 5).await;
    assert!(acknowledged > 100, "{acknowledged}");
}

/// The long run.
#[tokio::test(start_paused = true)]
#[ignore = "takes minutes; run with --ignored"]
async fn a_thousand_races_of_three_daemons() {
    race(10_000..11_000, 3).await;
}
