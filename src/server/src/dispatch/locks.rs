//! Advisory locks.

use vfsd_backend::{Errno, HeldLock, LockKind, LockOwner, LockRange, LockRequest, LockStyle};
use vfsd_fuse::InitFlags;
use vfsd_fuse::wire::{FileLock, LK_FLOCK, LkIn};

use super::{Call, Outcome};
use crate::responder::Reply;

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK` of asm-generic/fcntl.h.
const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;

impl<'a> Call<'a> {
    pub(super) async fn getlk(&self, arg: LkIn) -> Outcome<'a> {
        self.check_agreed(&arg)?;
        let file = self.file(arg.fh)?;
        let request = lock_request(&arg, false)?;
        if request.kind.is_none() {
            return Err(Errno::INVAL.into());
        }
        let lock = match file.getlk(request).await? {
            None => FileLock {
                r#type: F_UNLCK,
                ..arg.lk
            },
            Some(HeldLock { kind, range, pid }) => FileLock {
                start: range.start,
                end: range.end,
                r#type: match kind {
                    LockKind::Read => F_RDLCK,
                    LockKind::Write => F_WRLCK,
                },
                pid,
            },
        };
        Ok(Reply::structure(&lock))
    }

    /// SETLK and SETLKW. A wait ends with the lock, by INTERRUPT, or with the session.
    pub(super) async fn setlk(&self, arg: LkIn, wait: bool) -> Outcome<'a> {
        self.check_agreed(&arg)?;
        let file = self.file(arg.fh)?;
        let wait = wait && arg.lk.r#type != F_UNLCK;
        let request = lock_request(&arg, wait)?;
        if !wait {
            file.setlk(request).await?;
            return Ok(Reply::empty());
        }
        let mut waiting = self.epoch.waits.for_lock(self.header.unique)?;
        tokio::select! {
            biased;
            result = file.setlk(request) => result?,
            errno = waiting.ended() => return Err(errno.into()),
        }
        Ok(Reply::empty())
    }

    /// A guest that keeps its locks to itself has no business with the storage's.
    fn check_agreed(&self, arg: &LkIn) -> Result<(), Errno> {
        let style = match arg.lk_flags & LK_FLOCK {
            0 => InitFlags::POSIX_LOCKS,
            _ => InitFlags::FLOCK_LOCKS,
        };
        match self.epoch.agreed(style) {
            true => Ok(()),
            false => Err(Errno::OPNOTSUPP),
        }
    }
}

fn lock_request(arg: &LkIn, wait: bool) -> Result<LockRequest, Errno> {
    let last = i64::MAX.unsigned_abs();
    let kind = match arg.lk.r#type {
        F_RDLCK => Some(LockKind::Read),
        F_WRLCK => Some(LockKind::Write),
        F_UNLCK => None,
        _ => return Err(Errno::INVAL),
    };
    let flock = arg.lk_flags & LK_FLOCK != 0;
    let range = if flock {
        LockRange {
            start: 0,
            end: last,
        }
    } else {
        LockRange {
            start: arg.lk.start,
            end: arg.lk.end.min(last),
        }
    };
    if range.start > range.end {
        return Err(Errno::INVAL);
    }
    let style = if flock {
        LockStyle::Flock
    } else {
        LockStyle::Posix
    };
    Ok(LockRequest {
        owner: LockOwner(arg.owner),
        pid: arg.lk.pid,
        style,
        kind,
        range,
        wait,
    })
}
