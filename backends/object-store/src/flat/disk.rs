//! Blocks on a disk of the host, for the next time.
//!
//! Each block is a file of its own: what it is of, a checksum, and its bytes. It is written under another name and renamed, so
//! that a killed daemon leaves no half block; what a power cut leaves is found out by the checksum. Nothing is kept open
//! or in memory: several daemons may share a directory, and each of them holds it below its own limit.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Begins each file; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"vfsdblk1";
/// Magic, checksum of what follows.
const HEADER: usize = 8 + 32;
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
    /// Told apart from those of other processes: in namespaces they may have the same id.
    process: u64,
    temporary: AtomicU64,
}

/// Which block: as long as it is the same text, it is the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockName(pub(super) String);

impl BlockName {
    fn place(&self) -> (String, String) {
        let hash = Sha256::digest(self.0.as_bytes());
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = hash.first().copied().unwrap_or(0) % FOLDERS;
        (format!("{folder:02x}"), name)
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
                process: RandomState::new().build_hasher().finish(),
                temporary: AtomicU64::new(0),
            }),
        })
    }

    /// About how many bytes it keeps.
    pub(super) fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// The block, if it is there and whole, in this `memory`. Waits for the disk.
    pub(super) fn get(
        &self,
        name: &BlockName,
        length: usize,
        memory: impl FnOnce() -> BytesMut,
    ) -> Option<Bytes> {
        let (folder, file) = name.place();
        let path = format!("{folder}/{file}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.shared.directory, path, flags, Mode::empty()).ok()?;
        let expected = HEADER.checked_add(length)?;
        if u64::try_from(fstat(&file).ok()?.st_size).ok()? != u64::try_from(expected).ok()? {
            return None;
        }
        // Used just now: others see it, too.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = futimens(&file, &times);
        let mut file = File::from(file);
        let mut header = [0; HEADER];
        file.read_exact(&mut header).ok()?;
        let mut bytes = memory();
        bytes.resize(length, 0);
        file.read_exact(&mut bytes).ok()?;
        let right = header.strip_prefix(MAGIC)? == checksum(name, &bytes);
        right.then(|| bytes.freeze())
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
        let directory = &self.shared.directory;
        let (folder, file) = name.place();
        let number = self.shared.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{folder}/new-{:016x}-{number}", self.shared.process);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut opened = File::from(opened);
        let header = [MAGIC.as_slice(), &checksum(name, bytes)].concat();
        let done = match opened
            .write_all(&header)
            .and_then(|()| opened.write_all(bytes))
        {
            Ok(()) => renameat(directory, &temporary, directory, format!("{folder}/{file}")),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        if done.is_err() {
            let _ = unlinkat(directory, &temporary, AtFlags::empty());
        }
        done
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
                // A small file takes a whole block of the disk; one just written may have none yet.
                let taken = u64::try_from(stat.st_blocks)
                    .unwrap_or(0)
                    .saturating_mul(512);
                let size = u64::try_from(stat.st_size).unwrap_or(0).max(taken);
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

fn checksum(name: &BlockName, bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.0.as_bytes());
    hash.update([0]);
    hash.update(bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BlockName {
        BlockName(text.to_owned())
    }

    fn get(cache: &DiskCache, text: &str, length: usize) -> Option<Bytes> {
        cache.get(&name(text), length, BytesMut::new)
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
        let (folder, place) = name("b").place();
        std::fs::rename(&file, dir.path().join(folder).join(place)).unwrap();
        assert_eq!(get(&cache, "b", 9), None);
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
