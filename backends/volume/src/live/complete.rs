//! Whether a round is complete: what a cut found is shipped whole, or not at all.
//!
//! What is missing in a log object that is in the bucket, nobody misses any more. So the shipper proves of each that it says all that
//! it has to before it is put. Where it does not, the program has a defect that no further attempt mends: nothing more is shipped,
//! and what is here stays here.

use std::collections::HashMap;

use super::cut::FrozenFile;
use super::ranges::RangeSet;
use crate::bucket::Piece;

/// What is to be shipped, or was, is not complete.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Defect(pub(super) String);

impl Defect {
    pub(super) fn of_inode(ino: u64, what: &str) -> Self {
        Self(format!("inode {ino}: {what}"))
    }
}

/// Whether pieces tell of all that is frozen, once, and of nothing else.
pub(super) fn check_content(files: &[FrozenFile], pieces: &[Piece]) -> Result<(), Defect> {
    let mut told: HashMap<u64, RangeSet> = HashMap::new();
    for piece in pieces {
        let end = piece.offset.saturating_add(piece.length);
        let ranges = told.entry(piece.ino).or_default();
        if ranges.insert(piece.offset..end) != piece.length {
            return Err(Defect::of_inode(piece.ino, "content is shipped twice"));
        }
    }
    for file in files {
        let told = told.remove(&file.ino).unwrap_or_default();
        if !file.map.froze(&told) {
            let what = "what is shipped is not the content that changed";
            return Err(Defect::of_inode(file.ino, what));
        }
    }
    match told.keys().next() {
        Some(ino) => Err(Defect::of_inode(*ino, "its content did not change")),
        None => Ok(()),
    }
}
