//! What the project tests itself with: a fake vhost-user front end with a small FUSE client
//! behind it ([`frontend`]), and calls to a backend that wait for their answers ([`place`]),
//! the behaviour that every backend shows ([`conformance`]), and servers of others that tests
//! talk to ([`servers`]).

pub mod conformance;
pub mod faults;
pub mod frontend;
pub mod host;
pub mod lookups;
pub mod model;
pub mod place;
mod runtime;
pub mod servers;

pub use runtime::{block_on, runtime};
