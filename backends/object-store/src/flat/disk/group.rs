//! Eight blocks in a row of a content, in a file.
//!
//! The file begins with a page of [`headers`](super::headers); each block has its place behind it, so that blocks in a row
//! are read at once.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Advice, Timespec, Timestamps, UTIME_NOW, fadvise, fstat, futimens};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv, preadv2, pwrite, pwritev};

use super::super::blocks::{BLOCK, pages};
use super::ContentName;
use super::headers::{
    self, BLOCKS, Checksums, FIRST, Headers, Owner, PAGE, PAGES, are_right, place,
};

/// Blocks that share a file: to make and to remove one costs as much as to write them.
pub(in crate::flat) const TOGETHER: u64 = 8;
/// Bytes of them.
pub(super) const SIZE: u64 = TOGETHER * BLOCK;
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
    owner: Owner,
    /// The number of the first block.
    first: u64,
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
    /// Pages that were checked or written, a bit for each. What the kernel read from the device since then is not among them.
    right: [u32; BLOCKS],
    headers: Option<Box<Headers>>,
    touched: Option<Instant>,
}

/// A file, and when it was changed last, by the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    inode: u64,
    seconds: i128,
    nanoseconds: i128,
}

impl State {
    /// Forgets what was known of the file before it was changed by another process.
    fn now(&mut self, changed: Option<Change>) {
        if self.changed != changed {
            self.changed = changed;
            self.right = [0; BLOCKS];
            self.headers = None;
        }
    }

    fn set_right(&mut self, block: u64, pages: u32, right: bool) {
        if let Some(bits) = self.right.get_mut(place(block)) {
            *bits = if right { *bits | pages } else { *bits & !pages };
        }
    }

    fn is_right(&self, block: u64, pages: u32) -> bool {
        let bits = self.right.get(place(block)).copied();
        bits.unwrap_or(0) & pages == pages
    }
}

impl Group {
    /// The file that a block of a content is in, of which this was known when it was closed.
    pub(super) fn new(file: OwnedFd, content: &ContentName, block: u64, known: State) -> Self {
        // Nothing comes into memory that is not checked: the kernel is told what to read.
        let _ = fadvise(&file, 0, None, Advice::Random);
        Self {
            file,
            owner: Owner::new(&content.name),
            first: group_of(block).saturating_mul(TOGETHER),
            size: content.size,
            state: Mutex::new(known),
            changing: Mutex::default(),
            used: AtomicBool::new(false),
        }
    }

    /// What is known of the file, for when it is opened again.
    pub(super) fn known(&self) -> State {
        let mut state = self.state.lock().clone();
        state.headers = None;
        state
    }

    /// Where `offset` of the content is in the file.
    pub(in crate::flat) fn place(&self, offset: u64) -> u64 {
        FIRST.saturating_add(offset % SIZE)
    }

    pub(in crate::flat) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether these bytes of the content were checked, and can be read as far as they are in memory. Does not wait.
    pub(in crate::flat) fn is_right(&self, range: &Range<u64>) -> bool {
        let Some(state) = self.state.try_lock() else {
            return false;
        };
        let right = parts(range).all(|(block, pages)| state.is_right(block, pages))
            && state.changed == changed(&self.file);
        if right {
            self.used.store(true, Ordering::Relaxed);
        }
        right
    }

    /// Bytes have to be checked again: they are no longer in memory.
    pub(in crate::flat) fn forget(&self, range: &Range<u64>) {
        let mut state = self.state.lock();
        for (block, pages) in parts(range) {
            state.set_right(block, pages, false);
        }
    }

    /// Whether a block may be in the file: false only where that is known.
    pub(in crate::flat) fn may_have(&self, block: u64) -> bool {
        let Some(state) = self.state.try_lock() else {
            return true;
        };
        let headers = state.headers.as_ref();
        headers.is_none_or(|headers| headers.get(block).is_some())
            || state.changed != changed(&self.file)
    }

    /// Reads bytes of one block of the content, if they are there and right. Waits for the disk, for no more than the pages
    /// that they are on.
    pub(in crate::flat) fn read(&self, range: &Range<u64>) -> Option<Bytes> {
        let block = range.start / BLOCK;
        let (mut state, before) = self.begin();
        let checksums = self.checksums(&mut state, &[block]);
        drop(state);
        let checksums = checksums.first().copied().flatten()?;
        let from = range.start.checked_sub(range.start % PAGE)?;
        let end = range.end.next_multiple_of(PAGE).min(self.size);
        let mut bytes = vec![0; usize::try_from(end.checked_sub(from)?).ok()?];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = self.place(from).checked_add(u64::try_from(filled).ok()?)?;
            match pread(&self.file, rest, at) {
                Ok(0) => return None,
                Ok(read) => filled = filled.saturating_add(read),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        let page = usize::try_from(from % BLOCK / PAGE).ok()?;
        let right = are_right(&checksums, page, &bytes);
        self.note(before, &[(block, pages_of(&(from..end)), right)]);
        let skip = usize::try_from(range.start.checked_sub(from)?).ok()?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let bytes = Bytes::from(bytes);
        right.then(|| bytes.slice(skip..skip.saturating_add(length).min(bytes.len())))
    }

    /// Looks which of these blocks are there and right, in ascending order. Those that are in the kernel's memory, where
    /// they were checked, can be read by the descriptor; the others come with their bytes. Waits for the disk.
    ///
    /// What has to come from the device is read around the kernel's memory, by `direct`: that takes a fifth of the
    /// processor's time, and what is read only once leaves that memory to others. A page comes there all the same: from
    /// that who comes next sees that it is not only once.
    pub(in crate::flat) fn load(
        &self,
        blocks: &[u64],
        mut direct: impl FnMut() -> Option<OwnedFd>,
        mut memory: impl FnMut(usize) -> BytesMut,
    ) -> Vec<(u64, Option<Bytes>)> {
        let (mut state, mut before) = self.begin();
        if state.headers.is_none() {
            drop(state);
            if let Some(found) = self.load_at_once(before, blocks, &mut direct, &mut memory) {
                return found;
            }
            (state, before) = self.begin();
        }
        let checksums = self.checksums(&mut state, blocks);
        let known = state.right;
        drop(state);
        let mut found = Vec::new();
        let mut wanted: Vec<(u64, Checksums)> = Vec::new();
        for (&block, checksums) in blocks.iter().zip(checksums) {
            let pages = pages_of(&self.range(block));
            let bits = known.get(place(block)).copied().unwrap_or(0);
            match checksums {
                Some(_) if bits & pages == pages && self.is_in_memory(block) => {
                    found.push((block, None));
                }
                Some(checksums) => {
                    self.forget(&self.range(block));
                    wanted.push((block, checksums));
                }
                None => {}
            }
        }
        let Some((first, _)) = wanted.first() else {
            return found;
        };
        let direct = match self.has_page(self.place(first.saturating_mul(BLOCK))) {
            true => None,
            false => direct().filter(|other| self.is_file(other)),
        };
        let mut notes = Vec::new();
        for run in wanted.chunk_by(|one, next| one.0.checked_add(1) == Some(next.0)) {
            let mut parts: Vec<BytesMut> = run
                .iter()
                .map(|(block, _)| memory(self.room(*block)))
                .collect();
            let first = run.first().map_or(0, |(block, _)| *block);
            let at = self.place(first.saturating_mul(BLOCK));
            let mut through_memory = true;
            let mut read = None;
            if let Some(direct) = &direct {
                read = fill(direct.as_fd(), at, &mut parts);
                through_memory = read.is_none();
            }
            let read = read.or_else(|| fill(self.file.as_fd(), at, &mut parts));
            let parts = run.iter().zip(parts);
            let parts = parts.map(|((block, checksums), bytes)| (*block, Some(checksums), bytes));
            for (block, bytes) in self.checked(parts, read.unwrap_or(0)) {
                if through_memory {
                    notes.push((block, pages_of(&self.range(block)), bytes.is_some()));
                }
                if bytes.is_some() {
                    found.push((block, bytes));
                }
            }
        }
        self.note(before, &notes);
        found
    }

    /// Reads the headers, which are not known of the file as it was `before`, along with the blocks behind them: the device
    /// would be waited for twice. `None` where the blocks are others or known to the kernel, or where it does not succeed.
    fn load_at_once(
        &self,
        before: Option<Change>,
        blocks: &[u64],
        mut direct: impl FnMut() -> Option<OwnedFd>,
        mut memory: impl FnMut(usize) -> BytesMut,
    ) -> Option<Vec<(u64, Option<Bytes>)>> {
        let mut places = (self.first..).zip(blocks);
        if blocks.is_empty() || places.any(|(next, block)| next != *block) {
            return None;
        }
        if self.has_page(FIRST) {
            return None;
        }
        let direct = direct().filter(|other| self.is_file(other))?;
        let headers = usize::try_from(FIRST).ok()?;
        let mut parts = vec![pages(headers)];
        parts.extend(blocks.iter().map(|block| memory(self.room(*block))));
        let read = fill(direct.as_fd(), 0, &mut parts)?.checked_sub(headers)?;
        let headers = Headers::parse(&parts.remove(0), &self.owner, self.first);
        let mut state = self.state.lock();
        for block in blocks {
            state.set_right(*block, u32::MAX, false);
        }
        if before == changed(&self.file) && before == state.changed {
            state.headers = Some(Box::new(headers.clone()));
        }
        drop(state);
        let parts = blocks.iter().zip(parts);
        let parts = parts.map(|(block, bytes)| (*block, headers.get(*block), bytes));
        let checked = self.checked(parts, read);
        Some(checked.filter(|(_, bytes)| bytes.is_some()).collect())
    }

    /// What was read in a row of blocks, so many bytes in all: the content of those that are there and right.
    fn checked<'a>(
        &self,
        parts: impl Iterator<Item = (u64, Option<&'a Checksums>, BytesMut)>,
        read: usize,
    ) -> impl Iterator<Item = (u64, Option<Bytes>)> {
        let mut left = read;
        parts.map(move |(block, checksums, mut bytes)| {
            let length = self.length(block);
            let is_there = left >= length;
            left = left.saturating_sub(bytes.len());
            bytes.truncate(length);
            let is_right = |checksums| are_right(checksums, 0, &bytes);
            let right = is_there && checksums.is_some_and(is_right);
            (block, right.then(|| bytes.freeze()))
        })
    }

    /// Marks the file as used, where others see it if they have not for a while.
    fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
        let touched = self.state.lock().touched;
        if touched.is_none_or(|at| at.elapsed() >= TOUCH_AFTER) {
            self.touch();
        }
    }

    /// What is known of the file as it is now, and since when. Marks it as used.
    fn begin(&self) -> (MutexGuard<'_, State>, Option<Change>) {
        self.mark_used();
        let mut state = self.state.lock();
        let now = changed(&self.file);
        state.now(now);
        (state, now)
    }

    /// What the headers say of blocks.
    fn checksums(&self, state: &mut State, blocks: &[u64]) -> Vec<Option<Checksums>> {
        let read = || Box::new(Headers::read(&self.file, &self.owner, self.first));
        let headers = state.headers.get_or_insert_with(read);
        let checksums = blocks.iter().map(|block| headers.get(*block).copied());
        checksums.collect()
    }

    /// Notes which pages of blocks turned out to be right, unless the file was changed since `before`.
    fn note(&self, before: Option<Change>, found: &[(u64, u32, bool)]) {
        let mut state = self.state.lock();
        let same = before == changed(&self.file) && before == state.changed;
        for (block, pages, right) in found {
            if same || !right {
                state.set_right(*block, *pages, *right);
            }
        }
    }

    /// Writes blocks in a row. Waits for the disk.
    pub(super) fn write(&self, first: u64, blocks: &[Bytes]) -> rustix::io::Result<()> {
        let parts: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        let length: usize = blocks.iter().map(Bytes::len).sum();
        let headers = headers::written(&self.owner, first, blocks);
        self.change(first, &headers.checksums, || {
            let place = self.place(first.saturating_mul(BLOCK));
            if pwritev(&self.file, &parts, place)? != length {
                return Err(Errno::NOSPC);
            }
            match pwrite(&self.file, &headers.bytes, headers.at)? == headers.bytes.len() {
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
        let _ = self.change(0, &[], || futimens(&self.file, &times));
    }

    /// Whether nobody finds the file any more.
    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|status| status.st_nlink == 0)
    }

    /// Whether another descriptor is of the same file.
    fn is_file(&self, other: &OwnedFd) -> bool {
        let both = (fstat(&self.file), fstat(other));
        matches!(both, (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Changes the file, after which blocks from `first` on have these checksums and are right.
    fn change(
        &self,
        first: u64,
        written: &[Checksums],
        work: impl FnOnce() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let _changing = self.changing.lock();
        let before = changed(&self.file);
        let done = work();
        let mut state = self.state.lock();
        state.now(before);
        if state.headers.is_none() && !written.is_empty() {
            let headers = Headers::read(&self.file, &self.owner, self.first);
            state.headers = Some(Box::new(headers));
        }
        for (block, checksums) in (first..).zip(written) {
            state.set_right(block, u32::MAX, done.is_ok());
            match &mut state.headers {
                Some(headers) if done.is_ok() => headers.set(block, *checksums),
                headers => *headers = None,
            }
        }
        state.changed = changed(&self.file);
        done
    }

    /// Whether the kernel has a block in memory.
    fn is_in_memory(&self, block: u64) -> bool {
        let from = self.place(block.saturating_mul(BLOCK));
        let last = u64::try_from(self.length(block).saturating_sub(1)).unwrap_or(0);
        [from, from.saturating_add(last)]
            .into_iter()
            .all(|at| self.has_page(at))
    }

    /// Whether the kernel has a byte of the file in memory. If not it begins to read the page.
    pub(super) fn has_page(&self, at: u64) -> bool {
        let mut byte = [0];
        let parts = &mut [IoSliceMut::new(&mut byte)];
        preadv2(&self.file, parts, at, ReadWriteFlags::NOWAIT) == Ok(1)
    }

    fn length(&self, block: u64) -> usize {
        let range = self.range(block);
        usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
    }

    /// Bytes that are read for a block: whole pages.
    fn room(&self, block: u64) -> usize {
        let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
        self.length(block).next_multiple_of(page)
    }

    /// The bytes of the content that are a block.
    fn range(&self, block: u64) -> Range<u64> {
        let from = block.saturating_mul(BLOCK);
        from..from.saturating_add(BLOCK).min(self.size).max(from)
    }
}

/// Reads as much as fits, from `at` in a file on, and answers how many bytes that were.
fn fill(file: BorrowedFd<'_>, at: u64, parts: &mut [BytesMut]) -> Option<usize> {
    let mut slices: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
    preadv(file, &mut slices, at).ok()
}

fn changed(file: &OwnedFd) -> Option<Change> {
    let status = fstat(file).ok()?;
    Some(Change {
        inode: status.st_ino,
        seconds: status.st_ctime.into(),
        nanoseconds: status.st_ctime_nsec.into(),
    })
}

/// The blocks that bytes of a content are in, each with the pages that they are on.
fn parts(range: &Range<u64>) -> impl Iterator<Item = (u64, u32)> {
    let Range { start, end } = *range;
    (start / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = block.saturating_mul(BLOCK);
        let part = start.max(from)..end.min(from.saturating_add(BLOCK));
        (block, pages_of(&part))
    })
}

/// The pages that bytes of one block are on, a bit for each.
fn pages_of(range: &Range<u64>) -> u32 {
    let first = range.start % BLOCK / PAGE;
    let length = range.end.saturating_sub(range.start);
    let end = (range.start % BLOCK).saturating_add(length).div_ceil(PAGE);
    let below = |page: u64| match u32::try_from(page) {
        Ok(page) if usize::try_from(page).is_ok_and(|page| page < PAGES) => 1_u32
            .checked_shl(page)
            .map_or(u32::MAX, |bit| bit.wrapping_sub(1)),
        _ => u32::MAX,
    };
    below(end) & !below(first)
}
