//! An open regular file.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, OFlags, copy_file_range, fallocate, fdatasync, fsync, seek};
use rustix::io::fcntl_dupfd_cloexec;
use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, Error, Extent, FallocateRequest, File,
    FileKind, HeldLock, LockKind, LockOwner, LockRequest, LockStyle, OpenFlags, ReadRequest,
    ReadSink, Result, SeekFrom, Wait, WriteRequest, WriteSource,
};

use crate::budget::Descriptor;
use crate::credentials::check_thread;
use crate::inode::Inode;
use crate::locks::WakeWaiters;
use crate::mounts::Mount;
use crate::set_id::{self, Mark};
use crate::setattr::Target;
use crate::share::{Share, no_descriptor};
use crate::stat::Stat;

/// Reads stop short in the middle of a file at a multiple of this; elsewhere it is the end.
const PAGE: u64 = 4096;

/// Copies of this length are over at once, unless the source has to be read from a disk.
const SMALL_COPY: u64 = 1 << 20;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    // Closed before those who wait for its flock are woken: fields are dropped in this order.
    descriptor: Descriptor,
    node: WakeWaiters,
    /// Of a file that is appended to, another one that writes where it is told to.
    in_place: OnceLock<Descriptor>,
    /// The descriptor writes to the end of the file only.
    appends: bool,
    /// What the guest may do with it; the descriptor may allow more.
    readable: bool,
    writable: bool,
    /// Every transfer goes to the disk and back.
    direct: bool,
    /// Every write waits for the disk.
    synchronous: bool,
}

impl OpenFile {
    pub(crate) fn new(node: Arc<Inode>, descriptor: Descriptor, flags: OpenFlags) -> Self {
        let options = &node.share().options;
        Self {
            descriptor,
            in_place: OnceLock::new(),
            appends: flags.contains(OpenFlags::APPEND) && !options.writeback,
            // Neither: as O_RDONLY, which is 0.
            readable: flags.contains(OpenFlags::READ) || !flags.contains(OpenFlags::WRITE),
            writable: flags.contains(OpenFlags::WRITE),
            direct: flags.contains(OpenFlags::DIRECT) && options.allow_direct_io,
            synchronous: flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC),
            node: WakeWaiters(node),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn mount(&self) -> &Mount {
        self.node.0.mount()
    }

    fn share(&self) -> &Share {
        self.node.0.share()
    }

    /// The descriptor through which `request` is written. A page of a file that is also appended to
    /// must not be appended.
    fn write_fd(&self, request: &WriteRequest) -> Result<BorrowedFd<'_>> {
        if !(self.appends && request.cached) {
            return Ok(self.fd());
        }
        if let Some(second) = self.in_place.get() {
            return Ok(second.as_fd());
        }
        let mut flags = OFlags::WRONLY;
        flags.set(OFlags::DIRECT, self.direct);
        flags.set(OFlags::SYNC, self.synchronous);
        let permit = self.share().permit()?;
        let fd = self.share().proc_fd.reopen(self.fd(), flags);
        let second = permit.hold(fd.map_err(no_descriptor)?);
        Ok(self.in_place.get_or_init(|| second).as_fd())
    }

    /// Whether a transfer on the thread that asks may wait.
    fn wait(&self) -> Wait {
        match self.mount().is_in_memory() {
            true => Wait::Allowed,
            false => Wait::Refused,
        }
    }

    /// Runs `work`, which changes the content, such that privileges that the file gives are lost.
    fn changing<T>(
        &self,
        kill_privileges: bool,
        mark: Mark,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        check_thread()?;
        self.share().drop_renamed_capability(self.fd())?;
        match kill_privileges && self.share().options.kill_privileges {
            true => set_id::losing(self.fd(), mark, work)?,
            false => work(),
        }
    }

    /// Reads until the range, or the file, ends. EAGAIN only before anything was read.
    fn read_some(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
        wait: Wait,
    ) -> Result<Progress> {
        check_thread()?;
        let mut done: usize = 0;
        while done < request.length {
            let offset = request.offset.saturating_add(done as u64);
            let left = request.length.saturating_sub(done);
            match sink.put_from(self.fd(), offset, left, wait) {
                Ok(0) => return Ok(Progress::Done(done)),
                Ok(count) => {
                    done = done.saturating_add(count);
                    let end = request.offset.saturating_add(done as u64);
                    if !end.is_multiple_of(PAGE) {
                        return Ok(Progress::Done(done));
                    }
                }
                Err(error) if must_wait(&error, wait) => {
                    if error.is(Errno::OPNOTSUPP) {
                        self.mount().set_reads_always_wait();
                    }
                    return Ok(Progress::Waits(done));
                }
                Err(error) if error.is(Errno::INTR) => {}
                // What was read is answered; the error comes again when the rest is read.
                Err(_) if done > 0 => return Ok(Progress::Done(done)),
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Done(done))
    }

    /// Writes until the source is empty, or nothing more can be written.
    fn write_some(
        &self,
        request: WriteRequest,
        source: &mut dyn WriteSource,
        wait: Wait,
    ) -> Result<Progress> {
        let fd = self.write_fd(&request)?;
        let mut done: usize = 0;
        while source.remaining() > 0 {
            let at = request.offset.saturating_add(done as u64);
            match source.take_into(fd, at, wait) {
                Ok(0) => return Ok(Progress::Done(done)),
                Ok(count) => done = done.saturating_add(count),
                Err(error) if must_wait(&error, wait) => {
                    if error.is(Errno::OPNOTSUPP) {
                        self.mount().set_writes_always_wait();
                    }
                    return Ok(Progress::Waits(done));
                }
                Err(error) if error.is(Errno::INTR) => {}
                Err(_) if done > 0 => return Ok(Progress::Done(done)),
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Done(done))
    }

    fn read_waiting(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
        done: usize,
    ) -> Result<usize> {
        let rest = ReadRequest {
            offset: request.offset.saturating_add(done as u64),
            length: request.length.saturating_sub(done),
        };
        match self.read_some(rest, sink, Wait::Allowed) {
            Ok(progress) => Ok(done.saturating_add(progress.count())),
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }

    fn write_waiting(
        &self,
        request: WriteRequest,
        source: &mut dyn WriteSource,
        done: usize,
    ) -> Result<usize> {
        let rest = WriteRequest {
            offset: request.offset.saturating_add(done as u64),
            ..request
        };
        let written = self.changing(request.kill_privileges, Mark::Stays, || {
            self.write_some(rest, source, Wait::Allowed)
        });
        match written {
            Ok(progress) => Ok(done.saturating_add(progress.count())),
            Err(_) if done > 0 => Ok(done),
            Err(error) => Err(error),
        }
    }

    fn copy_to(&self, copy: CopyRange<'_>) -> Result<u64> {
        let target: &dyn Any = copy.target;
        let target = target.downcast_ref::<Self>().ok_or(Errno::XDEV)?;
        let (mut from, mut to) = (copy.offset, copy.target_offset);
        let whole = match Arc::ptr_eq(&self.node.0, &target.node.0) {
            // Copied onto its own end a file grows: what comes then is not part of the copy.
            true => {
                let size = Stat::of(self.fd())?.attributes.size;
                copy.length.min(size.saturating_sub(copy.offset))
            }
            false => copy.length,
        };
        let mut done: u64 = 0;
        target.changing(copy.kill_privileges, Mark::Stays, || {
            loop {
                // The first call is made in any case, for its errors; the kernel itself ends it with the file.
                let left = match done {
                    0 => copy.length,
                    done => whole.saturating_sub(done),
                };
                let length = usize::try_from(left).unwrap_or(usize::MAX);
                let (from_fd, to_fd) = (self.fd(), target.fd());
                match copy_file_range(from_fd, Some(&mut from), to_fd, Some(&mut to), length) {
                    Ok(0) => return Ok(done),
                    Ok(count) => done = done.saturating_add(count as u64),
                    Err(Errno::INTR) => {}
                    Err(_) if done > 0 => return Ok(done),
                    Err(errno) => return Err(errno.into()),
                }
                if done >= whole {
                    return Ok(done);
                }
            }
        })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(locks) = self.node.0.locks_if_any() {
            locks.close_file(self.fd());
        }
    }
}

/// How far a transfer came.
enum Progress {
    /// To its end.
    Done(usize),
    /// To where it has to wait for a disk.
    Waits(usize),
}

impl Progress {
    fn count(self) -> usize {
        match self {
            Self::Done(count) | Self::Waits(count) => count,
        }
    }
}

fn must_wait(error: &Error, wait: Wait) -> bool {
    wait == Wait::Refused && (error.is(Errno::AGAIN) || error.is(Errno::OPNOTSUPP))
}

impl File for OpenFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        if self.direct || self.mount().reads_always_wait() {
            return Answer::blocking(move || self.read_waiting(request, sink, 0));
        }
        match self.read_some(request, sink, self.wait()) {
            Ok(Progress::Waits(done)) => {
                Answer::blocking(move || self.read_waiting(request, sink, done))
            }
            other => Answer::ready(other.map(Progress::count)),
        }
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        if self.direct || self.synchronous {
            return Answer::blocking(move || self.write_waiting(request, source, 0));
        }
        let opens = self.appends && request.cached && self.in_place.get().is_none();
        if self.mount().writes_always_wait() || opens || self.share().renamed_capability.is_some() {
            return Answer::brief(move || self.write_waiting(request, source, 0));
        }
        let now = self.changing(request.kill_privileges, Mark::Stays, || {
            self.write_some(request, source, self.wait())
        });
        match now {
            // What is written goes to the page cache: more often than a disk it needs a page.
            Ok(Progress::Waits(done)) => {
                Answer::brief(move || self.write_waiting(request, source, done))
            }
            other => Answer::ready(other.map(Progress::count)),
        }
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        let work = || {
            check_thread()?;
            Ok(Stat::of(self.fd())?.attributes)
        };
        match self.mount().asks_others() {
            true => Answer::brief(work),
            false => Answer::now(work),
        }
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::brief(move || {
            let target = Target::Open(self.fd());
            self.share().change(target, FileKind::Regular, &changes)?;
            Ok(Stat::of(self.fd())?.attributes)
        })
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        let locks = self.node.0.locks_if_any();
        if !self.mount().asks_others() {
            if let Some(locks) = locks {
                locks.close(owner);
            }
            return Answer::ok(());
        }
        // Closing a second descriptor makes file systems that write back on close report their errors.
        // Without a descriptor to spare the next fsync reports them.
        Answer::blocking(move || {
            if let Some(locks) = locks {
                locks.close(owner);
            }
            match fcntl_dupfd_cloexec(self.fd(), 0) {
                Ok(second) => crate::syscalls::close(second).map_err(Error::from),
                Err(Errno::MFILE | Errno::NFILE) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        })
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        Answer::blocking(move || {
            let sync = match data_only {
                true => fdatasync(self.fd()),
                false => fsync(self.fd()),
            };
            Ok(sync?)
        })
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        let mode = FallocateFlags::from_bits_retain(request.mode.bits());
        let (offset, length) = (request.offset, request.length);
        Answer::brief(move || {
            self.changing(request.kill_privileges, Mark::Goes, || {
                Ok(fallocate(self.fd(), mode, offset, length)?)
            })
        })
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        Answer::brief(move || {
            check_thread()?;
            // The position of the descriptor is used for nothing else.
            let position = match from {
                SeekFrom::Data => rustix::fs::SeekFrom::Data(offset),
                SeekFrom::Hole => rustix::fs::SeekFrom::Hole(offset),
            };
            Ok(seek(self.fd(), position)?)
        })
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        match copy.length {
            ..=SMALL_COPY => Answer::brief(move || self.copy_to(copy)),
            _ => Answer::blocking(move || self.copy_to(copy)),
        }
    }

    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        Answer::brief(move || {
            if !self.readable || self.direct {
                return Ok(None);
            }
            let size = Stat::of(self.fd())?.attributes.size;
            let length = length.min(size.saturating_sub(offset));
            if length == 0 {
                return Ok(None);
            }
            let descriptor = fcntl_dupfd_cloexec(self.fd(), 0)?;
            Ok(Some(Extent {
                descriptor: Arc::new(descriptor),
                offset,
                length,
            }))
        })
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        let work = move || {
            let locks = self.node.0.locks();
            Ok(locks.test(self.share(), self.fd(), &request)?)
        };
        match self.mount().asks_others() {
            true => Answer::brief(work),
            false => Answer::now(work),
        }
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        // The owner's descriptor on the host may be another that allows more (fcntl_locking(2)).
        let allowed = match (request.style, request.kind) {
            (LockStyle::Posix, Some(LockKind::Read)) => self.readable,
            (LockStyle::Posix, Some(LockKind::Write)) => self.writable,
            (LockStyle::Posix, None) | (LockStyle::Flock, _) => true,
        };
        if !allowed {
            return Answer::error(Errno::BADF);
        }
        let asks_others = self.mount().asks_others();
        let locks = self.node.0.locks();
        locks.set(self.share(), self.fd(), request, asks_others)
    }
}
