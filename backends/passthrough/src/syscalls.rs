// UNSAFETY: system calls that rustix does not wrap: file handles, open-file-description locks,
// extended attributes relative to a directory, directory reads that outlive a call, unshare(2).
#![allow(unsafe_code)]

//! The system calls this crate makes itself. Each is one call with owned or borrowed arguments;
//! none keeps a pointer after it returns.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_void};
use rustix::ioctl::{self, opcode};
use vfsd_backend::{Errno, FsXattr, LockKind, LockRange, Name};

type Result<T> = std::result::Result<T, Errno>;

/// The errno of the call that just failed on this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: c_long) -> Result<usize> {
    usize::try_from(result).map_err(|_| last_errno())
}

/// Gives the calling thread a umask and a working directory of its own.
pub(crate) fn unshare_fs() -> Result<()> {
    // SAFETY: FS only separates umask, root and working directory of this thread; the descriptor
    // table stays shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }
}

/// What names an inode on its file system as long as it exists (name_to_handle_at(2)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileHandle {
    /// Of ext4, XFS and tmpfs, for instance. What is beyond the length is 0.
    Short {
        kind: u8,
        length: u8,
        bytes: [u8; SHORT_HANDLE],
    },
    /// Any other.
    Long(Box<(c_int, Box<[u8]>)>),
}

/// Millions of handles are kept: this makes one fit 16 bytes, with room to tell it from what else
/// leads to an inode.
const SHORT_HANDLE: usize = 13;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: c_int,
    bytes: [u8; MAX_HANDLE],
}

/// `MAX_HANDLE_SZ` of linux/exportfs.h.
const MAX_HANDLE: usize = 128;

impl FileHandle {
    pub(crate) fn new(kind: c_int, handle: &[u8]) -> Self {
        let mut bytes = [0; SHORT_HANDLE];
        match (
            bytes.get_mut(..handle.len()),
            u8::try_from(kind),
            u8::try_from(handle.len()),
        ) {
            (Some(start), Ok(kind), Ok(length)) => {
                start.copy_from_slice(handle);
                Self::Short {
                    kind,
                    length,
                    bytes,
                }
            }
            _ => Self::Long(Box::new((kind, handle.into()))),
        }
    }

    pub(crate) fn parts(&self) -> (c_int, &[u8]) {
        match self {
            Self::Short {
                kind,
                length,
                bytes,
            } => (
                c_int::from(*kind),
                bytes.get(..usize::from(*length)).unwrap_or_default(),
            ),
            Self::Long(handle) => (handle.0, &handle.1),
        }
    }
}

/// The handle of the file that `file` refers to; `file` may be an `O_PATH` descriptor.
pub(crate) fn name_to_handle(file: BorrowedFd<'_>) -> Result<FileHandle> {
    handle_at(file, c"", libc::AT_EMPTY_PATH)
}

/// The handle of what has this name in a directory; a link is not followed.
pub(crate) fn name_to_handle_in(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<FileHandle> {
    let mut terminated = [0; Name::MAX + 1];
    let bytes = name.as_bytes();
    let start = terminated.get_mut(..bytes.len());
    start.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
    let path = CStr::from_bytes_until_nul(&terminated).map_err(|_| Errno::INVAL)?;
    handle_at(directory, path, 0)
}

fn handle_at(directory: BorrowedFd<'_>, path: &CStr, flags: c_int) -> Result<FileHandle> {
    let mut raw = RawHandle {
        length: 128,
        kind: 0,
        bytes: [0; MAX_HANDLE],
    };
    let mut mount_id: c_int = 0;
    // SAFETY: the path is a terminated string, `raw` has the `length` bytes of room it states,
    // and both out pointers live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            directory.as_raw_fd(),
            path.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    };
    check(result)?;
    let length = usize::try_from(raw.length).map_err(|_| Errno::OVERFLOW)?;
    let bytes = raw.bytes.get(..length).ok_or(Errno::OVERFLOW)?;
    Ok(FileHandle::new(raw.kind, bytes))
}

/// Opens the inode that `handle` names, as an `O_PATH` descriptor. `mount` is any open file, not
/// `O_PATH`, of the same mount. ESTALE when the inode is gone.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, handle: &FileHandle) -> Result<OwnedFd> {
    let (kind, bytes) = handle.parts();
    let mut raw = RawHandle {
        length: u32::try_from(bytes.len()).map_err(|_| Errno::OVERFLOW)?,
        kind,
        bytes: [0; MAX_HANDLE],
    };
    raw.bytes
        .get_mut(..bytes.len())
        .ok_or(Errno::OVERFLOW)?
        .copy_from_slice(bytes);
    // SAFETY: `raw` lives through the call and holds the `length` bytes it states.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    };
    let number = c_int::try_from(check(result)?).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reads directory entries (`struct linux_dirent64`) and says how many bytes there were; 0 at the end.
pub(crate) fn getdents(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            directory.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    check(result)
}

fn flock_of(kind: Option<LockKind>, range: LockRange) -> Result<libc::flock> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let kind = match kind {
        Some(LockKind::Read) => libc::F_RDLCK,
        Some(LockKind::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    lock.l_type = libc::c_short::try_from(kind).map_err(|_| Errno::INVAL)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(|_| Errno::INVAL)?;
    lock.l_start = i64::try_from(range.start).map_err(|_| Errno::INVAL)?;
    let end = i64::try_from(range.end).map_err(|_| Errno::INVAL)?;
    // A length of 0 reaches to the end of whatever the file becomes.
    lock.l_len = if end == i64::MAX {
        0
    } else {
        end.checked_sub(lock.l_start)
            .and_then(|length| length.checked_add(1))
            .filter(|&length| length > 0)
            .ok_or(Errno::INVAL)?
    };
    Ok(lock)
}

/// Sets (`Some`) or releases (`None`) a lock of the open file description. EAGAIN when another
/// holds it.
pub(crate) fn set_ofd_lock(
    file: BorrowedFd<'_>,
    kind: Option<LockKind>,
    range: LockRange,
) -> Result<()> {
    let lock = flock_of(kind, range)?;
    // SAFETY: `lock` lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match check(result.into()) {
        Err(Errno::ACCESS) => Err(Errno::AGAIN),
        other => other.map(drop),
    }
}

/// A lock that another open file description, or another process, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForeignLock {
    pub(crate) kind: LockKind,
    pub(crate) range: LockRange,
}

/// The first lock that stands in the way.
pub(crate) fn get_ofd_lock(
    file: BorrowedFd<'_>,
    kind: LockKind,
    range: LockRange,
) -> Result<Option<ForeignLock>> {
    let mut lock = flock_of(Some(kind), range)?;
    // SAFETY: `lock` lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    check(result.into())?;
    let held = match c_int::from(lock.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => LockKind::Read,
        _ => LockKind::Write,
    };
    let start = u64::try_from(lock.l_start).unwrap_or(0);
    let end = match u64::try_from(lock.l_len) {
        Ok(length @ 1..) => start.saturating_add(length).saturating_sub(1),
        _ => i64::MAX.unsigned_abs(),
    };
    Ok(Some(ForeignLock {
        kind: held,
        range: LockRange { start, end },
    }))
}

/// `struct xattr_args` of linux/xattr.h.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

// Numbers of Linux 6.13, the same on all architectures that were added or renumbered since 2019.
const SYS_SETXATTRAT: c_long = 463;
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;
const SYS_REMOVEXATTRAT: c_long = 466;

/// Reads an extended attribute of `path` below `directory`, links followed.
pub(crate) fn getxattrat(
    directory: BorrowedFd<'_>,
    path: &CStr,
    name: &CStr,
    value: &mut [u8],
) -> Result<usize> {
    let mut args = XattrArgs {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?,
        flags: 0,
    };
    // SAFETY: the strings are terminated, `args` points to `size` writable bytes, and all live
    // through the call.
    let result = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            directory.as_raw_fd(),
            path.as_ptr(),
            0,
            name.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    };
    check(result)
}

/// Sets an extended attribute of `path` below `directory`, links followed. `flags` are those of
/// setxattr(2).
pub(crate) fn setxattrat(
    directory: BorrowedFd<'_>,
    path: &CStr,
    name: &CStr,
    value: &[u8],
    flags: u32,
) -> Result<()> {
    let args = XattrArgs {
        value: value.as_ptr() as u64,
        size: u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?,
        flags,
    };
    // SAFETY: the strings are terminated, `args` points to `size` readable bytes, and all live
    // through the call.
    let result = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            directory.as_raw_fd(),
            path.as_ptr(),
            0,
            name.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    check(result).map(drop)
}

/// Lists the extended attributes of `path` below `directory`, links followed.
pub(crate) fn listxattrat(
    directory: BorrowedFd<'_>,
    path: &CStr,
    names: &mut [u8],
) -> Result<usize> {
    // SAFETY: the path is terminated; the kernel writes at most `names.len()` bytes to `names`.
    let result = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            directory.as_raw_fd(),
            path.as_ptr(),
            0,
            names.as_mut_ptr().cast::<c_void>(),
            names.len(),
        )
    };
    check(result)
}

/// Removes an extended attribute of `path` below `directory`, links followed.
pub(crate) fn removexattrat(directory: BorrowedFd<'_>, path: &CStr, name: &CStr) -> Result<()> {
    // SAFETY: both strings are terminated and live through the call.
    let result = unsafe {
        libc::syscall(
            SYS_REMOVEXATTRAT,
            directory.as_raw_fd(),
            path.as_ptr(),
            0,
            name.as_ptr(),
        )
    };
    check(result).map(drop)
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct RawFsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct RawUuid {
    length: u8,
    bytes: [u8; 16],
}

/// The UUID of the file system that `file` is in (`FS_IOC_GETFSUUID`, Linux 6.9). ENOTTY where it has none.
pub(crate) fn file_system_uuid(file: BorrowedFd<'_>) -> Result<[u8; 16]> {
    // SAFETY: the opcode fills a `struct fsuuid2`.
    let raw = unsafe {
        ioctl::ioctl(
            file,
            ioctl::Getter::<{ opcode::read::<RawUuid>(0x15, 0) }, RawUuid>::new(),
        )?
    };
    match raw.length {
        16 => Ok(raw.bytes),
        _ => Err(Errno::NOTTY),
    }
}

/// `FS_IOC_FSGETXATTR`.
pub(crate) fn get_fs_xattr(file: BorrowedFd<'_>) -> Result<FsXattr> {
    // SAFETY: the opcode fills a `struct fsxattr`.
    let raw = unsafe {
        ioctl::ioctl(
            file,
            ioctl::Getter::<{ opcode::read::<RawFsXattr>(b'X', 31) }, RawFsXattr>::new(),
        )?
    };
    Ok(FsXattr {
        xflags: raw.xflags,
        extent_size: raw.extsize,
        extents: raw.nextents,
        project: raw.projid,
        cow_extent_size: raw.cowextsize,
    })
}

/// `FS_IOC_FSSETXATTR`.
pub(crate) fn set_fs_xattr(file: BorrowedFd<'_>, value: FsXattr) -> Result<()> {
    let raw = RawFsXattr {
        xflags: value.xflags,
        extsize: value.extent_size,
        nextents: value.extents,
        projid: value.project,
        cowextsize: value.cow_extent_size,
        pad: [0; 8],
    };
    // SAFETY: the opcode reads a `struct fsxattr`.
    unsafe {
        ioctl::ioctl(
            file,
            ioctl::Setter::<{ opcode::write::<RawFsXattr>(b'X', 32) }, RawFsXattr>::new(raw),
        )
    }
}

/// Closes a descriptor and answers the error that closing tells. The descriptor is gone in any case.
pub(crate) fn close(fd: OwnedFd) -> Result<()> {
    // SAFETY: the descriptor is owned, and given up here.
    let result = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
    check(result.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_handle_keeps_its_bytes_however_many_they_are() {
        for length in [0, 8, 13, 14, 128] {
            let bytes = vec![7; length];
            for kind in [1, 0xff, 0x1_0001] {
                let handle = FileHandle::new(kind, &bytes);
                assert_eq!(handle.parts(), (kind, &*bytes));
                assert_eq!(handle, FileHandle::new(kind, &bytes));
                assert_ne!(handle, FileHandle::new(kind + 1, &bytes));
            }
        }
    }

    #[test]
    fn a_name_and_an_open_file_give_the_same_handle() {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(directory.path().join("file")).unwrap();
        let Ok(handle) = name_to_handle(file.as_fd()) else {
            eprintln!("skipped: no file handles here");
            return;
        };
        let directory = std::fs::File::open(directory.path()).unwrap();
        let named = |name: &str| name_to_handle_in(directory.as_fd(), Name::new(name.as_bytes())?);
        assert_eq!(named("file"), Ok(handle));
        assert_eq!(named("none"), Err(Errno::NOENT));
        assert_eq!(named(&"n".repeat(255)), Err(Errno::NOENT));
    }
}
