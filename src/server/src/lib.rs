//! A FUSE session: negotiation, node and handle tables, dispatch, exports.
//!
//! Each of a transport's threads has a [`RequestWorker`] of the session, submits requests to it and gets each
//! one's reply through its [`Exchange`]. Backends are asked through the traits of `vfsd-backend`, with objects instead of the
//! guest's numbers. Neither side knows of the other.
//!
//! What a guest sends is never trusted here: names and layouts were checked by the codec; ids,
//! handles, ranges, budgets and read-only exports are checked in this crate.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::unwrap_used,
        clippy::panic
    )
)]

mod admission;
mod dispatch;
mod epoch;
mod errno;
mod exchange;
mod export;
mod export_root;
mod exports;
mod handles;
mod idmap;
mod implied;
mod log_throttle;
mod metrics;
mod negotiation;
mod nodes;
mod options;
mod responder;
mod session;
mod shards;
mod slots;
mod threads;
mod waits;
mod worker;

pub use exchange::{Body, Delivery, Exchange, HEADER_LENGTH, Incoming, inline_length};
pub use export::Export;
pub use exports::{Exports, ExportsError};
pub use idmap::{IdMap, IdMapError};
pub use log_throttle::LogThrottle;
pub use metrics::{Gauges, MetricsSnapshot, OperationSnapshot};
pub use options::{Budget, CacheMode, CachePolicy, Offer, SessionOptions, Transport};
pub use session::Session;
pub use worker::{RequestWorker, Submitted};
