//! What leads to a file of the share again in another process.
//!
//! A file of the share's own mount is known by its handle, if the file system has such. Where this process may not open
//! files by handle, the names from the root follow, as far as there is room: what they lead to is compared with the handle.
//! Anything else is known by its names, inode number and generation.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::readlinkat;
use vfsd_backend::{Errno, Locator, Lookup, Name, Wait};

use crate::inode::Inode;
use crate::proc_fd::ProcFd;
use crate::syscalls::{FileHandle, name_to_handle};

type Result<T> = std::result::Result<T, Errno>;

/// The first byte of one by names.
const NAMES: u8 = 2;

impl Inode {
    /// What leads to it again. `self` is a file below `root`.
    pub(crate) fn locator(self: &Arc<Self>, root: &Arc<Self>) -> Result<Locator> {
        let descriptor = self.descriptor()?;
        let file = descriptor.as_fd();
        let names = || self.names(root, file);
        if let Some(file_system) = self.mount().file_system()
            && let Ok(handle) = name_to_handle(file)
        {
            let (kind, bytes) = handle.parts();
            let kind = u8::try_from(kind).map_err(|_| Errno::OPNOTSUPP)?;
            let more = match self.mount().has_no_handles() {
                true => names().unwrap_or_default(),
                false => Vec::new(),
            };
            return match Locator::of_file_handle(file_system, kind, bytes, &more) {
                Err(_) => Locator::of_file_handle(file_system, kind, bytes, b""),
                fits => fits,
            };
        }
        let identity = self.identity();
        let [number, generation] = [identity.inode, identity.generation].map(u64::to_be_bytes);
        Locator::new(&[&[NAMES][..], &number, &generation, &names()?].concat())
    }

    /// The file that a locator was made of; `self` is the root.
    pub(crate) fn resolve(self: &Arc<Self>, locator: &Locator) -> Result<Arc<Self>> {
        if let Some((kernels, names)) = locator.file_handle() {
            return self.resolve_handle(kernels, names);
        }
        let rest = locator.as_bytes().strip_prefix(&[NAMES]);
        let (number, rest) = rest
            .and_then(|rest| rest.split_first_chunk())
            .ok_or(Errno::STALE)?;
        let (generation, names) = rest.split_first_chunk().ok_or(Errno::STALE)?;
        let found = self.walk(names)?;
        let identity = found.identity();
        match (identity.inode, identity.generation)
            == (u64::from_be_bytes(*number), u64::from_be_bytes(*generation))
        {
            true => Ok(found),
            false => Err(Errno::STALE),
        }
    }

    fn resolve_handle(self: &Arc<Self>, kernels: &[u8], names: &[u8]) -> Result<Arc<Self>> {
        let (&kind, rest) = kernels
            .get(4..)
            .and_then(<[u8]>::split_first)
            .ok_or(Errno::STALE)?;
        let (file_system, handle) = rest.split_first_chunk().ok_or(Errno::STALE)?;
        if self.mount().file_system() != Some(*file_system) {
            return Err(Errno::STALE);
        }
        let handle = FileHandle::new(kind.into(), handle);
        if !self.mount().has_no_handles() {
            let opened = self.mount().open(&handle).map_err(|errno| match errno {
                // No handle of this file system.
                Errno::INVAL | Errno::NOENT => Errno::STALE,
                other => other,
            })?;
            return Ok(self.child(opened, None)?.0);
        }
        if names.is_empty() {
            return Err(Errno::OPNOTSUPP);
        }
        let found = self.walk(names)?;
        let known = name_to_handle(found.descriptor()?.as_fd())?;
        match known == handle {
            true => Ok(found),
            false => Err(Errno::STALE),
        }
    }

    /// The names that lead to it from the root, each after a slash; a slash for the root itself. They are the
    /// host's word, so they are followed before they are believed.
    fn names(self: &Arc<Self>, root: &Arc<Self>, file: BorrowedFd<'_>) -> Result<Vec<u8>> {
        let path = |file: BorrowedFd<'_>| {
            let number = ProcFd::number(file);
            let path = readlinkat(
                self.share().proc_fd.as_fd(),
                number,
                Vec::with_capacity(256),
            )?;
            Ok::<_, Errno>(path.into_bytes())
        };
        let above = path(root.descriptor()?.as_fd())?;
        let above = above.strip_suffix(b"/").unwrap_or(&above);
        let own = path(file)?;
        let names = match own.strip_prefix(above).ok_or(Errno::STALE)? {
            b"" => b"/",
            names if names.len() > Locator::MAX => return Err(Errno::OVERFLOW),
            names => names,
        };
        match Arc::ptr_eq(&root.walk(names)?, self) {
            true => Ok(names.to_vec()),
            false => Err(Errno::STALE),
        }
    }

    fn walk(self: &Arc<Self>, names: &[u8]) -> Result<Arc<Self>> {
        let names = names.strip_prefix(b"/").ok_or(Errno::STALE)?;
        let mut at = self.clone();
        for name in names.split(|&byte| byte == b'/') {
            if names.is_empty() {
                break;
            }
            let name = Name::new(name).map_err(|_| Errno::STALE)?;
            at = match at.find(name, Wait::Allowed) {
                Ok(Lookup::Found(entry)) => {
                    let found: Arc<dyn Any + Send + Sync> = entry.node;
                    found.downcast().map_err(|_| Errno::STALE)?
                }
                Ok(Lookup::Missing { .. }) | Err(Errno::NOTDIR) => return Err(Errno::STALE),
                Err(errno) => return Err(errno),
            };
        }
        Ok(at)
    }
}
