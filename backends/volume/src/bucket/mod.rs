//! The bucket's side of a volume: what lies there, and who may write it.

mod chain;
mod check;
mod checkpoint;
mod collect;
mod damage;
mod error;
mod frame;
mod head;
mod log;
mod names;
mod objects;
mod open;
mod place;
mod read;
mod remote;
mod segment;
mod snapshot;
mod stat;
#[cfg(test)]
mod tests;
mod view;

pub use check::{BucketReport, CheckLevel};
pub use collect::{Collected, MIN_AGE, Named};
pub use damage::Damage;
pub use error::{BucketError, ShipError};
pub use frame::{Frame, MAX_FRAME_BYTES};
pub use head::{Checkpoint, Head, Owner};
pub use log::{Inline, LogObject, MAX_BODY_BYTES, MAX_INLINE_BYTES, Unwritable, Uuid};
pub use names::Names;
pub use open::{Opened, Opener};
pub use place::{ChainHash, ObjectId, Piece, Point};
pub use remote::{Clock, Remote, Sealed, host_clock};
pub use segment::{Entry, Segment, SegmentWriter};
pub use snapshot::Snapshot;
pub use stat::{Amount, BucketStat};
pub use view::View;
