//! One read on its way into the guest's buffers.

use std::ops::Range;
use std::sync::Arc;

use vfsd_backend::{Answer, Errno, Error, ReadRequest, ReadSink, Result, Wait};

use super::blocks::{BLOCK, BlockCache, Piece, Wanted};
use super::content::Content;
use super::disk::{Group, group_of};

/// How often blocks are asked for of which the disk says that it has them, and then has not.
const ATTEMPTS: usize = 3;

/// What is read, and how much of it the sink has.
#[derive(Debug)]
pub(super) struct Reading {
    begin: u64,
    left: Range<u64>,
}

impl Reading {
    /// Of a range that is in the file.
    pub(super) fn new(range: Range<u64>) -> Self {
        Self {
            begin: range.start,
            left: range,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Bytes that the sink has.
    pub(super) fn length(&self) -> usize {
        usize_of(self.left.start.saturating_sub(self.begin))
    }

    /// What it does not have.
    pub(super) fn rest(&self) -> ReadRequest {
        ReadRequest {
            offset: self.left.start,
            length: usize_of(self.left.end.saturating_sub(self.left.start)),
        }
    }

    /// Puts the rest into the sink, which lies in these blocks: from the first one that is not read to the last. Where that would
    /// have to wait, or the disk fails, it ends early, and the blocks have to be asked for again.
    ///
    /// # Errors
    /// The sink takes nothing.
    pub(super) fn put(&mut self, pieces: &[Piece], sink: &mut dyn ReadSink) -> Result<()> {
        let first = self.left.start / BLOCK;
        while !self.left.is_empty() {
            let place = usize_of((self.left.start / BLOCK).saturating_sub(first));
            let rest = pieces.get(place..).unwrap_or_default();
            match rest.first() {
                None => return Err(Errno::IO.into()),
                Some(Piece::Memory(bytes)) => {
                    let from = usize_of(self.left.start % BLOCK);
                    let length = usize_of(self.left.end.saturating_sub(self.left.start));
                    let to = from.saturating_add(length).min(bytes.len());
                    let part = bytes.get(from..to).unwrap_or_default();
                    self.advance(sink.put(part)?)?;
                }
                Some(Piece::Disk(group)) => {
                    let same = |piece: &&Piece| matches!(piece, Piece::Disk(other) if Arc::ptr_eq(group, other));
                    let count = rest.iter().take_while(same).count();
                    if !self.put_from(group, count, sink)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts as much as lies in so many blocks of a file of the disk. False when it has to be asked for again.
    fn put_from(&mut self, group: &Group, count: usize, sink: &mut dyn ReadSink) -> Result<bool> {
        let first = self.left.start / BLOCK;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let end = first.saturating_add(count);
        let to = end.saturating_mul(BLOCK).min(self.left.end);
        let length = usize_of(to.saturating_sub(self.left.start));
        let place = group.place(self.left.start);
        match sink.put_from(group.descriptor(), place, length, Wait::Refused) {
            Ok(0) => {}
            Ok(taken) => return self.advance(taken).map(|()| true),
            Err(error) if error.is(Errno::FAULT) => return Err(error),
            Err(error) if error.is(Errno::INTR) => return Ok(true),
            Err(_) => {}
        }
        group.forget(&(self.left.start..to));
        Ok(false)
    }

    /// Puts what is in the next block, if a file of the disk has that. Waits for it. False if it has not.
    ///
    /// # Errors
    /// The sink takes nothing.
    fn put_kept(&mut self, group: &Group, sink: &mut dyn ReadSink) -> Result<bool> {
        let block = self.left.start / BLOCK;
        let end = block.saturating_add(1).saturating_mul(BLOCK);
        let range = self.left.start..end.min(self.left.end);
        match group.read(&range) {
            Some(bytes) => self.advance(sink.put(&bytes)?).map(|()| true),
            None => Ok(false),
        }
    }

    fn advance(&mut self, taken: usize) -> Result<()> {
        if taken == 0 {
            return Err(Errno::IO.into());
        }
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        self.left.start = self.left.start.saturating_add(taken).min(self.left.end);
        Ok(())
    }
}

impl BlockCache {
    /// Reads into the sink what it does not have yet, once it is there.
    pub(super) async fn read_into(
        &self,
        content: &Arc<Content>,
        mut wanted: Wanted,
        reading: &mut Reading,
        sink: &mut dyn ReadSink,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            wanted.now.start = reading.left.start / BLOCK;
            let pieces = self.read(content, &wanted).await?;
            reading.put(&pieces, sink)?;
            if !reading.is_done() {
                // What was just checked is out of memory again, or the file system always waits.
                self.read_kept(content, reading, sink).await?;
            }
            if reading.is_done() {
                return Ok(());
            }
        }
        Err(Error::from(Errno::IO))
    }

    /// Reads into the sink what the disk has, up to the first block that it has not.
    pub(super) async fn read_kept(
        &self,
        content: &Content,
        reading: &mut Reading,
        sink: &mut dyn ReadSink,
    ) -> Result<()> {
        let mut is_there = true;
        while is_there && !reading.is_done() {
            let block = reading.left.start / BLOCK;
            let Some(group) = self.kept_in(content, block).await else {
                return Ok(());
            };
            is_there = Answer::blocking(|| {
                while !reading.is_done() && group_of(reading.left.start / BLOCK) == group_of(block)
                {
                    if !reading.put_kept(&group, sink)? {
                        return Ok(false);
                    }
                    self.found_on_disk();
                }
                Ok(true)
            })
            .await?;
        }
        Ok(())
    }
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
