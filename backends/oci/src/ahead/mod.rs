//! Content that is made ready before a guest asks for it.
//!
//! What was read in the first seconds after the first read is written down for an image
//! ([`Recorder`]), and made ready at once when the image is opened the next time ([`OciImage::prefetch`]). What is
//! left is fetched while the guest asks for nothing ([`OciImage::fetch_rest`]).

mod demand;
mod fill;
mod recorder;
#[cfg(test)]
mod tests;
mod trace;

pub(crate) use demand::Demand;
pub use fill::Stopped;
pub(crate) use fill::{LOOK, Pause};
pub(crate) use recorder::Recorder;
pub(crate) use trace::Trace;
