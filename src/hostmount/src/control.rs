//! The kernel's control files of a FUSE connection: whether it is there still, and the end of it for every mount.

use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::mount_id;

/// Where distributions mount the file system of these files, which is one for the whole kernel.
const USUAL: &str = "/sys/fs/fuse/connections";

/// The control files of one connection. They are opened while it is known whose it is: a number of a connection that
/// has ended is soon another's, an open file of it never.
#[derive(Debug)]
pub(crate) struct Control {
    waiting: OwnedFd,
    abort: OwnedFd,
}

impl Control {
    /// Those of the connection behind the mount of `path` below `directory`, or of `directory` itself where the path is
    /// empty.
    ///
    /// # Errors
    /// ENOENT or EPERM where the kernel shows them to nobody, EACCES to another user than who mounted.
    pub(crate) fn open(directory: impl AsFd, path: &Path) -> io::Result<Self> {
        let number = PathBuf::from(mount_id::connection(directory, path)?.to_string());
        Self::open_below(CWD, &Path::new(USUAL).join(&number))
            .or_else(|errno| Self::open_below(private().map_err(|_| errno)?, &number))
    }

    fn open_below(directory: impl AsFd, connection: &Path) -> io::Result<Self> {
        let open = |name, access| {
            let flags = access | OFlags::CLOEXEC;
            openat(&directory, connection.join(name), flags, Mode::empty())
        };
        Ok(Self {
            waiting: open("waiting", OFlags::RDONLY)?,
            abort: open("abort", OFlags::WRONLY)?,
        })
    }

    /// Ends the connection if a mount still keeps it, in whatever mount namespace, and says whether one did.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn cut_if_connected(&self) -> io::Result<bool> {
        // The number of requests that wait. Of a connection that is gone there is nothing to read, and neither is
        // there a second time: such a file does not seek.
        let connected = rustix::io::read(&self.waiting, &mut [0; 32])? > 0;
        if connected {
            self.cut()?;
        }
        Ok(connected)
    }

    /// Ends the connection. Whoever still uses one of its mounts is answered ENOTCONN.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn cut(&self) -> io::Result<()> {
        rustix::io::write(&self.abort, b"1").map(drop)
    }
}

/// The file system of control files, mounted nowhere: containers and small systems do not have it at its place.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
fn private() -> io::Result<OwnedFd> {
    let files = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&files)?;
    fsmount(
        &files,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}
