//! What a volume is, and who owns it: `volume.json`, which never changes, and `HEAD`, the only object that does.

use bytes::Bytes;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};

use super::cipher::Encryption;
use super::damage::Damage;
use super::error::BucketError;
use super::log::Uuid;
use super::objects::{Found, Objects};
use super::place::{ChainHash, Point};
use crate::quota::Quota;

type Result<T> = std::result::Result<T, BucketError>;

/// Version of the layout of a bucket.
const FORMAT: u32 = 1;
/// What a reader has to know of an encrypted volume.
const ENCRYPTION: &str = "encryption";
/// Neither object is longer.
const MAX_BYTES: u64 = 64 << 10;

/// `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    format: u32,
    uuid: Hex<16>,
    /// What a reader has to know beyond the format.
    features: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<Encryption>,
}

impl Description {
    pub(super) fn uuid(&self) -> Uuid {
        self.uuid.0
    }
}

/// `HEAD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of the volume.
    pub(super) uuid: Hex<16>,
    /// Counts the daemons that had the volume.
    pub epoch: u64,
    /// Of the daemon of this epoch, told in all its log objects.
    pub(super) nonce: Hex<16>,
    /// Who has the volume; nobody after it was closed.
    pub owner: Option<Owner>,
    /// Where reading begins; at the first log object where there is none.
    pub checkpoint: Option<Checkpoint>,
    /// Log objects before this number may be gone.
    pub boundary: u64,
    /// How much the volume may hold: anybody may change it.
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub quota: Quota,
    /// For how many days the snapshots are kept that the owner makes by itself: anybody may change it. Without a number it
    /// makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_days: Option<u32>,
}

/// A daemon that has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which local directory it has for the volume: whoever holds that one's lock may go on in its place.
    pub instance: String,
    /// Its host's name, for messages.
    pub host: String,
    /// Since when, in seconds after 1970 by the host's clock.
    pub since: u64,
}

/// A checkpoint: all rows as they were at a point of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What of the chain is in it.
    #[serde(flatten)]
    pub at: Point,
    /// Tells checkpoints of the same point apart.
    pub id: u64,
    /// So many objects.
    pub parts: u32,
    /// Bytes in them, and in the file.
    pub stored: u64,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of the file.
    pub digest: ChainHash,
}

impl Head {
    pub(super) fn is_of(&self, epoch: u64, nonce: u128) -> bool {
        self.epoch == epoch && self.nonce == nonce.to_le_bytes().into()
    }

    /// Where reading begins.
    pub fn base(&self) -> Point {
        self.checkpoint
            .as_ref()
            .map_or(Point::START, |checkpoint| checkpoint.at)
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        json(self)
    }
}

/// Which volume it is.
pub(super) async fn read_description(objects: &Objects) -> Result<Option<Description>> {
    let key = objects.names.volume();
    let Some((bytes, _)) = objects.read(&key, MAX_BYTES).await? else {
        return Ok(None);
    };
    let newer = |what| BucketError::Newer {
        place: objects.place.clone(),
        what,
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |_| BucketError::damaged(&key)(Damage("it is not what a vfsd writes"));
    let format: Format = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format.format != FORMAT {
        return Err(newer(format!("format {}", format.format)));
    }
    let description: Description = serde_json::from_slice(&bytes).map_err(damaged)?;
    let known = |feature: &&String| *feature == ENCRYPTION;
    let unknown = description.features.iter().find(|feature| !known(feature));
    match unknown {
        Some(feature) => Err(newer(format!("'{}'", feature.escape_default()))),
        None => Ok(Some(description)),
    }
}

/// Says which volume it is, and how it is encrypted, once and for all. `false`: that was said already.
pub(super) async fn write_description(objects: &Objects, uuid: Uuid) -> Result<bool> {
    let encryption = objects.encryption.clone();
    let description = Description {
        format: FORMAT,
        uuid: uuid.into(),
        features: encryption.iter().map(|_| ENCRYPTION.to_owned()).collect(),
        encryption,
    };
    objects
        .create(&objects.names.volume(), json(&description))
        .await
}

/// The head, if it is no longer the one that is known.
pub(super) enum Changed {
    No,
    To(Box<Head>, UpdateVersion),
    Gone,
}

pub(super) async fn read_head(
    objects: &Objects,
    uuid: Uuid,
    known: Option<&UpdateVersion>,
) -> Result<Changed> {
    let key = objects.names.head();
    let (bytes, version) = match objects.read_unless(&key, MAX_BYTES, known).await? {
        Found::Other(bytes, version) => (bytes, version),
        Found::Same => return Ok(Changed::No),
        Found::Nothing => return Ok(Changed::Gone),
    };
    let damaged = BucketError::damaged(&key);
    let Ok(head) = serde_json::from_slice::<Head>(&bytes) else {
        return Err(damaged(Damage("it is not what a vfsd writes")));
    };
    let base = head.base();
    if head.uuid.0 != uuid {
        return Err(damaged(Damage("it belongs to another volume")));
    }
    if head.boundary > base.seq.saturating_add(1) {
        return Err(damaged(Damage("it gives log objects away that are needed")));
    }
    Ok(Changed::To(Box::new(head), version))
}

fn json(value: &impl Serialize) -> Bytes {
    // Structs of numbers and strings always serialise.
    serde_json::to_vec_pretty(value).unwrap_or_default().into()
}

/// Bytes that JSON has as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> From<[u8; N]> for Hex<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(hex: Hex<N>) -> Self {
        super::place::hexadecimal(&hex.0)
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        super::place::from_hexadecimal(&text).map(Self)
    }
}

impl<const N: usize> std::fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = Head {
            uuid: [7; 16].into(),
            epoch: 5,
            nonce: u128::MAX.to_le_bytes().into(),
            owner: Some(Owner {
                instance: "i".into(),
                host: "h\n".into(),
                since: 9,
            }),
            checkpoint: Some(Checkpoint {
                at: Point {
                    seq: 8,
                    lsn: u64::MAX,
                    hash: ChainHash([9; 32]),
                    epoch: 4,
                },
                id: 1,
                parts: 2,
                stored: 3,
                length: 4,
                digest: ChainHash([1; 32]),
            }),
            boundary: 8,
            quota: Quota {
                bytes: Some(u64::MAX),
                files: None,
            },
            snapshot_days: Some(7),
        };
        let read: Head = serde_json::from_slice(&head.to_bytes()).unwrap();
        assert_eq!(read, head);
        assert!(read.is_of(5, u128::MAX) && !read.is_of(5, 1) && !read.is_of(4, u128::MAX));
    }

    #[test]
    fn a_head_that_is_cut_anywhere_is_refused() {
        let head = Head {
            uuid: [7; 16].into(),
            epoch: 5,
            nonce: [1; 16].into(),
            owner: None,
            checkpoint: None,
            boundary: 0,
            quota: Quota::default(),
            snapshot_days: None,
        };
        let bytes = head.to_bytes();
        for length in 0..bytes.len() {
            assert!(serde_json::from_slice::<Head>(&bytes[..length]).is_err());
        }
    }
}
