//! A session as a transport sees it: bytes in, one answer each.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod duties;
mod exports;
mod failures;
mod guest;
mod life;
mod locks;
mod requests;
mod tables;
mod translation;
mod without_open;
