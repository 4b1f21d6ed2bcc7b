//! Why a volume cannot be made or opened.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a volume was not made, opened or looked at. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no volume.
    #[error("no volume in {}: make one with `vfsd volume create`", .0.display())]
    Missing(PathBuf),
    /// A new volume needs a directory of its own.
    #[error("{} is not empty: choose a new or an empty directory for the volume", .0.display())]
    NotEmpty(PathBuf),
    /// Another process has the volume open.
    #[error("the volume in {} is in use by {user}: stop that first", .path.display())]
    Locked {
        /// The volume's directory.
        path: PathBuf,
        /// Which one.
        user: Process,
    },
    /// The volume cannot be written to, as has to be where it is only read, too.
    #[error(
        "the volume in {} is on a read-only file system, and its lock and journal are written also where it is served with \
         --readonly: mount that file system to be written to, or serve a copy of the directory", .0.display()
    )]
    ReadOnly(PathBuf),
    /// The volume was made by a newer program.
    #[error(
        "the volume in {} has format {found}, this vfsd knows format {known}: use a newer vfsd",
        .path.display()
    )]
    Newer {
        /// The volume's directory.
        path: PathBuf,
        /// The format that it has.
        found: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// The volume is in a bucket.
    #[error("{0}")]
    Bucket(#[from] crate::bucket::BucketError),
    /// The volume is in a bucket, and this process no longer has it, or the bucket failed.
    #[error("{0}")]
    Ship(#[from] crate::bucket::ShipError),
    /// This host has the volume open, or had when it was stopped hard, with another directory.
    #[error(
        "the volume at {place} has been in use by this host, {host}, for {}, with another state directory: that one is to be \
         given (--state-dir), or its vfsd stopped; {} is new, and if the other one is lost, --takeover goes on without what is \
         not in the bucket yet", crate::bucket::lasting(*.seconds), .path.display()
    )]
    OtherDirectory {
        /// Where the volume is.
        place: std::sync::Arc<str>,
        /// This host.
        host: String,
        /// Since when, as seconds ago.
        seconds: u64,
        /// The directory that was given, which never had the volume.
        path: PathBuf,
    },
    /// The volume's bucket no longer has what this host has seen in it.
    #[error(
        "{source}; see who did that, or, if it was meant, move {} away, which has what this host knows of the volume, and \
         start again", .path.display()
    )]
    RolledBack {
        /// The volume's directory on this host.
        path: PathBuf,
        /// What is missing.
        source: crate::bucket::BucketError,
    },
    /// A dump cannot be written.
    #[error("cannot write the dump: {0}")]
    Output(io::Error),
    /// A dump cannot be read, or is none.
    #[error("line {line} of the dump: {what}")]
    Dump {
        /// Which line, from 1 on.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// What was loaded is not whole, and stays.
    #[error("{source}; what is at {place} is not whole: remove it before you load again")]
    HalfLoaded {
        /// Where the new volume is.
        place: String,
        /// Why it is not whole.
        source: Box<Self>,
    },
    /// The files of the volume cannot be read or written, or are not what they should be.
    #[error("the volume in {}: {what}: {source}", .path.display())]
    Failed {
        /// The volume's directory.
        path: PathBuf,
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl VolumeError {
    pub(crate) fn failed(
        path: &std::path::Path,
        what: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Failed {
            path,
            what,
            source: Box::new(error),
        }
    }

    /// As [`failed`](Self::failed), with the reason that is behind a failure of the storage.
    pub(crate) fn storage(
        path: &std::path::Path,
        what: &'static str,
    ) -> impl FnOnce(vfsd_backend::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Failed {
            path,
            what,
            source: match error {
                vfsd_backend::Error::Storage(source) => source,
                other => Box::new(other),
            },
        }
    }
}

/// A process that has a volume open: its number, or 0 where it is not seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub u32);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("another process"),
            pid => write!(f, "process {pid}"),
        }
    }
}
