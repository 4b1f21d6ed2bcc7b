//! Ending a device from outside.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

/// Ends a [`Device`](crate::Device) from any thread, for example one that received SIGTERM.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    requested: AtomicBool,
    /// Readable from the request on, which ends a wait for connections.
    wake: OwnedFd,
    /// The connection being served, whose end ends a wait for messages.
    connection: Mutex<Option<UnixStream>>,
}

impl ShutdownHandle {
    pub(crate) fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State {
            requested: AtomicBool::new(false),
            wake,
            connection: Mutex::new(None),
        };
        Ok(Self {
            state: Arc::new(state),
        })
    }

    /// Lets the device finish: rings are drained, the connection is closed, and
    /// [`serve`](crate::Device::serve) returns [`End::ShutDown`](crate::End::ShutDown). Returns at
    /// once; further calls do nothing.
    pub fn shut_down(&self) {
        self.state.requested.store(true, Ordering::SeqCst);
        // An eventfd that is full is readable already.
        let _ = rustix::io::write(&self.state.wake, &1_u64.to_ne_bytes());
        if let Some(connection) = self.state.connection.lock().as_ref() {
            // It fails only when the front end is gone, which has the same effect.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn requested(&self) -> bool {
        self.state.requested.load(Ordering::SeqCst)
    }

    /// Becomes readable with the request.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.state.wake.as_fd()
    }

    /// Names the connection that a request is to end. One that came before ends it at once.
    pub(crate) fn watch(&self, connection: Option<UnixStream>) {
        let mut current = self.state.connection.lock();
        *current = connection;
        if self.requested()
            && let Some(connection) = current.as_ref()
        {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
