//! An open directory.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{SeekFrom, fdatasync, fsync, seek};
use vfsd_backend::{
    Answer, DirEntry, DirSink, Directory, EntrySink, Errno, FileKind, Lookup, Name, Result, Ttl,
};

use crate::budget::Descriptor;
use crate::credentials::check_thread;
use crate::inode::Inode;
use crate::kept_pieces::{Kept, KeptPieces, PIECE};
use crate::syscalls::getdents;

/// An open directory. The cookies are the host's own (`d_off`), of which nothing is known: a file system may
/// have any 64 bits in them, and they come in any order.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    descriptor: Descriptor,
    node: Arc<Inode>,
    listing: Mutex<Listing>,
}

/// Where the listing is, and the piece that was read last.
#[derive(Debug, Default)]
struct Listing {
    /// The cookie at which the listing is.
    cookie: u64,
    /// The cookie at which `entries` begin.
    start: u64,
    /// Entries that were read from the host; those before `taken` were given out.
    entries: Vec<u8>,
    taken: usize,
    /// The host's own position is behind `entries`.
    in_place: bool,
    /// The right to keep `entries` from one read to the next.
    kept: Option<Kept>,
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
    fn list(&self, cookie: u64, take: impl FnMut(&DirEntry<'_>) -> ControlFlow<()>) -> Result<()> {
        check_thread()?;
        let mut listing = self.listing.lock();
        let listed = self.list_on(&mut listing, cookie, take);
        listing.pause(&self.node.share().pieces);
        listed
    }

    fn list_on(
        &self,
        listing: &mut Listing,
        cookie: u64,
        mut take: impl FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        // The start is always read anew, so that rewinddir(3) shows what is there now.
        if cookie == 0 || !listing.has(cookie) {
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

    /// Goes to a cookie in the piece at hand, if it is there: a guest whose program took less than it had
    /// asked for asks again from inside.
    fn has(&mut self, cookie: u64) -> bool {
        if !self.in_place {
            return false;
        }
        if cookie == self.cookie {
            return true;
        }
        let mut at = 0;
        let mut here = self.start;
        while here != cookie {
            let rest = self.entries.get(at..).unwrap_or_default();
            let Some((entry, length)) = first_entry(rest) else {
                return false;
            };
            here = entry.next;
            at = at.saturating_add(length);
        }
        self.cookie = cookie;
        self.taken = at;
        true
    }

    /// Goes to where the guest wants to go on. A cookie that the host never gave leads to some
    /// entry, or to none.
    fn seek(&mut self, directory: BorrowedFd<'_>, cookie: u64) -> Result<()> {
        let sought = match i64::try_from(cookie) {
            Ok(_) => seek(directory, SeekFrom::Start(cookie)),
            // lseek(2) takes no such offset, though getdents(2) gave it.
            Err(_) => Err(Errno::INVAL),
        };
        match sought {
            Ok(_) => self.begin(cookie),
            Err(Errno::INVAL) => self.walk(directory, cookie)?,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Goes to a cookie from the start of the directory, or to its end.
    fn walk(&mut self, directory: BorrowedFd<'_>, cookie: u64) -> Result<()> {
        seek(directory, SeekFrom::Start(0))?;
        self.begin(0);
        while self.refill(directory)? {
            if self.has(cookie) {
                return Ok(());
            }
            self.skip();
        }
        self.begin(cookie);
        Ok(())
    }

    /// The host's position is at `cookie`, and nothing was read from there.
    fn begin(&mut self, cookie: u64) {
        self.cookie = cookie;
        self.start = cookie;
        self.entries.clear();
        self.taken = 0;
        self.in_place = true;
    }

    /// Keeps the piece for the next read, if one is to be expected and not too many keep theirs;
    /// otherwise the next one finds its place by the cookie.
    fn pause(&mut self, pieces: &Arc<KeptPieces>) {
        if self.entries.is_empty() {
            self.entries = Vec::new();
            self.kept = None;
            return;
        }
        if self.kept.is_none() {
            self.kept = pieces.keep();
        }
        if self.kept.is_none() {
            self.entries = Vec::new();
            self.taken = 0;
            self.in_place = false;
        }
    }

    /// Gives all entries out, to nobody.
    fn skip(&mut self) {
        while let Some((entry, length)) = first_entry(self.rest()) {
            self.cookie = entry.next;
            self.taken = self.taken.saturating_add(length);
        }
    }

    /// Reads the next piece; false at the end.
    fn refill(&mut self, directory: BorrowedFd<'_>) -> Result<bool> {
        self.begin(self.cookie);
        self.entries.resize(PIECE, 0);
        let read = getdents(directory, &mut self.entries);
        self.entries.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Ok(false),
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

    fn entry<'a>(&'a self, name: Name<'a>) -> Option<Answer<'a, Lookup>> {
        Some(Answer::brief(move || {
            match self.node.listed(self.fd(), name) {
                Ok(entry) => Ok(Lookup::Found(entry)),
                Err(Errno::NOENT) => Ok(Lookup::Missing { ttl: Ttl::Policy }),
                Err(errno) => Err(errno.into()),
            }
        }))
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

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::collections::BTreeSet;

    use vfsd_backend::Backend;

    use super::*;
    use crate::kept_pieces::MOST_KEPT;
    use crate::{Options, Passthrough};

    /// Names from a cookie on, `room` at most, and the cookie to go on from.
    fn read(directory: &OpenDirectory, cookie: u64, room: usize) -> (Vec<Vec<u8>>, u64) {
        let (mut names, mut next) = (Vec::new(), cookie);
        directory
            .list(cookie, |entry| {
                if names.len() == room {
                    return ControlFlow::Break(());
                }
                names.push(entry.name.to_vec());
                next = entry.next;
                ControlFlow::Continue(())
            })
            .unwrap();
        (names, next)
    }

    #[test]
    fn open_directories_keep_a_bounded_part_of_their_listings_and_all_go_on_where_they_were() {
        const FILES: usize = 40;
        let host = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            std::fs::write(host.path().join(format!("file {number}")), b"").unwrap();
        }
        let fs = Passthrough::open(host.path(), Options::default()).unwrap();
        let root = fs.root();
        let root: &dyn Any = root.as_ref();
        let root = root.downcast_ref::<Inode>().unwrap();
        let pieces = &root.share().pieces;
        let others: Vec<_> = (2..MOST_KEPT).map(|_| pieces.keep().unwrap()).collect();
        let open = || {
            let permit = root.share().permit().unwrap();
            let file = std::fs::File::open(host.path()).unwrap();
            OpenDirectory::new(root.this().unwrap(), permit.hold(file.into()))
        };
        let directories: Vec<_> = (0..8).map(|_| open()).collect();
        let mut read_on: Vec<_> = directories.iter().map(|one| read(one, 0, 3)).collect();
        assert!(pieces.keep().is_none());
        let held = |one: &&OpenDirectory| one.listing.lock().entries.capacity() > 0;
        assert_eq!(directories.iter().filter(held).count(), 2);
        for _ in 0..FILES {
            for (directory, (names, cookie)) in directories.iter().zip(&mut read_on) {
                let (more, next) = read(directory, *cookie, 3);
                names.extend(more);
                *cookie = next;
            }
        }
        for (names, _) in &read_on {
            assert_eq!(names.len(), FILES + 2);
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), FILES + 2);
        }
        assert_eq!(directories.iter().filter(held).count(), 0, "all have ended");
        drop(others);
        let all: Vec<_> = (0..MOST_KEPT).map(|_| pieces.keep()).collect();
        assert!(all.iter().all(Option::is_some), "all was given back");
    }
}
