//! The device as a front end sees it: a real vhost-user socket, guest memory in memfds, and a
//! session that does what a request's opcode says.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admission;
mod hand_off;
mod hostile;
mod life;
mod memory;
mod requests;
mod stage;
