//! Makes a storage a plugin: a process of its own, whose file system vfsd serves to a VM or mounts on the host.
//!
//! ```no_run
//! # struct Storage;
//! # impl vfsd_backend::Backend for Storage {
//! #     fn root(&self) -> std::sync::Arc<dyn vfsd_backend::Node> { unimplemented!() }
//! #     fn capabilities(&self) -> vfsd_backend::Capabilities { unimplemented!() }
//! # }
//! fn main() -> Result<(), vfsd_plugin::PluginError> {
//!     vfsd_plugin::serve(Storage)
//! }
//! ```
//!
//! Started by `vfsd mount plugin:exec:PROGRAM MOUNTPOINT` it finds the daemon at its standard input; started by hand with
//! `--socket PATH` it listens there, for `plugin:PATH`. The storage is written against the traits of
//! `vfsd-backend`, as one that is compiled in: the same dispatch calls it. What it answers by
//! [`ReadSink::put_from`](vfsd_backend::ReadSink::put_from) goes to the daemon as a descriptor and is
//! read there, straight into the guest's memory; the data of a write that are not few are in memory that the daemon shares.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod area;
mod connection;
mod exchange;
mod numbers;
mod reader;
mod requests;
mod sink;
mod socket;

use std::sync::Arc;

use vfsd_backend::Backend;

pub use connection::{ConnectionError, serve_connection};
pub use socket::PluginError;

use crate::socket::Socket;

/// Serves a storage until the daemon leaves, or, listening on a path, until the process is ended. The last thing that
/// `main` does.
///
/// The daemon is found at the standard input, if that is a socket, or else by the argument `--socket PATH`, which is
/// left to this function; all other arguments are the program's own.
///
/// # Errors
/// When there is no socket, or it cannot be listened on, or the daemon does not speak the protocol.
pub fn serve(storage: impl Backend + 'static) -> Result<(), PluginError> {
    serve_arc(Arc::new(storage))
}

/// As [`serve`], for a storage that is shared with other parts of the program.
///
/// # Errors
/// Those of [`serve`].
pub fn serve_arc(storage: Arc<dyn Backend>) -> Result<(), PluginError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .thread_name("plugin-work")
        .build()
        .map_err(PluginError::Threads)?;
    match Socket::find(std::env::args_os())? {
        Socket::Connected(stream) => Ok(serve_connection(stream, storage, runtime.handle())?),
        Socket::Listening(listener) => socket::accept(&listener, &storage, runtime.handle()),
    }
}
