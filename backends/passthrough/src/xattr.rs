//! Extended attributes of host files.
//!
//! The calls that take a descriptor refuse `O_PATH` ones, and opening a file just for them has effects
//! and is not allowed for special files. So the file is reached through its link in
//! `/proc/self/fd`, which leads to the inode itself, a symbolic link included.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT, Acl, CAPABILITY};
use vfsd_backend::{Errno, FileKind, SecurityContext, XattrFlags, XattrName};

use crate::credentials::prepare_thread;
use crate::inode::Inode;
use crate::proc_fd::ProcFd;
use crate::share::Share;
use crate::stat::Stat;
use crate::syscalls;

type Result<T, E = Errno> = std::result::Result<T, E>;

/// The longest value, and the longest list of names (linux/limits.h).
const LONGEST: usize = 65_536;

/// Long enough for most values and lists.
const USUAL: usize = 512;

/// How extended attributes are reached through `/proc/self/fd`.
#[derive(Debug)]
pub(crate) struct XattrAccess {
    /// The kernel has getxattrat(2) and its like (Linux 6.13, and the sandbox allows them).
    has_xattrat: AtomicBool,
}

impl Default for XattrAccess {
    fn default() -> Self {
        Self {
            has_xattrat: AtomicBool::new(true),
        }
    }
}

/// The working directory of the thread is `/proc/self/fd` while this lives.
struct InProcFd(OwnedFd);

impl InProcFd {
    fn enter(proc_fd: &ProcFd) -> Result<Self> {
        // Only this thread's working directory changes.
        prepare_thread()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let back = rustix::fs::open(c".", flags, Mode::empty())?;
        rustix::process::fchdir(proc_fd)?;
        Ok(Self(back))
    }
}

impl Drop for InProcFd {
    fn drop(&mut self) {
        if let Err(errno) = rustix::process::fchdir(&self.0) {
            tracing::warn!(%errno, "a thread did not find back to its working directory");
        }
    }
}

impl Share {
    /// Calls `direct`, or where the kernel does not have it `by_path`, with the path of `file`
    /// relative to `/proc/self/fd`.
    fn at_proc_fd<T>(
        &self,
        file: BorrowedFd<'_>,
        direct: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T>,
        by_path: impl FnOnce(&CStr) -> Result<T>,
    ) -> Result<T> {
        let number = ProcFd::number(file);
        if self.xattrs.has_xattrat.load(Ordering::Relaxed) {
            match direct(self.proc_fd.as_fd(), number.as_c_str()) {
                Err(Errno::NOSYS) => self.xattrs.has_xattrat.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        let _inside = InProcFd::enter(&self.proc_fd)?;
        by_path(number.as_c_str())
    }

    fn read_xattr(&self, file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
        let value = std::cell::RefCell::new(value);
        self.at_proc_fd(
            file,
            |directory, path| syscalls::getxattrat(directory, path, name, &mut value.borrow_mut()),
            |path| rustix::fs::getxattr(path, name, &mut **value.borrow_mut()),
        )
    }

    fn read_xattr_names(&self, file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize> {
        let names = std::cell::RefCell::new(names);
        self.at_proc_fd(
            file,
            |directory, path| syscalls::listxattrat(directory, path, &mut names.borrow_mut()),
            |path| rustix::fs::listxattr(path, &mut **names.borrow_mut()),
        )
    }

    pub(crate) fn write_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.at_proc_fd(
            file,
            |directory, path| syscalls::setxattrat(directory, path, name, value, flags),
            |path| {
                let flags = rustix::fs::XattrFlags::from_bits_retain(flags);
                rustix::fs::setxattr(path, name, value, flags)
            },
        )
    }

    pub(crate) fn delete_xattr(&self, file: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        self.at_proc_fd(
            file,
            |directory, path| syscalls::removexattrat(directory, path, name),
            |path| rustix::fs::removexattr(path, name),
        )
    }

    /// The host's name of an attribute that the guest names.
    fn xattr_on_host(&self, name: &[u8]) -> Result<CString> {
        if self.hides(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let name = match &self.options.xattr_map {
            Some(map) => map.to_host(name)?,
            None => Cow::Borrowed(name),
        };
        CString::new(name.into_owned()).map_err(|_| Errno::INVAL)
    }

    /// ACLs are all or nothing: without the feature the guest's kernel would not keep mode and ACL
    /// in step.
    fn hides(&self, name: &[u8]) -> bool {
        !self.options.posix_acl && (name == ACL_ACCESS || name == ACL_DEFAULT)
    }

    fn xattr_is_served(&self) -> Result<(), vfsd_backend::Error> {
        match self.options.xattr {
            true => Ok(()),
            false => Err(vfsd_backend::Error::NotSupported),
        }
    }

    /// Stores a security label with a new inode.
    pub(crate) fn label(&self, file: BorrowedFd<'_>, label: SecurityContext<'_>) -> Result<()> {
        let name = self.xattr_on_host(label.name.as_bytes())?;
        self.write_xattr(file, &name, label.value, 0)
            .map_err(|errno| self.xattr_refusal(file, &name, Some(label.value), errno))
    }

    /// What the guest is told when the host refuses to set an attribute, or with no value to remove one.
    fn xattr_refusal(
        &self,
        file: BorrowedFd<'_>,
        name: &CStr,
        value: Option<&[u8]>,
        errno: Errno,
    ) -> Errno {
        let name = name.to_bytes();
        match errno {
            // Well formed all the same: there is an id in it that this user namespace does not have.
            Errno::INVAL if value.is_some_and(|value| names_ids(name, value)) => Errno::PERM,
            // It takes CAP_SYS_ADMIN outside of all namespaces to change these. A tool that copies
            // attributes forgives what is not supported, but not what is forbidden.
            Errno::PERM if needs_administrator(name) && !is_sealed(file) => Errno::OPNOTSUPP,
            other => other,
        }
    }

    /// Takes away file capabilities that the host's kernel does not know as such, because they have
    /// another name there. It does this itself for the real ones.
    pub(crate) fn drop_renamed_capability(&self, file: BorrowedFd<'_>) -> Result<()> {
        let Some(name) = &self.renamed_capability else {
            return Ok(());
        };
        match self.delete_xattr(file, name) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
}

/// Whether this is a value with ids of users or groups in it, and such as the kernel takes.
fn names_ids(name: &[u8], value: &[u8]) -> bool {
    match name {
        ACL_ACCESS | ACL_DEFAULT => Acl::decode(value).is_ok(),
        // Revision 2 or 3 of `struct vfs_cap_data` (linux/capability.h): the kernel puts an owner into
        // the first and translates that of the other.
        CAPABILITY => matches!((value.len(), value.get(3)), (20, Some(2)) | (24, Some(3))),
        _ => false,
    }
}

/// Whether the kernel lets only an administrator change the attribute (`xattr_permission` of fs/xattr.c,
/// `cap_inode_setxattr` of security/commoncap.c).
fn needs_administrator(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || (name.starts_with(b"security.") && name != CAPABILITY)
}

/// Whether nobody may change the file (chattr(1), `+i` or `+a`).
fn is_sealed(file: BorrowedFd<'_>) -> bool {
    let sealed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .is_ok_and(|found| found.stx_attributes.intersects(sealed))
}

/// Calls `read` with a buffer that is long enough, and answers what it read.
fn read_grown(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; USUAL];
    let length = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(LONGEST, 0);
            read(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

impl Inode {
    pub(crate) fn xattr(&self, name: XattrName<'_>) -> Result<Vec<u8>, vfsd_backend::Error> {
        self.share().xattr_is_served()?;
        let name = self
            .share()
            .xattr_on_host(name.as_bytes())
            .map_err(|errno| match errno {
                // What must not be touched is not there when it is read.
                Errno::PERM => Errno::NODATA,
                other => other,
            })?;
        let file = self.descriptor()?;
        Ok(read_grown(|buffer| {
            self.share().read_xattr(file.as_fd(), &name, buffer)
        })?)
    }

    pub(crate) fn xattr_names(&self) -> Result<Vec<u8>, vfsd_backend::Error> {
        self.share().xattr_is_served()?;
        let file = self.descriptor()?;
        let on_host = read_grown(|buffer| self.share().read_xattr_names(file.as_fd(), buffer))?;
        let mut shown = Vec::with_capacity(on_host.len());
        for name in on_host.split(|&byte| byte == 0) {
            let name = match &self.share().options.xattr_map {
                Some(map) => map.to_guest(name),
                None => Some(name),
            };
            if let Some(name) = name.filter(|name| !name.is_empty() && !self.share().hides(name)) {
                shown.extend_from_slice(name);
                shown.push(0);
            }
        }
        Ok(shown)
    }

    pub(crate) fn set_xattr(
        &self,
        name: XattrName<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<(), vfsd_backend::Error> {
        self.share().xattr_is_served()?;
        let host_name = self.share().xattr_on_host(name.as_bytes())?;
        let file = self.descriptor()?;
        let host_flags = (flags & (XattrFlags::CREATE | XattrFlags::REPLACE)).bits();
        let file_fd = file.as_fd();
        self.share()
            .write_xattr(file_fd, &host_name, value, host_flags)
            .map_err(|errno| {
                self.share()
                    .xattr_refusal(file_fd, &host_name, Some(value), errno)
            })?;
        if flags.contains(XattrFlags::KILL_SGID) && name.as_bytes() == ACL_ACCESS {
            self.drop_set_group_id(file.as_fd())?;
        }
        Ok(())
    }

    /// The host's kernel does not do it for us, because the daemon may keep the bit.
    fn drop_set_group_id(&self, file: BorrowedFd<'_>) -> Result<()> {
        let permissions = Stat::of(file)?.attributes.permissions;
        if permissions & 0o2000 == 0 || self.kind() == FileKind::Symlink {
            return Ok(());
        }
        let mode = Mode::from_bits_retain(permissions & !0o2000);
        self.share().proc_fd.chmod(file, mode)
    }

    pub(crate) fn remove_xattr(&self, name: XattrName<'_>) -> Result<(), vfsd_backend::Error> {
        self.share().xattr_is_served()?;
        let share = self.share();
        let name = share.xattr_on_host(name.as_bytes())?;
        let file = self.descriptor()?;
        let file = file.as_fd();
        let deleted = share.delete_xattr(file, &name);
        Ok(deleted.map_err(|errno| share.xattr_refusal(file, &name, None, errno))?)
    }
}

#[cfg(test)]
#[path = "xattr_tests.rs"]
mod tests;
