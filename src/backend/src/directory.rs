//! An open directory.

use std::ops::ControlFlow;

use crate::{Answer, Entry, FileKind, Lookup, Name};

/// One entry of a directory as it is listed.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// The name; `.` and `..` are listed too.
    pub name: &'a [u8],
    /// The inode number that the entry's attributes would show.
    pub inode: u64,
    /// The file's type, if it is known without a look at the inode.
    pub kind: Option<FileKind>,
    /// The cookie from which a listing goes on *after* this entry. Never 0.
    pub next: u64,
}

/// Takes the entries of a listing.
pub trait DirSink: Send {
    /// Takes one entry. `Break` when there was no room: the entry is not taken, and the listing stops.
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()>;
}

/// Takes the entries of a listing together with what they name.
pub trait EntrySink: Send {
    /// Whether there is room for an entry with this name. When there is none the listing stops.
    fn has_room(&mut self, name: &[u8]) -> bool;

    /// Takes one entry for which there was room. `found` is what a lookup of the name would have found;
    /// without it the guest learns the name alone.
    fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>);
}

/// An open directory. Dropped when the guest has released it.
pub trait Directory: Send + Sync {
    /// Lists entries from `cookie` on: 0 is the start, any other value is the guest's and should be
    /// a `next` given earlier, but may be anything; an unknown one ends the listing or gives EINVAL.
    ///
    /// An entry that exists from the first to the last call is listed exactly once.
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()>;

    /// As [`read`](Self::read), with what each entry names. `.` and `..` are listed without it, and so is what
    /// cannot be looked up; a name that was removed meanwhile is left out. A backend that does not
    /// implement it is asked for each name by [`Node::lookup`](crate::Node::lookup).
    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        let _ = (cookie, sink);
        Answer::not_supported()
    }

    /// What a name of this directory is, as [`Node::lookup`](crate::Node::lookup) finds it, at the price of an entry of
    /// [`read_plus`](Self::read_plus): for who lists several directories as one. `None` where that is no less.
    fn entry<'a>(&'a self, name: Name<'a>) -> Option<Answer<'a, Lookup>> {
        let _ = name;
        None
    }

    /// Makes the directory's entries durable. With `data_only`, what is needed to read them again.
    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        let _ = data_only;
        Answer::not_supported()
    }
}
