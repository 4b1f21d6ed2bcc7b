//! Snapshots: pins of checkpoints. What a pinned checkpoint names is not removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::damage::Damage;
use super::error::BucketError;
use super::head::{Checkpoint, Head, Hex};
use super::place::Point;
use super::remote::host_clock;
use super::view::View;

type Result<T> = std::result::Result<T, BucketError>;

const MAX_BYTES: u64 = 64 << 10;
const MAX_NAME_BYTES: usize = 200;
/// Within this time no clean-up removes what was just stored.
const LONGEST: Duration = Duration::from_secs(1800);
/// How often who needs a temporary snapshot renews it.
pub(crate) const RENEWAL: Duration = Duration::from_secs(3600);
/// A temporary snapshot that was not renewed for so long is given up: nobody needs it any more.
pub(crate) const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// How the names of snapshots began that held what was copied, before those were known by [`Snapshot::temporary`]: the number of
/// a process followed.
const COPYING: &str = "copying-";

/// For how long a snapshot is meant to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Until it is deleted.
    Lasting,
    /// While somebody reads what it holds, and renews it.
    Temporary,
}

/// A checkpoint that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    uuid: Hex<16>,
    /// What it is called: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// When it was made, in seconds after 1970.
    pub made: u64,
    /// What stays.
    pub checkpoint: Checkpoint,
    /// It holds what is read for a while, by a clone for one: it goes a day after it was last renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
    /// How often it was renewed.
    #[serde(default, skip_serializing_if = "is_zero")]
    renewals: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Snapshot {
    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec_pretty(self).unwrap_or_default().into()
    }

    /// Whether it goes when nobody renews it.
    fn is_temporary(&self) -> bool {
        let process = self.name.strip_prefix(COPYING);
        let of_process = |number: &str| {
            (1..=10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        self.temporary || process.is_some_and(of_process)
    }
}

impl View {
    /// Pins the checkpoint that HEAD names. `None` where there is no checkpoint yet.
    ///
    /// # Errors
    /// A name that cannot be one or that is taken ([`BucketError::Taken`]), a checkpoint that was replaced meanwhile
    /// ([`BucketError::Gone`]: look at the volume again), or the store's failure.
    pub async fn snapshot(&self, name: &str, term: Term) -> Result<Option<Snapshot>> {
        let Some(checkpoint) = self.head.checkpoint.clone() else {
            return Ok(None);
        };
        let id = checkpoint.id;
        // A clean-up that began before the pin stood protects the checkpoint of HEAD at its beginning, and that only.
        let stands = |head: &Head| head.checkpoint.as_ref().is_some_and(|now| now.id == id);
        self.pin((name, term), checkpoint, stands).await.map(Some)
    }

    /// Stores `file`, all rows as they are at the point `at` of the chain, and pins that. Anybody may do so while a daemon has
    /// the volume.
    ///
    /// # Errors
    /// As those of [`snapshot`](Self::snapshot): [`BucketError::Gone`] where HEAD's checkpoint lies behind the point.
    pub async fn snapshot_of(
        &self,
        name: &str,
        term: Term,
        file: &Path,
        at: Point,
    ) -> Result<Snapshot> {
        check_name(name)?;
        let clock = host_clock();
        let begun = clock();
        let checkpoint = checkpoint::store_parts(&self.objects, self.uuid(), file, at).await?;
        // What it names is named by HEAD's checkpoint or the log after that, too, which each clean-up protects that began before
        // the pin stood; the parts are too young for any, unless this took very long.
        let stands = |head: &Head| {
            let took = clock().checked_sub(begun);
            head.base().seq <= at.seq && took.is_some_and(|took| took < LONGEST)
        };
        self.pin((name, term), checkpoint, stands).await
    }

    async fn pin(
        &self,
        (name, term): (&str, Term),
        checkpoint: Checkpoint,
        stands: impl Fn(&Head) -> bool,
    ) -> Result<Snapshot> {
        check_name(name)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let snapshot = Snapshot {
            uuid: self.head.uuid,
            name: name.to_owned(),
            made: now.map_or(0, |since| since.as_secs()),
            checkpoint,
            temporary: term == Term::Temporary,
            renewals: 0,
        };
        let key = self.objects.names.snapshot(name);
        if !self.objects.create(&key, snapshot.to_bytes()).await? {
            return Err(BucketError::Taken(name.to_owned()));
        }
        match self.refreshed().await {
            Ok(now) if stands(&now.head) => return Ok(snapshot),
            Ok(_) => {}
            // It may hold or not: it is given up.
            Err(error) => {
                self.delete_snapshot(name).await?;
                return Err(error);
            }
        }
        self.delete_snapshot(name).await?;
        Err(BucketError::Gone(snapshot.checkpoint.at.seq))
    }

    /// The snapshot of a name, if there is one.
    ///
    /// # Errors
    /// A name that cannot be one, a snapshot that is damaged, or the store's failure.
    pub async fn find_snapshot(&self, name: &str) -> Result<Option<Snapshot>> {
        check_name(name)?;
        let read = self.read_snapshot(name).await?;
        Ok(read.map(|(snapshot, _)| snapshot))
    }

    /// All snapshots, in the order of their names.
    ///
    /// # Errors
    /// One of them is damaged, or the store failed.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let names = self.written_snapshots().await?;
        let mut snapshots = Vec::with_capacity(names.len());
        for (name, _) in names {
            let read = self.read_snapshot(&name).await?;
            snapshots.extend(read.map(|(snapshot, _)| snapshot));
        }
        Ok(snapshots)
    }

    /// Says that a temporary snapshot is needed still. `false` where it is gone.
    ///
    /// # Errors
    /// The store's failure, or a snapshot that is damaged.
    pub async fn renew_snapshot(&self, name: &str) -> Result<bool> {
        let Some((mut snapshot, version)) = self.read_snapshot(name).await? else {
            return Ok(false);
        };
        snapshot.renewals = snapshot.renewals.saturating_add(1);
        let key = self.objects.names.snapshot(name);
        let bytes = snapshot.to_bytes();
        // Nobody else renews it: where it is no longer the same, it was given up.
        let renewed = self.objects.replace(&key, bytes, version).await?;
        Ok(renewed.is_some())
    }

    /// Gives temporary snapshots up that were not renewed for `age`, in production a day: whoever needed them ended
    /// without a word. How many. Ages are told by the store's clock.
    ///
    /// # Errors
    /// One of them is damaged, or the store failed.
    pub async fn drop_abandoned(&self, age: Duration) -> Result<u64> {
        let mut dropped = 0_u64;
        for name in self.abandoned(age).await? {
            self.delete_snapshot(&name).await?;
            dropped = dropped.saturating_add(1);
        }
        Ok(dropped)
    }

    /// Names of the snapshots that [`drop_abandoned`](Self::drop_abandoned) gives up.
    ///
    /// # Errors
    /// As those of [`drop_abandoned`](Self::drop_abandoned).
    pub async fn abandoned(&self, age: Duration) -> Result<BTreeSet<String>> {
        let found = self.written_snapshots().await?;
        if found.is_empty() {
            return Ok(BTreeSet::new());
        }
        // It is at least as late as when anything was written.
        let written = found.iter().map(|(_, written)| *written);
        let now = written.chain([self.last_change().await?]).max();
        let mut abandoned = BTreeSet::new();
        for (name, written) in found {
            let since = now.and_then(|now| now.duration_since(written).ok());
            if since.is_none_or(|since| since < age) {
                continue;
            }
            let read = self.read_snapshot(&name).await?;
            if read.is_some_and(|(snapshot, _)| snapshot.is_temporary()) {
                abandoned.insert(name);
            }
        }
        Ok(abandoned)
    }

    /// The names of all snapshots, and when each was made or renewed by the store's clock.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn written_snapshots(&self) -> Result<Vec<(String, SystemTime)>> {
        let (known, mut found) = (&self.objects.names, Vec::new());
        self.objects
            .list("snap/", None, |object| {
                let name = known.parse_snapshot(&object.key).map(str::to_owned);
                found.extend(name.map(|name| (name, object.modified)));
            })
            .await?;
        Ok(found)
    }

    /// When HEAD was written last by the store's clock.
    ///
    /// # Errors
    /// The volume is no longer there, or the store failed.
    pub(crate) async fn last_change(&self) -> Result<SystemTime> {
        let head = self.objects.look(&self.objects.names.head()).await?;
        let missing = || BucketError::Missing(self.objects.place.clone());
        let (_, written) = head.ok_or_else(missing)?;
        Ok(written)
    }

    /// `None` where it was deleted meanwhile.
    async fn read_snapshot(&self, name: &str) -> Result<Option<(Snapshot, UpdateVersion)>> {
        let key = self.objects.names.snapshot(name);
        let Some((bytes, version)) = self.objects.read(&key, MAX_BYTES).await? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Snapshot>(&bytes) {
            Ok(snapshot) if snapshot.uuid == self.head.uuid => Ok(Some((snapshot, version))),
            _ => Err(BucketError::damaged(key)(Damage(
                "it is no snapshot of this volume",
            ))),
        }
    }

    /// Gives a snapshot up: a later clean-up removes what it alone held. `false` where there was none.
    ///
    /// # Errors
    /// A name that cannot be one, or the store's failure.
    pub async fn delete_snapshot(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let key = self.objects.names.snapshot(name);
        let there = self.objects.look(&key).await?.is_some();
        match self.objects.delete(vec![key]).await {
            (_, None) => Ok(there),
            (_, Some(error)) => Err(error),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let length = (1..=MAX_NAME_BYTES).contains(&name.len());
    match length && name.bytes().all(allowed) && !name.starts_with('.') {
        true => Ok(()),
        false => Err(BucketError::Name(name.to_owned())),
    }
}
