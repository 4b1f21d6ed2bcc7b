//! The virtio-fs device over vhost-user: rings and guest memory.
//!
//! A [`Device`] accepts front ends (QEMU, cloud-hypervisor, crosvm, User-Mode Linux ...) on a
//! socket, one after the other, and hands what their guests ask for to a [`GuestSession`], which is
//! the server's session.
//!
//! This is the only crate that touches guest memory, and all it gives away are owned, checked
//! bytes: a chain of descriptors is walked once, whole, and its header and arguments are copied
//! once. File data stay in guest memory, as pieces that preadv2(2) and pwritev2(2) use directly.
//!
//! From the socket inwards:
//! - `device`: accepts, serves, ends
//! - `connection`: the vhost-user messages of one front end
//! - `queue`, `queue_thread`: when a ring runs, and what runs it
//! - `polling`: looking at a ring for a while before sleeping
//! - `ring`: a split virtqueue: available and used ring, chains, what is in flight
//! - `exchange`: one request's way back
//! - `memory`, `iovec`, `sigbus`: guest memory, and what happens when a front end takes it away
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

mod config_space;
mod connection;
mod counters;
mod device;
mod exchange;
mod guest_session;
mod iovec;
mod memory;
mod notifier;
mod polling;
mod queue;
mod queue_thread;
mod ring;
mod shutdown;
mod sigbus;

pub use counters::CountersSnapshot;
pub use device::{Device, DeviceOptions, End, Error};
pub use exchange::ChainExchange;
pub use guest_session::GuestSession;
pub use shutdown::ShutdownHandle;
