//! What a service manager is told, as sd_notify(3) does: that the daemon serves.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that says where the manager listens.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// A service manager that wants to be told, if there is one.
#[derive(Debug)]
pub(crate) struct Notify(Option<UnixDatagram>);

impl Notify {
    /// Connects to the manager. Called before the sandbox is entered, from where its socket cannot be reached.
    ///
    /// One that cannot be reached is told nothing, and the log says so.
    pub(crate) fn connect() -> Self {
        let Some(place) = std::env::var_os(VARIABLE).filter(|place| !place.is_empty()) else {
            return Self(None);
        };
        let connected = connect(&place).inspect_err(|error| {
            tracing::warn!("cannot reach {VARIABLE} {}: {error}", place.display())
        });
        Self(connected.ok())
    }

    /// Says that the daemon serves, and goes.
    pub(crate) fn ready(self) {
        if let Some(manager) = self.0
            && let Err(error) = manager.send(b"READY=1\n")
        {
            tracing::warn!("cannot tell the service manager: {error}");
        }
    }
}

fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
