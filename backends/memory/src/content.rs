//! The content of a regular file: blocks that hold data, blocks that are only reserved, and holes.

use std::collections::BTreeMap;
use std::ops::Range;

use vfsd_backend::{Errno, ReadSink, Result, WriteSource};

use crate::space::Space;

/// Unit of allocation in bytes, as `st_blksize` shows it.
pub(crate) const BLOCK_SIZE: u32 = 4096;
/// [`BLOCK_SIZE`] as an offset.
pub(crate) const BLOCK_BYTES: u64 = 4096;
const BLOCK_LENGTH: usize = 4096;
const ZEROS: [u8; BLOCK_LENGTH] = [0; BLOCK_LENGTH];

/// The largest size of a file: 2^32 - 1 blocks, as on ext4 with blocks of the same size.
pub(crate) const MAX_FILE_BYTES: u64 = 0xffff_ffff * BLOCK_BYTES;

#[derive(Debug)]
enum Block {
    /// Charged, but never written: reads as zeros, and is a hole for `SEEK_DATA`, as an unwritten
    /// extent of ext4 is.
    Reserved,
    Data(Box<[u8; BLOCK_LENGTH]>),
}

/// Sparse content. Bytes at or after `size` in a data block are zero.
#[derive(Debug, Default)]
pub(crate) struct Content {
    size: u64,
    blocks: BTreeMap<u64, Block>,
}

/// The part of `range` that lies in each block, in order: block number and bytes inside the block.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let index = at / BLOCK_BYTES;
        let block_start = index.saturating_mul(BLOCK_BYTES);
        let end = block_start.saturating_add(BLOCK_BYTES).min(range.end);
        let within = inside(at, block_start)..inside(end, block_start);
        at = end;
        Some((index, within))
    })
}

/// The position of `offset` in the block that starts at `block_start`, at most one past its end.
fn inside(offset: u64, block_start: u64) -> usize {
    usize::try_from(offset.saturating_sub(block_start))
        .map_or(BLOCK_LENGTH, |at| at.min(BLOCK_LENGTH))
}

/// The blocks that lie wholly in `range`.
fn whole_blocks(range: &Range<u64>) -> Range<u64> {
    let first = range.start.div_ceil(BLOCK_BYTES);
    first..(range.end / BLOCK_BYTES).max(first)
}

/// The blocks that `range` touches.
fn touched_blocks(range: &Range<u64>) -> Range<u64> {
    let first = range.start / BLOCK_BYTES;
    first..range.end.div_ceil(BLOCK_BYTES).max(first)
}

fn charge_of(blocks: usize) -> u64 {
    u64::try_from(blocks)
        .unwrap_or(u64::MAX)
        .saturating_mul(BLOCK_BYTES)
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What the blocks cost.
    pub(crate) fn charged_bytes(&self) -> u64 {
        charge_of(self.blocks.len())
    }

    /// Copies up to `length` bytes from `offset` into the sink.
    pub(crate) fn read(
        &self,
        offset: u64,
        length: usize,
        sink: &mut dyn ReadSink,
    ) -> Result<usize> {
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        let end = offset.saturating_add(wanted).min(self.size);
        let mut done: usize = 0;
        for (index, within) in pieces(offset..end) {
            let block = match self.blocks.get(&index) {
                Some(Block::Data(bytes)) => bytes.as_ref(),
                Some(Block::Reserved) | None => &ZEROS,
            };
            let piece = block.get(within).unwrap_or_default();
            let taken = match sink.put(piece) {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done = done.saturating_add(taken);
            if taken < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    /// Writes what the source holds at `offset`, and says how many bytes that were: fewer than
    /// the source has when the space or the largest file size ends.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        source: &mut dyn WriteSource,
        space: &Space,
    ) -> Result<usize> {
        if source.remaining() > 0 && offset >= MAX_FILE_BYTES {
            return Err(Errno::FBIG.into());
        }
        let wanted = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let end = offset.saturating_add(wanted).min(MAX_FILE_BYTES);
        let mut buffer = [0; BLOCK_LENGTH];
        let mut done: usize = 0;
        for (index, within) in pieces(offset..end) {
            // Bytes are taken before a block is found for them, so that guest memory that fails
            // leaves no block behind.
            let room = buffer.get_mut(..within.len()).unwrap_or_default();
            let step = source.take(room).and_then(|taken| {
                let bytes = buffer.get(..taken).unwrap_or_default();
                let place = within.start..within.start.saturating_add(taken);
                self.store(index, place, bytes, space)?;
                Ok(taken)
            });
            let taken = match step {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            done = done.saturating_add(taken);
            if taken < within.len() {
                break;
            }
        }
        let written_to = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        if done > 0 {
            self.size = self.size.max(written_to);
        }
        Ok(done)
    }

    /// Puts `bytes` into one block.
    fn store(
        &mut self,
        index: u64,
        place: Range<usize>,
        bytes: &[u8],
        space: &Space,
    ) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let block = match self.blocks.entry(index) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                space.charge(BLOCK_BYTES)?;
                entry.insert(Block::Reserved)
            }
        };
        if matches!(block, Block::Reserved) {
            *block = Block::Data(Box::new(ZEROS));
        }
        if let Block::Data(data) = block
            && let Some(target) = data.get_mut(place)
        {
            target.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Cuts or extends to `size`. What is added is a hole; blocks kept after the end go too.
    pub(crate) fn truncate(&mut self, size: u64, space: &Space) -> Result<(), Errno> {
        if size > MAX_FILE_BYTES {
            return Err(Errno::FBIG);
        }
        let cut = self.blocks.split_off(&size.div_ceil(BLOCK_BYTES));
        space.refund(charge_of(cut.len()));
        self.clear(size..size.next_multiple_of(BLOCK_BYTES));
        self.size = size;
        Ok(())
    }

    /// Writes zeros over the data of `range`, block by block; holes stay holes.
    fn clear(&mut self, range: Range<u64>) {
        for (index, within) in pieces(range) {
            if let Some(Block::Data(data)) = self.blocks.get_mut(&index)
                && let Some(bytes) = data.get_mut(within)
            {
                bytes.fill(0);
            }
        }
    }

    /// Clears the parts of `range` that do not fill a block, and says which blocks are filled.
    fn clear_edges(&mut self, range: &Range<u64>) -> Range<u64> {
        let whole = whole_blocks(range);
        if whole.is_empty() {
            self.clear(range.clone());
            return whole;
        }
        self.clear(range.start..whole.start.saturating_mul(BLOCK_BYTES));
        self.clear(whole.end.saturating_mul(BLOCK_BYTES)..range.end);
        whole
    }

    /// Reserves blocks for all of `range`, without a change of what is read.
    pub(crate) fn reserve(&mut self, range: &Range<u64>, space: &Space) -> Result<(), Errno> {
        let touched = touched_blocks(range);
        let present = self.blocks.range(touched.clone()).count();
        let missing = touched
            .end
            .saturating_sub(touched.start)
            .saturating_sub(u64::try_from(present).unwrap_or(u64::MAX));
        space.charge(missing.saturating_mul(BLOCK_BYTES))?;
        for index in touched {
            self.blocks.entry(index).or_insert(Block::Reserved);
        }
        Ok(())
    }

    /// Makes `range` read as zeros and gives back the blocks that lie wholly in it.
    pub(crate) fn punch(&mut self, range: &Range<u64>, space: &Space) {
        let whole = self.clear_edges(range);
        let mut cut = self.blocks.split_off(&whole.start);
        let mut rest = cut.split_off(&whole.end);
        space.refund(charge_of(cut.len()));
        self.blocks.append(&mut rest);
    }

    /// Makes `range` read as zeros, with all its blocks reserved.
    pub(crate) fn zero(&mut self, range: &Range<u64>, space: &Space) -> Result<(), Errno> {
        self.reserve(range, space)?;
        let whole = self.clear_edges(range);
        for (_, block) in self.blocks.range_mut(whole) {
            *block = Block::Reserved;
        }
        Ok(())
    }

    /// Extends the size to `end`, if it is smaller.
    pub(crate) fn extend_to(&mut self, end: u64) {
        self.size = self.size.max(end);
    }

    /// Takes `range` out of the file.
    ///
    /// # Errors
    /// EINVAL unless it is made of whole blocks and ends before the end of the file.
    pub(crate) fn collapse(&mut self, range: &Range<u64>, space: &Space) -> Result<(), Errno> {
        let shift = aligned(range)?;
        if range.end >= self.size {
            return Err(Errno::INVAL);
        }
        let whole = whole_blocks(range);
        let mut cut = self.blocks.split_off(&whole.start);
        let moved = cut.split_off(&whole.end);
        space.refund(charge_of(cut.len()));
        self.blocks.extend(
            moved
                .into_iter()
                .map(|(index, block)| (index.saturating_sub(shift), block)),
        );
        self.size = self
            .size
            .saturating_sub(range.end.saturating_sub(range.start));
        Ok(())
    }

    /// Moves what follows `range.start` behind `range`, which becomes a hole.
    ///
    /// # Errors
    /// EINVAL unless `range` is made of whole blocks and starts inside the file; EFBIG when the file
    /// would be too large.
    pub(crate) fn insert(&mut self, range: &Range<u64>) -> Result<(), Errno> {
        let shift = aligned(range)?;
        if range.start >= self.size {
            return Err(Errno::INVAL);
        }
        let size = self
            .size
            .checked_add(range.end.saturating_sub(range.start))
            .filter(|&size| size <= MAX_FILE_BYTES)
            .ok_or(Errno::FBIG)?;
        let moved = self.blocks.split_off(&whole_blocks(range).start);
        self.blocks.extend(
            moved
                .into_iter()
                .map(|(index, block)| (index.saturating_add(shift), block)),
        );
        self.size = size;
        Ok(())
    }

    /// The first data at or after `offset`. ENXIO when there is none.
    pub(crate) fn next_data(&self, offset: u64) -> Result<u64, Errno> {
        if offset >= self.size {
            return Err(Errno::NXIO);
        }
        self.blocks
            .range(offset / BLOCK_BYTES..)
            .find(|(_, block)| matches!(block, Block::Data(_)))
            .map(|(&index, _)| index.saturating_mul(BLOCK_BYTES).max(offset))
            .filter(|&found| found < self.size)
            .ok_or(Errno::NXIO)
    }

    /// The first hole at or after `offset`; the end of the file is one. ENXIO after the end.
    pub(crate) fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        if offset >= self.size {
            return Err(Errno::NXIO);
        }
        let mut hole = offset / BLOCK_BYTES;
        for (&index, block) in self.blocks.range(hole..) {
            if index != hole || matches!(block, Block::Reserved) {
                break;
            }
            hole = hole.saturating_add(1);
        }
        Ok(hole.saturating_mul(BLOCK_BYTES).max(offset).min(self.size))
    }
}

/// The number of blocks in `range`; EINVAL unless it is made of whole ones.
fn aligned(range: &Range<u64>) -> Result<u64, Errno> {
    let whole = whole_blocks(range);
    let same = whole.start.saturating_mul(BLOCK_BYTES) == range.start
        && whole.end.saturating_mul(BLOCK_BYTES) == range.end;
    if same && !whole.is_empty() {
        Ok(whole.end.saturating_sub(whole.start))
    } else {
        Err(Errno::INVAL)
    }
}
