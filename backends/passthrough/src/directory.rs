//! An open directory.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{SeekFrom, fdatasync, fsync, seek};
use vfsd_backend::{
    Answer, DirEntry, DirSink, Directory, EntrySink, Errno, FileKind, Name, Result,
};

use crate::budget::Descriptor;
use crate::credentials::check_thread;
use crate::inode::Inode;
use crate::syscalls::getdents;

/// Entries are read from the host in pieces of this size.
const PIECE: usize = 32 * 1024;

/// An open directory. The cookies are the host's own (`d_off`).
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    descriptor: Descriptor,
    node: Arc<Inode>,
    listing: Mutex<Listing>,
}

/// Where the listing is, and what was read ahead of it.
#[derive(Debug, Default)]
struct Listing {
    /// The cookie at which `entries` begin.
    cookie: u64,
    /// Entries that were read from the host and not yet taken, from `taken` on.
    entries: Vec<u8>,
    taken: usize,
}

impl OpenDirectory {
    pub(crate) fn new(node: Arc<Inode>, descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            node,
            listing: Mutex::default(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Gives entries to `take` until there are no more, or it has no room for one.
    fn list(
        &self,
        cookie: u64,
        mut take: impl FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        check_thread()?;
        let mut listing = self.listing.lock();
        // The start is always read anew, so that rewinddir(3) shows what is there now.
        if cookie == 0 || cookie != listing.cookie {
            listing.seek(self.fd(), cookie)?;
        }
        loop {
            while let Some((entry, length)) = first_entry(listing.rest()) {
                let next = entry.next;
                if take(&entry).is_break() {
                    return Ok(());
                }
                listing.taken = listing.taken.saturating_add(length);
                listing.cookie = next;
            }
            if !listing.refill(self.fd())? {
                return Ok(());
            }
        }
    }
}

impl Listing {
    fn rest(&self) -> &[u8] {
        self.entries.get(self.taken..).unwrap_or_default()
    }

    /// Goes to where the guest wants to go on. A cookie that the host never gave leads to some
    /// entry, or to none.
    fn seek(&mut self, directory: BorrowedFd<'_>, cookie: u64) -> Result<()> {
        if i64::try_from(cookie).is_err() {
            return Err(Errno::INVAL.into());
        }
        seek(directory, SeekFrom::Start(cookie))?;
        self.cookie = cookie;
        self.entries.clear();
        self.taken = 0;
        Ok(())
    }

    /// Reads the next piece; false at the end.
    fn refill(&mut self, directory: BorrowedFd<'_>) -> Result<bool> {
        self.taken = 0;
        self.entries.resize(PIECE, 0);
        let read = getdents(directory, &mut self.entries);
        self.entries.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => {
                self.entries = Vec::new();
                Ok(false)
            }
            Ok(_) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Takes the first entry apart (`struct linux_dirent64` of linux/dirent.h), and says how long it is.
fn first_entry(bytes: &[u8]) -> Option<(DirEntry<'_>, usize)> {
    let (inode, rest) = bytes.split_first_chunk::<8>()?;
    let (next, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (&kind, _) = rest.split_first()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let name = bytes.get(19..length)?.split(|&byte| byte == 0).next()?;
    let entry = DirEntry {
        name,
        inode: u64::from_ne_bytes(*inode),
        // DT_* are the type bits of st_mode; 0 is "not known".
        kind: FileKind::from_mode(u32::from(kind) << 12),
        next: u64::from_ne_bytes(*next),
    };
    Some((entry, length))
}

impl Directory for OpenDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::brief(move || self.list(cookie, |entry| sink.entry(entry)))
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::brief(move || {
            self.list(cookie, |listed| {
                if !sink.has_room(listed.name) {
                    return ControlFlow::Break(());
                }
                // The guest knows `.` and `..` already, and is not told of them again.
                let found = match Name::new(listed.name) {
                    Ok(name) => self.node.listed(self.fd(), name),
                    Err(_) => Err(Errno::INVAL),
                };
                match found {
                    Ok(entry) => sink.entry(listed, Some(entry)),
                    Err(Errno::NOENT) => {}
                    Err(_) => sink.entry(listed, None),
                }
                ControlFlow::Continue(())
            })
        })
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        Answer::blocking(move || {
            let sync = match data_only {
                true => fdatasync(self.fd()),
                false => fsync(self.fd()),
            };
            Ok(sync?)
        })
    }
}
