//! Snapshots that a daemon makes by itself, so that what was removed or written over can be had back: one an hour for a day,
//! and one a day for as long as the volume says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::bucket::{BucketError, Remote, Term};

/// How the names of those snapshots begin.
const PREFIX: &str = "auto-";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// When it was last looked which snapshots there are.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Hours after 1970 by this host's clock.
    hour: AtomicU64,
}

/// What there is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The snapshot of this hour, if there is none.
    make: Option<String>,
    /// Those that are not needed any more.
    delete: Vec<String>,
}

impl Retention {
    /// Makes a snapshot of the checkpoint that was just stored, unless there is one of this hour, and deletes those that
    /// have been kept for long enough, by the store's clock: this host's may be wrong by years, and is asked only whether it is
    /// time to look.
    ///
    /// # Errors
    /// The store's. It is tried again after the next checkpoint.
    pub(super) async fn tend(&self, remote: &Remote, now: u64) -> Result<(), BucketError> {
        let view = remote.view().await;
        let hour = now / HOUR;
        let Some(days) = view.head().snapshot_days else {
            return Ok(());
        };
        if self.hour.load(Ordering::Relaxed) == hour {
            return Ok(());
        }
        let known = view.written_snapshots().await?.into_iter();
        let known: Vec<_> = known.map(|(name, at)| (name, since_1970(at))).collect();
        // The checkpoint is in it since a moment ago.
        let now = since_1970(view.last_change().await?);
        let Plan { make, delete } = plan(&known, now, days)?;
        if let Some(name) = make {
            view.snapshot(&name, Term::Lasting).await?;
            tracing::debug!(name, "volume: made a snapshot");
        }
        for name in delete {
            view.delete_snapshot(&name).await?;
        }
        self.hour.store(hour, Ordering::Relaxed);
        Ok(())
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What there is to be done with snapshots, each with the seconds after 1970 at which it was made.
fn plan(known: &[(String, u64)], now: u64, days: u32) -> Result<Plan, BucketError> {
    let name = name_at(now).map_err(|error| BucketError::Local {
        what: "the time",
        source: std::io::Error::other(error),
    })?;
    let is_there = known.iter().any(|(known, _)| *known == name);
    let own = known.iter().filter(|(name, _)| is_own(name));
    let mut own: Vec<&(String, u64)> = own.collect();
    own.sort_unstable_by_key(|(_, made)| *made);
    let longest = u64::from(days).saturating_mul(DAY);
    let mut delete = Vec::new();
    let mut last_day = None;
    for (name, made) in own {
        let age = now.saturating_sub(*made);
        // The first of a day stands for it.
        let is_first = last_day != Some(made / DAY);
        if age > longest || (age > DAY && !is_first) {
            delete.push(name.clone());
        } else {
            last_day = Some(made / DAY);
        }
    }
    Ok(Plan {
        make: (!is_there).then_some(name),
        delete,
    })
}

/// Whether a name is one that [`name_at`] gives. Others that begin so are an operator's.
fn is_own(name: &str) -> bool {
    let Some(time) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let lengths = time
        .split('-')
        .map(|part| digits(part).then_some(part.len()));
    lengths.eq([4, 2, 2, 2].map(Some))
}

/// The name of the snapshot of an hour, in UTC.
fn name_at(now: u64) -> rusqlite::Result<String> {
    let sql = "SELECT strftime(?1, ?2, 'unixepoch')";
    let format = format!("{PREFIX}%Y-%m-%d-%H");
    let seconds = i64::try_from(now).unwrap_or(i64::MAX);
    Connection::open_in_memory()?.query_row(sql, (format, seconds), |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use vfsd_object_store::{RetryPolicy, Store};

    use super::*;
    use crate::bucket::Opener;
    use crate::live::snapshot::snapshot_now;
    use crate::{Bucket, Volume, VolumeOptions};

    /// Makes snapshots as they are planned, at each hour with a change, and answers their names in the end.
    fn kept_after(hours: impl Iterator<Item = u64>, days: u32) -> Vec<String> {
        let mut known = vec![("by hand".to_owned(), 5), ("auto-5".to_owned(), 6)];
        for hour in hours {
            let now = hour * HOUR + 100;
            let Plan { make, delete } = plan(&known, now, days).unwrap();
            known.retain(|(name, _)| !delete.contains(name));
            known.extend(make.map(|name| (name, now)));
            let again = plan(&known, now + 5, days).unwrap();
            assert_eq!(again.make, None, "one an hour");
        }
        known.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn there_is_one_snapshot_an_hour_for_a_day_and_one_a_day_afterwards() {
        // 2026-11-01 00:00 and 30 days.
        let first = 1_793_491_200 / HOUR;
        let kept = kept_after(first..first + 30 * 24, 7);
        assert_eq!(kept[..2], ["by hand", "auto-5"]);
        let days: Vec<&String> = kept[2..]
            .iter()
            .filter(|name| name.ends_with("-00"))
            .collect();
        assert_eq!(days.first().unwrap().as_str(), "auto-2026-11-24-00");
        assert_eq!(days.len(), 7);
        assert_eq!(kept.last().unwrap(), "auto-2026-11-30-23");
        assert_eq!(kept.len(), 2 + 6 + 25, "{kept:?}");
    }

    #[test]
    fn hours_without_a_change_have_no_snapshot_and_old_ones_go_with_the_next() {
        let first = 1_793_491_200 / HOUR;
        let kept = kept_after([0, 5, 6, 200].map(|hour| first + hour).into_iter(), 2);
        assert_eq!(kept, ["by hand", "auto-5", "auto-2026-11-09-08"]);
        let kept = kept_after([0, 5, 6, 40].map(|hour| first + hour).into_iter(), 2);
        assert_eq!(
            kept,
            [
                "by hand",
                "auto-5",
                "auto-2026-11-01-00",
                "auto-2026-11-02-16"
            ]
        );
    }

    #[test]
    fn a_host_whose_clock_is_wrong_gives_no_snapshot_up() {
        const NAME: &str = "auto-2026-11-01-00";
        let store = Store::over(Arc::new(InMemory::new()), RetryPolicy::default());
        let runtime = vfsd_testkit::runtime().handle();
        let options = VolumeOptions::default();
        let made = Volume::create_remote(&store, "p", &options);
        runtime.block_on(made).unwrap();
        let set = Volume::change_remote_snapshot_days(&store, "p", Some(7));
        runtime.block_on(set).unwrap();
        let (bucket, scratch) = (Bucket::from(&store), tempfile::tempdir().unwrap());
        let what = (NAME, Term::Lasting);
        snapshot_now(&bucket, "p", what, scratch.path(), runtime).unwrap();
        let opener = Opener::new("one", "host");
        let opened = runtime
            .block_on(Remote::open(&store, "p", &opener))
            .unwrap();
        // In 1970, and in a hundred years.
        for now in [2 * HOUR, since_1970(SystemTime::now()) + 36_500 * DAY] {
            let tended = Retention::default();
            let tended = tended.tend(&opened.remote, now);
            runtime.block_on(tended).unwrap();
            let there = runtime.block_on(Volume::snapshots_remote(&store, "p"));
            let names: Vec<String> = there.unwrap().into_iter().map(|one| one.name).collect();
            assert_eq!(names, [NAME]);
        }
    }
}
