//! A POSIX file system of its own in a directory of the host: metadata in SQLite, data in files
//! beside it.
//!
//! It does what ext4 does with the same calls, whatever the host's file system can, and keeps what a
//! guest sets: owners, device nodes, ACLs and `trusted.*` attributes are rows of a table, nothing
//! that the host's kernel would act on.
//!
//! # What survives
//!
//! When the daemon is killed: everything that was acknowledged, except for access times of the last
//! seconds. Names and attributes are in the journal before a reply, and content is in the host's
//! page cache. When the power fails: what was made durable by `fsync`, `fdatasync`, `sync` or `O_SYNC`,
//! together with all names and attributes that were changed before. A file that took the name of
//! another one has its content then, whether it was synced or not; of the content of others nothing
//! is promised.
//!
//! # How it is made
//!
//! `meta` keeps rows: a journal of redo records, SQLite's tables that follow it, and what is
//! ahead of them. `core` has the inodes that are in memory, and the order of locks. Operations
//! change rows through a `txn`; `content` keeps an inode in step with its data file.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod attributes;
pub mod bucket;
mod check;
mod content;
mod core;
mod create;
mod data;
mod directory;
mod dump;
mod entries;
mod error;
mod failpoint;
mod file;
mod inode;
mod key;
mod layout;
mod live;
mod meta;
mod names;
mod node;
mod quota;
mod rename;
mod status;
#[cfg(test)]
mod tests;
mod txn;
mod upkeep;
mod volume;
mod xattr;

pub use crate::bucket::{Amount, CheckLevel, Collected as Cleaned, Owner, Snapshot};
pub use crate::check::CheckReport;
pub use crate::dump::{DumpOptions, Summary as DumpSummary};
pub use crate::error::{Process, VolumeError};
pub use crate::key::{Bucket, VolumeKey};
pub use crate::layout::Lock;
pub use crate::live::{
    CacheUse, CacheWatch, Durability, Lag, LagWatch, RemoteOptions, RemoteReport, RemoteStatus,
    host_boot,
};
pub use crate::quota::Quota;
pub use crate::status::VolumeStatus;
pub use crate::volume::{Volume, VolumeOptions};
