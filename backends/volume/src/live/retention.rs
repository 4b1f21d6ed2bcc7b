//! Snapshots that a daemon makes by itself, so that what was removed or written over can be had back: one an hour for a day,
//! and one a day for as long as the volume says.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use crate::bucket::{BucketError, Remote, Snapshot, Term};

/// How the names of those snapshots begin.
const PREFIX: &str = "auto-";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// When it was last looked which snapshots there are.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Hours after 1970.
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
    /// have been kept for long enough. `now` is in seconds after 1970.
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
        let Plan { make, delete } = plan(&view.snapshots().await?, now, days)?;
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

fn plan(known: &[Snapshot], now: u64, days: u32) -> Result<Plan, BucketError> {
    let name = name_at(now).map_err(|error| BucketError::Local {
        what: "the time",
        source: std::io::Error::other(error),
    })?;
    let is_there = known.iter().any(|snapshot| snapshot.name == name);
    let own = known.iter().filter(|one| one.name.starts_with(PREFIX));
    let mut own: Vec<&Snapshot> = own.collect();
    own.sort_unstable_by_key(|one| one.made);
    let longest = u64::from(days).saturating_mul(DAY);
    let mut delete = Vec::new();
    let mut last_day = None;
    for one in own {
        let age = now.saturating_sub(one.made);
        // The first of a day stands for it.
        let is_first = last_day != Some(one.made / DAY);
        if age > longest || (age > DAY && !is_first) {
            delete.push(one.name.clone());
        } else {
            last_day = Some(one.made / DAY);
        }
    }
    Ok(Plan {
        make: (!is_there).then_some(name),
        delete,
    })
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
    use super::*;

    /// Makes snapshots as they are planned, at each hour with a change, and answers their names in the end.
    fn kept_after(hours: impl Iterator<Item = u64>, days: u32) -> Vec<String> {
        let mut known: Vec<Snapshot> = vec![Snapshot::named("by hand", 5)];
        for hour in hours {
            let now = hour * HOUR + 100;
            let Plan { make, delete } = plan(&known, now, days).unwrap();
            known.retain(|snapshot| !delete.contains(&snapshot.name));
            known.extend(make.map(|name| Snapshot::named(&name, now)));
            let again = plan(&known, now + 5, days).unwrap();
            assert_eq!(again.make, None, "one an hour");
        }
        known.into_iter().map(|snapshot| snapshot.name).collect()
    }

    #[test]
    fn there_is_one_snapshot_an_hour_for_a_day_and_one_a_day_afterwards() {
        // 2026-11-01 00:00 and 30 days.
        let first = 1_793_491_200 / HOUR;
        let kept = kept_after(first..first + 30 * 24, 7);
        assert_eq!(kept.first().unwrap(), "by hand");
        let days: Vec<&String> = kept[1..]
            .iter()
            .filter(|name| name.ends_with("-00"))
            .collect();
        assert_eq!(days.first().unwrap().as_str(), "auto-2026-11-24-00");
        assert_eq!(days.len(), 7);
        assert_eq!(kept.last().unwrap(), "auto-2026-11-30-23");
        assert_eq!(kept.len(), 1 + 6 + 25, "{kept:?}");
    }

    #[test]
    fn hours_without_a_change_have_no_snapshot_and_old_ones_go_with_the_next() {
        let first = 1_793_491_200 / HOUR;
        let kept = kept_after([0, 5, 6, 200].map(|hour| first + hour).into_iter(), 2);
        assert_eq!(kept, ["by hand", "auto-2026-11-09-08"]);
        let kept = kept_after([0, 5, 6, 40].map(|hour| first + hour).into_iter(), 2);
        assert_eq!(
            kept,
            ["by hand", "auto-2026-11-01-00", "auto-2026-11-02-16"]
        );
    }
}
