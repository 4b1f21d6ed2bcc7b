//! The vhost-user socket, and the files that tell of it.

// UNSAFETY: an inherited descriptor is a bare number, and group names are looked up with the C
// library.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::process::Gid;

use crate::exit::Failure;
use crate::settings::Endpoint;

/// A listening socket, and what is to be removed with it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    /// Gone with their owner, which is the process outside the sandbox.
    pub(crate) files: Vec<OwnedFile>,
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnedFile {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: Option<File>,
}

impl OwnedFile {
    /// Leaves the file to another process, which owns it too.
    pub(crate) fn leave(mut self) {
        self.path.clear();
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}

/// Creates the socket, or takes the inherited one.
///
/// # Errors
/// When it cannot be created, or is none.
pub(crate) fn open(endpoint: &Endpoint) -> Result<Listening, Failure> {
    match endpoint {
        Endpoint::Inherited(number) => Ok(Listening {
            listener: inherited(*number)?,
            files: Vec::new(),
        }),
        Endpoint::Path {
            path,
            group,
            pid_file,
        } => {
            let mut files = Vec::new();
            if *pid_file {
                files.push(write_pid_file(path)?);
            }
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            let (listener, socket) = bind(path, Mode::from_raw_mode(mode))?;
            files.push(socket);
            if let Some(group) = group {
                hand_to_group(path, group)?;
            }
            Ok(Listening { listener, files })
        }
    }
}

/// A path as the host has it, wherever it is named from and whether or not there is a file. Its directory is followed, and
/// it itself is not.
pub(crate) fn whole(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().and_then(|it| it.canonicalize().ok());
    match folder.zip(absolute.file_name()) {
        Some((folder, name)) => folder.join(name),
        None => absolute,
    }
}

/// Creates a socket of which nobody but `mode` allows can ever connect.
///
/// A socket that is left over from a process that has ended is replaced.
///
/// # Errors
/// When it cannot be created, or another process listens there.
pub(crate) fn bind(path: &Path, mode: Mode) -> Result<(UnixListener, OwnedFile), Failure> {
    let advise = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "create its directory first",
            io::ErrorKind::AddrInUse => {
                "another process serves there: end that one, or choose another path"
            }
            io::ErrorKind::AlreadyExists => "remove it, or choose another path",
            io::ErrorKind::InvalidInput => "use a path of at most 107 bytes",
            _ => "choose another path",
        };
        Failure::run(format!(
            "cannot create the socket {}: {error}; {advice}",
            path.display()
        ))
    };
    remove_stale(path).map_err(advise)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o777) - mode);
    let bound = listen_at(path);
    rustix::process::umask(before);
    let listener = bound.map_err(advise)?;
    Ok((
        listener,
        OwnedFile {
            path: path.to_owned(),
            _lock: None,
        },
    ))
}

/// Listens at a path that comes into being when the socket listens already: who waits for it may connect at once, and is
/// not refused between bind(2) and listen(2).
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    if let Ok(listener) = UnixListener::bind(&unfinished) {
        // Unlike rename(2) it takes the place of nothing.
        let named = std::fs::hard_link(&unfinished, path);
        std::fs::remove_file(&unfinished)?;
        if named.is_ok() {
            return Ok(listener);
        }
    }
    // The longer path is too long for a socket, or the file system has no hard links.
    UnixListener::bind(path)
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file is in the way",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // A datagram socket can never connect to it, but is told whether there is anybody: a stream
    // would be taken for a front end.
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn inherited(number: RawFd) -> Result<UnixListener, Failure> {
    let refuse = |reason: &str| {
        Failure::run(format!(
            "--fd={number} {reason}: pass a listening Unix stream socket"
        ))
    };
    // SAFETY: F_GETFD takes no further argument, and any number may be asked about.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(refuse("is not open"));
    }
    // SAFETY: it is open, by whoever started this process for it to own.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let listens = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
    let family = rustix::net::sockopt::socket_domain(&socket);
    if !listens || family != Ok(rustix::net::AddressFamily::UNIX) {
        return Err(refuse("is not listening"));
    }
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
        .map_err(|errno| refuse(&errno.to_string()))?;
    Ok(UnixListener::from(socket))
}

/// The file beside the socket that holds this process's id, locked as long as it serves.
fn write_pid_file(socket: &Path) -> Result<OwnedFile, Failure> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".pid");
    let path = PathBuf::from(name);
    let failed = |error: io::Error| {
        Failure::run(format!(
            "cannot write {}: {error}; is its directory there, and no other daemon on this socket?",
            path.display()
        ))
    };
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
        .map_err(|errno| failed(errno.into()))?;
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(OwnedFile {
        path,
        _lock: Some(file),
    })
}

fn hand_to_group(socket: &Path, group: &str) -> Result<(), Failure> {
    let id = find_group(group)
        .ok_or_else(|| Failure::run(format!("--socket-group: there is no group {group:?}")))?;
    rustix::fs::chown(socket, None, Some(id)).map_err(|errno| {
        Failure::run(format!(
            "cannot give {} to the group {group}: {errno}; be a member of it, or run as root",
            socket.display()
        ))
    })
}

fn find_group(name: &str) -> Option<Gid> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a NUL. The result points to storage of the C library that no
    // other thread changes meanwhile, because there is none yet.
    let id = unsafe {
        let entry = libc::getgrnam(name.as_ptr());
        if entry.is_null() {
            return None;
        }
        (*entry).gr_gid
    };
    Some(Gid::from_raw(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        assert_eq!(find_group("root"), Some(Gid::ROOT));
        assert_eq!(find_group("no such group"), None);
    }

    #[test]
    fn a_socket_without_a_listener_is_replaced_and_one_with_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, file) = bind(&path, Mode::from_raw_mode(0o600)).unwrap();
        let refused = bind(&path, Mode::from_raw_mode(0o600)).err();
        assert!(
            matches!(&refused, Some(Failure::Run(told)) if told.contains("end that one")),
            "{refused:?}"
        );
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn who_finds_the_socket_is_not_refused() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..300 {
            let path = directory.path().join(format!("socket-{round}"));
            let waiting = path.clone();
            let waiter = std::thread::spawn(move || {
                loop {
                    match std::os::unix::net::UnixStream::connect(&waiting) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        connected => return connected.map(drop),
                    }
                }
            });
            let _bound = bind(&path, Mode::from_raw_mode(0o600)).unwrap();
            waiter.join().unwrap().unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        std::fs::write(&path, "precious").unwrap();
        let refused = bind(&path, Mode::from_raw_mode(0o600)).err();
        assert!(
            matches!(&refused, Some(Failure::Run(told)) if told.contains("remove it")),
            "{refused:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
