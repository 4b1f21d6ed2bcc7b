//! Values that options choose from.

use clap::ValueEnum;
use serde::Deserialize;
use vfsd_server::{CacheMode, Offer};

use crate::settings::LocalLocks;

/// What the guest may cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Cache {
    /// Names and attributes for a second; content until an open sees it changed
    #[default]
    Auto,
    /// Everything for a day: nobody else changes the tree
    Always,
    /// Nothing; reads and writes bypass the guest's page cache
    #[value(alias = "none")]
    Never,
    /// Names and attributes for a day; content never
    Metadata,
}

impl From<Cache> for CacheMode {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::Auto => Self::Auto,
            Cache::Always => Self::Always,
            Cache::Never => Self::Never,
            Cache::Metadata => Self::Metadata,
        }
    }
}

/// Whether a feature is offered that some guests cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Negotiation {
    /// Not offered
    #[default]
    Never,
    /// Used if the guest can
    Auto,
    /// A guest that cannot is refused
    Always,
}

impl From<Negotiation> for Offer {
    fn from(negotiation: Negotiation) -> Self {
        match negotiation {
            Negotiation::Never => Self::Never,
            Negotiation::Auto => Self::Auto,
            Negotiation::Always => Self::Always,
        }
    }
}

/// Which locks stay within the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Locks {
    /// All
    All,
    /// Those of flock(2)
    Flock,
    /// Those of fcntl(2)
    Posix,
}

impl From<Locks> for LocalLocks {
    fn from(locks: Locks) -> Self {
        Self {
            flock: locks != Locks::Posix,
            posix: locks != Locks::Flock,
        }
    }
}

/// What fsync waits for in a volume in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum VolumeDurability {
    /// The bucket has everything that was done before: it survives the loss of this host
    #[default]
    Bucket,
    /// This host's disk has it, and the bucket within five seconds: it survives a power cut
    Local,
    /// Nothing; the bucket has it within five seconds
    None,
}

impl From<VolumeDurability> for vfsd_volume::Durability {
    fn from(durability: VolumeDurability) -> Self {
        match durability {
            VolumeDurability::Bucket => Self::Bucket,
            VolumeDurability::Local => Self::Local,
            VolumeDurability::None => Self::None,
        }
    }
}

/// How the daemon is kept away from the rest of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SandboxMode {
    /// Own mount, process and network namespaces, and a user namespace unless started as root
    #[default]
    Namespace,
    /// chroot(2) into the share; needs root
    Chroot,
    /// Not at all
    None,
}

/// What happens when the daemon makes a system call that it has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SeccompAction {
    /// The daemon ends
    #[default]
    Kill,
    /// The daemon gets SIGSYS, which leaves a core dump where those are on
    Trap,
    /// The kernel logs the call and lets it through
    Log,
    /// System calls are not filtered
    None,
}

/// How the daemon holds on to the files that the guest knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum FileHandles {
    /// By open descriptors, and by file handles too where descriptors are few
    #[default]
    Auto,
    /// By open descriptors only
    Never,
    /// By file handles too where the file system has them; they reach all of it
    #[value(alias = "fallback")]
    Prefer,
    /// By file handles; other file systems are refused
    Mandatory,
}

impl FileHandles {
    /// Descriptors of an export with which handles are not needed: more files than this a guest seldom
    /// remembers at a time.
    const ENOUGH: usize = 400_000;

    /// What is done with so many descriptors for each export. Who opens a file by its handle reaches
    /// every file of its file system, so it takes a capability, and excludes Landlock.
    pub(crate) fn decided(self, descriptors: usize) -> vfsd_passthrough::FileHandles {
        match self {
            Self::Auto if descriptors >= Self::ENOUGH => vfsd_passthrough::FileHandles::Never,
            Self::Auto | Self::Prefer => vfsd_passthrough::FileHandles::Prefer,
            Self::Never => vfsd_passthrough::FileHandles::Never,
            Self::Mandatory => vfsd_passthrough::FileHandles::Mandatory,
        }
    }
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing
    Off,
    /// What ends the daemon or loses a request
    Error,
    /// What an operator should look at
    Warn,
    /// Connections and settings
    #[default]
    Info,
    /// What happens
    Debug,
    /// Each request
    Trace,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Whose version of an object stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlatOverwrite {
    /// The one that is there.
    Refuse,
    /// The one that comes last.
    LastWins,
}

impl From<FlatOverwrite> for vfsd_object_store::Overwrite {
    fn from(choice: FlatOverwrite) -> Self {
        match choice {
            FlatOverwrite::Refuse => Self::Refuse,
            FlatOverwrite::LastWins => Self::LastWins,
        }
    }
}
