//! Where the content of a file is: here alone, on its way into the bucket, in both, or in the bucket alone.
//!
//! A range is *dirty* when the bucket does not have what it is now. A [cut](super::cut) turns dirty ranges
//! into *frozen* ones: the content of that moment is read and shipped while the guest goes on. Who is about
//! to change a frozen range that was not read yet copies it aside first. A range is *missing* when
//! the bucket has it and the data file has a hole there. Everything else is the same in both.
//!
//! What is said about content between a [`ContentMap`]'s calls holds as long as the caller keeps the
//! file's content (shared, for ranges that are not missing; alone otherwise).

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use vfsd_backend::{Errno, Result};

use super::holes::{copy_data, first_data, read_exactly};
use super::ranges::{RangeSet, around};

/// All files that have dirty or frozen ranges.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    files: Mutex<HashMap<u64, Arc<ContentMap>>>,
    /// Written bytes that the bucket does not have. Holes count nothing.
    bytes: AtomicU64,
}

/// Where the content of one file is.
#[derive(Debug)]
pub(crate) struct ContentMap {
    ino: u64,
    ranges: Mutex<Ranges>,
    /// Nothing is missing, so that nobody has to ask which.
    whole: AtomicBool,
    /// Something that was asked for is here, or did not come.
    pub(crate) arrival: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Ranges {
    dirty: RangeSet,
    /// What of the dirty ranges was written: the rest are holes.
    written: RangeSet,
    frozen: RangeSet,
    /// How many bytes of the frozen ranges were written.
    frozen_bytes: u64,
    /// Frozen, and not read yet.
    unread: RangeSet,
    aside: Option<Aside>,
    /// In blocks. None: the data file is not open, so that it is not known.
    missing: Option<RangeSet>,
    /// Missing, and asked for.
    pub(crate) fetching: RangeSet,
    /// How many fetches failed.
    pub(crate) failures: u64,
}

/// Frozen content that was about to change.
#[derive(Debug)]
struct Aside {
    file: OwnedFd,
    ranges: RangeSet,
}

/// A part of a frozen range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frozen {
    Data { offset: u64, bytes: Vec<u8> },
    Hole { offset: u64, length: u64 },
}

impl Dirty {
    /// The map of a file: the one that is known, or a new one.
    pub(crate) fn map(&self, ino: u64) -> Arc<ContentMap> {
        let known = self.files.lock().get(&ino).cloned();
        known.unwrap_or_else(|| {
            Arc::new(ContentMap {
                ino,
                ranges: Mutex::default(),
                whole: AtomicBool::new(false),
                arrival: Notify::new(),
            })
        })
    }

    /// All files with dirty or frozen ranges.
    pub(crate) fn all(&self) -> Vec<(u64, Arc<ContentMap>)> {
        let files = self.files.lock();
        files.iter().map(|(ino, map)| (*ino, map.clone())).collect()
    }

    /// Written bytes that the bucket does not have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether content of a file is on its way.
    pub(crate) fn is_frozen(&self, ino: u64) -> bool {
        let map = self.files.lock().get(&ino).cloned();
        map.is_some_and(|map| map.is_frozen())
    }

    /// Whether a file has dirty or frozen ranges.
    pub(crate) fn is_dirty(&self, ino: u64) -> bool {
        self.files.lock().contains_key(&ino)
    }

    /// A file is gone for good, and nothing of it is on its way.
    pub(crate) fn forget(&self, ino: u64) {
        // Who has a map's ranges waits for the files: not the other way round.
        let map = self.files.lock().remove(&ino);
        if let Some(map) = map {
            let mut ranges = map.ranges.lock();
            self.less(ranges.written.total());
            *ranges = Ranges::default();
        }
    }

    fn less(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl ContentMap {
    /// Whether nothing is missing: then it stays so until the data file is closed.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock()
    }

    /// Whether it is known what is missing: as long as the data file is open.
    pub(crate) fn is_known(&self) -> bool {
        self.ranges.lock().missing.is_some()
    }

    /// The parts of a range that are missing.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if self.is_whole() {
            return Vec::new();
        }
        self.ranges.lock().missing_in(range)
    }

    /// Whether content is on its way.
    pub(super) fn is_frozen(&self) -> bool {
        !self.ranges.lock().frozen.is_empty()
    }

    /// How many bytes of what is on its way were written.
    pub(super) fn frozen_bytes(&self) -> u64 {
        self.ranges.lock().frozen_bytes
    }

    /// Whether these ranges are frozen, and no others.
    pub(super) fn froze(&self, ranges: &RangeSet) -> bool {
        self.ranges.lock().frozen == *ranges
    }

    /// Forgets that frozen content is to be read, as no shipper may.
    #[cfg(test)]
    pub(super) fn lose_frozen(&self) {
        self.ranges.lock().unread = RangeSet::default();
    }

    /// Whether there is data that the bucket does not have.
    pub(crate) fn was_written(&self) -> bool {
        let ranges = self.ranges.lock();
        !ranges.written.is_empty() || ranges.frozen_bytes > 0
    }

    /// Whether anything of a range is missing.
    pub(crate) fn misses(&self, range: &Range<u64>) -> bool {
        !self.is_whole() && self.ranges.lock().misses(range)
    }

    /// Bytes that are missing, counted in blocks.
    pub(crate) fn missing_bytes(&self) -> u64 {
        if self.is_whole() {
            return 0;
        }
        self.ranges.lock().missing_bytes()
    }

    /// Notes what is missing when the data file is opened: of what the bucket has, all that is neither in `here`, the data
    /// of the data file, nor dirty or frozen.
    pub(crate) fn opened(
        &self,
        bucket: impl FnOnce() -> Result<Vec<Range<u64>>>,
        here: &[Range<u64>],
    ) -> Result<()> {
        // Before the bucket's side is looked at: what was dirty when that was not yet newer masks it.
        let newer = {
            let ranges = self.ranges.lock();
            let both = ranges.dirty.iter().chain(ranges.frozen.iter());
            both.collect::<RangeSet>()
        };
        let mut missing: RangeSet = bucket()?.iter().map(around).collect();
        for range in here.iter().map(around).chain(newer.iter()) {
            missing.remove(&range);
        }
        let mut ranges = self.ranges.lock();
        self.whole.store(missing.is_empty(), Ordering::Release);
        ranges.missing = Some(missing);
        Ok(())
    }

    /// Nothing is missing of a file that has just been made.
    pub(crate) fn made(&self) {
        self.ranges.lock().missing = Some(RangeSet::default());
        self.whole.store(true, Ordering::Release);
    }

    /// The data file is closed.
    pub(crate) fn closed(&self) {
        let mut ranges = self.ranges.lock();
        self.whole.store(false, Ordering::Release);
        ranges.missing = None;
        drop(ranges);
        // Who waits for a part of it has to open it first.
        self.arrival.notify_waiters();
    }

    /// Ranges are here now.
    pub(crate) fn arrived(&self, ranges: &mut Ranges, range: &Range<u64>) {
        if let Some(missing) = &mut ranges.missing {
            missing.remove(range);
            if missing.is_empty() {
                self.whole.store(true, Ordering::Release);
            }
        }
    }

    /// Prepares a change of a range: its frozen content is copied aside from the data file, and the blocks that
    /// it is in are dirty from then on, and no longer missing. `written` unless a hole is made.
    ///
    /// # Errors
    /// As the copy says. Then nothing is different.
    pub(crate) fn change(
        self: &Arc<Self>,
        dirty: &Dirty,
        live: &OwnedFd,
        range: &Range<u64>,
        written: bool,
        aside: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        let range = around(range);
        let mut ranges = self.ranges.lock();
        ranges.copy_aside(live, &range, aside)?;
        self.arrived(&mut ranges, &range);
        let known = !ranges.dirty.is_empty() || !ranges.frozen.is_empty();
        ranges.becomes_dirty(dirty, range, written);
        if !known {
            dirty.files.lock().insert(self.ino, self.clone());
        }
        Ok(())
    }

    /// Ranges that were missing, and were not changed after all.
    pub(crate) fn is_missing_again(&self, dirty: &Dirty, range: &Range<u64>) {
        let mut ranges = self.ranges.lock();
        dirty.less(ranges.written.remove(range));
        ranges.dirty.remove(range);
        if let Some(missing) = &mut ranges.missing {
            missing.insert(range.clone());
            self.whole.store(false, Ordering::Release);
        }
    }

    /// Takes note of data that was dirty before the volume was opened.
    pub(crate) fn was_dirty(self: &Arc<Self>, dirty: &Dirty, range: &Range<u64>) {
        let mut ranges = self.ranges.lock();
        ranges.becomes_dirty(dirty, around(range), true);
        dirty.files.lock().insert(self.ino, self.clone());
    }

    /// Takes note of a hole that was made before the volume was opened. Data in it stays.
    pub(crate) fn was_hole(self: &Arc<Self>, dirty: &Dirty, range: &Range<u64>) {
        self.ranges.lock().dirty.insert(around(range));
        dirty.files.lock().insert(self.ino, self.clone());
    }

    /// Freezes what is dirty, at a cut. False: nothing is.
    pub(crate) fn freeze(&self) -> bool {
        let mut ranges = self.ranges.lock();
        let ranges = &mut *ranges;
        if ranges.dirty.is_empty() {
            return false;
        }
        ranges.frozen = std::mem::take(&mut ranges.dirty);
        ranges.frozen_bytes = std::mem::take(&mut ranges.written).total();
        ranges.unread = ranges.frozen.clone();
        true
    }

    /// What was written until now will not go into the bucket: it takes no room on the way there.
    pub(crate) fn stays(&self, dirty: &Dirty) {
        let mut ranges = self.ranges.lock();
        dirty.less(std::mem::take(&mut ranges.written).total());
    }

    /// The frozen ranges are in the bucket.
    pub(crate) fn shipped(&self, dirty: &Dirty) {
        let mut ranges = self.ranges.lock();
        ranges.frozen = RangeSet::default();
        ranges.unread = RangeSet::default();
        ranges.aside = None;
        dirty.less(std::mem::take(&mut ranges.frozen_bytes));
        if ranges.dirty.is_empty() {
            dirty.files.lock().remove(&self.ino);
        }
    }

    /// The next part of the frozen ranges that was not read yet, at most `most` bytes of data. The file had `size` bytes at the
    /// cut: what is after them is a hole.
    pub(crate) fn read_frozen(
        &self,
        live: Option<&OwnedFd>,
        size: u64,
        most: u64,
    ) -> Result<Option<Frozen>, Errno> {
        let mut ranges = self.ranges.lock();
        let Some(range) = ranges.unread.iter().next() else {
            return Ok(None);
        };
        let aside = ranges.aside.as_ref();
        let (source, end) =
            match aside.and_then(|aside| Some((aside, aside.ranges.within(&range).next()?))) {
                Some((aside, part)) if part.start == range.start => (Some(&aside.file), part.end),
                Some((_, part)) => (live, part.start),
                None => (live, range.end),
            };
        let part = range.start..end;
        let data = match source {
            Some(file) => first_data(file, &(part.start..part.end.min(size)))?,
            None => None,
        };
        let (frozen, done) = match data {
            Some(data) if data.start == part.start => {
                let end = data.end.min(part.start.saturating_add(most)).min(size);
                let bytes = match source {
                    Some(file) => read_exactly(file, &(part.start..end))?,
                    None => Vec::new(),
                };
                let offset = part.start;
                // The rest of the last block is a hole, told next.
                (Frozen::Data { offset, bytes }, part.start..end)
            }
            data => {
                let offset = part.start;
                let end = data.map_or(part.end, |data| data.start);
                let length = end.saturating_sub(offset);
                (Frozen::Hole { offset, length }, part.start..end)
            }
        };
        ranges.unread.remove(&done);
        Ok(Some(frozen))
    }
}

impl Ranges {
    fn becomes_dirty(&mut self, dirty: &Dirty, range: Range<u64>, written: bool) {
        if written {
            let more = self.written.insert(range.clone());
            dirty.bytes.fetch_add(more, Ordering::Relaxed);
        } else {
            // The blocks at its ends may keep data: they hardly count.
            dirty.less(self.written.remove(&range));
        }
        self.dirty.insert(range);
    }

    /// Bytes that are missing, counted in blocks.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.missing.as_ref().map_or(0, RangeSet::total)
    }

    /// The parts of a range that are missing, and not asked for.
    pub(super) fn unasked_in(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let missing = self.missing_in(range);
        let unasked = missing.iter().flat_map(|part| self.fetching.gaps(part));
        unasked.collect()
    }

    /// Some of which these are missing, and these asked for.
    #[cfg(test)]
    pub(super) fn missing_and_asked(missing: &[Range<u64>], asked: &[Range<u64>]) -> Self {
        Self {
            missing: Some(missing.iter().cloned().collect()),
            fetching: asked.iter().cloned().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn missing_in(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        match &self.missing {
            Some(missing) => missing.within(range).collect(),
            None => vec![range.clone()],
        }
    }

    pub(super) fn misses(&self, range: &Range<u64>) -> bool {
        self.missing
            .as_ref()
            .is_none_or(|missing| missing.overlaps(range))
    }

    fn copy_aside(
        &mut self,
        live: &OwnedFd,
        range: &Range<u64>,
        make: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        let known = self.aside.take();
        let parts: Vec<_> = {
            let copied = known.as_ref().map(|aside| &aside.ranges);
            let unread = self.unread.within(range);
            unread
                .flat_map(|part| {
                    copied.map_or_else(|| vec![part.clone()], |copied| copied.gaps(&part))
                })
                .collect()
        };
        if parts.is_empty() {
            self.aside = known;
            return Ok(());
        }
        let mut aside = match known {
            Some(aside) => aside,
            None => Aside {
                file: make()?,
                ranges: RangeSet::default(),
            },
        };
        let copied = parts.into_iter().try_for_each(|part| {
            copy_data(live, &aside.file, &part)?;
            aside.ranges.insert(part);
            Ok(())
        });
        self.aside = Some(aside);
        copied
    }
}
