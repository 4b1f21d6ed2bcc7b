//! Making a volume in a bucket, and becoming its owner.

use std::time::{SystemTime, UNIX_EPOCH};

use object_store::UpdateVersion;
use vfsd_object_store::store::probe;

use super::chain;
use super::damage::Damage;
use super::error::BucketError;
use super::head::{
    Changed, Description, Head, Owner, read_description, read_head, write_description,
};
use super::log::{Link, LogObject, Uuid};
use super::objects::Objects;
use super::place::{ChainHash, Point};
use super::remote::{Clock, Remote, host_clock};
use super::rollback::{self, Seen};
use crate::key::Bucket;
use crate::meta::journal::Lsn;
use crate::quota::Quota;

type Result<T> = std::result::Result<T, BucketError>;

/// How often openers may overtake each other before one gives up.
const MAX_TRIES: u32 = 64;
/// Instances and host names are cut at this length.
const MAX_NAME_CHARS: usize = 128;

/// The instance of who looks after a volume for a moment and has no content of its own: anybody may follow it, as
/// nothing is lost with it.
pub const CARETAKER: &str = "caretaker";

/// Who opens a volume.
#[derive(Clone)]
pub struct Opener {
    /// Which local directory the daemon has for the volume, and holds the lock of. A daemon of the same instance that was
    /// killed is followed without further ado.
    pub instance: String,
    /// The host's name, for messages.
    pub host: String,
    /// Takes the volume from another instance that has it: that one can write nothing any more.
    pub takeover: bool,
    /// How far this host has seen volumes: one that does not have that any more is refused.
    pub seen: Seen,
    /// Tells how long ownership was not verified.
    pub clock: Clock,
}

impl Opener {
    /// A daemon of this host that takes nothing from others.
    pub fn new(instance: impl Into<String>, host: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            host: host.into(),
            takeover: false,
            seen: Seen::default(),
            clock: host_clock(),
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("instance", &self.instance)
            .field("host", &self.host)
            .field("takeover", &self.takeover)
            .finish_non_exhaustive()
    }
}

/// A volume that this daemon owns now.
#[derive(Debug)]
pub struct Opened {
    /// To write with.
    pub remote: Remote,
    /// As it was when this daemon became the owner: where reading begins, for one.
    pub head: Head,
    /// Who had the volume before, if it was not closed.
    pub before: Option<Owner>,
    /// The last log object of others; this daemon's fence comes after it.
    pub inherited: Point,
}

impl Remote {
    /// Makes a volume of which `records` are the first redo records. Nobody owns it afterwards.
    ///
    /// A try that broke off is carried on by the next one.
    ///
    /// # Errors
    /// The store is none that keeps writers apart, something is there already, or the store failed.
    pub async fn create(
        bucket: impl Into<Bucket>,
        prefix: &str,
        records: Vec<(Lsn, Vec<u8>)>,
        quota: Quota,
    ) -> Result<Uuid> {
        let objects = Objects::new(bucket, prefix)?;
        let there = read_description(&objects).await?;
        if there.is_none() && !objects.is_empty().await? {
            return Err(BucketError::NotEmpty(objects.place));
        }
        let report = probe(&objects.store, &objects.names.below("")).await;
        let report = report.map_err(BucketError::store("be tried"))?;
        if !report.is_safe() {
            return Err(BucketError::Unsafe(report.to_string()));
        }
        let description = match there {
            Some(description) => description,
            None => describe(&objects).await?,
        };
        let uuid = description.uuid();
        let objects = objects.unlocked(&description)?;
        let exists = || BucketError::Exists(objects.place.clone());
        if !matches!(read_head(&objects, uuid, None).await?, Changed::Gone) {
            return Err(exists());
        }
        let nonce = random();
        let link = Link {
            uuid,
            nonce,
            previous: Point::START.hash,
        };
        let first = LogObject {
            seq: 1,
            epoch: 1,
            first: 1,
            last: records.last().map_or(0, |(lsn, _)| *lsn),
            records,
            ..LogObject::default()
        };
        let bytes = first
            .encode(&link, &objects.cipher)
            .map_err(|error| BucketError::Local {
                what: "the first log object",
                source: std::io::Error::other(error),
            })?;
        if !objects.create(&objects.names.log(1), bytes).await? {
            // Of a try that broke off, or of one that goes on now: only one of them makes HEAD.
            let found = chain::next(&objects, uuid, Point::START).await?;
            if found.is_none_or(|found| found.object.epoch != 1) {
                return Err(exists());
            }
        }
        let head = Head {
            uuid: uuid.into(),
            epoch: 1,
            nonce: nonce.to_le_bytes().into(),
            owner: None,
            checkpoint: None,
            boundary: 0,
            quota,
            snapshot_days: None,
        };
        match objects
            .create(&objects.names.head(), head.to_bytes())
            .await?
        {
            true => Ok(uuid),
            false => Err(exists()),
        }
    }

    /// Becomes the owner of a volume, and sees to it that nobody who was so before can write any more.
    ///
    /// # Errors
    /// [`BucketError::InUse`] when another instance has it and `takeover` was not asked for,
    /// [`BucketError::RolledBack`] when it is as it was before [`Opener::seen`]: then nothing is changed;
    /// [`BucketError::Fenced`] when another one became the owner at the same time, and what else
    /// [`BucketError`] names.
    pub async fn open(bucket: impl Into<Bucket>, prefix: &str, opener: &Opener) -> Result<Opened> {
        let objects = Objects::new(bucket, prefix)?;
        let Some(description) = read_description(&objects).await? else {
            return Err(BucketError::Missing(objects.place));
        };
        let uuid = description.uuid();
        let objects = objects.unlocked(&description)?;
        let nonce = random();
        let taken = take(&objects, uuid, opener, nonce).await?;
        let fenced = fence(&objects, &taken.head, nonce).await;
        // Only now it is known that nobody took it over before the fence stood.
        let verified = (opener.clock)();
        let overtaken = || BucketError::Fenced(objects.place.clone());
        let (head, version) = match read_head(&objects, uuid, None).await? {
            Changed::To(head, version) if head.is_of(taken.head.epoch, nonce) => (*head, version),
            _ => return Err(overtaken()),
        };
        // A failure comes after that: whoever took the volume over may have removed what was looked for.
        let (inherited, fence) = fenced?;
        if head.boundary > fence.seq {
            return Err(overtaken());
        }
        let clock = (opener.clock.clone(), verified);
        let remote = Remote::new(objects, (head.clone(), version), nonce, fence, clock);
        Ok(Opened {
            remote,
            head,
            before: taken.before,
            inherited,
        })
    }
}

/// Says which volume it is, unless that was just said.
async fn describe(objects: &Objects) -> Result<Description> {
    let uuid = random().to_le_bytes();
    write_description(&objects.clone().sealing(uuid)?, uuid).await?;
    let there = read_description(objects).await?;
    there.ok_or_else(|| BucketError::NotEmpty(objects.place.clone()))
}

struct Taken {
    head: Head,
    before: Option<Owner>,
}

/// Writes HEAD with the next epoch.
async fn take(objects: &Objects, uuid: Uuid, opener: &Opener, nonce: u128) -> Result<Taken> {
    let key = objects.names.head();
    for _ in 0..MAX_TRIES {
        let (old, version) = match read_head(objects, uuid, None).await? {
            Changed::To(head, version) => (*head, version),
            Changed::No | Changed::Gone => {
                return Err(BucketError::Missing(objects.place.clone()));
            }
        };
        if let Some(owner) = &old.owner
            && owner.instance != opener.instance
            && owner.instance != CARETAKER
            && !opener.takeover
        {
            return Err(BucketError::InUse {
                place: objects.place.clone(),
                host: owner.host.escape_default().to_string(),
                seconds: seconds_now().saturating_sub(owner.since),
            });
        }
        if let Some(&seen) = opener.seen.get(&uuid).filter(|seen| seen.seq > 0)
            && !rollback::has(objects, &old, seen).await?
        {
            // Unless the owner has removed it just now.
            if let Changed::To(..) = read_head(objects, uuid, Some(&version)).await? {
                continue;
            }
            return Err(BucketError::RolledBack {
                place: objects.place.clone(),
                seq: seen.seq,
            });
        }
        let Some(epoch) = old.epoch.checked_add(1) else {
            return Err(BucketError::damaged(key)(Damage(
                "its epoch is the last one",
            )));
        };
        let head = Head {
            epoch,
            nonce: nonce.to_le_bytes().into(),
            owner: Some(Owner {
                instance: short(&opener.instance),
                host: short(&opener.host),
                since: seconds_now(),
            }),
            ..old.clone()
        };
        if replace(objects, &head, version).await? {
            return Ok(Taken {
                head,
                before: old.owner,
            });
        }
    }
    Err(BucketError::Fenced(objects.place.clone()))
}

async fn replace(objects: &Objects, head: &Head, old: UpdateVersion) -> Result<bool> {
    let key = objects.names.head();
    let replaced = objects.replace(&key, head.to_bytes(), old).await?;
    Ok(replaced.is_some())
}

/// Ends the chain with a log object of the new epoch. The points before it and of it.
async fn fence(objects: &Objects, head: &Head, nonce: u128) -> Result<(Point, Point)> {
    let end = chain::find_end(objects, head.uuid.0, head.base()).await?;
    append_fence(objects, head, end, nonce).await
}

/// Puts a log object without content at the end of the chain, so that an earlier owner that still believes to be it
/// finds its next number taken. The points before it and of it.
async fn append_fence(
    objects: &Objects,
    head: &Head,
    mut end: Point,
    nonce: u128,
) -> Result<(Point, Point)> {
    let overtaken = || BucketError::Fenced(objects.place.clone());
    loop {
        // Another one became the owner since, and its fence is there already.
        if end.epoch >= head.epoch {
            return Err(overtaken());
        }
        let full =
            || BucketError::damaged(objects.names.log(end.seq))(Damage("it is the last one"));
        let object = LogObject {
            seq: end.seq.checked_add(1).ok_or_else(full)?,
            epoch: head.epoch,
            first: end.lsn.checked_add(1).ok_or_else(full)?,
            last: end.lsn,
            ..LogObject::default()
        };
        let link = Link {
            uuid: head.uuid.0,
            nonce,
            previous: end.hash,
        };
        let bytes = object
            .encode(&link, &objects.cipher)
            .map_err(|error| BucketError::Local {
                what: "a fence for the volume",
                source: std::io::Error::other(error),
            })?;
        let fence = object.point(ChainHash::of(&bytes));
        if objects
            .create(&objects.names.log(object.seq), bytes)
            .await?
        {
            return Ok((end, fence));
        }
        // The owner before was first: what it wrote counts, and the fence goes behind it.
        match chain::next(objects, head.uuid.0, end).await? {
            Some(found) if found.point == fence => return Ok((end, fence)),
            Some(found) => end = found.point,
            None => return Err(overtaken()),
        }
    }
}

/// A name for messages of a length that HEAD has room for.
fn short(text: &str) -> String {
    text.chars().take(MAX_NAME_CHARS).collect()
}

fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// 128 random bits.
pub(super) fn random() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}
