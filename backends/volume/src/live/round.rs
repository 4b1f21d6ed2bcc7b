//! A round: what a cut found, on its way into the bucket.
//!
//! Frozen content goes into segments, or into the log object itself where it is small; the log object has all redo records
//! up to the cut. Whatever fails, a round goes on from where it was: what is dirty is dropped at no time.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use vfsd_backend::Errno;

use super::Live;
use super::complete::check_content;
use super::cut::Cut;
use super::dirty::Frozen;
use super::packing::Packing;
use super::shipped::{Shipping, Step};
use super::shipper::Failure;
use super::uploads::{PARALLEL, Uploads};
use crate::bucket::{MAX_INLINE_BYTES, Piece, Remote, Sealed, ShipError};
use crate::core::Core;
use crate::meta::journal::Lsn;

/// Content in one frame: what a read of a single byte has to fetch. Of 64 KiB each, 2,000 reads at random of 256 MiB take a third more
/// requests and time, and text takes 4 % more room.
pub(super) const FRAME_BYTES: u64 = 256 << 10;

/// A segment is so long at least, unless there is no more content.
const SHORTEST_SEGMENT: u64 = 4 << 20;

/// A round that is not over.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) cut: Cut,
    /// Redo records up to the cut.
    pub(super) records: Vec<(Lsn, Vec<u8>)>,
    /// How many files were read to their end.
    read: usize,
    /// The data file that is read.
    open: Option<OwnedFd>,
    /// Content that is in no segment yet: inode, offset and bytes.
    queue: VecDeque<(u64, u64, Vec<u8>)>,
    /// Bytes that a log object would have of it.
    queued: usize,
    /// Bytes of content so far.
    pub(super) content: u64,
    /// Bytes of content that are in no segment yet, about.
    unpacked: u64,
    /// There is more than a log object takes.
    in_segments: bool,
    packing: Packing,
    uploads: Uploads,
    pub(super) pieces: Vec<Piece>,
    pub(super) sealed: Option<Sealed>,
    /// What it changes in the shipped image, since it is sealed.
    pub(super) step: Option<Step>,
}

impl Round {
    pub(super) fn new(cut: Cut, records: Vec<(Lsn, Vec<u8>)>) -> Self {
        let bytes = cut.files.iter().map(|file| file.map.frozen_bytes());
        Self {
            unpacked: bytes.fold(0, u64::saturating_add),
            cut,
            records,
            read: 0,
            open: None,
            queue: VecDeque::new(),
            queued: 0,
            content: 0,
            in_segments: false,
            packing: Packing::default(),
            uploads: Uploads::default(),
            pieces: Vec::new(),
            sealed: None,
            step: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.cut.files.is_empty()
    }

    /// Goes on from where it is until the bucket has all of it.
    ///
    /// # Errors
    /// It is worth another call, unless another daemon took the volume over, or it is a defect.
    pub(super) fn ship(
        &mut self,
        live: &Live,
        core: &Core,
        shipping: &Shipping,
    ) -> Result<(), Failure> {
        let remote = &*live.remote;
        if self.sealed.is_none() {
            self.uploads.resume(live);
            self.pack(live)?;
            while self.read_on(core, remote.frame_overhead())? {
                core.failpoints.reach("some content read");
                self.pack(live)?;
            }
            // Pieces name it.
            if let Some(segment) = self.packing.finish()? {
                self.uploads.begin(live, segment)?;
            }
            core.failpoints.reach("all content read");
            self.uploads.wait(live)?;
            core.failpoints.reach("segments in the bucket");
            self.seal(remote, shipping)?;
        }
        if let Some(sealed) = &self.sealed {
            live.runtime.block_on(remote.append(sealed))?;
        }
        Ok(())
    }

    /// Reads the next part of the frozen content. False: there is none.
    fn read_on(&mut self, core: &Core, overhead: usize) -> Result<bool, Failure> {
        while let Some(file) = self.cut.files.get(self.read) {
            if self.open.is_none() {
                self.open = match core.data.open_file(file.ino, false) {
                    Ok(open) => Some(open),
                    // Cut to nothing before anything was written.
                    Err(Errno::NOENT) => None,
                    Err(errno) => return Err(errno.into()),
                };
            }
            match file
                .map
                .read_frozen(self.open.as_ref(), file.size, FRAME_BYTES)?
            {
                Some(Frozen::Data { offset, bytes }) => {
                    let queued = bytes.len().saturating_add(overhead);
                    self.queued = self.queued.saturating_add(queued);
                    let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    self.content = self.content.saturating_add(more);
                    self.queue.push_back((file.ino, offset, bytes));
                    return Ok(true);
                }
                Some(Frozen::Hole { offset, length }) => self.pieces.push(Piece {
                    ino: file.ino,
                    offset,
                    length,
                    place: None,
                }),
                None => {
                    self.read = self.read.saturating_add(1);
                    self.open = None;
                }
            }
        }
        Ok(false)
    }

    /// Moves content from the queue into segments, if it is more than a log object takes.
    fn pack(&mut self, live: &Live) -> Result<(), Failure> {
        if !self.in_segments && self.queued <= MAX_INLINE_BYTES {
            return Ok(());
        }
        self.in_segments = true;
        while let Some((ino, offset, bytes)) = self.queue.front() {
            if self.packing.is_empty() {
                // What is left goes there at a time, on as many connections.
                let at_a_time = u64::try_from(PARALLEL).unwrap_or(u64::MAX);
                let share = self.unpacked.checked_div(at_a_time).unwrap_or(0);
                let share = usize::try_from(share.max(SHORTEST_SEGMENT));
                self.packing.want(share.unwrap_or(usize::MAX));
            }
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let piece = self.packing.append(&live.remote, *ino, *offset, bytes)?;
            self.pieces.push(piece);
            self.queue.pop_front();
            self.unpacked = self.unpacked.saturating_sub(length);
            if let Some(segment) = self.packing.full()? {
                let begun = self.uploads.begin(live, segment);
                for stored in self.uploads.stored() {
                    self.packing.take_back(stored);
                }
                begun?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, remote: &Remote, shipping: &Shipping) -> Result<(), Failure> {
        let mut inline = remote.inline()?;
        let mut pieces = self.pieces.clone();
        for (ino, offset, bytes) in &self.queue {
            let frame = inline.append(bytes)?;
            pieces.push(Piece::whole(*ino, *offset, frame));
        }
        check_content(&self.cut.files, &pieces)?;
        let records = self.records.clone();
        let sealed = remote
            .seal(self.cut.last, records, pieces.clone(), inline)
            .map_err(ShipError::from)?;
        self.step = Some(shipping.prepare(&self.records, &pieces, sealed.point())?);
        self.pieces = pieces;
        self.queue.clear();
        self.sealed = Some(sealed);
        Ok(())
    }
}
