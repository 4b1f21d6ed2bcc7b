//! A session as a transport sees it: bytes in, one answer each.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod exports;
mod failures;
mod guest;
mod life;
mod locks;
mod tables;
mod translation;
