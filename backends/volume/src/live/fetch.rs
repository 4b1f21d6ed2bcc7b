//! Fetching content that is in the bucket alone.
//!
//! Whole frames are fetched, each once however many wait for it, checked, and written into the data file as they come: who waits
//! for the first ones goes on while the rest is on its way. A range that the guest wrote meanwhile is left alone: it is no
//! longer missing.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use rustix::io::{pwrite, retry_on_intr};
use vfsd_backend::{Answer, Errno, Result};

use super::Live;
use super::dirty::ContentMap;
use super::ranges::around;
use super::wanted::{ALONG_BYTES, Arrived, REQUEST_BYTES, WAITED_BYTES, Wanted, along, plan};
use crate::inode::Inode;

/// How often content has to be nowhere to be so.
const NOWHERE: u32 = 3;
/// Nothing is taken along while so much of a file is on its way: it is in memory meanwhile.
const MOST_ALONG: u64 = 16 << 20;
/// Frames that are written into the data file at a time, if so many are there.
const MOST_AT_ONCE: usize = if cfg!(test) { 1 } else { 64 };

/// What who waits for a range found out so far.
#[derive(Debug, Default)]
struct Asking {
    /// How many fetches had failed when it was asked first.
    failures: Option<u64>,
    /// How often something was missing that there was nothing to ask for of.
    nowhere: u32,
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
            let size = self.state.read().row.size;
            let wanted = {
                let ranges = map.lock();
                match ranges.fetching.total() < MOST_ALONG {
                    true => along(&ranges, &range, size, live.cache.limit()),
                    false => range.clone(),
                }
            };
            if wanted.end.saturating_sub(wanted.start) > WAITED_BYTES {
                self.fetch_ahead(&range);
            }
            self.ask_ahead(&wanted, ALONG_BYTES);
        }
        self.core.failpoints.reach("content asked for");
        self.wait_for(range).await
    }

    /// As [`fetch`](Self::fetch), blocking the thread.
    pub(crate) fn fetch_now(self: &Arc<Self>, range: &Range<u64>) -> Result<()> {
        let Some((live, _)) = self.live() else {
            return Ok(());
        };
        // Who has a path alone holds no open file: without one the data file could be closed meanwhile.
        let _open = self.content.open();
        let _pin = self.content.pin();
        drop(self.shared(false)?);
        live.runtime.block_on(self.wait_for(range.clone()))
    }

    async fn wait_for(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let Some((live, map)) = self.live() else {
            return Ok(());
        };
        let mut asking = Asking::default();
        loop {
            let mut arrival = pin!(map.arrival.notified());
            arrival.as_mut().enable();
            // It was closed, or made room, meanwhile.
            if !map.is_known() && !Answer::blocking(|| Ok(self.shared(false)?.is_some())).await? {
                return Ok(());
            }
            if self.ask((live, map), &range, REQUEST_BYTES, &mut asking)? {
                return Ok(());
            }
            self.core.failpoints.reach("content waited for");
            arrival.await;
        }
    }

    /// Asks for a range ahead of a reader, who does not wait for it.
    pub(crate) fn fetch_ahead(self: &Arc<Self>, range: &Range<u64>) {
        self.ask_ahead(range, REQUEST_BYTES);
    }

    /// As [`fetch_ahead`](Self::fetch_ahead), with up to so many bytes in one request.
    fn ask_ahead(self: &Arc<Self>, range: &Range<u64>, most: u64) {
        if let Some((live, map)) = self.live()
            && let Err(error) = self.ask((live, map), range, most, &mut Asking::default())
        {
            tracing::debug!(parent: &self.core.span, ino = self.ino, %error, "volume: nothing is read ahead");
        }
    }

    /// Asks for what is missing of a range, and was not asked for. True: nothing is missing.
    fn ask(
        self: &Arc<Self>,
        (live, map): (&Live, &Arc<ContentMap>),
        range: &Range<u64>,
        most: u64,
        asking: &mut Asking,
    ) -> Result<bool> {
        // What the bucket has of a block may end before the part of it that is asked about.
        let range = &around(range);
        let unasked: Vec<Range<u64>> = {
            let ranges = map.lock();
            if !ranges.misses(range) {
                return Ok(true);
            }
            let unasked = ranges.unasked_in(range);
            match asking.failures {
                Some(before) if before != ranges.failures && !Vec::is_empty(&unasked) => {
                    return Err(Errno::IO.into());
                }
                _ => asking.failures = Some(ranges.failures),
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
        for wanted in plan(extents, most) {
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
        if !asked && map.is_known() && map.misses(range) {
            asking.nowhere = asking.nowhere.saturating_add(1);
            if asking.nowhere < NOWHERE {
                // It may have been here, and made room just now.
                map.arrival.notify_waiters();
                return Ok(false);
            }
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
        loop {
            let failure = match self.read_wanted(live, &wanted).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // A clean-up may have removed what was overwritten since it was looked up.
            let now = live.shipped.extents(self.ino, &wanted.range)?;
            if now == wanted.extents {
                return Err(failure);
            }
            wanted.extents = now;
        }
    }

    /// Reads what is wanted, and takes it in as it comes.
    async fn read_wanted(self: &Arc<Self>, live: &Live, wanted: &Wanted) -> Result<()> {
        let (frames, mut arriving) = wanted.arriving();
        let _turn = live.fetches.acquire().await;
        let coming = live.remote.frames_as_they_come(&frames);
        let mut coming = pin!(coming.ready_chunks(MOST_AT_ONCE));
        while let Some(some) = coming.next().await {
            let mut arrived = Vec::new();
            for one in some {
                let (which, content) =
                    one.map_err(|error| vfsd_backend::Error::Storage(Box::new(error)))?;
                arriving.add(which, content, &mut arrived);
            }
            if arrived.is_empty() {
                continue;
            }
            let inode = self.clone();
            let done = tokio::task::spawn_blocking(move || inode.take_in(&arrived)).await;
            done.map_err(std::io::Error::other)??;
        }
        match arriving.is_over() {
            true => Ok(()),
            false => Err(Errno::IO.into()),
        }
    }

    /// Writes what arrived into the data file, where it is missing still.
    fn take_in(&self, arrived: &[Arrived]) -> Result<()> {
        // Where nobody has the file open any more it is closed again.
        let _open = self.content.open();
        let slot = self.shared(false)?;
        let (Some((live, map)), Some(file)) = (self.live(), slot.as_ref()) else {
            return Ok(());
        };
        let mut fetched = 0_u64;
        let mut ranges = map.lock();
        for one in arrived {
            for (extent, content) in &one.extents {
                for part in ranges.missing_in(&extent.range()) {
                    let bytes = extent.part_of(content, &part).ok_or(Errno::IO)?;
                    write_all(file, &bytes, part.start)?;
                    fetched = fetched.saturating_add(part.end.saturating_sub(part.start));
                }
            }
            map.arrived(&mut ranges, &one.blocks);
        }
        self.core.failpoints.reach("some content fetched");
        // Who finds it here finds it counted.
        live.cache.fetched(fetched);
        drop(ranges);
        map.arrival.notify_waiters();
        if live.cache.grown(fetched) {
            live.rounds.hurry();
        }
        Ok(())
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
