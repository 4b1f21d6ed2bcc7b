//! Memory that is given back to the system: what opening the storages took, and what a guest has forgotten.
//!
//! The C library keeps what is freed below its highest live object. After a million files were
//! looked up and forgotten that is hundreds of MiB, which a host with many guests misses.

// UNSAFETY: malloc_trim(3) is only to be had from the C library.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use vfsd_server::Session;

/// A guest that forgets goes on forgetting: memory is given back once it pauses.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives memory back whenever the session's guest has forgotten much, until the runtime ends. Does
/// nothing while the guest does nothing.
pub(crate) fn give_back_after(session: Arc<Session>, runtime: &Handle) {
    runtime.spawn(async move {
        loop {
            session.shrunk().await;
            while tokio::time::timeout(PAUSE, session.shrunk()).await.is_ok() {}
            tracing::debug!("the guest has forgotten much");
            tokio::task::block_in_place(give_back);
        }
    });
}

/// Gives back what is free now. Takes milliseconds.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim may be called at any time from any thread; it touches free memory only.
    let trimmed = unsafe { libc::malloc_trim(0) };
    tracing::debug!(gave_back = trimmed == 1, "free memory");
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
