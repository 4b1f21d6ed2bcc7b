//! Maps of sparse files.

use super::header::BLOCK;
use super::number;
use crate::DataExtent;

/// A piece of a sparse file that is there; may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Appends the pieces of an old GNU map: pairs of 12 bytes, up to the first without a length.
pub(super) fn read_gnu(fields: &[u8], map: &mut Vec<Piece>) -> Option<()> {
    for pair in fields.chunks_exact(24) {
        let (offset, length) = pair.split_at_checked(12)?;
        if length.first() == Some(&0) {
            break;
        }
        map.push(Piece {
            offset: u64::try_from(number::field(offset)?).ok()?,
            length: u64::try_from(number::field(length)?).ok()?,
        });
    }
    Some(())
}

/// A map of form 1.0, which stands before the content: decimal numbers, each ended by a newline. The
/// first counts the pieces.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    digits: Vec<u8>,
    pieces: Option<u64>,
    offset: Option<u64>,
    pub(super) map: Vec<Piece>,
}

impl MapReader {
    /// Takes the map's next block. True when it is complete: the rest of the block is padding.
    pub(super) fn push(&mut self, block: &[u8; BLOCK], max: usize) -> Result<bool, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                // No number of 64 bits is longer.
                if self.digits.len() >= 20 {
                    return Err("a sparse map has what is no number");
                }
                self.digits.push(*byte);
                continue;
            }
            let number = number::decimal(&self.digits);
            let number = number.ok_or("a sparse map has what is no number")?;
            self.digits.clear();
            match (self.pieces, self.offset.take()) {
                (None, _) => {
                    if usize::try_from(number).map_or(true, |pieces| pieces > max) {
                        return Err("a sparse map has too many pieces");
                    }
                    self.pieces = Some(number);
                }
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.map.push(Piece {
                    offset,
                    length: number,
                }),
            }
            if self.pieces == u64::try_from(self.map.len()).ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The extents of a file whose pieces stand one after the other from `tar_offset` on, in `stored`
/// bytes of content.
pub(super) fn extents(
    map: &[Piece],
    real_size: u64,
    tar_offset: u64,
    stored: u64,
) -> Result<Vec<DataExtent>, &'static str> {
    if i64::try_from(real_size).is_err() {
        return Err("a sparse file is too large");
    }
    let mut extents: Vec<DataExtent> = Vec::new();
    let mut end: u64 = 0;
    let mut taken: u64 = 0;
    for piece in map {
        let piece_end = piece.offset.checked_add(piece.length);
        let Some(piece_end) = piece_end.filter(|it| piece.offset >= end && *it <= real_size) else {
            return Err("the pieces of a sparse file overlap or are beyond its end");
        };
        let place = tar_offset.checked_add(taken);
        let after = taken.checked_add(piece.length).filter(|it| *it <= stored);
        let (Some(place), Some(after)) = (place, after) else {
            return Err("the pieces of a sparse file are longer than its content");
        };
        end = piece_end;
        taken = after;
        if piece.length > 0 {
            extents.push(DataExtent {
                file_offset: piece.offset,
                tar_offset: place,
                length: piece.length,
            });
        }
    }
    Ok(extents)
}
