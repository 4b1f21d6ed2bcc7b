//! Opening files, with the host's flags for what the guest asked.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use vfsd_backend::{Directory, Errno, FileCaching, FileKind, OpenFlags, OpenRequest, Opened, Wait};

use crate::directory::OpenDirectory;
use crate::file::OpenFile;
use crate::inode::Inode;
use crate::options::Options;
use crate::set_id::{self, Mark};
use crate::share::no_descriptor;

type Result<T> = std::result::Result<T, Errno>;

/// The flags for a descriptor as the operator allows them, the same for OPEN, CREATE and TMPFILE.
pub(crate) fn host_flags(options: &Options, flags: OpenFlags) -> OFlags {
    let (mut read, write) = (
        flags.contains(OpenFlags::READ),
        flags.contains(OpenFlags::WRITE),
    );
    // A guest that merges writes reads the rest of a page that it writes a part of.
    read |= options.writeback && write;
    let mut host = match (read, write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    for (asked, flag, allowed) in [
        (OpenFlags::APPEND, OFlags::APPEND, !options.writeback),
        (OpenFlags::DIRECT, OFlags::DIRECT, options.allow_direct_io),
        (
            OpenFlags::NOATIME,
            OFlags::NOATIME,
            options.preserve_noatime,
        ),
        (OpenFlags::SYNC, OFlags::SYNC, true),
        (OpenFlags::DSYNC, OFlags::DSYNC, true),
    ] {
        if allowed && flags.contains(asked) {
            host |= flag;
        }
    }
    host
}

impl Inode {
    pub(crate) fn open_request(&self, request: OpenRequest, wait: Wait) -> Result<Opened> {
        match self.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            FileKind::Symlink => return Err(Errno::LOOP),
            // What a special file stands for is opened by the guest's kernel: its own pipe or device, never
            // the host's.
            _ => return Err(Errno::BADF),
        }
        let kill = request.kill_privileges && self.share().options.kill_privileges;
        self.open_file(request.flags, kill, wait)
    }

    /// Opens this regular file. Where no wait is allowed a lease that a host process holds gives EAGAIN.
    pub(crate) fn open_file(
        &self,
        flags: OpenFlags,
        kill_privileges: bool,
        wait: Wait,
    ) -> Result<Opened> {
        let permit = self.share().permit()?;
        let mut host = host_flags(&self.share().options, flags);
        // The inode is a regular file, for which this concerns leases only.
        host.set(OFlags::NONBLOCK, wait == Wait::Refused);
        let truncate = flags.contains(OpenFlags::TRUNCATE);
        host.set(OFlags::TRUNC, truncate);
        let descriptor = self.descriptor()?;
        let reopen = || self.share().proc_fd.reopen(descriptor.as_fd(), host);
        if truncate {
            self.share().drop_renamed_capability(descriptor.as_fd())?;
        }
        let fd = match truncate && kill_privileges {
            true => set_id::losing(descriptor.as_fd(), Mark::Stays, reopen)?,
            false => reopen(),
        };
        let node = self.this().ok_or(Errno::STALE)?;
        let file = OpenFile::new(node, permit.hold(fd.map_err(no_descriptor)?), flags);
        Ok(Opened {
            file: Arc::new(file),
            caching: FileCaching::Policy,
        })
    }

    pub(crate) fn open_directory(&self) -> Result<Arc<dyn Directory>> {
        let permit = self.share().permit()?;
        let descriptor = self.directory()?;
        let fd = self
            .share()
            .proc_fd
            .reopen(descriptor.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(no_descriptor)?;
        let node = self.this().ok_or(Errno::STALE)?;
        Ok(Arc::new(OpenDirectory::new(node, permit.hold(fd))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_away_unless_allowed() {
        let asked = OpenFlags::READ | OpenFlags::DIRECT | OpenFlags::NOATIME | OpenFlags::SYNC;
        let mut options = Options::default();
        assert_eq!(host_flags(&options, asked), OFlags::SYNC);
        options.allow_direct_io = true;
        options.preserve_noatime = true;
        assert_eq!(
            host_flags(&options, asked),
            OFlags::SYNC | OFlags::DIRECT | OFlags::NOATIME
        );
    }

    #[test]
    fn writeback_reads_what_it_writes_and_appends_by_itself() {
        let asked = OpenFlags::WRITE | OpenFlags::APPEND;
        let mut options = Options::default();
        assert_eq!(host_flags(&options, asked), OFlags::WRONLY | OFlags::APPEND);
        options.writeback = true;
        assert_eq!(host_flags(&options, asked), OFlags::RDWR);
    }
}
