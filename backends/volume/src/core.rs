//! What all inodes of a volume have in common.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfsd_backend::posix::{LockBudget, OpenFileId};
use vfsd_backend::{Errno, Error, FsStatistics, Name, Result};

use crate::data::DataFolder;
use crate::entries::{self, Entries};
use crate::failpoint::Failpoints;
use crate::inode::{BLOCK_SIZE, Inode, State};
use crate::live::{Live, Passing};
use crate::meta::journal::Lsn;
use crate::meta::tables::Named;
use crate::meta::{Change, EntryRow, Meta, Purpose};
use crate::quota::{Quota, Usage};
use crate::upkeep::Upkeep;

/// Entries of directories that are in memory at a time.
const MOST_LOADED: usize = if cfg!(test) { 20 } else { 400_000 };
/// Inodes are read from the tables by as many threads at a time.
const LOADERS: usize = 16;

/// A volume that is open.
///
/// Locks are taken in this order, and none is waited for by who holds a later one:
///
/// 1. `names`: who changes entries of directories.
/// 2. An inode's content, shared by who reads or writes and alone by who changes its size.
/// 3. In a volume in a bucket, the cut: shared by who changes anything, alone by who ships.
/// 4. An inode's state. Only the holder of `names` has those of several inodes.
/// 5. Entries of directories. Only the holder of `names` has those of several.
/// 6. The journal, then what is ahead of the tables.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) meta: Arc<Meta>,
    pub(crate) data: DataFolder,
    /// Of a volume in a bucket: what is between it and that.
    pub(crate) live: Option<Box<Live>>,
    pub(crate) names: Mutex<()>,
    pub(crate) upkeep: Upkeep,
    pub(crate) failpoints: Failpoints,
    /// Names the volume in the log: who opens one has entered it.
    pub(crate) span: tracing::Span,
    /// Owner and group of what callers without an identity make.
    pub(crate) owner: (u32, u32),
    pub(crate) usage: Usage,
    pub(crate) locks: Arc<LockBudget>,
    inodes: Mutex<HashMap<u64, Weak<Inode>>>,
    loaders: [Mutex<()>; LOADERS],
    /// How many inodes there are.
    count: AtomicU64,
    last_open_file: AtomicU64,
    /// Inodes whose content comes before all rows.
    sync_first: Mutex<HashSet<u64>>,
    syncing: Mutex<()>,
    loaded: AtomicUsize,
    /// Directories whose entries are in memory, oldest first.
    loaded_directories: Mutex<VecDeque<Weak<Inode>>>,
}

impl Core {
    pub(crate) fn new(
        meta: Arc<Meta>,
        data: DataFolder,
        live: Option<Box<Live>>,
        upkeep: Upkeep,
        owner: (u32, u32),
        quota: Quota,
    ) -> Self {
        Self {
            meta,
            data,
            live,
            names: Mutex::default(),
            upkeep,
            failpoints: Failpoints::default(),
            span: tracing::Span::current(),
            owner,
            usage: Usage::new(quota),
            locks: LockBudget::new(LockBudget::USUAL),
            inodes: Mutex::default(),
            loaders: Default::default(),
            count: AtomicU64::new(0),
            last_open_file: AtomicU64::new(0),
            sync_first: Mutex::default(),
            syncing: Mutex::default(),
            loaded: AtomicUsize::new(0),
            loaded_directories: Mutex::default(),
        }
    }

    pub(crate) fn new_open_file(&self) -> OpenFileId {
        // 64 bits do not run out.
        OpenFileId(self.last_open_file.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a change, of which a cut sees all or nothing. Waits where too much is on its way into a bucket.
    pub(crate) fn pass(&self) -> Passing<'_> {
        match &self.live {
            None => Passing::default(),
            Some(live) => live.pass(),
        }
    }

    /// As [`pass`](Self::pass), for what has to be done before there is more room.
    pub(crate) fn pass_now(&self) -> Passing<'_> {
        match &self.live {
            None => Passing::default(),
            Some(live) => live.pass_now(),
        }
    }

    /// Commits changes of rows. The caller [passes](Self::pass).
    ///
    /// # Errors
    /// As [`Meta::commit`], and EROFS when another daemon took the volume over, or it is a snapshot.
    pub(crate) fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<Lsn> {
        let Some(live) = &self.live else {
            return self.meta.commit(changes, purpose);
        };
        live.check_owned()?;
        let bytes = changes
            .iter()
            .fold(0_u64, |sum, change| sum.saturating_add(change.bytes()));
        self.failpoints.reach("rows about to be noted");
        let lsn = self.meta.commit(changes, purpose)?;
        self.failpoints.reach("rows noted");
        live.rounds.recorded(bytes);
        Ok(lsn)
    }

    fn known(&self, ino: u64) -> Option<Arc<Inode>> {
        self.inodes.lock().get(&ino)?.upgrade()
    }

    fn remember(self: &Arc<Self>, ino: u64, state: State) -> Arc<Inode> {
        let inode = Arc::new(Inode::new(ino, state, self.clone()));
        self.inodes.lock().insert(ino, Arc::downgrade(&inode));
        inode
    }

    /// An inode that is in memory already.
    pub(crate) fn inode_in_memory(&self, ino: u64) -> Option<Arc<Inode>> {
        self.known(ino)
    }

    /// An inode: the one in memory, or read from the tables.
    ///
    /// # Errors
    /// ENOENT when there is none, or it has no name and nobody has it open.
    pub(crate) fn inode(self: &Arc<Self>, ino: u64) -> Result<Arc<Inode>> {
        if let Some(inode) = self.known(ino) {
            return Ok(inode);
        }
        // One thread reads it: a second one could otherwise put old rows over what the first one's
        // caller changes meanwhile.
        let slot = usize::try_from(ino).unwrap_or(0) % LOADERS;
        let _alone = self.loaders.get(slot).map(|loader| loader.lock());
        if let Some(inode) = self.known(ino) {
            return Ok(inode);
        }
        // One without a name that is in memory no more is about to be removed: whoever asks for it found its last name
        // just before that went.
        let row = self.meta.node(ino)?.filter(|row| row.links > 0);
        let row = row.ok_or(Errno::NOENT)?;
        let attributes = match row.xattrs {
            0 => Vec::new(),
            _ => self.meta.attributes(ino)?,
        };
        let state = State::load(row, attributes)?;
        Ok(self.remember(ino, state))
    }

    /// An inode with a number of its own, for a transaction to write. A directory has no entries.
    pub(crate) fn new_inode(self: &Arc<Self>, state: State) -> Arc<Inode> {
        let directory = state.row.kind == vfsd_backend::FileKind::Directory;
        let inode = self.remember(self.meta.new_inode(), state);
        inode.content.is_new();
        if directory {
            *inode.entries.write() = Some(Entries::default());
            self.is_loaded(&inode);
        }
        inode
    }

    /// An inode is no longer in memory. `gone` if it has no name either, with whether it has data
    /// and its size.
    pub(crate) fn forget(
        &self,
        ino: u64,
        inode: *const Inode,
        loaded: usize,
        gone: Option<(bool, u64)>,
    ) {
        let mut inodes = self.inodes.lock();
        // Its number may have been read from the tables again meanwhile.
        if inodes
            .get(&ino)
            .is_some_and(|known| known.as_ptr() == inode)
        {
            inodes.remove(&ino);
        }
        drop(inodes);
        self.loaded.fetch_sub(loaded, Ordering::Relaxed);
        if let Some((has_data, size)) = gone {
            self.usage.removed(size);
            self.upkeep.gone(ino, has_data);
        }
    }

    /// Takes away what is left of an inode without a name. The data go first: if that is as far as it comes,
    /// the next start does the rest.
    pub(crate) fn remove_inode(&self, ino: u64, has_data: bool) {
        let _passing = self.pass_now();
        if let Some(live) = &self.live
            && live.is_on_its_way(ino, has_data)
        {
            return;
        }
        let data = match has_data {
            true => self.data.remove(ino).map_err(Error::from),
            false => Ok(()),
        };
        self.failpoints.reach("data file removed");
        let removed = data.and_then(|()| {
            let changes = vec![
                Change::Node(ino, None),
                Change::Orphan(ino, false),
                Change::Unsettled(ino, false),
            ];
            self.commit(changes, Purpose::Freeing)
        });
        match removed {
            Ok(_) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(parent: &self.span, ino, %error, "volume: an orphan stays until the next start")
            }
        }
    }

    /// Takes note that so many inodes were made.
    pub(crate) fn count_new(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// The content of an inode is to be on the disk before the names that were changed until now are:
    /// who writes a new file and gives it the name of an old one expects either, never an empty one.
    pub(crate) fn sync_before_names(&self, ino: u64) {
        self.sync_first.lock().insert(ino);
    }

    /// Makes all changes of rows durable on this host.
    pub(crate) fn sync_meta(&self) -> Result<()> {
        self.sync_content_first()?;
        self.meta.sync()
    }

    /// Makes the content durable that comes before all rows.
    pub(crate) fn sync_content_first(&self) -> Result<()> {
        // Who comes meanwhile must not be faster.
        let _one_at_a_time = self.syncing.lock();
        while let Some(ino) = self.next_to_sync() {
            if let Err(error) = self.sync_data(ino) {
                self.sync_before_names(ino);
                return Err(error);
            }
        }
        Ok(())
    }

    fn next_to_sync(&self) -> Option<u64> {
        let mut first = self.sync_first.lock();
        let ino = *first.iter().next()?;
        first.remove(&ino);
        Some(ino)
    }

    /// Makes the content of an inode durable on this host.
    pub(crate) fn sync_data(&self, ino: u64) -> Result<()> {
        if let Some(inode) = self.known(ino) {
            return inode.sync_data();
        }
        match self.data.open_file(ino, false) {
            Ok(file) => Ok(rustix::fs::fsync(file)?),
            // Removed meanwhile.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes everything durable on this host.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let inodes: Vec<Arc<Inode>> = {
            let known = self.inodes.lock();
            known.values().filter_map(Weak::upgrade).collect()
        };
        inodes.iter().try_for_each(|inode| inode.settle())?;
        self.data.sync_all()?;
        self.sync_meta()
    }

    /// What a name in a directory stands for.
    ///
    /// # Errors
    /// ENOTDIR where this is none, ENOENT for one that was removed.
    pub(crate) fn find(&self, directory: &Arc<Inode>, name: Name<'_>) -> Result<Option<EntryRow>> {
        if let Some(known) = self.find_in_memory(directory, name) {
            return known;
        }
        let count = directory.state.read().row.entries;
        if count > entries::MOST {
            return self.meta.entry(directory.ino, name.as_bytes());
        }
        self.load_entries(directory)?;
        let entries = directory.entries.read();
        match entries.as_ref() {
            Some(entries) => Ok(entries.get(name.as_bytes())),
            // Another directory needed the room at once.
            None => self.meta.entry(directory.ino, name.as_bytes()),
        }
    }

    /// As [`find`](Self::find), if the answer is in memory.
    pub(crate) fn find_in_memory(
        &self,
        directory: &Inode,
        name: Name<'_>,
    ) -> Option<Result<Option<EntryRow>>> {
        if let Err(errno) = check_directory(directory) {
            return Some(Err(errno.into()));
        }
        let entries = directory.entries.try_read()?;
        Some(Ok(entries.as_ref()?.get(name.as_bytes())))
    }

    fn load_entries(&self, directory: &Arc<Inode>) -> Result<()> {
        let mut slot = directory.entries.write();
        if slot.is_some() {
            return Ok(());
        }
        let all = self.meta.entries(directory.ino, 0, u64::MAX >> 1)?;
        self.loaded.fetch_add(all.len(), Ordering::Relaxed);
        *slot = Some(Entries::new(all));
        drop(slot);
        self.is_loaded(directory);
        self.make_room(directory);
        Ok(())
    }

    /// Takes note of a directory whose entries are in memory now.
    fn is_loaded(&self, directory: &Arc<Inode>) {
        let mut loaded = self.loaded_directories.lock();
        // Those that are gone take memory, too. The capacity has doubled since they were looked for.
        if loaded.len() == loaded.capacity() {
            loaded.retain(|directory| directory.strong_count() > 0);
        }
        loaded.push_back(Arc::downgrade(directory));
    }

    /// Lets go of entries that have been in memory for the longest time.
    fn make_room(&self, keep: &Arc<Inode>) {
        while self.loaded.load(Ordering::Relaxed) > MOST_LOADED {
            let Some(oldest) = self.loaded_directories.lock().pop_front() else {
                return;
            };
            if oldest.as_ptr() == Arc::as_ptr(keep) {
                return;
            }
            if let Some(directory) = oldest.upgrade() {
                let entries = directory.entries.write().take();
                let count = entries.as_ref().map_or(0, Entries::len);
                self.loaded.fetch_sub(count, Ordering::Relaxed);
            }
        }
    }

    /// Up to `count` entries of a directory after `cookie`.
    pub(crate) fn list(
        &self,
        directory: &Arc<Inode>,
        cookie: u64,
        count: usize,
    ) -> Result<Vec<Named>> {
        let few = directory.state.read().row.entries <= entries::MOST;
        if few {
            self.load_entries(directory)?;
        }
        if let Some(entries) = directory.entries.read().as_ref() {
            return Ok(entries.list(cookie, count));
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX >> 1);
        self.meta.entries(directory.ino, cookie, count)
    }

    /// Changes an entry in memory, if the directory's entries are there.
    pub(crate) fn put_entry(
        &self,
        slot: &mut Option<Entries>,
        name: Arc<[u8]>,
        row: Option<EntryRow>,
    ) {
        let Some(entries) = slot else {
            return;
        };
        let before = entries.len();
        entries.put(name, row);
        let after = entries.len();
        if after > before {
            self.loaded
                .fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.loaded
                .fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
        if u64::try_from(after).unwrap_or(u64::MAX) > entries::MOST {
            self.loaded.fetch_sub(after, Ordering::Relaxed);
            *slot = None;
        }
    }

    /// Whether `ancestor` is `directory` or a directory above it. Asked by who holds `names`.
    pub(crate) fn is_within(&self, directory: u64, ancestor: u64) -> Result<bool> {
        let mut at = directory;
        loop {
            if at == ancestor {
                return Ok(true);
            }
            let parent = match self.known(at) {
                Some(inode) => inode.state.read().row.parent,
                None => self.meta.node(at)?.ok_or(Errno::NOENT)?.parent,
            };
            if parent == at || parent == 0 {
                return Ok(false);
            }
            at = parent;
        }
    }

    pub(crate) fn statistics(&self) -> Result<FsStatistics> {
        let host = self.data.statistics()?;
        let count = self.count.load(Ordering::Relaxed);
        if self.live.is_some() {
            return Ok(self.usage.limit(bucket_statistics(count)));
        }
        let free = host
            .f_bavail
            .saturating_mul(host.f_frsize)
            .checked_div(u64::from(BLOCK_SIZE))
            .unwrap_or(0);
        let blocks = |count: u64| {
            count
                .saturating_mul(host.f_frsize)
                .checked_div(u64::from(BLOCK_SIZE))
                .unwrap_or(0)
        };
        Ok(self.usage.limit(FsStatistics {
            blocks: blocks(host.f_blocks),
            blocks_free: blocks(host.f_bfree),
            blocks_available: blocks(host.f_bavail),
            // Inodes cost what their rows cost: there is no table of a fixed size.
            files: count.saturating_add(free),
            files_free: free,
            block_size: BLOCK_SIZE,
            fragment_size: BLOCK_SIZE,
            name_max: u32::try_from(Name::MAX).unwrap_or(u32::MAX),
        }))
    }
}

/// A bucket has no size: so much is told where programs ask for one.
fn bucket_statistics(inodes: u64) -> FsStatistics {
    // 1 PiB.
    const BLOCKS: u64 = (1 << 50) / (BLOCK_SIZE as u64);
    let blocks = BLOCKS;
    FsStatistics {
        blocks,
        blocks_free: blocks,
        blocks_available: blocks,
        files: inodes.saturating_add(blocks),
        files_free: blocks,
        block_size: BLOCK_SIZE,
        fragment_size: BLOCK_SIZE,
        name_max: u32::try_from(Name::MAX).unwrap_or(u32::MAX),
    }
}

/// ENOTDIR for what is no directory, ENOENT for one that was removed.
pub(crate) fn check_directory(inode: &Inode) -> Result<(), Errno> {
    if !inode.is_directory() {
        return Err(Errno::NOTDIR);
    }
    if inode.state.read().row.links == 0 {
        return Err(Errno::NOENT);
    }
    Ok(())
}
