//! What the daemon is to do, whichever command line or file said it.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use vfsd_backend::Capabilities;
use vfsd_server::{IdMap, SessionOptions};

use crate::cli::choices::{SandboxMode, SeccompAction};
use crate::exit::Failure;
use crate::logging::LogSettings;
use crate::sandbox::{CapabilityChanges, IdRange};
use crate::source::{Source, StorageOptions};

/// What `vfsd serve` and `vfsd virtiofsd` do.
#[derive(Debug)]
pub(crate) struct ServeSettings {
    pub(crate) exports: Vec<ExportSettings>,
    pub(crate) storage: StorageOptions,
    pub(crate) session: SessionOptions,
    pub(crate) device: Device,
    pub(crate) confinement: Confinement,
    pub(crate) log: LogSettings,
    /// Where questions are answered.
    pub(crate) control: Option<PathBuf>,
}

/// What `vfsd mount` does.
#[derive(Debug)]
pub(crate) struct MountSettings {
    pub(crate) export: ExportSettings,
    pub(crate) mount_point: PathBuf,
    /// Whether users other than the one who mounts have access; by default for root only.
    pub(crate) allow_other: Option<bool>,
    pub(crate) storage: StorageOptions,
    pub(crate) session: SessionOptions,
    pub(crate) confinement: Confinement,
    pub(crate) log: LogSettings,
    /// Where questions are answered.
    pub(crate) control: Option<PathBuf>,
}

/// One storage to serve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExportSettings {
    /// The directory that it appears as; none when it is the whole file system.
    pub(crate) name: Option<String>,
    pub(crate) source: Source,
    pub(crate) readonly: bool,
}

impl ExportSettings {
    /// A storage that is the whole file system.
    pub(crate) fn unnamed(source: Source, readonly: bool) -> Self {
        Self {
            name: None,
            readonly,
            source,
        }
    }
}

/// Which kinds of locks stay within the guest, and so exclude nobody outside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LocalLocks {
    /// flock(2).
    pub(crate) flock: bool,
    /// fcntl(2).
    pub(crate) posix: bool,
}

impl LocalLocks {
    /// What the guest is then not offered.
    pub(crate) fn withheld(self) -> Capabilities {
        let mut withheld = Capabilities::empty();
        withheld.set(Capabilities::FLOCK, self.flock);
        withheld.set(Capabilities::POSIX_LOCKS, self.posix);
        withheld
    }
}

/// The translation of ids between guest and host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Translation {
    pub(crate) uids: IdMap,
    pub(crate) gids: IdMap,
}

impl Translation {
    /// Reads rules of `--translate-uid` and `--translate-gid`.
    ///
    /// # Errors
    /// When a rule cannot be read, or two of them speak of the same ids.
    pub(crate) fn parse(uids: &[String], gids: &[String]) -> Result<Self, Failure> {
        let read = |option: &str, rules: &[String]| {
            IdMap::parse(rules).map_err(|error| Failure::usage(format!("{option}: {error}")))
        };
        Ok(Self {
            uids: read("--translate-uid", uids)?,
            gids: read("--translate-gid", gids)?,
        })
    }
}

/// The vhost-user device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) endpoint: Endpoint,
    pub(crate) tag: Option<Tag>,
    /// Request queues that the front end may ask for.
    pub(crate) queues: u16,
    /// How long a queue's thread looks for the next request at most before it sleeps.
    pub(crate) poll_limit: Duration,
    /// Serve the next connection when one ends.
    pub(crate) reconnect: bool,
}

/// [`Device::poll_limit`] where the operator says nothing: longer than a guest that waits for each
/// reply takes to send its next request, by far shorter than what wastes a CPU.
pub(crate) const DEFAULT_POLL_LIMIT: Duration = Duration::from_micros(50);

/// Most request queues that can be offered: vhost-user names a queue with a byte, and the first is
/// the high-priority queue.
pub(crate) const MAX_QUEUES: u16 = 255;

/// Where connections come in.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// On a socket that is created at this path.
    Path {
        path: PathBuf,
        /// Members of this group, too, may connect.
        group: Option<String>,
        /// Keep a locked file with the process id beside it, as virtiofsd does.
        pid_file: bool,
    },
    /// On a listening socket that the daemon has inherited.
    Inherited(RawFd),
}

/// The name by which a guest mounts the device: 1 to 36 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(String);

impl Tag {
    /// Length of the tag's field in the config space (virtio 1.3, section 5.11.4).
    const MAX_LENGTH: usize = 36;

    /// Checks a tag.
    ///
    /// # Errors
    /// When it is empty or longer than its field.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        if word.is_empty() || word.len() > Self::MAX_LENGTH {
            return Err(format!(
                "a tag has 1 to {} bytes, not {}",
                Self::MAX_LENGTH,
                word.len()
            ));
        }
        Ok(Self(word.to_owned()))
    }

    /// The tag's text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the daemon itself may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confinement {
    pub(crate) sandbox: SandboxMode,
    pub(crate) seccomp: SeccompAction,
    pub(crate) modcaps: Option<CapabilityChanges>,
    pub(crate) uid_map: Vec<IdRange>,
    pub(crate) gid_map: Vec<IdRange>,
    /// Open files; 0 leaves the limit as it is, none asks for as many as serve well.
    pub(crate) rlimit_nofile: Option<u64>,
    /// Threads that may wait for a disk at the same time; 0 for as many as serve well.
    pub(crate) thread_pool_size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_1_to_36_bytes() {
        assert!(Tag::parse("").is_err());
        assert!(Tag::parse("a").is_ok());
        assert!(Tag::parse(&"a".repeat(36)).is_ok());
        assert!(Tag::parse(&"a".repeat(37)).is_err());
        assert!(Tag::parse(&"\u{e9}".repeat(19)).is_err());
    }
}
