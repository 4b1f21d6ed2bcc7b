//! A device: its socket, and the front ends that come and go.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vfsd_backend::one_line;
use vfsd_exec::Monitor;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use crate::config_space::ConfigSpace;
use crate::connection::Connection;
use crate::counters::{Counters, CountersSnapshot};
use crate::guest_session::GuestSession;
use crate::queue_thread::Service;
use crate::shutdown::ShutdownHandle;

/// Request queues that a front end can have at most: a kick message names its queue with a byte.
const MOST_REQUEST_QUEUES: u16 = 255;

/// What an operator decides about a device.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// The name under which the guest mounts it, 1 to 36 bytes. With it the device has a
    /// configuration space of its own, which most front ends do not ask for: they have an option
    /// for the tag themselves.
    pub tag: Option<String>,
    /// Request queues that a front end may use, 1 to 255. Those it does not start cost nothing.
    pub max_request_queues: u16,
    /// How long a queue's thread looks for the next request at most before it sleeps. It does so
    /// only while that saves sleeps; zero is never.
    pub poll_limit: Duration,
    /// Serve the next front end when one left.
    pub reconnect: bool,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            tag: None,
            max_request_queues: 16,
            poll_limit: Duration::from_micros(50),
            reconnect: false,
        }
    }
}

/// Why a device was not made, or stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tag does not fit into the configuration space.
    #[error("the tag {0:?} must have 1 to 36 bytes, none of them NUL")]
    Tag(String),
    /// There must be between 1 and 255 request queues.
    #[error("{0} request queues cannot be: give 1 to {MOST_REQUEST_QUEUES}")]
    Queues(u16),
    /// The listening socket failed.
    #[error("cannot accept a front end on the vhost-user socket")]
    Accept(#[source] io::Error),
    /// The front end sent something that a correct one does not send, or wanted something that
    /// the device does not have.
    #[error("the front end was disconnected: {0}")]
    Protocol(String),
    /// The system gave no descriptors.
    #[error("cannot set up the device")]
    Setup(#[source] io::Error),
}

/// Why a device ended that served well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The front end closed the connection, and no other was to be waited for.
    FrontEndLeft,
    /// [`ShutdownHandle::shut_down`] was called.
    ShutDown,
}

/// A virtio-fs device for one guest.
#[derive(Debug)]
pub struct Device {
    listener: UnixListener,
    service: Service,
    config_space: Option<ConfigSpace>,
    reconnect: bool,
    counters: Counters,
    shutdown: ShutdownHandle,
}

impl Device {
    /// A device that will accept its front end on `listener`, and hands requests to `session`, which
    /// outside of tests is the server's.
    ///
    /// # Errors
    /// When an option is out of range, or the system has no descriptor left.
    pub fn new(
        listener: UnixListener,
        session: Arc<dyn GuestSession>,
        options: &DeviceOptions,
    ) -> Result<Self, Error> {
        let queues = options.max_request_queues;
        if !(1..=MOST_REQUEST_QUEUES).contains(&queues) {
            return Err(Error::Queues(queues));
        }
        let config_space = options
            .tag
            .as_ref()
            .map(|tag| ConfigSpace::new(tag, queues))
            .transpose()?;
        // A connection that is gone again when it is accepted must not make the wait last.
        listener.set_nonblocking(true).map_err(Error::Setup)?;
        Ok(Self {
            listener,
            service: Service {
                session,
                monitor: Monitor::new(),
                poll_limit: options.poll_limit,
            },
            config_space,
            reconnect: options.reconnect,
            counters: Counters::new(usize::from(queues).saturating_add(1)),
            shutdown: ShutdownHandle::new().map_err(Error::Setup)?,
        })
    }

    /// What ends the device from another thread.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// What was counted up to now.
    pub fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// Accepts a front end and serves it until it leaves; then, with `reconnect`, the next. After
    /// each the session is reset.
    ///
    /// # Errors
    /// [`Error::Accept`], and without `reconnect` [`Error::Protocol`].
    pub fn serve(&self) -> Result<End, Error> {
        while let Some(stream) = self.accept()? {
            self.counters.connected();
            tracing::info!("front end connected");
            let outcome = self.serve_connection(stream);
            self.service.session.reset();
            match outcome {
                Ok(()) => tracing::info!("front end left"),
                Err(error) if self.reconnect => tracing::error!("{error}"),
                Err(error) => return Err(error),
            }
            if self.shutdown.requested() {
                break;
            }
            if !self.reconnect {
                return Ok(End::FrontEndLeft);
            }
        }
        Ok(End::ShutDown)
    }

    /// The next connection, or none if the device is to shut down.
    fn accept(&self) -> Result<Option<UnixStream>, Error> {
        loop {
            let wake = self.shutdown.wake();
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&wake, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Accept(errno.into())),
            }
            if self.shutdown.requested() {
                return Ok(None);
            }
            let error = match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => {}
                // It can get better: what is short may be given back.
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    tracing::error!("a front end waits, but cannot be accepted: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                }
                _ => return Err(Error::Accept(error)),
            }
        }
    }

    /// Serves one front end to its end.
    fn serve_connection(&self, stream: UnixStream) -> Result<(), Error> {
        let observed = stream.try_clone().map_err(Error::Setup)?;
        self.shutdown
            .watch(Some(stream.try_clone().map_err(Error::Setup)?));
        let connection = Arc::new(Mutex::new(Connection::new(
            observed,
            self.shutdown.clone(),
            self.config_space.clone(),
            self.service.clone(),
            &self.counters,
        )));
        let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&connection));
        let reason = loop {
            if let Err(error) = messages.handle_request() {
                break error;
            }
        };
        self.shutdown.watch(None);
        // Before its rings are drained: a front end that was refused something need not wait.
        drop(messages);
        connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
        match reason {
            _ if self.shutdown.requested() => Ok(()),
            // A front end that is killed may leave in the middle of a message.
            VhostError::Disconnected | VhostError::PartialMessage | VhostError::SocketBroken(_) => {
                Ok(())
            }
            error => Err(Error::Protocol(explain(&error))),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.service.monitor.end();
    }
}

/// Why a message was refused, down to the cause.
fn explain(error: &VhostError) -> String {
    let VhostError::ReqHandlerError(refusal) = error else {
        return error.to_string();
    };
    one_line(refusal)
}
