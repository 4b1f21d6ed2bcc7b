//! Eight blocks in a row of a content, in a file.
//!
//! The file begins with a page of headers; each block has its place behind it, so that blocks in a row are read at once.

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use parking_lot::Mutex;
use rustix::fs::{Advice, Timespec, Timestamps, UTIME_NOW, fadvise, fstat, futimens};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, pwritev};
use sha2::{Digest as _, Sha256};

use super::super::blocks::{BLOCK, Blocks};

/// Blocks that share a file: to make and to remove one costs as much as to write them.
pub(in crate::flat) const TOGETHER: u64 = 8;
/// Bytes of them.
pub(super) const SIZE: u64 = TOGETHER * BLOCK;
/// Begins each header; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"vfsdblk3";
/// Magic, whose block it is, checksum of its bytes.
const HEADER: usize = 8 + 32 + 8;
/// From one header to the next.
const HEADER_STRIDE: usize = 64;
/// Where the first block begins: at a page.
const FIRST: u64 = 4096;
/// What is read at once to be checked: stays in the processor's cache.
const PIECE: usize = 32 << 10;
/// How long a file that is used is not marked as used again.
const TOUCH_AFTER: Duration = Duration::from_secs(10);

/// The number of the group that a block is in.
pub(in crate::flat) fn group_of(block: u64) -> u64 {
    block / TOGETHER
}

/// An open file of the cache. What it has stays there as long as this does, also when the file is removed.
#[derive(Debug)]
pub(in crate::flat) struct Group {
    file: OwnedFd,
    content: Arc<str>,
    /// Bytes of the whole content.
    size: u64,
    state: Mutex<State>,
    /// Held while the file is changed.
    changing: Mutex<()>,
    used: AtomicBool,
}

/// What is known of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// When the file was changed last, by this process. When it was by another, nothing of it is known.
    changed: Option<Change>,
    /// Blocks that were checked or written. What the kernel read from the device since then is not among them.
    right: u8,
    touched: Option<Instant>,
}

/// A file, and when it was changed last, by the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    inode: u64,
    seconds: i128,
    nanoseconds: i128,
}

impl Group {
    /// A file of which this was known when it was closed.
    pub(super) fn new(file: OwnedFd, content: Arc<str>, size: u64, known: State) -> Self {
        // Nothing comes into memory that is not checked: the kernel is told what to read.
        let _ = fadvise(&file, 0, None, Advice::Random);
        Self {
            file,
            content,
            size,
            state: Mutex::new(known),
            changing: Mutex::default(),
            used: AtomicBool::new(false),
        }
    }

    /// What is known of the file, for when it is opened again.
    pub(super) fn known(&self) -> State {
        self.state.lock().clone()
    }

    /// Where `offset` of the content is in the file.
    pub(in crate::flat) fn place(&self, offset: u64) -> u64 {
        FIRST.saturating_add(offset % SIZE)
    }

    pub(in crate::flat) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether a block was checked, and can be read as far as it is in memory. Does not wait.
    pub(in crate::flat) fn is_right(&self, block: u64) -> bool {
        let Some(state) = self.state.try_lock() else {
            return false;
        };
        let right = state.right & bit(block) != 0 && state.changed == changed(&self.file);
        if right {
            self.used.store(true, Ordering::Relaxed);
        }
        right
    }

    /// Blocks have to be checked again: they are no longer in memory.
    pub(in crate::flat) fn forget(&self, blocks: &Blocks) {
        self.state.lock().right &= !bits(blocks);
    }

    /// Reads blocks into the kernel's memory, and answers which of them are there and whole. Waits for the disk.
    pub(in crate::flat) fn check(&self, blocks: &Blocks) -> Vec<u64> {
        let is_due =
            |touched: Option<Instant>| touched.is_none_or(|at| at.elapsed() >= TOUCH_AFTER);
        if is_due(self.state.lock().touched) {
            self.touch();
        }
        self.used.store(true, Ordering::Relaxed);
        let before = changed(&self.file);
        let known = {
            let state = self.state.lock();
            if state.changed == before {
                state.right
            } else {
                0
            }
        };
        let is_known = |block: &u64| known & bit(*block) != 0 && self.is_in_memory(*block);
        let (mut right, mut unknown): (Vec<u64>, Vec<u64>) = blocks.clone().partition(is_known);
        let mut headers = [0; HEADER_STRIDE * 8];
        let filled = pread(&self.file, &mut headers, 0).unwrap_or(0);
        let checksum = |block: &u64| {
            let header = headers.get(..filled)?.get(header_range(*block))?;
            let (owner, checksum) = header.split_last_chunk()?;
            (owner == self.owner(*block)).then(|| u64::from_le_bytes(*checksum))
        };
        unknown.retain(|block| checksum(block).is_some());
        self.read_ahead(&unknown);
        let mut piece = vec![0; PIECE];
        unknown.retain(|block| checksum(block) == self.checksum(*block, &mut piece));
        right.extend(unknown);
        let whole = right.iter().fold(0, |whole, block| whole | bit(*block));
        let mut state = self.state.lock();
        let after = changed(&self.file);
        if before == after && state.changed != after {
            state.changed = after;
            state.right = whole;
        } else if before == after {
            state.right = state.right & !bits(blocks) | whole;
        } else {
            // What was written meanwhile by this process is right.
            state.right &= !bits(blocks) | whole;
        }
        right
    }

    /// Writes blocks in a row. Waits for the disk.
    pub(super) fn write(&self, first: u64, blocks: &[Bytes]) -> rustix::io::Result<()> {
        let parts: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        let length: usize = blocks.iter().map(Bytes::len).sum();
        let mut headers = Vec::new();
        let mut written = 0;
        for (block, bytes) in (first..).zip(blocks) {
            let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
            digest.update(bytes);
            headers.resize(headers.len().next_multiple_of(HEADER_STRIDE), 0);
            headers.extend(self.owner(block));
            headers.extend(digest.finalize().to_le_bytes());
            written |= bit(block);
        }
        let at = u64::try_from(header_range(first).start).unwrap_or(u64::MAX);
        self.change(written, || {
            let place = self.place(first.saturating_mul(BLOCK));
            if pwritev(&self.file, &parts, place)? != length {
                return Err(Errno::NOSPC);
            }
            match pwrite(&self.file, &headers, at)? == headers.len() {
                true => Ok(()),
                false => Err(Errno::NOSPC),
            }
        })
    }

    /// Whether it was read since this was asked the last time.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Marks the file as used just now: others see it, too.
    pub(super) fn touch(&self) {
        self.state.lock().touched = Some(Instant::now());
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = self.change(0, || futimens(&self.file, &times));
    }

    /// Whether nobody finds the file any more.
    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|status| status.st_nlink == 0)
    }

    /// Changes the file, after which these blocks are right.
    fn change(
        &self,
        right: u8,
        work: impl FnOnce() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let _changing = self.changing.lock();
        let before = changed(&self.file);
        let done = work();
        let mut state = self.state.lock();
        if before != state.changed {
            state.right = 0;
        }
        match done {
            Ok(()) => state.right |= right,
            Err(_) => state.right &= !right,
        }
        state.changed = changed(&self.file);
        done
    }

    /// Whether the kernel has a block in memory.
    fn is_in_memory(&self, block: u64) -> bool {
        let from = self.place(block.saturating_mul(BLOCK));
        let last = u64::try_from(self.length(block).saturating_sub(1)).unwrap_or(0);
        [from, from.saturating_add(last)].into_iter().all(|at| {
            let mut byte = [0];
            let parts = &mut [IoSliceMut::new(&mut byte)];
            preadv2(&self.file, parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
        })
    }

    /// Has the kernel begin to read all of these.
    fn read_ahead(&self, blocks: &[u64]) {
        if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
            let from = self.place(first.saturating_mul(BLOCK));
            let count = last.saturating_sub(*first).saturating_add(1);
            let length = NonZeroU64::new(count.saturating_mul(BLOCK));
            let _ = fadvise(&self.file, from, length, Advice::WillNeed);
        }
    }

    fn length(&self, block: u64) -> usize {
        let left = self.size.saturating_sub(block.saturating_mul(BLOCK));
        usize::try_from(left.min(BLOCK)).unwrap_or(0)
    }

    /// Of a block's bytes in the file, if they are all there.
    fn checksum(&self, block: u64, piece: &mut [u8]) -> Option<u64> {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut place = self.place(block.saturating_mul(BLOCK));
        let mut left = self.length(block);
        while left > 0 {
            let length = left.min(piece.len());
            let read = pread(&self.file, piece.get_mut(..length)?, place).ok()?;
            if read == 0 {
                return None;
            }
            digest.update(piece.get(..read)?);
            left = left.saturating_sub(read);
            place = place.saturating_add(u64::try_from(read).ok()?);
        }
        Some(digest.finalize())
    }

    /// How the header of a block begins.
    fn owner(&self, block: u64) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(self.content.as_bytes());
        hash.update([0]);
        hash.update(block.to_le_bytes());
        [&MAGIC[..], &hash.finalize()].concat()
    }
}

fn changed(file: &OwnedFd) -> Option<Change> {
    let status = fstat(file).ok()?;
    Some(Change {
        inode: status.st_ino,
        seconds: status.st_ctime.into(),
        nanoseconds: status.st_ctime_nsec.into(),
    })
}

/// Where the header of a block is.
fn header_range(block: u64) -> std::ops::Range<usize> {
    let number = usize::try_from(block % TOGETHER).unwrap_or(0);
    let from = number.saturating_mul(HEADER_STRIDE);
    from..from.saturating_add(HEADER)
}

fn bit(block: u64) -> u8 {
    1 << (block % TOGETHER)
}

fn bits(blocks: &Blocks) -> u8 {
    blocks.clone().fold(0, |bits, block| bits | bit(block))
}
