//! Making and opening a volume in a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{ftruncate, seek};
use tokio::runtime::Handle;
use vfsd_backend::{Errno, Result};

use super::Live;
use super::care::Care;
use super::holes::all_data;
use super::local::{Identity, Local};
use super::ranges::{BLOCK, END, RangeSet, up};
use super::rounds::Rounds;
use super::seen;
use super::shipped::{Shipped, Shipping};
use super::shipper::Shipper;
use crate::bucket::{BucketError, MIN_AGE, Opener, Point, Remote, host_clock};
use crate::core::Core;
use crate::data::DataFolder;
use crate::error::VolumeError;
use crate::key::Bucket;
use crate::meta::journal::{self, Cursor};
use crate::meta::{Change, Meta, change, tables};
use crate::volume::{Volume, VolumeOptions, root_row, start};

pub(super) const FORMAT: u32 = 1;

/// What has to happen before `fsync` returns. Whatever it is, a killed daemon loses nothing that was acknowledged, and
/// everything follows into the bucket within [`RemoteOptions::lag`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Everything that was done before is in the bucket: it survives the loss of the host.
    #[default]
    Bucket,
    /// The content of the file, and all names and attributes, are on the host's disk: they survive a power cut.
    Local,
    /// Nothing.
    None,
}

/// How a volume in a bucket is opened.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Whose files are that nobody owns, and who is served.
    pub volume: VolumeOptions,
    /// What `fsync` waits for.
    pub durability: Durability,
    /// Takes the volume from another daemon that has it open: that one can write nothing any more.
    pub takeover: bool,
    /// Bytes of content that stay on this host, about: content that is in the bucket and not in use makes room
    /// for other. Without a number all stays.
    pub cache_size: Option<u64>,
    /// Bytes of log after which a checkpoint is stored: another host that opens the volume reads that, and the log after it.
    pub checkpoint_after: u64,
    /// What nothing names any more is removed from the bucket after a checkpoint, if that was not done for so long.
    pub clean_every: Duration,
    /// How old an object has to be that is removed. A daemon that sleeps for less than this loses nothing.
    pub clean_age: Duration,
    /// What changed is in the bucket after this time, if nothing fails.
    pub lag: Duration,
    /// What [`host_boot`](crate::host_boot) says, for who opens the volume where there is no `/proc`.
    pub boot: Option<String>,
    /// Where requests to the bucket are sent from. It has to go on until the volume is closed.
    pub runtime: Handle,
}

impl RemoteOptions {
    /// What is usual: `fsync` waits for the bucket, and everything else is there within five seconds.
    pub fn new(runtime: Handle) -> Self {
        Self {
            volume: VolumeOptions::default(),
            durability: Durability::default(),
            takeover: false,
            cache_size: None,
            checkpoint_after: 64 << 20,
            clean_every: Duration::from_secs(6 * 3600),
            clean_age: MIN_AGE,
            lag: Duration::from_secs(5),
            boot: None,
            runtime,
        }
    }
}

impl Volume {
    /// Makes an empty volume below `prefix` of a bucket, where nothing else is.
    ///
    /// # Errors
    /// When something is there, when the store does not keep two writers apart, or when it fails.
    pub async fn create_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        options: &VolumeOptions,
    ) -> Result<(), VolumeError> {
        let root = change::encode(&[Change::Node(crate::volume::ROOT, Some(root_row(options)))]);
        Remote::create(bucket, prefix, vec![(1, root)], options.quota).await?;
        Ok(())
    }

    /// Opens the volume below `prefix` of a bucket. `directory` is its own on this host: it is made if it is not there, keeps
    /// what was read, and what is not in the bucket yet. The same one has to be given after a crash; without it the
    /// volume is as the bucket says.
    ///
    /// Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// When there is no volume, when another daemon has it open, here or elsewhere, when the bucket cannot be read, or
    /// the directory not be used.
    pub fn open_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        directory: &Path,
        options: &RemoteOptions,
    ) -> Result<Self, VolumeError> {
        let bucket = bucket.into();
        let _span = tracing::error_span!("volume", at = bucket.place(prefix)).entered();
        let local = Local::new(directory).at_boot(options.boot.clone());
        let failed = || VolumeError::failed(directory, "cannot use its local directory");
        std::fs::create_dir_all(directory).map_err(failed())?;
        let lock = local.layout().lock()?;
        let instance = instance(&local).map_err(failed())?;
        let is_new = local.identity().map_err(failed())?;
        let is_new = is_new.is_none_or(|identity| identity.uuid.is_empty());
        let opener = Opener {
            instance,
            host: host_name(),
            takeover: options.takeover,
            seen: seen::take_stock(&local).map_err(VolumeError::storage(
                directory,
                "cannot use its local directory",
            ))?,
            clock: host_clock(),
        };
        let opened = options
            .runtime
            .block_on(Remote::open(bucket, prefix, &opener))
            .map_err(|error| refused(error, directory, is_new))?;
        let remote = Arc::new(opened.remote);
        let opening = Opening {
            local,
            options,
            remote: remote.clone(),
        };
        let (shipping, foreign) = opening.bring_shipped_forward(&opener.instance)?;
        let storage = VolumeError::storage(directory, "cannot open it");
        open_live(&opening.local, options, remote, shipping, foreign, lock).map_err(storage)
    }
}

/// Why the volume is not to be had: `is_new` says that the directory never had it, so that where it is this host itself
/// that has it, another directory does.
fn refused(error: BucketError, directory: &Path, is_new: bool) -> VolumeError {
    match error {
        BucketError::InUse {
            place,
            host,
            seconds,
        } if is_new && host == host_name().escape_default().to_string() => {
            VolumeError::OtherDirectory {
                place,
                host,
                seconds,
                path: directory.to_owned(),
            }
        }
        error => told(error, directory),
    }
}

/// What is to be done on this host where the bucket was put back.
fn told(error: BucketError, directory: &Path) -> VolumeError {
    match error {
        source @ BucketError::RolledBack { .. } => VolumeError::RolledBack {
            path: directory.to_owned(),
            source,
        },
        error => VolumeError::Bucket(error),
    }
}

/// The name of this directory for the bucket.
fn instance(local: &Local) -> std::io::Result<String> {
    if let Some(identity) = local.identity()? {
        return Ok(identity.instance);
    }
    let identity = Identity {
        format: FORMAT,
        uuid: String::new(),
        instance: format!("{:032x}", random()?),
    };
    // Before the bucket knows it: after a kill the same directory has the same name.
    local.write_identity(&identity)?;
    Ok(identity.instance)
}

pub(super) fn random() -> std::io::Result<u128> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_le_bytes(random))
}

pub(super) fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

struct Opening<'a> {
    local: Local,
    options: &'a RemoteOptions,
    remote: Arc<Remote>,
}

impl Opening<'_> {
    /// The shipped image as of the end of the chain, and whether others wrote since it was here.
    fn bring_shipped_forward(&self, instance: &str) -> Result<(Shipping, bool), VolumeError> {
        let path = self.local.path();
        let failed = || VolumeError::failed(path, "cannot use its local directory");
        let storage = || VolumeError::storage(path, "cannot bring it up to date");
        let uuid = format!("{:032x}", u128::from_be_bytes(self.remote.uuid()));
        let known = self.local.identity().map_err(failed())?;
        let same = known.is_some_and(|known| known.uuid == uuid);
        if !same {
            // Of a volume that was in this place before, or of none.
            self.local.remove_shipped().map_err(failed())?;
        }
        let failure = |error| match error {
            Following::Bucket(error) => told(error, path),
            Following::Local(error) => storage()(error),
        };
        let mut foreign = !same;
        let mut shipping = self.open_shipping().map_err(failure)?;
        match self.follow(&mut shipping, &mut foreign) {
            Err(Following::Bucket(BucketError::Gone(_))) => {
                foreign = true;
                drop(shipping);
                self.local.remove_shipped().map_err(failed())?;
                shipping = self.open_shipping().map_err(failure)?;
                self.follow(&mut shipping, &mut foreign)
            }
            Err(Following::Bucket(source @ BucketError::Diverged(_))) => {
                let path = path.to_owned();
                return Err(VolumeError::RolledBack { path, source });
            }
            other => other,
        }
        .map_err(failure)?;
        if !same {
            let identity = Identity {
                format: FORMAT,
                uuid,
                instance: instance.to_owned(),
            };
            if self.local.has_live() {
                let aside = self.local.set_live_aside().map_err(failed())?;
                tracing::warn!(aside = %aside.display(), "volume: the directory had another volume, which is set aside");
            }
            self.local.write_identity(&identity).map_err(failed())?;
        }
        Ok((shipping, foreign))
    }

    fn open_shipping(&self) -> Result<Shipping, Following> {
        let path = self.local.shipped();
        if path.exists() {
            return Ok(Shipping::open(&path)?);
        }
        let unfinished = self.local.checkpoint();
        self.local
            .remove_checkpoint()
            .map_err(vfsd_backend::Error::from)?;
        let base = self
            .options
            .runtime
            .block_on(self.remote.restore(&unfinished))?;
        if base == Point::START {
            Shipping::create(&unfinished)?;
        } else {
            Shipping::take_copy(&unfinished)?;
        }
        if Shipping::open(&unfinished)?.point() != base {
            return Err(Following::Bucket(BucketError::Diverged(base.seq)));
        }
        std::fs::rename(&unfinished, &path).map_err(vfsd_backend::Error::from)?;
        Ok(Shipping::open(&path)?)
    }

    /// Takes in what the chain has beyond the shipped image.
    fn follow(&self, shipping: &mut Shipping, foreign: &mut bool) -> Result<(), Following> {
        let mine = self.local.session().map(|session| session.epoch);
        let after = shipping.point();
        let remote = &self.remote;
        self.options
            .runtime
            .block_on(remote.follow(after, |object, point| {
                let empty = object.records.is_empty() && object.pieces.is_empty();
                *foreign |= !empty && !object.moves && Some(object.epoch) != mine;
                let taken = shipping.take_in(&object, point);
                taken.map_err(|refused| Following::Local(refused.into()))
            }))?;
        Ok(())
    }
}

/// Why the chain was not followed to its end.
#[derive(Debug)]
enum Following {
    Bucket(BucketError),
    Local(vfsd_backend::Error),
}

impl From<vfsd_backend::Error> for Following {
    fn from(error: vfsd_backend::Error) -> Self {
        Self::Local(error)
    }
}

impl From<BucketError> for Following {
    fn from(error: BucketError) -> Self {
        Self::Bucket(error)
    }
}

/// Opens the live volume, or makes it anew from the shipped image.
fn open_live(
    local: &Local,
    options: &RemoteOptions,
    remote: Arc<Remote>,
    shipping: Shipping,
    foreign: bool,
    lock: crate::layout::Lock,
) -> Result<Volume> {
    let point = shipping.point();
    let cut_off = power_was_cut(local)?;
    if foreign || (cut_off && options.durability != Durability::Local) || !goes_on(local, point)? {
        make_live(local, &shipping)?;
    }
    local.write_session(remote.epoch(), false)?;
    let layout = local.layout();
    let data = DataFolder::open(&layout.data())?;
    check_holes(&data)?;
    let meta = Meta::open(&layout.database(), &layout.journal(), Some(point.lsn))?;
    let shipped = Shipped::new(&local.shipped());
    let rounds = Rounds::new(options.lag);
    let care = Care::new(options, &remote);
    let quota = options.runtime.block_on(remote.head()).quota;
    let live = Live::new(shipped, remote, rounds, options);
    let with_quota = VolumeOptions {
        quota,
        ..options.volume
    };
    let volume = start(
        meta,
        data,
        Some(Box::new(live)),
        lock,
        &with_quota,
        |core| {
            find_dirty(core, local, point)?;
            if cut_off {
                drop_clean_data(core, local)?;
            }
            Ok(())
        },
    )?;
    let core = volume.core().clone();
    let records = Cursor::new(&layout.journal(), point.lsn);
    let span = core.span.clone();
    let shipper = Shipper::new(core.clone(), shipping, records, local.clone(), care);
    let thread = std::thread::Builder::new()
        .name("volume-shipper".to_owned())
        .spawn(move || span.in_scope(|| shipper.run()))?;
    volume.set_shipper(thread);
    if let Some(live) = &core.live
        && core.meta.last() > point.lsn
    {
        live.rounds.touched();
    }
    Ok(volume)
}

/// Whether the host went down while the volume was open: data files may have lost what was written last.
pub(super) fn power_was_cut(local: &Local) -> std::io::Result<bool> {
    let boot = local.boot()?;
    Ok(local
        .session()
        .is_some_and(|last| !last.clean && last.boot != boot))
}

/// Whether the live volume that is here goes on from a point of the chain.
fn goes_on(local: &Local, point: Point) -> Result<bool> {
    if !local.has_live() || local.session().is_none() {
        return Ok(false);
    }
    let applied = crate::meta::applied(&local.layout().database())?;
    Ok(local.last_record(applied)? >= point.lsn)
}

/// Makes the live volume from the shipped image. What was there, and may have more than the bucket, is set aside.
fn make_live(local: &Local, shipping: &Shipping) -> Result<()> {
    let had_more = local.has_live() && local.session().is_some_and(|last| !last.clean);
    if had_more {
        let aside = local.set_live_aside()?;
        tracing::warn!(
            aside = %aside.display(),
            "volume: it goes on as the bucket says; what was here alone is set aside"
        );
    }
    local.make_live(|tables| shipping.copy_tables(tables))
}

/// Finds out which content is newer here than in the bucket: of all files that were written to since the last
/// record that is there, what is in their data files, and the holes that were made.
fn find_dirty(core: &Arc<Core>, local: &Local, point: Point) -> Result<()> {
    let Some(live) = &core.live else {
        return Ok(());
    };
    let mut holes: BTreeMap<u64, Vec<Range<u64>>> = BTreeMap::new();
    let unsettled = core.meta.read(|db| tables::inodes(db, "unsettled"))?;
    let mut written: BTreeSet<u64> = unsettled.into_iter().collect();
    journal::read(&local.layout().journal(), point.lsn, |lsn, record| {
        let unknown = |_| std::io::Error::other(format!("record {lsn} has an unknown form"));
        for change in change::decode(record).map_err(unknown)? {
            match change {
                // Also the end of it: a file may have been marked before the cut, and written to after.
                Change::Unsettled(ino, _) => {
                    written.insert(ino);
                }
                Change::Hole(ino, start, end) => holes.entry(ino).or_default().push(start..end),
                Change::Node(ino, None) => {
                    written.remove(&ino);
                    holes.remove(&ino);
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    written.extend(holes.keys());
    for ino in written {
        let Some(row) = core.meta.node(ino)? else {
            continue;
        };
        let map = live.dirty.map(ino);
        let mut size = row.size;
        match core.data.open_file(ino, false) {
            Ok(file) => {
                size = u64::try_from(
                    rustix::fs::fstat(&file)
                        .map_err(vfsd_backend::Error::from)?
                        .st_size,
                )
                .unwrap_or(0);
                for data in all_data(&file, size)? {
                    map.was_dirty(&live.dirty, &data);
                }
            }
            // Nothing of it was written here, or the cache let go of it.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        // The end may have been cut off without a record of it. The block in the middle of which it was is here.
        let cut = std::iter::once(up(size)..END);
        let holes: RangeSet = holes
            .remove(&ino)
            .unwrap_or_default()
            .into_iter()
            .chain(cut)
            .collect();
        for hole in holes.iter() {
            map.was_hole(&live.dirty, &hole);
        }
    }
    Ok(())
}

/// After a power cut: data files that the bucket has all of are fetched again.
fn drop_clean_data(core: &Core, local: &Local) -> Result<()> {
    let Some(live) = &core.live else {
        return Ok(());
    };
    for (ino, _) in DataFolder::all(&local.layout().data())? {
        if !live.dirty.is_dirty(ino) {
            core.data.remove(ino)?;
        }
    }
    Ok(())
}

/// Whether the file system of the directory tells holes from data, in blocks: that is how it is known what is not here.
pub(super) fn check_holes(data: &DataFolder) -> Result<()> {
    const AT: u64 = 1 << 20;
    let file = data.nameless()?;
    ftruncate(&file, 2 * AT).map_err(vfsd_backend::Error::from)?;
    let block = [1; 4096];
    rustix::io::pwrite(&file, &block, AT).map_err(vfsd_backend::Error::from)?;
    let found = seek(&file, rustix::fs::SeekFrom::Data(0));
    let end = seek(&file, rustix::fs::SeekFrom::Hole(AT));
    if found == Ok(AT) && end == Ok(AT + BLOCK) {
        return Ok(());
    }
    let error =
        "its file system does not tell holes of files: choose a directory on ext4, XFS or Btrfs";
    Err(std::io::Error::other(error).into())
}
