//! The cache file: which spans it holds, and their contents.
//!
//! ```text
//! header, one page | a byte for each span | a BLAKE3 for each span | a time for each span | contents, from a page on
//! ```
//!
//! A span's byte says `WRITTEN` after its contents were written, and `DURABLE` after they were
//! synced. What was written outlives the process, however it ends, but not the host: so `WRITTEN`
//! counts only in the boot that the header names. No byte has to be taken back after a crash, and
//! none has to be verified again. The BLAKE3 is that of what the span has in this file: whoever
//! doubts the disk can [look](super::verify_content) without the layer. The time is when the span was read last, where
//! the cache is bounded.
//!
//! Several daemons may use a file at once. Only verified bytes are ever written, and the same by
//! all, so that writing them twice does no harm. Who takes them away keeps out those who read them by
//! [locks](super::pins).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek};
use rustix::io::Errno;

use super::layout::PAGE;
use crate::blob::{Blake3Digest, Sha256Digest};

const MAGIC: &[u8; 8] = b"vfsdcach";
const VERSION: u32 = 4;

/// Bytes of a BLAKE3.
const SUM: u64 = 32;

/// Bytes of a time, in milliseconds since 1970.
const TIME: u64 = 8;

/// States of a span.
pub(super) const ABSENT: u8 = 0;
pub(super) const WRITTEN: u8 = 1;
pub(super) const DURABLE: u8 = 2;

/// A boot of the host: the text of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostBoot(pub(super) [u8; 36]);

impl HostBoot {
    /// This boot. If it can't be told, as in a sandbox without `/proc`, one that never was: then only what is durable
    /// counts of what an earlier daemon has written.
    pub fn current() -> Self {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let id = text.first_chunk::<36>().copied();
        Self(id.unwrap_or_else(|| {
            let (process, now) = (std::process::id(), vfsd_backend::Timestamp::now());
            let text = format!("{process} {} {:<36}", now.seconds, now.nanoseconds);
            text.as_bytes()
                .first_chunk::<36>()
                .copied()
                .unwrap_or([0; 36])
        }))
    }
}

/// What a file must be to be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) key: Sha256Digest,
    pub(super) spans: u64,
    /// Bytes of the file.
    pub(super) end: u64,
}

/// Where contents begin in a file with so many spans.
pub(super) fn contents_start(spans: u64) -> Option<u64> {
    let of_span = SUM.checked_add(TIME)?.checked_add(1)?;
    PAGE.checked_add(spans.checked_mul(of_span)?)?
        .checked_next_multiple_of(PAGE)
}

/// A cache file.
#[derive(Debug)]
pub(super) struct CacheFile {
    pub(super) writable: File,
    spans: u64,
    /// The same file for reading only: for those who hand it on.
    pub(super) readable: File,
}

impl CacheFile {
    /// Opens the cache file at `path`, or makes it, and says which states its spans have. A file
    /// that is something else is replaced.
    pub(super) fn open(path: &Path, shape: Shape, boot: HostBoot) -> io::Result<(Self, Vec<u8>)> {
        for _ in 0..16 {
            let writable = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(path, shape, boot, false)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            flock(&writable, FlockOperation::LockExclusive)?;
            let states = adopt(&writable, shape, boot);
            flock(&writable, FlockOperation::Unlock)?;
            let Some(states) = states? else {
                make(path, shape, boot, true)?;
                continue;
            };
            let readable = File::open(path)?;
            if same_file(&writable, &readable)? {
                let spans = shape.spans;
                let file = Self {
                    writable,
                    spans,
                    readable,
                };
                return Ok((file, states));
            }
        }
        Err(io::Error::other("the cache file changes all the time"))
    }

    /// The cache file at `path` and the states of its spans, if there is one of this shape.
    pub(super) fn existing(
        path: &Path,
        shape: Shape,
        boot: HostBoot,
    ) -> io::Result<Option<(Self, Vec<u8>)>> {
        match std::fs::metadata(path) {
            Ok(found) if found.len() == shape.end => Self::open(path, shape, boot).map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The cache file at `path` if it is of this shape, and the states of its spans as they were written, in whichever
    /// boot. Nothing is changed.
    pub(super) fn as_it_is(path: &Path, shape: Shape) -> io::Result<Option<(Self, Vec<u8>)>> {
        let writable = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if writable.metadata()?.len() != shape.end {
            return Ok(None);
        }
        let Some((mut states, _)) = read_states(&writable, shape, HostBoot::current())? else {
            return Ok(None);
        };
        writable.read_exact_at(&mut states, PAGE)?;
        let file = Self {
            readable: writable.try_clone()?,
            spans: shape.spans,
            writable,
        };
        Ok(Some((file, states)))
    }

    /// Bytes that it takes on the disk.
    pub(super) fn disk(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.writable.metadata()?.blocks().saturating_mul(512))
    }

    /// Where the next data are from a place on, if there are any.
    pub(super) fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        match seek(&self.writable, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a hole.
    pub(super) fn punch(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = range.end.saturating_sub(range.start);
        Ok(fallocate(&self.writable, flags, range.start, length)?)
    }

    /// The state of a span, which another daemon may have changed.
    pub(super) fn state(&self, span: usize) -> io::Result<u8> {
        let mut state = [ABSENT];
        self.writable.read_exact_at(&mut state, place(span))?;
        Ok(state[0])
    }

    /// Says of each of some spans whether it is there.
    pub(super) fn states(
        &self,
        spans: &Range<usize>,
        mut is_there: impl FnMut(usize, bool),
    ) -> io::Result<()> {
        let mut buffer = [ABSENT; 64];
        let mut span = spans.start;
        while span < spans.end {
            let count = spans.end.saturating_sub(span).min(buffer.len());
            let states = buffer.get_mut(..count).unwrap_or_default();
            self.writable.read_exact_at(states, place(span))?;
            for state in &*states {
                is_there(span, *state != ABSENT);
                span = span.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Says when a span was read last.
    pub(super) fn set_read(&self, span: usize, time: u64) -> io::Result<()> {
        self.writable.write_all_at(
            &time.to_le_bytes(),
            self.times().saturating_add(bytes(span, TIME)),
        )
    }

    /// When each span was read last.
    pub(super) fn reads(&self) -> io::Result<Vec<u64>> {
        let spans = usize::try_from(self.spans).map_err(io::Error::other)?;
        let mut times = vec![0; spans.saturating_mul(8)];
        self.writable.read_exact_at(&mut times, self.times())?;
        let (times, _) = times.as_chunks::<8>();
        Ok(times.iter().copied().map(u64::from_le_bytes).collect())
    }

    /// Where the times are.
    fn times(&self) -> u64 {
        PAGE.saturating_add(self.spans)
            .saturating_add(self.spans.saturating_mul(SUM))
            .min(u64::MAX / 2)
    }

    pub(super) fn set_state(&self, span: usize, state: u8) -> io::Result<()> {
        self.writable.write_all_at(&[state], place(span))
    }

    /// The BLAKE3 of what a span has here, which counts once its state says that it is there.
    pub(super) fn set_sum(&self, span: usize, sum: Blake3Digest) -> io::Result<()> {
        self.writable.write_all_at(&sum.0, self.sum_place(span))
    }

    pub(super) fn sum(&self, span: usize) -> io::Result<Blake3Digest> {
        let mut sum = [0; 32];
        self.writable
            .read_exact_at(&mut sum, self.sum_place(span))?;
        Ok(Blake3Digest(sum))
    }

    fn sum_place(&self, span: usize) -> u64 {
        PAGE.saturating_add(self.spans)
            .saturating_add(bytes(span, SUM))
            .min(u64::MAX / 2)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable.write_all_at(bytes, offset)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.writable.sync_data()
    }
}

/// Bytes of so many items.
fn bytes(items: usize, size: u64) -> u64 {
    u64::try_from(items)
        .unwrap_or(u64::MAX)
        .saturating_mul(size)
}

fn place(span: usize) -> u64 {
    PAGE.saturating_add(u64::try_from(span).unwrap_or(u64::MAX / 2))
}

/// The states of the spans of any cache file, as they hold in this boot; none if it is no such file.
pub(super) fn states_of(path: &Path, boot: HostBoot) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut found = [0; HEADER];
    if length < PAGE {
        return Ok(None);
    }
    file.read_exact_at(&mut found, 0)?;
    let Some((key, rest)) = found
        .strip_prefix(MAGIC.as_slice())
        .and_then(|rest| rest.strip_prefix(VERSION.to_le_bytes().as_slice()))
        .and_then(|rest| rest.split_first_chunk::<32>())
    else {
        return Ok(None);
    };
    let Some((spans, _)) = rest.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let shape = Shape {
        key: Sha256Digest(*key),
        spans: u64::from_le_bytes(*spans),
        end: length,
    };
    match contents_start(shape.spans).filter(|start| *start <= length) {
        Some(_) => read_states(&file, shape, boot).map(|found| found.map(|(states, _)| states)),
        None => Ok(None),
    }
}

/// Bytes of the header.
const HEADER: usize = 8 + 4 + 32 + 8 + 36;

fn header(shape: Shape, boot: HostBoot) -> Vec<u8> {
    let mut header = Vec::with_capacity(128);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&shape.key.0);
    header.extend_from_slice(&shape.spans.to_le_bytes());
    header.extend_from_slice(&boot.0);
    header
}

/// Makes a file without any span, in place of another one or only if there is none.
fn make(path: &Path, shape: Shape, boot: HostBoot, replace: bool) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(parent)?;
    file.as_file().set_len(shape.end)?;
    file.as_file().write_all_at(&header(shape, boot), 0)?;
    if replace {
        file.persist(path)?;
        return Ok(());
    }
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// The states of the spans, as they hold in this boot; none if the file is something else.
fn adopt(file: &File, shape: Shape, boot: HostBoot) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() != shape.end {
        return Ok(None);
    }
    let Some((states, of_this_boot)) = read_states(file, shape, boot)? else {
        return Ok(None);
    };
    if !of_this_boot {
        // The header last: until it is there, the bytes of the earlier boot count for nothing.
        file.write_all_at(&states, PAGE)?;
        file.write_all_at(&header(shape, boot), 0)?;
    }
    Ok(Some(states))
}

/// The states of the spans, and whether they were written in this boot.
fn read_states(file: &File, shape: Shape, boot: HostBoot) -> io::Result<Option<(Vec<u8>, bool)>> {
    let expected = header(shape, boot);
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, 0)?;
    let without_boot = expected.len().saturating_sub(boot.0.len());
    if found.get(..without_boot) != expected.get(..without_boot) {
        return Ok(None);
    }
    let spans = usize::try_from(shape.spans).map_err(io::Error::other)?;
    let mut states = vec![ABSENT; spans];
    file.read_exact_at(&mut states, PAGE)?;
    if states.iter().any(|state| *state > DURABLE) {
        return Ok(None);
    }
    let of_this_boot = found == expected;
    if !of_this_boot {
        for state in &mut states {
            if *state == WRITTEN {
                *state = ABSENT;
            }
        }
    }
    Ok(Some((states, of_this_boot)))
}

fn same_file(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
