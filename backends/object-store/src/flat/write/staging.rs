//! Files of the host in which content is until it is an object.
//!
//! They have no name: a daemon that is killed leaves nothing behind, and what it had not uploaded is gone. All together
//! they are held below a limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use vfsd_backend::{Errno, Error, ReadSink, Result, Wait, WriteSource};

use crate::flat::DiskCache;

/// A directory of the host for staged files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Staging {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: OwnedFd,
    limit: u64,
    used: AtomicU64,
    last: AtomicU64,
    /// What makes room for it where the disk is full.
    cache: OnceLock<DiskCache>,
}

impl Staging {
    /// Stages files in `directory`, which is made if it isn't there, up to `limit` bytes in all: beyond that writes
    /// are ENOSPC until something was uploaded and closed.
    ///
    /// Only this opens the directory by its path.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub fn open(directory: &Path, limit: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self {
            shared: Arc::new(Shared {
                directory: openat(CWD, directory, flags, Mode::empty())?,
                limit,
                used: AtomicU64::new(0),
                last: AtomicU64::new(0),
                cache: OnceLock::new(),
            }),
        })
    }

    /// Where the disk is full, this cache gives way.
    pub(in crate::flat) fn goes_before(&self, cache: &DiskCache) {
        let _ = self.shared.cache.set(cache.clone());
    }

    /// Bytes of all staged files.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// A new, empty file.
    pub(super) fn file(&self) -> Result<Staged> {
        Ok(Staged {
            file: self.shared.with_room(0, || self.shared.file())?.into(),
            size: Mutex::new(0),
            shared: self.shared.clone(),
        })
    }
}

impl Shared {
    fn file(&self) -> rustix::io::Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&self.directory, ".", flags | OFlags::TMPFILE, mode) {
            // Not every file system can.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            opened => return opened,
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let address = std::ptr::from_ref(self).addr();
        let name = format!("staged-{}-{address:x}-{number}", std::process::id());
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let opened = openat(&self.directory, &name, flags, mode)?;
        unlinkat(&self.directory, &name, AtFlags::empty())?;
        Ok(opened)
    }

    /// Does something that takes so many bytes of the disk, and once more each time that there was no room and the
    /// cache could make some.
    fn with_room<T, E: Into<Error>>(
        &self,
        length: u64,
        mut attempt: impl FnMut() -> std::result::Result<T, E>,
    ) -> Result<T> {
        loop {
            let error = match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => error.into(),
            };
            let full = error.is(Errno::NOSPC);
            if !full || !self.cache.get().is_some_and(|cache| cache.give_way(length)) {
                return Err(error);
            }
        }
    }

    /// Takes or gives back what a file needs that grows or shrinks.
    fn resize(&self, from: u64, to: u64) -> Result<(), Errno> {
        let more = to.saturating_sub(from);
        let less = from.saturating_sub(to);
        let changed = |used: u64| {
            let used = used.saturating_add(more).saturating_sub(less);
            (more == 0 || used <= self.limit).then_some(used)
        };
        let order = Ordering::Relaxed;
        match self.used.fetch_update(order, order, changed) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::NOSPC),
        }
    }
}

/// The content of a file that is written to.
#[derive(Debug)]
pub(in crate::flat) struct Staged {
    file: File,
    size: Mutex<u64>,
    shared: Arc<Shared>,
}

impl Staged {
    pub(in crate::flat) fn size(&self) -> u64 {
        *self.size.lock()
    }

    /// Cuts it, or extends it by zeros.
    pub(super) fn resize(&self, to: u64) -> Result<()> {
        let mut size = self.size.lock();
        self.shared.resize(*size, to)?;
        if let Err(error) = self.file.set_len(to) {
            // What was taken or given back above, the other way round.
            let _ = self.shared.resize(to, *size);
            return Err(error.into());
        }
        *size = to;
        Ok(())
    }

    /// Writes at `offset`, or at the end.
    pub(super) fn write(&self, offset: Option<u64>, source: &mut dyn WriteSource) -> Result<usize> {
        let mut size = self.size.lock();
        let offset = offset.unwrap_or(*size);
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        let grown = end.max(*size);
        self.shared.resize(*size, grown)?;
        let file = self.file.as_fd();
        let take = || source.take_into(file, offset, Wait::Allowed);
        let written = self.shared.with_room(length, take);
        let count = u64::try_from(*written.as_ref().unwrap_or(&0)).unwrap_or(0);
        let end = match count {
            0 => *size,
            count => offset.saturating_add(count).max(*size),
        };
        let _ = self.shared.resize(grown, end);
        *size = end;
        written
    }

    /// Appends bytes of the object that it was.
    pub(super) fn append(&self, bytes: &[u8]) -> Result<()> {
        let mut size = self.size.lock();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = size.checked_add(length).ok_or(Errno::FBIG)?;
        self.shared.resize(*size, end)?;
        let write = || self.file.write_all_at(bytes, *size);
        if let Err(error) = self.shared.with_room(length, write) {
            let _ = self.shared.resize(end, *size);
            return Err(error);
        }
        *size = end;
        Ok(())
    }

    /// Reads what is there.
    pub(in crate::flat) fn read(
        &self,
        offset: u64,
        sink: &mut dyn ReadSink,
        length: usize,
    ) -> Result<usize> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        if length == 0 {
            return Ok(0);
        }
        sink.put_from(self.file.as_fd(), offset, length, Wait::Allowed)
    }

    /// Gives the content a name, for whoever looks for it when this process has ended.
    pub(super) fn keep(&self, name: &str) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut kept = File::from(openat(&self.shared.directory, name, flags, mode)?);
        let mut staged = &self.file;
        self.shared.with_room(self.size(), || {
            kept.rewind()?;
            staged.rewind()?;
            std::io::copy(&mut staged.take(self.size()), &mut kept)
        })?;
        Ok(kept.sync_all()?)
    }

    /// A part of the content. It has to be there.
    pub(super) fn part(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut part = vec![0; usize::try_from(length).map_err(|_| Errno::FBIG)?];
        self.file.read_exact_at(&mut part, offset)?;
        Ok(part)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = self.shared.resize(self.size(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::disk::ContentName;
    use vfsd_backend::{BufferSink, SliceSource};

    #[test]
    fn staged_files_stay_below_the_limit_and_give_back_what_they_took() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(&folder.path().join("staging"), 10).unwrap();
        let (one, two) = (staging.file().unwrap(), staging.file().unwrap());
        let write = |file: &Staged, at, bytes: &[u8]| file.write(at, &mut SliceSource::new(bytes));
        assert_eq!(write(&one, Some(0), b"123456").unwrap(), 6);
        assert!(write(&two, Some(0), b"12345").unwrap_err().is(Errno::NOSPC));
        assert!(two.resize(1 << 40).unwrap_err().is(Errno::NOSPC));
        one.resize(3).unwrap();
        assert_eq!(write(&two, None, b"12345").unwrap(), 5);
        assert_eq!(write(&two, None, b"67").unwrap(), 2);
        assert_eq!(staging.used(), 10);
        drop(one);
        assert_eq!(staging.used(), 7);
        let mut buffer = [0; 9];
        let read = two.read(1, &mut BufferSink::new(&mut buffer), 9).unwrap();
        assert_eq!(&buffer[..read], b"234567");
        drop(two);
        assert_eq!(staging.used(), 0);
        let left = std::fs::read_dir(folder.path().join("staging")).unwrap();
        assert_eq!(left.count(), 0, "they have no name");
    }

    /// A file system of its own, in memory; unmounted at the end.
    struct Disk(tempfile::TempDir);

    impl Disk {
        /// `None` where the test may not mount.
        fn mount() -> Option<Self> {
            use rustix::mount::{MountFlags, mount};
            let point = tempfile::tempdir().unwrap();
            let size = c"size=32m";
            if let Err(errno) = mount("tmpfs", point.path(), "tmpfs", MountFlags::empty(), size) {
                eprintln!("skipped: cannot mount: {errno}");
                return None;
            }
            Some(Self(point))
        }

        fn free(&self) -> u64 {
            let stat = rustix::fs::statvfs(self.0.path()).unwrap();
            stat.f_bavail * stat.f_frsize
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let detach = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.0.path(), detach);
        }
    }

    #[test]
    fn on_a_full_disk_what_is_kept_gives_way_to_what_is_staged() {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let cache = DiskCache::open(&disk.0.path().join("objects"), 1 << 30).unwrap();
        let staging = Staging::open(&disk.0.path().join("staging"), 1 << 30).unwrap();
        staging.goes_before(&cache);
        let content = |number: u8| ContentName {
            name: number.to_string().into(),
            size: 128 << 10,
        };
        for number in 0..=250 {
            let bytes = vec![number; 128 << 10];
            cache.put(&content(number), 0, &[bytes.into()]);
            assert!(
                disk.free() >= 1 << 20,
                "a part is left free: {}",
                disk.free()
            );
        }
        assert!(cache.find(&content(250), 0).is_some());
        assert!(
            cache.find(&content(0), 0).is_none(),
            "the oldest goes first"
        );

        let staged = staging.file().unwrap();
        let write = |bytes: &[u8]| staged.write(None, &mut SliceSource::new(bytes));
        for _ in 0..24 {
            assert_eq!(write(&[7; 1 << 20]).unwrap(), 1 << 20);
        }
        for _ in 0..4 {
            staged.append(&[7; 1 << 20]).unwrap();
        }
        staged.keep("copy").unwrap_err();
        // Nothing is left that could give way.
        let full = (0..8).find_map(|_| write(&[7; 1 << 20]).err());
        assert!(full.unwrap().is(Errno::NOSPC));
        let part = staged.part(27 << 20, 1 << 20).unwrap();
        assert!(part == [7; 1 << 20]);
    }
}
