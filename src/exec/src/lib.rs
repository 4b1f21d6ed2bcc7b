//! On which thread work runs.
//!
//! A [`Worker`] is a thread that serves a queue: what it does itself costs no change of thread, and
//! the rest of the queue waits for it. Some work is over at once nearly always, and now and then
//! waits for a disk: a write into the page cache, the making of a directory. To move all of it to
//! another thread would cost more than it takes. So the worker does it in a
//! [blocking section](blocking_section): if that lasts, the queue is handed off to another thread,
//! as Go's scheduler hands off the processor of a thread that stays in a system call.
//!
//! - `back_off`: what is left alone for a while after it took long
//! - `worker`: the calling thread as a worker, and its blocking sections
//! - `hand_off`: which thread serves a queue
//! - `monitor`: the thread that sees a blocking section last
//! - `in_flight`: a count that can be waited for to become zero

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::panic)
)]

mod back_off;
mod hand_off;
mod in_flight;
mod monitor;
mod worker;

#[cfg(test)]
mod interleavings;

/// What threads meet at: in tests that of shuttle, which goes through the orders of their steps.
#[cfg(not(test))]
use std::{sync, thread};
#[cfg(test)]
use {shuttle::sync, shuttle::thread};

pub use back_off::BackOff;
pub use hand_off::{BlockingSection, HandOff};
pub use in_flight::InFlightCount;
pub use monitor::{Monitor, MonitoredQueue, MonitoredWorker};
pub use worker::{Worker, blocking_section, is_worker, register, while_blocked};
