//! What a backend met: an errno with a meaning for the caller, or a failure of the storage.

use std::fmt;

pub use rustix::io::Errno;

/// The result of a backend's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done.
///
/// The server turns it into the errno that the guest sees, in one table (`errno.rs` of the server).
#[derive(Debug)]
pub enum Error {
    /// The answer that POSIX, or Linux, gives in this case.
    Errno(Errno),
    /// The backend does not implement the operation. Depending on the operation the guest sees
    /// ENOSYS (and does not ask again) or EOPNOTSUPP.
    NotSupported,
    /// The storage failed: EIO to the guest, the reason to the log.
    Storage(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether this is exactly the given errno.
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Errno(own) if *own == errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::NotSupported => f.write_str("operation not supported by this storage"),
            Self::Storage(_) => f.write_str("the storage failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(source) => Some(source.as_ref()),
            Self::Errno(_) | Self::NotSupported => None,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::Errno(errno),
            None => Self::Storage(Box::new(error)),
        }
    }
}
