//! Blocks on a disk of the host, for the next time.
//!
//! Blocks in a row share a file, each in its place if it is there. What a killed daemon or a power cut left half written is found
//! out by a checksum of each page, which is looked at whenever it comes from the device. From then on it is read from the
//! kernel's memory by whoever has the file open. Several daemons may share a directory, and each of them holds it below its
//! own limit.
//!
//! - [`counters`]: what the cache was good for
//! - [`group`]: such a file
//! - [`headers`]: what its first page says

mod counters;
mod group;
mod headers;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, fstatvfs, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use self::counters::Counters;
pub use self::counters::DiskUse;
pub(super) use self::group::{Group, TOGETHER, group_of};
use super::known::Bounded;

/// Folders that the files are spread over.
const FOLDERS: u8 = 64;
/// The share of the limit that may be written before the directory is looked through again.
const LOOK_AFTER: u64 = 16;
/// The share of the file system that is left free for others.
const FREE: u64 = 32;
/// More than this is not left free.
const MOST_FREE: u64 = 256 << 20;
/// Files that are held open at most.
const OPEN: u64 = 256;
/// Files of which it is known what was checked: 8 GiB.
const KNOWN: usize = 8192;

/// A directory that keeps blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
}

/// A content's name, and the number of a group.
type Place = (Arc<str>, u64);

#[derive(Debug)]
struct Shared {
    directory: OwnedFd,
    limit: u64,
    /// What is removed takes its room as long as it is open.
    open: Mutex<Bounded<Place, Arc<Group>>>,
    /// Of files that were open.
    known: Mutex<Bounded<Place, group::State>>,
    /// Since the directory was looked through.
    written: AtomicU64,
    looking: AtomicBool,
    counters: Counters,
}

/// Which content: as long as it is the same, it is the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentName {
    pub(super) name: Arc<str>,
    /// Bytes of the whole content.
    pub(super) size: u64,
}

impl ContentName {
    /// The path of the file of a group.
    fn path(&self, group: u64) -> String {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([0, 4]);
        hash.update(group.to_le_bytes());
        let hash = hash.finalize();
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = hash.first().copied().unwrap_or(0) % FOLDERS;
        format!("{folder:02x}/{name}")
    }
}

impl DiskCache {
    /// Keeps blocks in `directory`, which is made if it isn't there, up to about `limit` bytes: more is removed soon, what was used the
    /// longest time ago first. So it is where the file system gets full.
    ///
    /// Only this opens the directory by its path.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub fn open(directory: &Path, limit: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = openat(CWD, directory, flags, Mode::empty())?;
        for folder in 0..FOLDERS {
            match mkdirat(&directory, format!("{folder:02x}"), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                directory,
                limit,
                open: Mutex::default(),
                known: Mutex::default(),
                // The first block that is written has it looked through.
                written: AtomicU64::new(limit),
                looking: AtomicBool::new(false),
                counters: Counters::new(),
            }),
        })
    }

    /// What it was good for until now.
    pub fn look(&self) -> DiskUse {
        self.shared.counters.look(self.shared.limit)
    }

    /// So many blocks were read that it had.
    pub(super) fn found(&self, blocks: u64) {
        self.shared.counters.found(blocks);
    }

    /// It did not have a block.
    pub(super) fn missed(&self) {
        self.shared.counters.missed();
    }

    /// About how many bytes it keeps.
    pub(super) fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// The file that a block would be in, if it is open.
    pub(super) fn opened(&self, content: &ContentName, block: u64) -> Option<Arc<Group>> {
        let key = (content.name.clone(), group_of(block));
        self.shared.open.lock().get(&key).cloned()
    }

    /// The file that a block would be in, if there is one.
    pub(super) fn find(&self, content: &ContentName, block: u64) -> Option<Arc<Group>> {
        let opened = self.opened(content, block);
        if let Some(opened) = opened.filter(|group| !group.is_removed()) {
            return Some(opened);
        }
        match self.open_group(content, block, OFlags::RDWR) {
            // It may be read at least.
            Err(Errno::ROFS | Errno::ACCESS) => {
                self.open_group(content, block, OFlags::RDONLY).ok()
            }
            found => found.ok(),
        }
    }

    /// The file that a block would be in, to be read around the kernel's memory. `None` where the file system does not have that.
    pub(super) fn direct(&self, content: &ContentName, block: u64) -> Option<OwnedFd> {
        self.open_file(content, block, OFlags::RDONLY | OFlags::DIRECT)
            .ok()
    }

    fn open_file(
        &self,
        content: &ContentName,
        block: u64,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = content.path(group_of(block));
        openat(&self.shared.directory, path, flags, Mode::RUSR | Mode::WUSR)
    }

    fn open_group(
        &self,
        content: &ContentName,
        block: u64,
        flags: OFlags,
    ) -> rustix::io::Result<Arc<Group>> {
        let shared = &self.shared;
        let file = self.open_file(content, block, flags)?;
        let place = (content.name.clone(), group_of(block));
        let known = shared.known.lock().remove(&place).unwrap_or_default();
        let group = Group::new(file, content, block, known);
        let group = Arc::new(group);
        let most = (shared.limit / LOOK_AFTER / group::SIZE).clamp(1, OPEN);
        let mut open = shared.open.lock();
        open.insert(place, group.clone());
        let closed = match u64::try_from(open.len()).is_ok_and(|count| count > most) {
            true => open.take_oldest(),
            false => None,
        };
        drop(open);
        if let Some((place, closed)) = closed {
            self.close(place, &closed);
        }
        Ok(group)
    }

    /// Notes what was known of a file that is no longer held open.
    fn close(&self, place: Place, group: &Group) {
        if group.was_used() {
            group.touch();
        }
        let mut known = self.shared.known.lock();
        known.insert(place, group.known());
        if known.len() > KNOWN {
            known.remove_oldest();
        }
    }

    /// Keeps blocks in a row of one group. Waits for the disk; what cannot be written is not kept, nor what comes
    /// while there is no room yet.
    pub(super) fn put(&self, content: &ContentName, first: u64, blocks: &[Bytes]) {
        let shared = &self.shared;
        let share = shared.limit / LOOK_AFTER;
        let full = shared.written.load(Ordering::Relaxed) >= share.saturating_mul(2);
        if full && shared.looking.load(Ordering::Acquire) {
            return;
        }
        let length: usize = blocks.iter().map(Bytes::len).sum();
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let missing = shared.missing(length);
        if missing > 0 && !self.give_way(missing) {
            return;
        }
        match self.write(content, first, blocks) {
            Ok(()) => shared.counters.wrote(length),
            Err(_) => tracing::debug!("blocks are not kept on the disk"),
        }
        shared.written.fetch_add(length, Ordering::Relaxed);
        // Whoever wrote meanwhile did not look, so this one looks again.
        while shared.written.load(Ordering::Relaxed) >= share
            && !shared.looking.swap(true, Ordering::AcqRel)
        {
            shared.written.store(0, Ordering::Relaxed);
            self.make_room(0);
            shared.looking.store(false, Ordering::Release);
        }
    }

    /// Removes about so many bytes, or more: somebody else needs the room. Whether there was anything to remove.
    pub(super) fn give_way(&self, wanted: u64) -> bool {
        // Each time the directory is looked through, which shall not be often.
        let share = self.shared.limit / LOOK_AFTER;
        self.make_room(wanted.max(share)) > 0
    }

    fn write(&self, content: &ContentName, first: u64, blocks: &[Bytes]) -> rustix::io::Result<()> {
        let opened = self.opened(content, first);
        let group = match opened.filter(|group| !group.is_removed()) {
            Some(group) => group,
            None => self.open_group(content, first, OFlags::RDWR | OFlags::CREATE)?,
        };
        group.write(first, blocks)
    }

    /// Marks the files as used that were read without waiting.
    fn touch_used(&self) {
        for (_, group) in self.open_groups() {
            if group.was_used() {
                group.touch();
            }
        }
    }

    /// Gives back the room of files that were removed.
    fn close_removed(&self) {
        for (key, group) in self.open_groups() {
            if group.is_removed() {
                self.shared.open.lock().remove(&key);
            }
        }
    }

    pub(super) fn open_groups(&self) -> Vec<(Place, Arc<Group>)> {
        let open = self.shared.open.lock();
        let group = |key: &Place| Some((key.clone(), open.peek(key)?.clone()));
        open.oldest().filter_map(group).collect()
    }

    /// Looks through the directory, and removes what was used the longest time ago until a part of the limit is free, and
    /// `wanted` bytes less are there. How many were removed.
    fn make_room(&self, wanted: u64) -> u64 {
        self.touch_used();
        let evicted = self.evict(wanted);
        self.close_removed();
        evicted
    }

    fn evict(&self, wanted: u64) -> u64 {
        let mut files = Vec::new();
        let mut total = 0_u64;
        for folder in 0..FOLDERS {
            let folder = format!("{folder:02x}");
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
            let Ok(opened) = openat(&self.shared.directory, &folder, flags, Mode::empty()) else {
                continue;
            };
            let Ok(entries) = Dir::read_from(&opened) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(stat) = statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                    continue;
                };
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    continue;
                }
                // There may be holes, and what was just written may have no place on the disk yet.
                let taken = u64::try_from(stat.st_blocks)
                    .unwrap_or(0)
                    .saturating_mul(512);
                let size = match taken {
                    0 => u64::try_from(stat.st_size).unwrap_or(0),
                    taken => taken,
                };
                total = total.saturating_add(size);
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push((
                    stat.st_mtime,
                    stat.st_mtime_nsec,
                    size,
                    format!("{folder}/{name}"),
                ));
            }
        }
        let limit = self.shared.limit;
        let target = limit.saturating_sub(limit / LOOK_AFTER);
        let target = target.min(total.saturating_sub(wanted));
        files.sort_unstable();
        let mut evicted = 0_u64;
        for (_, _, size, path) in files {
            if total <= target {
                break;
            }
            if unlinkat(&self.shared.directory, path, AtFlags::empty()).is_ok() {
                total = total.saturating_sub(size);
                evicted = evicted.saturating_add(size);
            }
        }
        self.shared.counters.counted(total, evicted);
        evicted
    }
}

impl Shared {
    /// How many bytes the file system lacks for `length` more, with what is left free for others.
    fn missing(&self, length: u64) -> u64 {
        let Ok(stat) = fstatvfs(&self.directory) else {
            return 0;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let free = (bytes(stat.f_blocks) / FREE).min(MOST_FREE);
        let wanted = length.saturating_add(free);
        wanted.saturating_sub(bytes(stat.f_bavail))
    }
}

#[cfg(test)]
mod tests;
