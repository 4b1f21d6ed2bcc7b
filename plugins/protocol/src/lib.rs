//! What the daemon (the host) and a plugin say to each other over a Unix stream socket: `PROTOCOL.md` beside this
//! crate, as types.
//!
//! Both begin with a [`HostHello`] and a [`PluginHello`]. From then on the host sends FUSE requests and
//! the plugin FUSE replies, whose layout is that of `vfsd-fuse`. Added to it are descriptors that the
//! plugin hands over ([`DESCRIPTOR_PUT`]) and the reply to READ that points into one of them
//! ([`ExtentOut`]), so that cached data do not pass through the socket; and memory in which the host passes the data of WRITEs
//! ([`AreaIn`]).

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod area;
mod capabilities;
mod descriptor;
mod hello;
mod lifetime;
mod poller;
mod receive;
mod reply;
mod send;

pub use area::{AreaIn, WRITE_AREA, is_area, make_area};
pub use capabilities::{capabilities_from_wire, capabilities_to_wire};
pub use descriptor::{Unfit, check_descriptor};
pub use hello::{Features, HelloError, HostHello, MAGIC, PluginHello, VERSION};
pub use lifetime::{POLICY, ttl_from_wire};
pub use poller::Poller;
pub use receive::{Arrival, MAX_PENDING_DESCRIPTORS, ReceiveError, Receiver};
pub use reply::{DESCRIPTOR_DROP, DESCRIPTOR_PUT, EXTENT, ExtentOut, Note};
pub use send::{send_all, send_some};

/// The largest payload of a READ or WRITE, in bytes.
pub const MAX_DATA: u32 = 1 << 20;

/// The largest message without a payload, in bytes: a header, an extended attribute of 64 KiB and names.
pub const MAX_ARGUMENTS: usize = 132 * 1024;
