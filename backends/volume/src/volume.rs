//! A volume: how it is made, opened and closed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use vfsd_backend::{
    Answer, Backend, Capabilities, Errno, FileKind, Locator, Node, Result, Timestamp,
};

use crate::core::Core;
use crate::data::DataFolder;
use crate::error::VolumeError;
use crate::inode::Inode;
use crate::layout::{Layout, Lock};
use crate::live::Live;
use crate::live::ranges::{END, up};
use crate::meta::{self, Change, Meta, NodeRow, Purpose, tables};
use crate::node::VolumeNode;
use crate::quota::Quota;
use crate::upkeep;

pub(crate) const ROOT: u64 = 1;

/// How a volume begins, and whose files are that nobody owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeOptions {
    /// User that owns the root of a new volume, and new files of callers without an identity.
    pub uid: u32,
    /// Group that owns the root of a new volume, and new files of callers without an identity.
    pub gid: u32,
    /// Permission, set-id and sticky bits of the root of a new volume: 0 to 0o7777.
    pub root_permissions: u32,
    /// How much a new volume may hold.
    pub quota: Quota,
    /// One guest alone is served: it may remember what it was told ([`Capabilities::PRIVATE`]).
    pub private: bool,
}

impl Default for VolumeOptions {
    /// User and group 0; a root with permissions 0755; no quota; more than one guest may be served.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            root_permissions: 0o755,
            quota: Quota::default(),
            private: false,
        }
    }
}

/// A volume that is open. It stays so as long as this value, or a node of it, is there; nobody else
/// can open it meanwhile.
pub struct Volume {
    root: Arc<VolumeNode>,
    private: bool,
}

impl Volume {
    /// Makes an empty volume in `directory`, which is made or is empty.
    ///
    /// # Errors
    /// When there is something in the directory, or it cannot be written to.
    pub fn create(directory: &Path, options: &VolumeOptions) -> Result<(), VolumeError> {
        let layout = Layout::new(directory);
        layout.make()?;
        let failed = VolumeError::storage(directory, "cannot make its files");
        fill(&layout, options).map_err(failed)?;
        layout.make_header(options.quota)
    }

    /// Makes a volume that is not whole before its [header](Layout::make_header) is made, and opens it.
    pub(crate) fn begin(directory: &Path) -> Result<(Layout, Self), VolumeError> {
        let layout = Layout::new(directory);
        layout.make()?;
        let failed = || VolumeError::storage(directory, "cannot make its files");
        let options = VolumeOptions::default();
        fill(&layout, &options).map_err(failed())?;
        let lock = layout.lock()?;
        let volume = open(&layout, lock, &options, Quota::default()).map_err(failed())?;
        Ok((layout, volume))
    }

    /// Changes how much the volume in `directory` may hold. Who has it open learns of it at the next start.
    ///
    /// # Errors
    /// When there is no volume, when it is of a newer format, or when it cannot be written to.
    pub fn change_quota(
        directory: &Path,
        change: impl FnOnce(&mut Quota),
    ) -> Result<(), VolumeError> {
        let layout = Layout::new(directory);
        let mut header = layout.read_header()?;
        change(&mut header.quota);
        layout.write_header(&header)
    }

    /// Opens the volume in `directory`. What was going on when it was last used, and not closed, is
    /// brought to an end: this takes longer the more there was.
    ///
    /// # Errors
    /// When there is no volume, when another process has it open, when it is of a newer format, or
    /// when its files cannot be used.
    pub fn open(directory: &Path, options: &VolumeOptions) -> Result<Self, VolumeError> {
        let _span = tracing::error_span!("volume", at = %directory.display()).entered();
        let layout = Layout::new(directory);
        let lock = layout.read_header().and_then(|_| layout.lock())?;
        // As it is now that nobody else has the volume.
        let quota = layout.read_header()?.quota;
        let failed = VolumeError::storage(directory, "cannot open it");
        open(&layout, lock, options, quota).map_err(failed)
    }

    /// An inode as the server sees it.
    pub(crate) fn node(&self, inode: Arc<Inode>) -> VolumeNode {
        self.root.node(inode)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.root.core()
    }

    /// Hands over the thread that brings changes into the bucket, or takes content of a snapshot away that has no room here.
    pub(crate) fn set_shipper(&self, thread: JoinHandle<()>) {
        *self.root.engine.shipper.lock() = Some(thread);
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").finish_non_exhaustive()
    }
}

impl Backend for Volume {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.remove(Capabilities::SUBMOUNTS);
        capabilities.set(Capabilities::IMMUTABLE, self.core().is_frozen());
        capabilities.set(Capabilities::PRIVATE, self.private);
        capabilities
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        Answer::brief(move || {
            let number = locator.inode().ok_or(Errno::STALE)?;
            match self.core().inode(number) {
                Ok(inode) => Ok(Arc::new(self.root.node(inode)) as Arc<dyn Node>),
                Err(error) if error.is(Errno::NOENT) => Err(Errno::STALE.into()),
                Err(error) => Err(error),
            }
        })
    }

    fn close(&self) -> Result<()> {
        match self.core().live {
            Some(_) => self.root.engine.close(),
            None => Ok(()),
        }
    }
}

/// What runs as long as anybody uses the volume.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Arc<Core>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
    applier: Option<JoinHandle<()>>,
    /// Of a volume in a bucket.
    shipper: Mutex<Option<JoinHandle<()>>>,
    _lock: Lock,
}

impl Engine {
    /// Finishes what is done behind the operations. Of a volume in a bucket, brings everything there and gives the volume
    /// back.
    fn close(&self) -> Result<()> {
        self.core.upkeep.stop();
        join(self.upkeep.lock().take(), "upkeep");
        let Some(live) = &self.core.live else {
            return Ok(());
        };
        live.rounds.stop();
        join(self.shipper.lock().take(), "shipper");
        match live.rounds.is_closed() {
            true => Ok(()),
            false => {
                let left = "not everything is in the bucket: it is kept in the local directory, and the next start goes on";
                Err(std::io::Error::other(left).into())
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(parent: &self.core.span, %error, "volume: not closed as it should be");
        }
        self.core.meta.close();
        join(self.applier.take(), "metadata");
    }
}

fn join(thread: Option<JoinHandle<()>>, name: &str) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!(name, "volume: a thread panicked");
    }
}

fn fill(layout: &Layout, options: &VolumeOptions) -> Result<()> {
    meta::create(&layout.database(), &layout.journal())?;
    DataFolder::create(&layout.data())?;
    let (meta, applier) = Meta::open(&layout.database(), &layout.journal(), None)?;
    let written = meta
        .commit(
            vec![Change::Node(meta.new_inode(), Some(root_row(options)))],
            Purpose::Usual,
        )
        .and_then(|_| meta.sync());
    meta.close();
    join(Some(applier), "metadata");
    written
}

/// The root of a new volume.
pub(crate) fn root_row(options: &VolumeOptions) -> NodeRow {
    let permissions = options.root_permissions & 0o7777;
    let mut row = NodeRow::new(FileKind::Directory, permissions, Timestamp::now());
    row.uid = options.uid;
    row.gid = options.gid;
    row.parent = ROOT;
    row
}

fn open(layout: &Layout, lock: Lock, options: &VolumeOptions, quota: Quota) -> Result<Volume> {
    let data = DataFolder::open(&layout.data())?;
    let meta = Meta::open(&layout.database(), &layout.journal(), None)?;
    let options = VolumeOptions { quota, ..*options };
    start(meta, data, None, lock, &options, |_| Ok(()))
}

/// Starts what a volume runs on, and finishes what was left when it was last used; `first` is done before that. The
/// quota of the options is the volume's.
pub(crate) fn start(
    (meta, applier): (Arc<Meta>, JoinHandle<()>),
    data: DataFolder,
    live: Option<Box<Live>>,
    lock: Lock,
    options: &VolumeOptions,
    first: impl FnOnce(&Arc<Core>) -> Result<()>,
) -> Result<Volume> {
    let (upkeep, jobs) = upkeep::channel();
    let owner = (options.uid, options.gid);
    let core = Arc::new(Core::new(meta, data, live, upkeep, owner, options.quota));
    let for_thread = core.clone();
    let thread = std::thread::Builder::new()
        .name("volume-upkeep".to_owned())
        .spawn(move || for_thread.span.in_scope(|| jobs.run(&for_thread)))?;
    let engine = Arc::new(Engine {
        core: core.clone(),
        upkeep: Mutex::new(Some(thread)),
        applier: Some(applier),
        shipper: Mutex::new(None),
        _lock: lock,
    });
    first(&core)?;
    core.failpoints.reach("dirty content found");
    core.count_new(core.meta.read(tables::figures)?.inodes);
    if !core.is_frozen() {
        finish_what_was_left(&core)?;
    }
    core.usage.counted(&core.meta.read(tables::figures)?);
    let inode = core.inode(ROOT)?;
    Ok(Volume {
        root: Arc::new(VolumeNode { inode, engine }),
        private: options.private,
    })
}

/// After a volume was not closed: removes inodes without names that were in use, and takes sizes and
/// times from data files that were written to.
fn finish_what_was_left(core: &Core) -> Result<()> {
    let orphans = core.meta.read(|db| tables::inodes(db, "orphan"))?;
    for &ino in &orphans {
        core.remove_inode(ino, true);
    }
    let unsettled = core.meta.read(|db| tables::inodes(db, "unsettled"))?;
    let mut settled = 0_usize;
    for ino in unsettled {
        if orphans.binary_search(&ino).is_ok() {
            continue;
        }
        settle(core, ino)?;
        core.failpoints.reach("settled after a kill");
        settled = settled.saturating_add(1);
    }
    if !orphans.is_empty() || settled > 0 {
        let orphans = orphans.len();
        tracing::info!(
            orphans,
            settled,
            "volume: it was not closed; finished what was left"
        );
    }
    core.meta.catch_up()
}

/// Brings a row in step with its data file.
fn settle(core: &Core, ino: u64) -> Result<()> {
    let mut changes = vec![Change::Unsettled(ino, false)];
    if let Some(mut row) = core.meta.node(ino)? {
        match core.data.open_file(ino, false) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).map_err(vfsd_backend::Error::from)?;
                row.has_data = true;
                row.size = u64::try_from(stat.st_size).unwrap_or(0);
                row.blocks = core.blocks_of(ino, row.size, &file)?;
                let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
                row.modified = Timestamp::new(stat.st_mtime, nanoseconds)?;
                row.changed = row.changed.max(row.modified);
                if core.live.is_some() {
                    // It may have been cut off there, of which nobody made a record. The row's size tells it no more when it
                    // is longer again.
                    changes.push(Change::Hole(ino, up(row.size), END));
                }
            }
            // Marked, and killed before the first byte was written.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        changes.push(Change::Node(ino, Some(row)));
    }
    core.commit(changes, Purpose::Freeing)?;
    Ok(())
}
