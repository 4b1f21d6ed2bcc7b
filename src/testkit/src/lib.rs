//! What the project tests itself with: a fake vhost-user front end with a small FUSE client
//! behind it ([`frontend`]).

pub mod frontend;
