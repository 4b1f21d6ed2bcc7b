//! Storages of one's own: [`load`] is one file, in 50 lines; [`facts`] is a directory of such files.
//! `src/bin/facts.rs` mounts either.
//!
//! A backend hands out objects: nodes for files, and what is open. Numbers, reference counts and
//! permissions are the server's and the guest's affair.

#![forbid(unsafe_code)]

pub mod facts;
pub mod load;
