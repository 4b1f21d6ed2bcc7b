//! Fetching content that is in the bucket alone.
//!
//! Whole frames are fetched, each once however many wait for it, checked, and written into the data file. A range
//! that the guest wrote meanwhile is left alone: it is no longer missing.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{pwrite, retry_on_intr};
use vfsd_backend::{Answer, Errno, Result};

use super::Live;
use super::dirty::ContentMap;
use super::extents::Extent;
use super::ranges::around;
use crate::bucket::Frame;
use crate::inode::Inode;

/// So much is asked for with one request.
const REQUEST_BYTES: u64 = 4 << 20;
/// Nothing is taken along while so much of a file is on its way: it is in memory meanwhile.
const MOST_ALONG: u64 = 16 << 20;
/// Of a file of which this part is here, one in so many, as much is asked for as one request is worth.
const MOST_PART: u64 = 4;

/// What is fetched with one request.
#[derive(Debug)]
struct Wanted {
    /// In whole blocks.
    range: Range<u64>,
    extents: Vec<Extent>,
}

impl Wanted {
    /// The content of all frames of the extents.
    async fn read(&self, live: &Live) -> Result<HashMap<Frame, Bytes>> {
        let mut frames: Vec<Frame> = self.extents.iter().map(|extent| extent.frame).collect();
        frames.sort_unstable();
        frames.dedup();
        let _turn = live.fetches.acquire().await;
        let read = live.remote.read_frames(&frames).await;
        let contents = read.map_err(|error| vfsd_backend::Error::Storage(Box::new(error)))?;
        Ok(frames.into_iter().zip(contents).collect())
    }
}

/// A request that is under way, until it is dropped.
struct InFlight {
    map: Arc<ContentMap>,
    range: Range<u64>,
    arrived: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut ranges = self.map.lock();
        ranges.fetching.remove(&self.range);
        if !self.arrived {
            ranges.failures = ranges.failures.wrapping_add(1);
        }
        drop(ranges);
        self.map.arrival.notify_waiters();
    }
}

impl Inode {
    /// Waits until a range of the content is here.
    ///
    /// # Errors
    /// EIO when it cannot be had from the bucket, ENOSPC when there is no room for it.
    pub(crate) async fn fetch(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        // Whether it is here is not known before the data file is open.
        Answer::blocking(|| self.shared(false).map(drop)).await?;
        if let Some((live, map)) = self.live() {
            if !map.misses(&range) {
                live.cache.hit();
                return Ok(());
            }
            live.cache.missed();
            // What is waited for comes with a request of its own; what is around it while the reader goes on.
            self.fetch_ahead(&range);
            if map.lock().fetching.total() < MOST_ALONG {
                let (size, missing) = (self.state.read().row.size, map.missing_bytes());
                self.fetch_ahead(&along(&range, size, missing, live.cache.limit()));
            }
        }
        self.wait_for(range).await
    }

    /// As [`fetch`](Self::fetch), blocking the thread.
    pub(crate) fn fetch_now(self: &Arc<Self>, range: &Range<u64>) -> Result<()> {
        let Some((live, _)) = self.live() else {
            return Ok(());
        };
        // Who has a path alone holds no open file: without one the data file could be closed meanwhile, or make room.
        let _open = self.content.open();
        drop(self.shared(false)?);
        live.runtime.block_on(self.wait_for(range.clone()))
    }

    async fn wait_for(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let Some((live, map)) = self.live() else {
            return Ok(());
        };
        let mut failures = None;
        loop {
            let mut arrival = pin!(map.arrival.notified());
            arrival.as_mut().enable();
            if self.ask(live, map, &range, &mut failures)? {
                return Ok(());
            }
            arrival.await;
        }
    }

    /// Asks for a range ahead of a reader, who does not wait for it.
    pub(crate) fn fetch_ahead(self: &Arc<Self>, range: &Range<u64>) {
        if let Some((live, map)) = self.live()
            && let Err(error) = self.ask(live, map, range, &mut None)
        {
            tracing::debug!(parent: &self.core.span, ino = self.ino, %error, "volume: nothing is read ahead");
        }
    }

    /// Asks for what is missing of a range, and was not asked for. True: nothing is missing.
    fn ask(
        self: &Arc<Self>,
        live: &Live,
        map: &Arc<ContentMap>,
        range: &Range<u64>,
        failures: &mut Option<u64>,
    ) -> Result<bool> {
        // What the bucket has of a block may end before the part of it that is asked about.
        let range = &around(range);
        let unasked: Vec<Range<u64>> = {
            let ranges = map.lock();
            let missing = ranges.missing_in(range);
            if missing.is_empty() {
                return Ok(true);
            }
            let unasked = missing
                .iter()
                .flat_map(|part| ranges.fetching.gaps(part))
                .collect();
            match *failures {
                Some(before) if before != ranges.failures && !Vec::is_empty(&unasked) => {
                    return Err(Errno::IO.into());
                }
                _ => *failures = Some(ranges.failures),
            }
            unasked
        };
        let (Some(first), Some(last)) = (unasked.first(), unasked.last()) else {
            return Ok(false);
        };
        let mut extents = live.shipped.extents(self.ino, &(first.start..last.end))?;
        let mut asked = false;
        {
            // What was asked for meanwhile, or is here, cuts the rest into requests of their own.
            let ranges = map.lock();
            extents.retain(|extent| {
                let range = around(&extent.range());
                let is_missing = !ranges.missing_in(&range).is_empty();
                asked |= is_missing;
                is_missing && !ranges.fetching.overlaps(&range)
            });
        }
        for wanted in plan(extents) {
            let mut ranges = map.lock();
            let is_missing = !ranges.missing_in(&wanted.range).is_empty();
            if !is_missing || ranges.fetching.overlaps(&wanted.range) {
                asked |= is_missing;
                continue;
            }
            ranges.fetching.insert(wanted.range.clone());
            drop(ranges);
            asked = true;
            let flight = InFlight {
                map: map.clone(),
                range: wanted.range.clone(),
                arrived: false,
            };
            live.runtime.spawn(self.clone().carry(wanted, flight));
        }
        if !asked && map.misses(range) {
            // What is missing is in the bucket: that is how it was found to be.
            return Err(
                std::io::Error::other(format!("content of inode {} is nowhere", self.ino)).into(),
            );
        }
        Ok(false)
    }

    async fn carry(self: Arc<Self>, wanted: Wanted, mut flight: InFlight) {
        let arrived = self.clone().fetch_wanted(wanted).await;
        match arrived {
            Ok(()) => flight.arrived = true,
            Err(error) => {
                tracing::warn!(parent: &self.core.span, ino = self.ino, %error, "volume: content cannot be fetched")
            }
        }
    }

    async fn fetch_wanted(self: Arc<Self>, mut wanted: Wanted) -> Result<()> {
        let Some((live, _)) = self.live() else {
            return Ok(());
        };
        let contents = loop {
            let failure = match wanted.read(live).await {
                Ok(contents) => break contents,
                Err(failure) => failure,
            };
            // A clean-up may have removed what was overwritten since it was looked up.
            let now = live.shipped.extents(self.ino, &wanted.range)?;
            if now == wanted.extents {
                return Err(failure);
            }
            wanted.extents = now;
        };
        let inode = self.clone();
        let done = tokio::task::spawn_blocking(move || inode.take_in(&wanted, &contents)).await;
        done.map_err(std::io::Error::other)?
    }

    /// Writes what was fetched into the data file, where it is missing still.
    fn take_in(&self, wanted: &Wanted, contents: &HashMap<Frame, Bytes>) -> Result<()> {
        let slot = self.shared(false)?;
        let (Some((live, map)), Some(file)) = (self.live(), slot.as_ref()) else {
            return Ok(());
        };
        let mut fetched = 0_u64;
        let mut ranges = map.lock();
        for extent in &wanted.extents {
            let content = contents.get(&extent.frame).ok_or(Errno::IO)?;
            for part in ranges.missing_in(&extent.range()) {
                let skip = part
                    .start
                    .saturating_sub(extent.offset)
                    .saturating_add(extent.skip.into());
                let start = usize::try_from(skip).map_err(|_| Errno::IO)?;
                let length =
                    usize::try_from(part.end.saturating_sub(part.start)).map_err(|_| Errno::IO)?;
                let bytes = content
                    .get(start..start.saturating_add(length))
                    .ok_or(Errno::IO)?;
                write_all(file, bytes, part.start)?;
                fetched = fetched.saturating_add(part.end.saturating_sub(part.start));
            }
        }
        map.arrived(&mut ranges, &wanted.range);
        drop(ranges);
        live.cache.fetched(fetched);
        if live.cache.grown(fetched) {
            live.rounds.hurry();
        }
        Ok(())
    }
}

/// What is asked for where a range is missing, of a file of `size` bytes of which so many are missing. The more of it is
/// here, the likelier the rest is wanted: up to one request around the range. A file that may not stay gets no more
/// than is asked for.
fn along(range: &Range<u64>, size: u64, missing: u64, limit: Option<u64>) -> Range<u64> {
    let stays = limit.is_none_or(|limit| size <= limit / 2);
    let here = size.saturating_sub(missing);
    let part = u128::from(here).saturating_mul(MOST_PART.into());
    let window = u128::from(REQUEST_BYTES).saturating_mul(part);
    let window = window.checked_div(size.into()).unwrap_or(0);
    let window = u64::try_from(window).map_or(REQUEST_BYTES, |window| window.min(REQUEST_BYTES));
    match range.start.checked_rem(window) {
        Some(into) if stays => {
            let start = range.start.saturating_sub(into);
            let end = start.saturating_add(window).min(size);
            start..end.max(range.end)
        }
        _ => range.clone(),
    }
}

fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match retry_on_intr(|| pwrite(file, rest, at))? {
            0 => return Err(Errno::NOSPC),
            count => done = done.saturating_add(count),
        }
    }
    Ok(())
}

/// Which extents are fetched together: those that share a block, and then as many as one request is worth.
fn plan(extents: Vec<Extent>) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for extent in extents {
        let range = around(&extent.range());
        if let Some(last) = all.last_mut() {
            let shares = range.start < last.range.end;
            let follows = range.start == last.range.end;
            let near = range.end.saturating_sub(last.range.start) <= REQUEST_BYTES;
            if shares || (follows && near) {
                last.range.end = last.range.end.max(range.end);
                last.extents.push(extent);
                continue;
            }
        }
        all.push(Wanted {
            range,
            extents: vec![extent],
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_of_a_file_is_here_the_more_is_asked_for() {
        const SIZE: u64 = 256 << 20;
        let wanted = (100 << 20) + 5000..(100 << 20) + 9000;
        let asked = |here: u64, limit| along(&wanted, SIZE, SIZE - here, limit);
        assert_eq!(asked(0, None), wanted);
        let some = asked(8 << 20, None);
        assert_eq!(some, 100 << 20..(100 << 20) + (512 << 10));
        let most = (100 << 20)..(104 << 20);
        assert_eq!(asked(SIZE / 4, None), most);
        assert_eq!(asked(SIZE - 4096, None), most);
        assert_eq!(asked(SIZE / 4, Some(2 * SIZE)), most);
        assert_eq!(
            asked(SIZE / 4, Some(2 * SIZE - 1)),
            wanted,
            "it may not stay"
        );
        // At the end of a file, and in one that became shorter meanwhile.
        assert_eq!(along(&(4096..8192), 9000, 4500, None), 0..9000);
        assert_eq!(along(&(4096..8192), 0, 0, None), 4096..8192);
        assert_eq!(along(&(4096..8192), 5000, 1, None), 0..8192);
    }
}
