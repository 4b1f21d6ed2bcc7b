//! Set-id bits of a file whose content is changed by who may not keep them.
//!
//! The kernel takes the set-user-id bit, and the set-group-id bit of what the group executes. A set-group-id bit
//! of what it does not execute is no privilege; the kernel takes it from who is not in the file's group. Which groups
//! a guest's process is in is told with new inodes only, so that here the kind of change decides: FUSE leaves
//! that bit alone where a file is written or truncated (`FUSE_HANDLE_KILLPRIV_V2` of linux/fuse.h).

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, StatxFlags, statx};
use vfsd_backend::Errno;
use vfsd_backend::posix::{GROUP_EXECUTE, SET_GROUP_ID, SET_USER_ID};

use crate::credentials::without_fsetid;

/// What becomes of a set-group-id bit that is no privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Stays,
    Goes,
}

/// A group that no file has and no process is in.
const NOBODYS: u32 = 0xffff_fffd;

/// Runs `work`, which changes the content of `file`, such that it loses its set-id bits.
pub(crate) fn losing<T>(
    file: BorrowedFd<'_>,
    mark: Mark,
    work: impl FnOnce() -> T,
) -> Result<T, Errno> {
    // What is known without asking another machine or program. A bit that is set from here on is set to
    // the new content.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(file, c"", flags, StatxFlags::MODE | StatxFlags::GID)?;
    let mode = u32::from(stat.stx_mode);
    if mode & (SET_USER_ID | SET_GROUP_ID) == 0 {
        return Ok(work());
    }
    let marked = mode & SET_GROUP_ID != 0 && mode & GROUP_EXECUTE == 0;
    let group = marked.then_some(match mark {
        Mark::Stays => stat.stx_gid,
        Mark::Goes => NOBODYS,
    });
    without_fsetid(group, work)
}
