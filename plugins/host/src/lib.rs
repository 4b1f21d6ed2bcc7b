//! A storage in a process of its own: the daemon's side of the plugin protocol (`plugins/protocol/PROTOCOL.md`).
//!
//! [`Plugin`] is a [`Backend`](vfsd_backend::Backend). Each call becomes a FUSE request on a socket, and is answered when its reply comes.
//! No call waits for ever: each class of operations has a [deadline](Deadlines), and while
//! there is no plugin everything is EIO at once. Whoever asks takes in the reply, if it comes at once ([`ear`]); otherwise a thread
//! of its own does, which, when the plugin is gone or does not keep to the protocol, gets a new one from a [`Connector`].
//! Files are found again by their path; what is another file by then, or none, is ESTALE.
//!
//! # What is trusted
//!
//! Nothing. Every length, number, name and type of a reply is checked ([`reply`]), and what one
//! plugin can make the daemon hold is bounded ([`Limits`]). The first reply that does not keep to
//! the protocol ends the connection, with one line in the log.
//!
//! # Locks
//!
//! 1. [`records::Tables`], 2. the state of a record. A record is never dropped under either.
//! 3. The receiver of a link, while a message is taken in. Nobody waits for it under another lock.
//! 4. What else belongs to a link (requests in flight, descriptors, what is to be sent): one at a time, and nothing else.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the reader of the source is meant"
)]

mod area;
mod attributes;
mod broker;
mod confine;
mod connector;
mod creation;
mod directory;
mod ear;
mod file;
mod filter;
mod handle;
mod link;
mod listing;
mod node;
mod options;
mod outbox;
mod plugin;
mod program;
mod reach;
mod receive;
mod records;
mod reply;
mod request;
mod shared;
mod supervisor;
mod waiter;

pub use broker::{Broker, serve_broker};
pub use confine::{Confinement, enter_namespaces};
pub use connector::{Connector, SocketPath};
pub use options::{BackOff, Deadlines, Limits, Options};
pub use plugin::{Plugin, StartError};
pub use program::Program;
