//! Opening a snapshot, which nobody changes: many hosts may have it open, while one daemon writes to the volume. So they may what
//! a volume is now, which is [`published`](super::published) there.
//!
//! It has a directory of its own on this host, for the copy of its rows and the content that was read. What is there
//! counts only for the rows that it was made of.

use std::path::Path;
use std::sync::Arc;

use super::Live;
use super::cache::trim_if_due;
use super::local::{Identity, Local};
use super::open::{FORMAT, RemoteOptions, check_holes, power_was_cut};
use super::pin::Pin;
use super::rounds::{Next, Rounds};
use super::shipped::{Shipped, Shipping};
use crate::bucket::{BucketError, Point, View};
use crate::core::Core;
use crate::data::DataFolder;
use crate::error::VolumeError;
use crate::key::Bucket;
use crate::layout::Lock;
use crate::meta::Meta;
use crate::volume::{Volume, start};

impl Volume {
    /// Opens a snapshot of the volume below `prefix` of a bucket, whoever has that one. Nothing of it can be changed, and its
    /// access times stay as they are. `directory` is one for this snapshot, of which the caller has the `lock`: it keeps
    /// what was read. Of the options, durability, takeover and what is said of changes are of no account.
    ///
    /// If the snapshot is deleted meanwhile, what is not here any more, or was never read, is lost with the next clean-up.
    ///
    /// Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// When there is no such volume or snapshot, when the bucket cannot be read, or the directory not be used.
    pub fn open_snapshot(
        bucket: impl Into<Bucket>,
        prefix: &str,
        snapshot: &str,
        (directory, lock): (&Path, Lock),
        options: &RemoteOptions,
    ) -> Result<Self, VolumeError> {
        let bucket = bucket.into();
        let _span = tracing::error_span!("volume", at = bucket.place(prefix), snapshot).entered();
        let runtime = &options.runtime;
        let view = runtime.block_on(View::open(bucket, prefix))?;
        let found = runtime.block_on(view.find_snapshot(snapshot))?;
        let found = found.ok_or_else(|| BucketError::NoSnapshot(snapshot.to_owned()))?;
        let local = Local::new(directory).at_boot(options.boot.clone());
        let checkpoint = &found.checkpoint;
        let rows = Rows {
            name: format!("checkpoint-{:016x}", checkpoint.id),
            at: checkpoint.at,
        };
        let bring = |to: &Path| {
            runtime.block_on(view.restore(checkpoint, to))?;
            let storage = VolumeError::storage(directory, NOT_COPIED);
            Shipping::take_copy(to).map_err(storage)
        };
        let shipping = match rows.known(&local, &view) {
            Some(shipping) => shipping,
            None => rows.take(&local, &view, bring)?,
        };
        open(local, &view, &shipping, (lock, None), options)
    }
}

const NOT_COPIED: &str = "cannot copy the rows of a snapshot";

/// The rows that a directory has, or is to have.
#[derive(Debug)]
pub(super) struct Rows {
    /// What the directory calls them.
    pub(super) name: String,
    /// The point of the chain at which they are.
    pub(super) at: Point,
}

impl Rows {
    /// What is written into a directory that has them.
    fn identity(&self, view: &View) -> Identity {
        Identity {
            format: FORMAT,
            uuid: format!("{:032x}", u128::from_be_bytes(view.uuid())),
            instance: self.name.clone(),
        }
    }

    /// The rows that are here, if they are these, and none of what was written last can have been lost.
    pub(super) fn known(&self, local: &Local, view: &View) -> Option<Shipping> {
        let here = local.identity().ok().flatten()?;
        let wanted = self.identity(view);
        let same = (here.format, here.uuid, here.instance)
            == (wanted.format, wanted.uuid, wanted.instance);
        let whole = local.session().is_some() && !power_was_cut(local).ok()? && local.has_live();
        if !(same && whole && local.shipped().exists()) {
            return None;
        }
        let shipping = Shipping::open(&local.shipped()).ok()?;
        (shipping.point() == self.at).then_some(shipping)
    }

    /// Has `bring` put them into a file here, and makes a volume of them.
    pub(super) fn take(
        &self,
        local: &Local,
        view: &View,
        bring: impl FnOnce(&Path) -> Result<(), VolumeError>,
    ) -> Result<Shipping, VolumeError> {
        let failed = || VolumeError::failed(local.path(), "cannot use the directory of a snapshot");
        let storage = || VolumeError::storage(local.path(), NOT_COPIED);
        // Until all is here it is nobody's.
        let nobody = Identity {
            format: FORMAT,
            uuid: String::new(),
            instance: String::new(),
        };
        local.write_identity(&nobody).map_err(failed())?;
        local.remove_shipped().map_err(failed())?;
        let path = local.shipped();
        bring(&path)?;
        let shipping = Shipping::open(&path).map_err(storage())?;
        if shipping.point() != self.at {
            return Err(BucketError::Diverged(self.at.seq).into());
        }
        let made = local.make_live(|tables| shipping.copy_tables(tables));
        made.map_err(storage())?;
        shipping.sync().map_err(storage())?;
        let identity = self.identity(view);
        local.write_identity(&identity).map_err(failed())?;
        Ok(shipping)
    }
}

/// Opens what is here. `pin` holds what is in the bucket for as long as it is open.
pub(super) fn open(
    local: Local,
    view: &View,
    shipping: &Shipping,
    (lock, pin): (Lock, Option<Pin>),
    options: &RemoteOptions,
) -> Result<Volume, VolumeError> {
    let directory = local.path().to_owned();
    let storage = VolumeError::storage(&directory, "cannot open the snapshot in it");
    let open = move || -> vfsd_backend::Result<Volume> {
        let point = shipping.point();
        local.write_session(0, false)?;
        let layout = local.layout();
        let data = DataFolder::open(&layout.data())?;
        check_holes(&data)?;
        let meta = Meta::open(&layout.database(), &layout.journal(), Some(point.lsn))?;
        let remote = Arc::new(view.reader(point));
        let shipped = Shipped::new(&local.shipped());
        let live = Live::new(shipped, remote, Rounds::new(options.lag), options).frozen();
        let live = Some(Box::new(live));
        let volume = start(meta, data, live, lock, &options.volume, |_| Ok(()))?;
        let core = volume.core().clone();
        let thread = std::thread::Builder::new()
            .name("volume-snapshot".to_owned())
            .spawn(move || core.span.in_scope(|| keep_room(&core, &local, pin)))?;
        volume.set_shipper(thread);
        Ok(volume)
    };
    open().map_err(storage)
}

/// Takes content away when there is more here than there may be, until nobody uses the snapshot any more. Then what held it in
/// the bucket is given up.
fn keep_room(core: &Arc<Core>, local: &Local, pin: Option<Pin>) {
    let Some(live) = core.live.as_deref() else {
        return;
    };
    while live.rounds.next() == Next::Ship {
        live.rounds.cut();
        trim_if_due(core, live, local.layout());
    }
    let synced = core.data.sync_all().map_err(std::io::Error::from);
    if let Err(error) = synced.and_then(|()| local.write_session(0, true)) {
        // Then it is read from the bucket again.
        tracing::debug!(%error, "volume: what was read of a snapshot may not be kept");
    }
    drop(pin);
    live.rounds.close();
}
