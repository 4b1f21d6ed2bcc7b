//! Changing attributes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::fs::{chownat, fchmod, ftruncate, futimens};
use rustix::process::{Gid, Uid};
use vfsd_backend::{AttributeChanges, Attributes, Errno, FileKind, SetTime};

use crate::credentials::check_thread;
use crate::inode::Inode;
use crate::set_id::{self, Mark};
use crate::share::{Share, no_descriptor};
use crate::stat::Stat;

type Result<T> = std::result::Result<T, Errno>;

/// The file that is to be changed.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// By a descriptor that only stands for the inode.
    Path(BorrowedFd<'a>),
    /// By an open file.
    Open(BorrowedFd<'a>),
}

impl<'a> Target<'a> {
    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Path(fd) | Self::Open(fd) => fd,
        }
    }
}

impl Share {
    /// Changes attributes. What is most likely to be refused comes first: size, owner, mode, times.
    /// The mode comes after the owner, because a change of owner clears set-id bits, and the times after
    /// the size, which changes them.
    pub(crate) fn change(
        &self,
        target: Target<'_>,
        kind: FileKind,
        changes: &AttributeChanges,
    ) -> Result<()> {
        check_thread()?;
        // Only what changes the content. chown(2) takes set-id bits from everybody by itself, but for a
        // set-gid bit of what no group executes, which the privileged keep, as chmod(2) has it.
        let kill = changes.kill_privileges && self.options.kill_privileges;
        if let Some(size) = changes.size {
            match kill {
                true => set_id::losing(target.fd(), Mark::Stays, || {
                    self.truncate(target, kind, size)
                })?,
                false => self.truncate(target, kind, size),
            }?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            self.change_owner(target, kind, changes.uid, changes.gid)?;
        }
        if let Some(permissions) = changes.permissions {
            let mode = Mode::from_bits_retain(permissions & 0o7777);
            match target {
                Target::Path(fd) => self.proc_fd.chmod(fd, mode)?,
                Target::Open(fd) => fchmod(fd, mode)?,
            }
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            let times = Timestamps {
                last_access: time(changes.accessed),
                last_modification: time(changes.modified),
            };
            match target {
                Target::Path(fd) => self.proc_fd.set_times(fd, &times)?,
                Target::Open(fd) => futimens(fd, &times)?,
            }
        }
        Ok(())
    }

    fn truncate(&self, target: Target<'_>, kind: FileKind, size: u64) -> Result<()> {
        match kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        let opened: OwnedFd;
        let file = match target {
            Target::Open(fd) => fd,
            Target::Path(fd) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK;
                opened = self.proc_fd.reopen(fd, flags).map_err(no_descriptor)?;
                opened.as_fd()
            }
        };
        self.drop_renamed_capability(file)?;
        ftruncate(file, size)
    }

    fn change_owner(
        &self,
        target: Target<'_>,
        kind: FileKind,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        // This id means "unchanged" to the kernel.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        if kind == FileKind::Regular {
            self.drop_renamed_capability(target.fd())?;
        }
        chownat(
            target.fd(),
            c"",
            uid.map(Uid::from_raw),
            gid.map(Gid::from_raw),
            AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| match errno {
            // An id that this user namespace does not have. The caller has done nothing wrong.
            Errno::INVAL => Errno::PERM,
            other => other,
        })
    }
}

fn time(wanted: Option<SetTime>) -> Timespec {
    let (tv_sec, tv_nsec) = match wanted {
        None => (0, UTIME_OMIT),
        Some(SetTime::Now) => (0, UTIME_NOW),
        Some(SetTime::At(time)) => (time.seconds, time.nanoseconds.into()),
    };
    Timespec { tv_sec, tv_nsec }
}

impl Inode {
    pub(crate) fn change(&self, changes: &AttributeChanges) -> Result<Attributes> {
        let descriptor = self.descriptor()?;
        let file = descriptor.as_fd();
        self.share()
            .change(Target::Path(file), self.kind(), changes)?;
        Ok(self.shown(&Stat::of(file)?))
    }
}
