//! Looking at a volume in a bucket without having it open.

use std::path::Path;

use tokio::runtime::Handle;
use vfsd_backend::Result;

use super::extents::frames;
use super::shipped::Shipping;
use crate::Volume;
use crate::bucket::{BucketError, BucketReport, BucketStat, CheckLevel, Owner, Point, View};
use crate::check::{CheckReport, check_rows};
use crate::error::VolumeError;
use crate::key::Bucket;
use crate::quota::Quota;

/// What a volume in a bucket is, and how much is stored for it.
#[derive(Debug, Clone)]
pub struct RemoteStatus {
    /// Tells volumes apart: 32 hexadecimal digits.
    pub uuid: String,
    /// The daemon that has the volume open, if there is one.
    pub owner: Option<Owner>,
    /// How much the volume may hold.
    pub quota: Quota,
    /// For how many days the snapshots are kept that a daemon makes by itself, if it makes some.
    pub snapshot_days: Option<u32>,
    /// What it is encrypted with.
    pub encryption: Option<String>,
    /// What is in the bucket.
    pub stored: BucketStat,
}

/// What a check of a volume in a bucket found.
#[derive(Debug)]
pub struct RemoteReport {
    /// Of names and attributes, and of where content lies.
    pub rows: CheckReport,
    /// Of the objects.
    pub bucket: BucketReport,
}

impl RemoteReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.rows.is_clean() && self.bucket.is_clean()
    }
}

/// What must not be found among extents.
const RULES: &[(&str, &str)] = &[
    (
        "SELECT DISTINCT e.ino FROM extent e LEFT JOIN node n ON n.ino=e.ino WHERE n.ino IS NULL",
        "content of inode {0}, which does not exist",
    ),
    (
        "SELECT e.ino, e.off, e.len, n.size FROM extent e JOIN node n ON n.ino=e.ino WHERE e.off+e.len > n.size AND n.ino NOT IN (SELECT ino FROM orphan)",
        "content of inode {0} at {1}, of {2} bytes, in a file of {3} bytes",
    ),
    (
        "SELECT a.ino, a.off, b.off FROM extent a JOIN extent b ON b.ino=a.ino AND b.off>a.off AND b.off<a.off+a.len \
         AND b.off < a.off + 1048576",
        "content of inode {0} at {1} and at {2} overlaps",
    ),
];

/// Makes the image of a volume as it is now, at `path`, where there is nothing.
pub(super) fn image(view: &View, path: &Path, runtime: &Handle) -> Result<Shipping, VolumeError> {
    let storage = || VolumeError::storage(path, "cannot copy the names and attributes of a volume");
    match &view.head().checkpoint {
        Some(checkpoint) => {
            runtime.block_on(view.restore(checkpoint, path))?;
            Shipping::take_copy(path).map_err(storage())?;
        }
        None => Shipping::create(path).map_err(storage())?,
    }
    let mut shipping = Shipping::open(path).map_err(storage())?;
    let after = shipping.point();
    let mut failed = None;
    runtime.block_on(view.follow(after, |object, point: Point| {
        if failed.is_none() {
            failed = shipping.take_in(&object, point).err();
        }
        Ok::<(), BucketError>(())
    }))?;
    match failed {
        Some(error) => Err(storage()(error.into())),
        None => Ok(shipping),
    }
}

impl Volume {
    /// Changes how much the volume below `prefix` of a bucket may hold. A daemon that has it open learns of it at its next
    /// start.
    ///
    /// # Errors
    /// There is no volume, or the store failed.
    pub async fn change_remote_quota(
        bucket: impl Into<Bucket>,
        prefix: &str,
        change: impl Fn(&mut Quota),
    ) -> Result<(), VolumeError> {
        Ok(View::open_outside(bucket, prefix)
            .await?
            .change_quota(change)
            .await?)
    }

    /// Lets the daemon that has the volume below `prefix` of a bucket make snapshots by itself, `auto-` and the time: one an
    /// hour in which something changed, of which one a day is kept for so many days. Without a number it makes none, and
    /// those that are there stay. A daemon that has it open learns of it with its next checkpoint.
    ///
    /// # Errors
    /// There is no volume, or the store failed.
    pub async fn change_remote_snapshot_days(
        bucket: impl Into<Bucket>,
        prefix: &str,
        days: Option<u32>,
    ) -> Result<(), VolumeError> {
        let view = View::open_outside(bucket, prefix).await?;
        Ok(view.change_snapshot_days(days).await?)
    }

    /// What the volume below `prefix` of a bucket is. It may be in use.
    ///
    /// # Errors
    /// There is none, or the store failed.
    pub async fn stat_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
    ) -> Result<RemoteStatus, VolumeError> {
        let view = View::open_outside(bucket, prefix).await?;
        Ok(RemoteStatus {
            uuid: format!("{:032x}", u128::from_be_bytes(view.uuid())),
            owner: view.head().owner.clone(),
            quota: view.head().quota,
            snapshot_days: view.head().snapshot_days,
            encryption: view.algorithm().map(str::to_owned),
            stored: view.stat().await?,
        })
    }

    /// Looks whether everything in the volume below `prefix` of a bucket fits together and is there. It may be in use: nothing is
    /// changed. `scratch` is an empty directory of this host for a copy of names and attributes. Blocks the thread,
    /// which may be none of the runtime.
    ///
    /// # Errors
    /// There is no volume, the store failed, or the directory cannot be used. What does not fit together is no error: it is
    /// in the report.
    pub fn check_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        scratch: &Path,
        level: CheckLevel,
        runtime: &Handle,
    ) -> Result<RemoteReport, VolumeError> {
        let storage = || VolumeError::storage(scratch, "cannot be used for a check");
        let view = runtime.block_on(View::open(bucket, prefix))?;
        let shipping = image(&view, &scratch.join("shipped.sqlite"), runtime)?;
        let mut rows = CheckReport::default();
        let named = shipping.look(|db| {
            check_rows(db, &mut rows, RULES, false)?;
            frames(db)
        });
        let bucket = runtime.block_on(view.check(named.map_err(storage())?, level))?;
        Ok(RemoteReport { rows, bucket })
    }
}
