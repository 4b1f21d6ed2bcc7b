//! A mount on this host.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::MAX_DATA;
use crate::attach::{Attached, attach};
use crate::connection::Connection;
use crate::control::Control;
use crate::dead;
use crate::fusermount::{self, FusermountError};
use crate::mount_id::{self, MountId};

/// How the host uses the file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// What stands in front of the mount point in mount tables; a comma in it is shown as `_`.
    pub name: String,
    /// Let users other than the one who mounts have access; the kernel checks permissions.
    ///
    /// Whoever is let in trusts this file system not to stall: for ordinary users
    /// `/etc/fuse.conf` decides whether they may (`user_allow_other`).
    pub allow_other: bool,
    /// Refuse changes in the kernel already.
    pub read_only: bool,
}

/// Why a file system cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is missing, or cannot be used.
    #[error("cannot mount on {}: {errno}; name a directory that exists", point.display())]
    MountPoint {
        /// As the caller named it.
        point: PathBuf,
        /// What looking at it answered.
        errno: Errno,
    },
    /// Something is mounted there whose server has ended.
    #[error(
        "{} is a mount{what} whose server has ended: take it away with `{command} {}`{why}",
        point.display(),
        point.display()
    )]
    Dead {
        /// Where it is mounted.
        point: PathBuf,
        /// What it is, between commas; nothing if that cannot be told.
        what: String,
        /// What takes it away.
        command: &'static str,
        /// Why this process did not; nothing if it did not try.
        why: String,
    },
    /// There is no `/dev/fuse`, or it cannot be opened.
    #[error(
        "cannot open /dev/fuse: {0}; load the module with `modprobe fuse`, or allow the device in \
         this container"
    )]
    Device(Errno),
    /// The kernel refused.
    #[error(
        "cannot mount on {}: {errno}; mounting takes CAP_SYS_ADMIN here: run as root, or as an \
         ordinary user with fusermount3",
        point.display()
    )]
    Refused {
        /// As the caller named it.
        point: PathBuf,
        /// What it answered.
        errno: Errno,
    },
    /// `fusermount3` did not do it.
    #[error("cannot mount: {0}")]
    Fusermount(#[from] FusermountError),
}

/// A file system that is mounted on this host. It stays so when this is dropped.
#[derive(Debug)]
pub struct HostMount {
    point: PathBuf,
    on_directory: bool,
    /// None when it could not be told apart from other mounts at the same place.
    id: Option<MountId>,
    by: Helper,
    /// None where the kernel shows this process none.
    control: Option<Control>,
}

/// How a file system was unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nobody used it.
    Idle,
    /// Nobody used it here, but another mount namespace had a copy of the mount. The connection was cut, so that the
    /// server ends.
    Copied,
    /// Programs used it. Their connection was cut, so that the server ends.
    Cut,
    /// Programs use it, and the server serves them until the last of them lets go.
    InUse,
}

/// Who has mounted, and so unmounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Helper {
    Kernel,
    Fusermount,
}

impl HostMount {
    /// Mounts a file system on `point`, which is a directory or, to show a single file, a file.
    /// Root mounts by itself, ordinary users go through `fusermount3`.
    ///
    /// Whoever uses it waits until the [`Connection`] is served.
    ///
    /// # Errors
    /// When the mount point, `/dev/fuse` or the permission is missing.
    pub fn mount(point: &Path, options: &MountOptions) -> Result<(Self, Connection), MountError> {
        let unusable = |errno| match errno {
            Errno::NOTCONN => dead::told(point),
            errno => MountError::MountPoint {
                point: point.to_owned(),
                errno,
            },
        };
        let point = std::fs::canonicalize(point)
            .map_err(|error| unusable(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let status = rustix::fs::stat(&point).map_err(unusable)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        let by = Helper::of_this_process();
        let attached = match by {
            Helper::Kernel => attach(&point, kind, options)?,
            Helper::Fusermount => {
                let device = fusermount::mount(&point, &options.for_fusermount())?;
                Attached::found_at(&point, device)
            }
        };
        let mount = Self {
            id: attached.id,
            control: attached.control,
            on_directory: kind == FileType::Directory,
            point,
            by,
        };
        Ok((mount, Connection::new(attached.device)))
    }

    /// The absolute path of the mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Whether the mount point is a directory. The root that is served has to be of the same kind: the kernel answers
    /// EIO to all that is asked of another.
    pub fn is_on_directory(&self) -> bool {
        self.on_directory
    }

    /// Unmounts, even if the file system is in use: then what was written is sent to the server first, and programs
    /// that still use it lose it at once, if the kernel lets this process cut them off, or when the server ends. So do
    /// programs in other mount namespaces that have a copy of the mount, also when it is no longer mounted here.
    ///
    /// The server must be running; after its end [`Self::unmount_dead`] is for that.
    ///
    /// # Errors
    /// What umount2(2), or `fusermount3`, answers.
    pub fn unmount(&self) -> io::Result<Unmounted> {
        if !self.is_mounted() {
            return self.cut_copies();
        }
        // While there is a way to it: if there is a copy elsewhere, the kernel does not do that with the unmount.
        let synced = self.sync();
        if self.detach(UnmountFlags::empty()).is_ok() {
            return self.cut_copies();
        }
        synced?;
        let cut = match (self.by, &self.control) {
            (Helper::Kernel, _) => true,
            (Helper::Fusermount, Some(control)) => control.cut().is_ok(),
            (Helper::Fusermount, None) => false,
        };
        // The kernel cuts the connection before it takes the mount away: `do_umount` of fs/namespace.c.
        self.detach(UnmountFlags::FORCE | UnmountFlags::DETACH)?;
        Ok(if cut {
            Unmounted::Cut
        } else {
            Unmounted::InUse
        })
    }

    /// Cuts the connection, if something keeps it after the unmount.
    fn cut_copies(&self) -> io::Result<Unmounted> {
        Ok(match &self.control {
            Some(control) if control.cut_if_connected()? => Unmounted::Copied,
            _ => Unmounted::Idle,
        })
    }

    /// Unmounts a file system whose server has ended. Does nothing when it is no longer mounted.
    ///
    /// # Errors
    /// What umount2(2), or `fusermount3`, answers.
    pub fn unmount_dead(&self) -> io::Result<()> {
        if self.is_mounted() {
            self.detach(UnmountFlags::DETACH)
        } else {
            Ok(())
        }
    }

    /// Whether it is the mount at its place, where something else may be mounted by now.
    fn is_mounted(&self) -> bool {
        let Some(id) = self.id else {
            return true;
        };
        match mount_id::at(&self.point) {
            Ok(there) => there == id,
            // The kernel has given up a root whose kind the server has changed, and tells no number of its mount.
            Err(errno) => errno == Errno::IO,
        }
    }

    fn sync(&self) -> io::Result<()> {
        let root = rustix::fs::openat(
            CWD,
            &self.point,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(rustix::fs::syncfs(root)?)
    }

    fn detach(&self, how: UnmountFlags) -> io::Result<()> {
        self.by.detach(&self.point, how)
    }
}

impl Helper {
    /// Whom this process asks.
    pub(crate) fn of_this_process() -> Self {
        match rustix::process::geteuid().is_root() {
            true => Self::Kernel,
            false => Self::Fusermount,
        }
    }

    /// Unmounts what is on top at `point`.
    ///
    /// # Errors
    /// What umount2(2), or `fusermount3`, answers.
    pub(crate) fn detach(self, point: &Path, how: UnmountFlags) -> io::Result<()> {
        match self {
            Self::Kernel => Ok(rustix::mount::unmount(point, how | UnmountFlags::NOFOLLOW)?),
            Self::Fusermount => {
                let lazily = how.contains(UnmountFlags::DETACH);
                fusermount::unmount(point, lazily).map_err(io::Error::other)
            }
        }
    }
}

impl MountOptions {
    /// The name as it may stand in a list of options.
    pub(crate) fn source(&self) -> String {
        let name = if self.name.is_empty() {
            "vfsd"
        } else {
            &self.name
        };
        name.replace([',', '\0', '\\'], "_")
    }

    /// Options as fusermount3 reads them: it adds the others.
    fn for_fusermount(&self) -> String {
        format!(
            "{},nosuid,nodev,fsname={},subtype=vfsd,default_permissions,max_read={MAX_DATA}{}",
            if self.read_only { "ro" } else { "rw" },
            self.source(),
            if self.allow_other { ",allow_other" } else { "" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mount_point_is_named() {
        let error = HostMount::mount(Path::new("/no/such/place"), &MountOptions::default());
        let message = error.unwrap_err().to_string();
        assert!(message.contains("/no/such/place"), "{message}");
        assert!(
            message.contains("name a directory that exists"),
            "{message}"
        );
    }

    #[test]
    fn others_are_let_in_only_when_asked() {
        let options = MountOptions {
            name: "memory:".into(),
            ..MountOptions::default()
        };
        assert!(!options.for_fusermount().contains("allow_other"));
        let open = MountOptions {
            allow_other: true,
            ..options
        };
        assert!(open.for_fusermount().ends_with(",allow_other"));
    }

    #[test]
    fn a_name_cannot_smuggle_in_an_option() {
        let options = MountOptions {
            name: "a,suid,allow_other".into(),
            ..MountOptions::default()
        };
        assert!(
            options
                .for_fusermount()
                .contains("fsname=a_suid_allow_other,")
        );
    }
}
