//! Where the daemon is.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, fstat};
use tokio::runtime::Handle;
use vfsd_backend::Backend;

use crate::connection::{ConnectionError, serve_connection};

/// Why a plugin does not serve.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nobody has said where the daemon is.
    #[error(
        "this is a plugin of vfsd: let vfsd start it (`vfsd mount plugin:exec:PROGRAM MOUNTPOINT`), or give it a \
         socket to listen on (`--socket PATH`)"
    )]
    NoSocket,
    /// The path cannot be listened on.
    #[error("cannot listen on {}: {error}", path.display())]
    Listen {
        /// The argument of `--socket`.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// No thread can be started.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// The daemon was there, and then something went wrong.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Where the daemon is.
#[derive(Debug)]
pub(crate) enum Socket {
    /// It has started this process.
    Connected(UnixStream),
    /// It will come.
    Listening(UnixListener),
}

impl Socket {
    /// Finds it at the standard input, or by the argument `--socket`.
    pub(crate) fn find(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, PluginError> {
        if arguments.any(|argument| argument == "--socket") {
            let path = arguments.next().ok_or(PluginError::NoSocket)?;
            return listen(Path::new(&path)).map(Self::Listening);
        }
        let input = io::stdin();
        let is_socket = fstat(&input)
            .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Socket);
        if !is_socket {
            return Err(PluginError::NoSocket);
        }
        let descriptor = input.as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|_| PluginError::NoSocket)?;
        Ok(Self::Connected(UnixStream::from(descriptor)))
    }
}

/// Listens on a path. A socket that is left there from an earlier run, and that nobody listens on, is replaced.
fn listen(path: &Path) -> Result<UnixListener, PluginError> {
    let failed = |error| PluginError::Listen {
        path: path.to_owned(),
        error,
    };
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

/// Serves whoever connects, each in a thread of its own.
pub(crate) fn accept(
    listener: &UnixListener,
    storage: &Arc<dyn Backend>,
    runtime: &Handle,
) -> Result<(), PluginError> {
    loop {
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PluginError::Threads(error)),
        };
        let (storage, runtime) = (Arc::clone(storage), runtime.clone());
        std::thread::Builder::new()
            .name("plugin-connection".to_owned())
            .spawn(move || {
                if let Err(error) = serve_connection(stream, storage, &runtime) {
                    eprintln!("plugin: {error}");
                }
            })
            .map_err(PluginError::Threads)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> impl Iterator<Item = OsString> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        words.into_iter()
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let word = path.to_str().unwrap();
        let first = Socket::find(words(&["plugin", "--socket", word])).unwrap();
        let again = Socket::find(words(&["plugin", "--socket", word]));
        assert!(matches!(again, Err(PluginError::Listen { .. })), "in use");
        drop(first);
        Socket::find(words(&["plugin", "--socket", word])).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let file = Socket::find(words(&["plugin", "--socket", word]));
        assert!(matches!(file, Err(PluginError::Listen { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_option_without_its_path_is_refused() {
        let found = Socket::find(words(&["plugin", "--socket"]));
        assert!(matches!(found, Err(PluginError::NoSocket)));
    }
}
