//! The entries of a layer's tar, as the decoded stream goes by.
//!
//! Read is what layers are made with: v7, ustar, star, PAX and GNU archives, with sparse files in all four
//! forms. Where a rule of POSIX leaves a choice, it is read as Go's `archive/tar` does, which is
//! what builds and unpacks images elsewhere: two readers that disagree see two images.

mod error;
mod header;
mod number;
mod parser;
mod pax;
mod sparse;
#[cfg(test)]
pub(crate) mod tests;

pub use error::TarError;
pub use parser::{TarContents, TarLimits, TarParser};
