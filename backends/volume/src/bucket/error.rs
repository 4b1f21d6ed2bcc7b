//! Why a bucket's volume cannot be made, opened, read or written.

use std::io;
use std::sync::Arc;

use super::damage::Damage;
use super::log::{LogObject, Unwritable};
use super::place::Point;

/// What happened to a request to the bucket's side of a volume. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no volume.
    #[error("no volume at {0}: make one with `vfsd volume create`")]
    Missing(Arc<str>),
    /// There is one already.
    #[error("there is a volume at {0} already: choose another prefix")]
    Exists(Arc<str>),
    /// There is a snapshot of this name.
    #[error("there is a snapshot '{0}' already: choose another name, or delete that one first")]
    Taken(String),
    /// There is no snapshot of this name.
    #[error("there is no snapshot '{0}': see which there are with `vfsd volume snapshot list`")]
    NoSnapshot(String),
    /// A new volume needs a prefix of its own.
    #[error("there are other objects at {0}: choose a prefix for the volume alone")]
    NotEmpty(Arc<str>),
    /// The store does not keep the conditions that hold writers apart.
    #[error("{0}")]
    Unsafe(String),
    /// The volume was made by a newer program.
    #[error("the volume at {place} needs {what}, which this vfsd does not know: use a newer vfsd")]
    Newer {
        /// Where the volume is.
        place: Arc<str>,
        /// A format or a feature.
        what: String,
    },
    /// The volume is encrypted, and no key was given.
    #[error("the volume at {0} is encrypted: give the file with its key, --volume-key-file FILE")]
    Encrypted(Arc<str>),
    /// The volume is not encrypted, and a key was given.
    #[error(
        "the volume at {0} is not encrypted, or somebody put another in its place: leave out --volume-key-file if you made it without"
    )]
    NotEncrypted(Arc<str>),
    /// The volume is encrypted with another key.
    #[error("the key is not that of the volume at {0}: give the one that it was made with")]
    WrongKey(Arc<str>),
    /// Another daemon has the volume.
    #[error(
        "the volume at {place} has been in use by {host} for {}: stop vfsd there, or give --takeover if it can no \
         longer run, which loses what is not in the bucket yet", lasting(*.seconds)
    )]
    InUse {
        /// Where the volume is.
        place: Arc<str>,
        /// The daemon's host.
        host: String,
        /// Since when, as seconds ago.
        seconds: u64,
    },
    /// A daemon that has the volume cleans up.
    #[error(
        "the volume at {place} has been in use by {host} for {}: vfsd removes there by itself what is not needed any \
         more; see what with --dry-run, or try again when nobody uses it", lasting(*.seconds)
    )]
    Tended {
        /// Where the volume is.
        place: Arc<str>,
        /// The daemon's host.
        host: String,
        /// Since when, as seconds ago.
        seconds: u64,
    },
    /// Another daemon took the volume over: this one may read what it has, and write nothing any more.
    #[error("another daemon took over the volume at {0}: nothing more can be written here")]
    Fenced(Arc<str>),
    /// A host has seen more in the volume than it has, or something else.
    #[error(
        "the volume at {place} was put back to an earlier state: log object {seq}, which this host has seen there, is gone \
         or another"
    )]
    RolledBack {
        /// Where the volume is.
        place: Arc<str>,
        /// The log object's number.
        seq: u64,
    },
    /// An object is not what was written.
    #[error("{key}: {damage}")]
    Damaged {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Log objects after a point were removed: reading begins with the checkpoint.
    #[error("the log objects after number {0} are no longer there: begin with the checkpoint")]
    Gone(u64),
    /// A point is none of this volume's chain.
    #[error("log object {0} of the volume is another than the one that was asked about")]
    Diverged(u64),
    /// A clean-up does not know what a checkpoint names.
    #[error("what checkpoint {0:016x} names is not known: nothing is removed")]
    Uncovered(u64),
    /// The object store failed.
    #[error("the store cannot {what}: {source}")]
    Store {
        /// What it was asked for.
        what: &'static str,
        /// Why it did not.
        source: object_store::Error,
    },
    /// A file of this host, or memory.
    #[error("{what}: {source}")]
    Local {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A name that cannot be one.
    #[error("'{}' cannot be the name of a snapshot: use letters, digits, '-', '_' and '.'", .0.escape_default())]
    Name(String),
}

impl BucketError {
    /// The same for who wanted to clean up.
    pub(crate) fn tended(self) -> Self {
        match self {
            Self::InUse {
                place,
                host,
                seconds,
            } => Self::Tended {
                place,
                host,
                seconds,
            },
            other => other,
        }
    }

    /// Whether the store does not let whoever asks do that.
    pub(crate) fn is_denial(&self) -> bool {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        let Self::Store { source, .. } = self else {
            return false;
        };
        matches!(source, PermissionDenied { .. } | Unauthenticated { .. })
    }

    pub(super) fn store(what: &'static str) -> impl FnOnce(object_store::Error) -> Self {
        move |source| Self::Store { what, source }
    }

    pub(super) fn local(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { what, source }
    }

    pub(super) fn damaged(key: impl ToString) -> impl FnOnce(Damage) -> Self {
        move |damage| Self::Damaged {
            key: key.to_string(),
            damage,
        }
    }
}

/// Why a log object was not appended.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Another daemon took the volume over, or this one gave it up. For good.
    #[error("another daemon took over the volume: nothing more can be written here")]
    Fenced,
    /// An object that was appended earlier without an answer is in the chain after all: this one is now the
    /// end, and what was to be appended has to follow it.
    #[error("log object {} was appended by an earlier request", .1.seq)]
    Earlier(Box<LogObject>, Point),
    /// The object was sealed for another place than the end of the chain: seal it again.
    #[error("the chain has grown since the log object was sealed")]
    Stale,
    /// What was given does not make a log object.
    #[error("{0}")]
    Unwritable(#[from] Unwritable),
    /// The store failed. Whether the object was applied is not known: append the same again.
    #[error("{0}")]
    Store(BucketError),
}

impl From<BucketError> for ShipError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Fenced(_) => Self::Fenced,
            error => Self::Store(error),
        }
    }
}

/// A time in the two largest units.
pub(crate) fn lasting(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        _ if days > 0 => format!("{days} d {} h", hours % 24),
        _ if hours > 0 => format!("{hours} h {} min", minutes % 60),
        _ if minutes > 0 => format!("{minutes} min"),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        let told = [5, 65, 3600 * 3 + 120, 86400 * 2 + 3700].map(lasting);
        assert_eq!(told, ["5 s", "1 min", "3 h 2 min", "2 d 1 h"]);
    }
}
