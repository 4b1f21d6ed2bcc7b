//! Snapshots: pins of checkpoints. What a pinned checkpoint names is not removed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::error::BucketError;
use super::head::{Checkpoint, Hex};
use super::view::View;

type Result<T> = std::result::Result<T, BucketError>;

const MAX_BYTES: u64 = 64 << 10;
const MAX_NAME_BYTES: usize = 200;

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
}

impl View {
    /// Pins the checkpoint that HEAD names. To have the present state of the volume, its owner makes a checkpoint first.
    /// `None` where there is no checkpoint yet.
    ///
    /// # Errors
    /// A name that cannot be one or that is taken ([`BucketError::Exists`]), a checkpoint that was replaced meanwhile
    /// ([`BucketError::Gone`]: look at the volume again), or the store's failure.
    pub async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>> {
        check_name(name)?;
        let Some(checkpoint) = self.head.checkpoint.clone() else {
            return Ok(None);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let snapshot = Snapshot {
            uuid: self.head.uuid,
            name: name.to_owned(),
            made: now.map_or(0, |since| since.as_secs()),
            checkpoint,
        };
        let key = self.objects.names.snapshot(name);
        let bytes = serde_json::to_vec_pretty(&snapshot).unwrap_or_default();
        if !self.objects.create(&key, bytes.into()).await? {
            return Err(BucketError::Exists(key.to_string().into()));
        }
        // A clean-up that began before the pin stood protects the checkpoint of HEAD at its beginning, and that only.
        let now = self.refreshed().await?;
        let same = |other: &Checkpoint| other.id == snapshot.checkpoint.id;
        if now.head.checkpoint.as_ref().is_some_and(same) {
            return Ok(Some(snapshot));
        }
        self.delete_snapshot(name).await?;
        Err(BucketError::Gone(snapshot.checkpoint.at.seq))
    }

    /// All snapshots, in the order of their names.
    ///
    /// # Errors
    /// One of them is damaged, or the store failed.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut names = Vec::new();
        let known = &self.objects.names;
        self.objects
            .list("snap/", None, |object| {
                names.extend(known.parse_snapshot(&object.key).map(str::to_owned));
            })
            .await?;
        let mut snapshots = Vec::with_capacity(names.len());
        for name in names {
            snapshots.extend(self.read_snapshot(&name).await?);
        }
        Ok(snapshots)
    }

    /// `None` where it was deleted meanwhile.
    async fn read_snapshot(&self, name: &str) -> Result<Option<Snapshot>> {
        let key = self.objects.names.snapshot(name);
        let Some((bytes, _)) = self.objects.read(&key, MAX_BYTES).await? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Snapshot>(&bytes) {
            Ok(snapshot) if snapshot.uuid == self.head.uuid => Ok(Some(snapshot)),
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
