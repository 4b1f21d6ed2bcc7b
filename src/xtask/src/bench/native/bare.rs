//! The floor: the system calls of an operation, in a loop of one thread, without any daemon.

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, SeekFrom, StatxFlags, fgetxattr, mkdirat, openat, renameat,
    seek, statx, unlinkat,
};
use rustix::io::{Errno, preadv, pwritev};

use super::folder::{
    BARE_SCRATCH, BIG, BIG_BYTES, FILES, Folder, MANY, XATTR, XATTR_VALUE, file, missing, scratch,
};
use super::operation::Operation;
use super::session::Sample;

/// A buffer of a guest lies in memory page by page, which a call has to be told.
const PAGE: usize = 4096;

/// How many operations are made between two looks at the clock.
const BATCH: u32 = 16;

/// Makes `operation` again and again for `time`. Data goes to or comes from as many buffers in turn
/// as a daemon at queue depth `depth` has, each as many pages that do not follow each other.
///
/// # Errors
/// A call fails.
pub(crate) fn run(
    operation: Operation,
    depth: usize,
    folder: &Folder,
    time: Duration,
) -> Result<Sample> {
    let root = File::open(folder.path()).context("open the folder")?;
    let mut calls = Calls::prepare(operation, depth, root.into())?;
    timed(operation.requests(), |elapsed| {
        if elapsed >= time {
            return Ok(None);
        }
        let mut operations = 0;
        for _ in 0..BATCH {
            operations += calls.once().with_context(|| operation.name())?;
        }
        Ok(Some(operations))
    })
}

/// Calls `batch` with the time since the first call until it returns nothing; otherwise it returns
/// how many operations it made, of `requests` requests each.
///
/// # Errors
/// What `batch` gives.
pub(crate) fn timed(
    requests: u32,
    mut batch: impl FnMut(Duration) -> Result<Option<u64>>,
) -> Result<Sample> {
    let cpu = cpu_time();
    let started = Instant::now();
    let mut operations = 0;
    let elapsed = loop {
        let elapsed = started.elapsed();
        match batch(elapsed)? {
            Some(more) => operations += more,
            None => break elapsed,
        }
    };
    let cpu = cpu_time().saturating_sub(cpu);
    let operations = operations as f64;
    Ok(Sample {
        rate: operations / elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / (operations * f64::from(requests)),
    })
}

/// Everything the calls need, made beforehand.
struct Calls {
    operation: Operation,
    root: OwnedFd,
    scratch: OwnedFd,
    names: Vec<CString>,
    files: Vec<OwnedFd>,
    big: OwnedFd,
    many: OwnedFd,
    buffers: Vec<Vec<u8>>,
    entries: Vec<MaybeUninit<u8>>,
    turn: usize,
}

impl Calls {
    fn prepare(operation: Operation, depth: usize, root: OwnedFd) -> Result<Self> {
        let name: fn(usize) -> String = match operation {
            Operation::LookupMiss => missing,
            _ => file,
        };
        let names = (0..FILES)
            .map(|index| CString::new(name(index)).context("a name"))
            .collect::<Result<Vec<_>>>()?;
        let open = |name: &str, flags| {
            openat(&root, name, flags | OFlags::CLOEXEC, Mode::empty())
                .with_context(|| format!("open {name}"))
        };
        let files = match operation {
            Operation::Getattr | Operation::Getxattr => (0..FILES)
                .map(|index| open(&file(index), OFlags::RDONLY))
                .collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        let buffers = match operation {
            Operation::Read(bytes) | Operation::Write(bytes) => {
                vec![vec![0x5a; bytes as usize]; depth]
            }
            _ => Vec::new(),
        };
        let calls = Self {
            operation,
            scratch: open(&scratch(BARE_SCRATCH), OFlags::RDONLY)?,
            big: open(BIG, OFlags::RDWR)?,
            many: open(MANY, OFlags::RDONLY)?,
            root,
            names,
            files,
            buffers,
            entries: vec![MaybeUninit::uninit(); 32 << 10],
            turn: 0,
        };
        if operation == Operation::Rename {
            calls.create()?;
        }
        Ok(calls)
    }

    /// One operation; the number of them, for READDIRPLUS that of the entries of a whole listing.
    fn once(&mut self) -> Result<u64> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let name = &self.names[turn % FILES];
        match self.operation {
            Operation::LookupHit => {
                statx(&self.root, name, BY_NAME, StatxFlags::BASIC_STATS)?;
            }
            Operation::LookupMiss => {
                let missed = statx(&self.root, name, BY_NAME, StatxFlags::BASIC_STATS);
                ensure!(
                    missed.err() == Some(Errno::NOENT),
                    "found what is not there"
                );
            }
            Operation::Getattr => {
                let file = &self.files[turn % FILES];
                statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
            }
            Operation::OpenRelease => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                drop(openat(&self.root, name, flags, Mode::empty())?);
            }
            Operation::CreateUnlink => {
                self.create()?;
                unlinkat(&self.scratch, c"new", AtFlags::empty())?;
            }
            Operation::MkdirRmdir => {
                mkdirat(&self.scratch, c"new", Mode::from_raw_mode(0o755))?;
                unlinkat(&self.scratch, c"new", AtFlags::REMOVEDIR)?;
            }
            Operation::Rename => {
                let (from, to) = if turn.is_multiple_of(2) {
                    (c"new", c"old")
                } else {
                    (c"old", c"new")
                };
                renameat(&self.scratch, from, &self.scratch, to)?;
            }
            Operation::Readdirplus => return list(self.many.as_fd(), &mut self.entries),
            Operation::Getxattr => {
                let mut value = [0; 64];
                let len = fgetxattr(&self.files[turn % FILES], XATTR, &mut value[..])?;
                ensure!(len == XATTR_VALUE.len(), "another attribute");
            }
            Operation::Read(bytes) => {
                let buffers = self.buffers.len();
                let mut pages: Vec<IoSliceMut<'_>> = self.buffers[turn % buffers]
                    .chunks_mut(PAGE)
                    .rev()
                    .map(IoSliceMut::new)
                    .collect();
                let count = preadv(&self.big, &mut pages, offset(turn, bytes))?;
                ensure!(count == bytes as usize, "a short read");
            }
            Operation::Write(bytes) => {
                let pages: Vec<IoSlice<'_>> = self.buffers[turn % self.buffers.len()]
                    .chunks(PAGE)
                    .rev()
                    .map(IoSlice::new)
                    .collect();
                let count = pwritev(&self.big, &pages, offset(turn, bytes))?;
                ensure!(count == bytes as usize, "a short write");
            }
        }
        Ok(1)
    }

    fn create(&self) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        match openat(&self.scratch, c"new", flags, mode) {
            Ok(file) => drop(file),
            Err(Errno::EXIST) => {
                // A run before this one was cut off.
                unlinkat(&self.scratch, c"new", AtFlags::empty())?;
                drop(openat(&self.scratch, c"new", flags, mode)?);
            }
            Err(errno) => bail!(errno),
        }
        Ok(())
    }
}

/// Reads a folder from its first entry to its last, with the attributes of each; how many there
/// are. `buffer` takes the entries, as many at once as fit.
///
/// # Errors
/// A call fails.
pub(crate) fn list(folder: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> Result<u64> {
    seek(folder, SeekFrom::Start(0))?;
    let mut count = 0;
    let mut entries = RawDir::new(folder, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        statx(folder, entry.file_name(), BY_NAME, StatxFlags::BASIC_STATS)?;
        count += 1;
    }
    Ok(count)
}

/// A name is not followed when it is a link, as LOOKUP does not.
pub(crate) const BY_NAME: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

/// Where transfer `turn` of `bytes` starts: one after the other, over and over.
pub(crate) fn offset(turn: usize, bytes: u32) -> u64 {
    (turn as u64).wrapping_mul(bytes.into()) % BIG_BYTES
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
