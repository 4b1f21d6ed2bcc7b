//! The bucket's side of a volume: what lies there, and who may write it.
//!
//! # What lies in the bucket
//!
//! | key under the volume's prefix | what | written |
//! |---|---|---|
//! | `volume.json` | which volume it is: uuid, format, features | once, create-only |
//! | `HEAD` | epoch, owner, checkpoint, boundary | replaced under a condition (`If-Match`) |
//! | `log/<number, 20 digits>` | redo records, where content lies after them, small content | create-only |
//! | `seg/<2>/<epoch, 16>-<number, 16>` | up to 16 MiB of content in frames | create-only |
//! | `ckpt/<number, 20>-<id, 16>/<part, 8>` | all rows as they were at a log object | create-only |
//! | `snap/<name>.json` | a checkpoint that stays | create-only |
//!
//! Numbers of log objects are decimal, all others hexadecimal; the two digits before a segment are the last two of its
//! number. Everything but the two JSON objects, `HEAD` and snapshots begins with a magic number and carries checksums: no byte of
//! content and no row reaches a reader unverified.
//!
//! **The chain.** Log objects have the numbers 1, 2, 3 and so on without gaps. Each carries the redo records that come next,
//! the SHA-256 of the log object before, and the epoch of its writer, which never decreases. A [`Point`] names one of them
//! with its hash: two hosts that know the same point know the same history. What is in the bucket is the state after the last
//! log object, and nothing else: a segment that no log object names is garbage.
//!
//! Where the volume was made with a key, frames, the bodies of log objects, the maps of segments and the parts of checkpoints are
//! encrypted.
//!
//! A log object may also say that content lies elsewhere now, and nothing else: what is left of objects that are mostly dead is
//! moved, so that they can go.
//!
//! **Order of writes.** Segments first, then the log object that names them, then, now and then, a checkpoint's parts, and
//! HEAD that names it. So whatever is named is there, after a stop at any moment.
//!
//! # Who may write
//!
//! [`Remote::open`] replaces HEAD by one with the next epoch, finds the end of the chain and puts a log object
//! without content there, its *fence*; then it looks at HEAD once more. A daemon that had the volume before finds the
//! number that it wants to write taken by another writer's object: it is *fenced*, and writes nothing any more, however
//! long it slept. Where the fence itself meets an object of an earlier epoch, that object counts and the fence goes behind it;
//! one of a later epoch means that somebody else became the owner.
//!
//! Create-only writes guard only what exists. So that no number that was deleted can be written again with success,
//! HEAD's boundary says which log objects may be gone before any of them is deleted, none is deleted within
//! [`MIN_AGE`], and an append counts only if this daemon looked at HEAD within ten minutes before, or looks
//! now. An idle volume sends no requests.
//!
//! A host that has had the volume before gives [`Opener::seen`], the last point of the chain that it knows. Where that point is gone
//! and no boundary explains it, the bucket was put back to an earlier state: the volume is refused before anything is written.
//!
//! # Failures of the store
//!
//! The store layer repeats requests and tells an own write whose reply was lost from another's. What it gave up on may still
//! be applied, at any time: [`Remote::append`] of the same object finds it, and one of another object says so.
//!
//! Nothing here has threads or a runtime of its own: futures do the work where they are polled, but for the files of
//! checkpoints, which tokio's blocking threads read and write.

mod chain;
mod check;
mod checkpoint;
mod cipher;
mod collect;
mod copy;
mod damage;
mod error;
mod frame;
mod head;
mod log;
mod names;
mod object_readahead;
mod objects;
mod open;
mod place;
mod read;
mod remote;
mod rollback;
mod segment;
mod snapshot;
mod stat;
#[cfg(test)]
mod tests;
mod unnamed;
mod view;

pub use check::{BucketReport, CheckLevel};
pub(crate) use collect::CHECKPOINT_TO_READ;
pub use collect::{Collected, MIN_AGE, Named};
pub use damage::Damage;
pub(crate) use error::lasting;
pub use error::{BucketError, ShipError};
pub use frame::{Frame, MAX_FRAME_BYTES};
pub use head::{Checkpoint, Head, Owner};
pub use log::{Inline, LogObject, MAX_BODY_BYTES, MAX_INLINE_BYTES, Unwritable, Uuid};
pub use names::Names;
pub use open::{CARETAKER, Opened, Opener};
pub use place::{ChainHash, ObjectId, Piece, Point};
pub use remote::{Clock, Remote, Sealed, host_clock};
pub use rollback::Seen;
pub use segment::{Entry, Segment, SegmentWriter};
pub(crate) use snapshot::{ABANDONED, RENEWAL};
pub use snapshot::{Snapshot, Term};
pub use stat::{Amount, BucketStat};
pub use view::View;
