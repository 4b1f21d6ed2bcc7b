//! The cache file: which spans it holds, and their contents.
//!
//! ```text
//! header, one page | a byte for each span, to the end of a page | contents
//! ```
//!
//! A span's byte says `WRITTEN` after its contents were written, and `DURABLE` after they were
//! synced. What was written outlives the process, however it ends, but not the host: so `WRITTEN`
//! counts only in the boot that the header names. No byte has to be taken back after a crash, and
//! none has to be verified again.
//!
//! Several daemons may use a file at once. Only verified bytes are ever written, and the same by
//! all, so that writing them twice does no harm.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::layout::PAGE;
use crate::blob::Sha256Digest;

const MAGIC: &[u8; 8] = b"vfsdcach";
const VERSION: u32 = 1;

/// States of a span.
pub(super) const ABSENT: u8 = 0;
pub(super) const WRITTEN: u8 = 1;
pub(super) const DURABLE: u8 = 2;

/// A boot of the host: the text of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot(pub(super) [u8; 36]);

impl Boot {
    /// This boot; if it can't be told, one that never was, so that only what is durable counts.
    pub(super) fn current() -> Self {
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
    PAGE.checked_add(spans)?.checked_next_multiple_of(PAGE)
}

/// A cache file.
#[derive(Debug)]
pub(super) struct CacheFile {
    writable: File,
    /// The same file for reading only: for those who hand it on.
    pub(super) readable: File,
}

impl CacheFile {
    /// Opens the cache file at `path`, or makes it, and says which states its spans have. A file
    /// that is something else is replaced.
    pub(super) fn open(path: &Path, shape: Shape, boot: Boot) -> io::Result<(Self, Vec<u8>)> {
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
                return Ok((Self { writable, readable }, states));
            }
        }
        Err(io::Error::other("the cache file changes all the time"))
    }

    /// The state of a span, which another daemon may have changed.
    pub(super) fn state(&self, span: usize) -> io::Result<u8> {
        let mut state = [ABSENT];
        self.writable.read_exact_at(&mut state, place(span))?;
        Ok(state[0])
    }

    pub(super) fn set_state(&self, span: usize, state: u8) -> io::Result<()> {
        self.writable.write_all_at(&[state], place(span))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable.write_all_at(bytes, offset)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.writable.sync_data()
    }
}

fn place(span: usize) -> u64 {
    PAGE.saturating_add(u64::try_from(span).unwrap_or(u64::MAX / 2))
}

fn header(shape: Shape, boot: Boot) -> Vec<u8> {
    let mut header = Vec::with_capacity(128);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&shape.key.0);
    header.extend_from_slice(&shape.spans.to_le_bytes());
    header.extend_from_slice(&boot.0);
    header
}

/// Makes a file without any span, in place of another one or only if there is none.
fn make(path: &Path, shape: Shape, boot: Boot, replace: bool) -> io::Result<()> {
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
fn adopt(file: &File, shape: Shape, boot: Boot) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() != shape.end {
        return Ok(None);
    }
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
    if found != expected {
        for state in &mut states {
            if *state == WRITTEN {
                *state = ABSENT;
            }
        }
        // The header last: until it is there, the bytes of the earlier boot count for nothing.
        file.write_all_at(&states, PAGE)?;
        file.write_all_at(&expected, 0)?;
    }
    Ok(Some(states))
}

fn same_file(one: &File, other: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
