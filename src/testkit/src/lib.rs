//! What the project tests itself with: a fake vhost-user front end with a small FUSE client
//! behind it ([`frontend`]), and calls to a backend that wait for their answers ([`place`]),
//! and the behaviour that every backend shows ([`conformance`]).

pub mod conformance;
pub mod faults;
pub mod frontend;
pub mod host;
pub mod model;
pub mod place;
mod runtime;

pub use runtime::{block_on, runtime};
