//! The bucket's side of a volume: what lies there, and who may write it.

#![allow(dead_code, reason = "what sends and fetches these is not there yet")]

mod damage;
mod frame;
mod log;
mod names;
mod place;
mod segment;

pub use damage::Damage;
pub use frame::{Frame, MAX_FRAME_BYTES};
pub use log::{Inline, LogObject, MAX_BODY_BYTES, MAX_INLINE_BYTES, Unwritable, Uuid};
pub use names::Names;
pub use place::{ChainHash, ObjectId, Piece, Point};
pub use segment::{Entry, Segment, SegmentWriter};
