//! How to get to a plugin.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Gets a connection to a plugin, the first time and after each time that it was lost.
pub trait Connector: Send + 'static {
    /// A new connection. What is left of the one before, such as a process that hangs, is done away with.
    ///
    /// # Errors
    /// When there is no plugin. It is tried again later.
    fn connect(&mut self) -> io::Result<UnixStream>;

    /// How the plugin is called in the log.
    fn name(&self) -> String;
}

/// A plugin that runs by itself and listens on a path. Connecting again needs the path, which a sandbox may hide: see
/// [`Broker`](crate::Broker).
#[derive(Debug, Clone)]
pub struct SocketPath(pub PathBuf);

impl Connector for SocketPath {
    fn connect(&mut self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0)
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}
