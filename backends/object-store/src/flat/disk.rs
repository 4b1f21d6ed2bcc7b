//! Blocks on a disk of the host, for the next time.
//!
//! Eight blocks in a row of a content share a file, each in its place if it is there: a checksum of what it is of and of its
//! bytes, and these. What a killed daemon or a power cut left half written is found out by the checksum. Nothing is kept
//! open or in memory: several daemons may share a directory, and each of them holds it below its own limit.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, futimens, mkdirat,
    openat, statat, unlinkat,
};
use rustix::io::{Errno, preadv, pwritev};
use sha2::{Digest, Sha256};

use super::blocks::BLOCK;

/// Begins each block; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"vfsdblk2";
/// Magic, checksum of what follows.
const HEADER: usize = 8 + 32;
/// Blocks that share a file: to make and to remove one costs as much as to write them.
const TOGETHER: u64 = 8;
/// From the beginning of a block to that of the next: the largest one with its header, in whole pages.
const STRIDE: u64 = BLOCK + 4096;
/// Folders that the files are spread over.
const FOLDERS: u8 = 64;
/// The share of the limit that may be written before the directory is looked through again.
const LOOK_AFTER: u64 = 16;

/// A directory that keeps blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: OwnedFd,
    limit: u64,
    /// Since the directory was looked through.
    written: AtomicU64,
    looking: AtomicBool,
}

/// Which block: as long as it is the same, it is the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockName {
    pub(super) content: Arc<str>,
    pub(super) number: u64,
}

impl BlockName {
    /// The path of its file.
    fn path(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.content.as_bytes());
        hash.update((self.number / TOGETHER).to_le_bytes());
        let hash = hash.finalize();
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = hash.first().copied().unwrap_or(0) % FOLDERS;
        format!("{folder:02x}/{name}")
    }

    /// Where it begins in its file.
    fn offset(&self) -> u64 {
        (self.number % TOGETHER).saturating_mul(STRIDE)
    }
}

impl DiskCache {
    /// Keeps blocks in `directory`, which is made if it isn't there, up to about `limit` bytes: more is removed soon, what was used the
    /// longest time ago first.
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
                // The first block that is written has it looked through.
                written: AtomicU64::new(limit),
                looking: AtomicBool::new(false),
            }),
        })
    }

    /// About how many bytes it keeps.
    pub(super) fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// The block, if it is there and whole, in this `memory`, which is given back otherwise. Waits for the disk.
    pub(super) fn get(
        &self,
        name: &BlockName,
        length: usize,
        mut memory: BytesMut,
    ) -> Result<Bytes, BytesMut> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(&self.shared.directory, name.path(), flags, Mode::empty());
        let Ok(file) = opened else {
            return Err(memory);
        };
        memory.resize(length, 0);
        match read(&file, name, &mut memory) {
            true => Ok(memory.freeze()),
            false => Err(memory),
        }
    }

    /// Keeps a block. Waits for the disk; what cannot be written is not kept, nor what comes while there is
    /// no room yet.
    pub(super) fn put(&self, name: &BlockName, bytes: &[u8]) {
        let shared = &self.shared;
        let share = shared.limit / LOOK_AFTER;
        let full = shared.written.load(Ordering::Relaxed) >= share.saturating_mul(2);
        if full && shared.looking.load(Ordering::Acquire) {
            return;
        }
        if self.write(name, bytes).is_err() {
            tracing::debug!("a block is not kept on the disk");
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        shared.written.fetch_add(length, Ordering::Relaxed);
        // Whoever wrote meanwhile did not look, so this one looks again.
        while shared.written.load(Ordering::Relaxed) >= share
            && !shared.looking.swap(true, Ordering::AcqRel)
        {
            shared.written.store(0, Ordering::Relaxed);
            self.make_room();
            shared.looking.store(false, Ordering::Release);
        }
    }

    fn write(&self, name: &BlockName, bytes: &[u8]) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.shared.directory, name.path(), flags, mode)?;
        let checksum = checksum(name, bytes);
        let parts = [MAGIC.as_slice(), &checksum, bytes].map(IoSlice::new);
        let written = pwritev(&file, &parts, name.offset())?;
        match written == bytes.len().saturating_add(HEADER) {
            true => Ok(()),
            false => Err(Errno::NOSPC),
        }
    }

    /// Looks through the directory, and removes what was used the longest time ago until a part of the limit is free.
    fn make_room(&self) {
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
        let target = self
            .shared
            .limit
            .saturating_sub(self.shared.limit / LOOK_AFTER);
        files.sort_unstable();
        for (_, _, size, path) in files {
            if total <= target {
                return;
            }
            if unlinkat(&self.shared.directory, path, AtFlags::empty()).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }
}

/// Whether all of the block is there, and now in `bytes`.
fn read(file: &OwnedFd, name: &BlockName, bytes: &mut [u8]) -> bool {
    // Used just now: others see it, too.
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let _ = futimens(file, &times);
    let expected = bytes.len().saturating_add(HEADER);
    let mut header = [0; HEADER];
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(bytes)];
    let whole = preadv(file, &mut parts, name.offset()) == Ok(expected);
    whole && header.strip_prefix(MAGIC) == Some(&checksum(name, bytes))
}

fn checksum(name: &BlockName, bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.content.as_bytes());
    hash.update([0]);
    hash.update(name.number.to_le_bytes());
    hash.update(bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BlockName {
        block(text, 0)
    }

    fn block(text: &str, number: u64) -> BlockName {
        BlockName {
            content: text.into(),
            number,
        }
    }

    fn get(cache: &DiskCache, text: &str, length: usize) -> Option<Bytes> {
        cache.get(&name(text), length, BytesMut::new()).ok()
    }

    /// All files with their sizes.
    fn files(directory: &Path) -> Vec<(std::path::PathBuf, u64)> {
        let folders = std::fs::read_dir(directory).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files
            .map(|file| {
                let file = file.unwrap();
                (file.path(), file.metadata().unwrap().len())
            })
            .collect()
    }

    #[test]
    fn a_block_is_there_for_the_next_one_who_asks() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(get(&cache, "a", 3), None);
        cache.put(&name("a"), b"123");
        let other = DiskCache::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(get(&other, "a", 3).unwrap(), "123");
        assert_eq!(get(&other, "a", 4), None);
        assert_eq!(get(&other, "b", 3), None);
    }

    #[test]
    fn a_block_that_was_damaged_or_is_anothers_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        cache.put(&name("a"), b"123456789");
        let (file, _) = files(dir.path()).pop().unwrap();
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(get(&cache, "a", 9), None, "byte {at}");
        }
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(get(&cache, "a", 9), None);
        std::fs::write(&file, vec![0; whole.len()]).unwrap();
        assert_eq!(get(&cache, "a", 9), None, "as a power cut leaves it");

        std::fs::write(&file, &whole).unwrap();
        std::fs::rename(&file, dir.path().join(name("b").path())).unwrap();
        assert_eq!(get(&cache, "b", 9), None);
    }

    #[test]
    fn blocks_in_a_row_share_a_file_and_stand_by_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 30).unwrap();
        let content = |number: u64| vec![u8::try_from(number).unwrap(); 128 << 10];
        for number in [9, 11, 14, 16] {
            cache.put(&block("a", number), &content(number));
        }
        assert_eq!(files(dir.path()).len(), 2);
        let there = |number: u64| {
            let got = cache.get(&block("a", number), 128 << 10, BytesMut::new());
            got.is_ok_and(|got| got == content(number))
        };
        let whole: Vec<u64> = (8..18).filter(|&number| there(number)).collect();
        assert_eq!(whole, [9, 11, 14, 16]);

        // A daemon was killed while it wrote, over what was there and at the end.
        let file = dir.path().join(block("a", 9).path());
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = usize::try_from(block("a", 11).offset()).unwrap() + 5000;
        bytes[middle] ^= 1;
        bytes.pop();
        std::fs::write(&file, bytes).unwrap();
        let whole: Vec<u64> = (8..18).filter(|&number| there(number)).collect();
        assert_eq!(whole, [9, 16]);
        cache.put(&block("a", 14), &content(14));
        assert!(there(14));
    }

    #[test]
    fn the_directory_stays_near_its_limit_and_keeps_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 1 << 20;
        let cache = DiskCache::open(dir.path(), limit).unwrap();
        let block = vec![7; 16 << 10];
        cache.put(&name("used"), &block);
        for number in 0..300 {
            cache.put(&name(&number.to_string()), &block);
            assert!(get(&cache, "used", block.len()).is_some(), "{number}");
        }
        let total: u64 = files(dir.path()).iter().map(|(_, size)| size).sum();
        assert!(total <= limit + limit / 8, "{total}");
        assert!(total > limit / 2, "{total}");
        assert!(get(&cache, "0", block.len()).is_none());
    }

    #[test]
    fn what_a_killed_daemon_left_half_written_goes_like_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 1 << 20;
        let cache = DiskCache::open(dir.path(), limit).unwrap();
        let left = dir.path().join("00/new-0000000000000001-7");
        std::fs::write(&left, vec![1; 16 << 10]).unwrap();
        for number in 0..100 {
            cache.put(&name(&number.to_string()), &[7; 16 << 10]);
        }
        assert!(!left.exists());
        let total: u64 = files(dir.path()).iter().map(|(_, size)| size).sum();
        assert!(total <= limit + limit / 8, "{total}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_keeps_nothing_and_fails_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
        for folder in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_dir_all(folder.unwrap().path()).unwrap();
        }
        cache.put(&name("a"), b"123");
        assert_eq!(get(&cache, "a", 3), None);
    }
}
