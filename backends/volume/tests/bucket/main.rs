//! Volumes in a bucket: what is found on other hosts, after kills, in faults and after a takeover.
//!
//! `VFSD_SEED` says how random work begins, `VFSD_CRASHES` how often a daemon is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod ahead;
mod bench;
mod care;
mod clones;
mod crash;
mod dumps;
mod encrypted;
mod faults;
mod holes;
mod hosts;
mod idle;
mod local_store;
mod log;
mod memory;
mod pins;
mod published;
mod quota;
mod rollback;
mod snapshots;
mod still;
#[path = "../crash/work.rs"]
mod work;
