//! A storage that is an OCI image: its layers as they are, merged into one read-only tree.
//!
//! A layer is a tar archive, compressed as its maker chose. Its [entries](LayerEntry) are read once;
//! from then on any byte of it is found by its place in the tar.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used
    )
)]

mod ahead;
mod backend;
#[cfg(test)]
mod backend_tests;
pub mod blob;
pub mod catalogue;
pub mod content;
mod counters;
mod directory;
mod entry;
mod file;
pub mod image;
pub mod index;
mod layers;
mod node;
mod open;
pub mod referrer;
pub mod registry;
mod room;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod toc;
pub mod tree;
mod turn;

pub use ahead::Stopped;
pub use backend::{Fill, OciImage};
pub use counters::{Counters, Counts, RequestKind, Requests};
pub use entry::{DataExtent, EntryKind, LayerEntry};
pub use open::{OpenError, Options, Progress};
