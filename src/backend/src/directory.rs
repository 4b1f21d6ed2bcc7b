//! An open directory.

use std::ops::ControlFlow;

use crate::{Answer, FileKind};

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

/// An open directory. Dropped when the guest has released it.
pub trait Directory: Send + Sync {
    /// Lists entries from `cookie` on: 0 is the start, any other value is the guest's and should be
    /// a `next` given earlier, but may be anything; an unknown one ends the listing or gives EINVAL.
    ///
    /// An entry that exists from the first to the last call is listed exactly once.
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()>;

    /// Makes the directory's entries durable. With `data_only`, what is needed to read them again.
    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        let _ = data_only;
        Answer::not_supported()
    }
}
