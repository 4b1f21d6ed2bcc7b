//! Listings.

use std::ops::ControlFlow;

use vfsd_backend::{
    DirEntry, DirSink, Directory, Entry, EntrySink, Errno, Error, FileKind, Lookup, Name,
};
use vfsd_fuse::wire::{EntryOut, FSYNC_FDATASYNC, FsyncIn, OpenOut, ReadIn, ReleaseIn, fopen};
use vfsd_fuse::{DirentBuffer, MAX_TRANSFER};

use super::{Call, Outcome};
use crate::handles::{HandleKind, Open};
use crate::nodes::{Grant, NodeRecord};
use crate::options::CacheMode;
use crate::responder::Reply;

impl<'a> Call<'a> {
    pub(super) async fn opendir(&self) -> Outcome<'a> {
        let node = self.directory_node()?;
        let directory = self.interruptible(node.node.opendir()).await?;
        let steady = self.export(&node).steady;
        let handle = self.epoch.handles.grant(node, Open::Directory(directory))?;
        let open_flags = match self.cache_mode() {
            _ if steady => fopen::CACHE_DIR | fopen::KEEP_CACHE,
            CacheMode::Always | CacheMode::Metadata => fopen::CACHE_DIR | fopen::KEEP_CACHE,
            CacheMode::Auto | CacheMode::Never => 0,
        };
        let out = OpenOut {
            fh: handle.id(),
            open_flags,
            backing_id: 0,
        };
        Ok(Reply::structure(&out).opening(handle))
    }

    pub(super) async fn readdir(&self, arg: ReadIn, room: usize) -> Outcome<'a> {
        let directory = self.listing(arg.fh, arg.offset).await?;
        let body = DirentBuffer::new(limit(arg.size, room));
        let mut names = Names { body, full: false };
        self.interruptible(directory.read(arg.offset, &mut names))
            .await?;
        if names.full && names.body.as_bytes().is_empty() {
            // An empty reply would be the end of the directory.
            return Err(Errno::INVAL.into());
        }
        if names.body.as_bytes().is_empty() {
            self.listing_ended(arg.fh);
        }
        Ok(Reply::bytes(names.body.into_bytes()))
    }

    pub(super) async fn readdirplus(&self, arg: ReadIn, room: usize) -> Outcome<'a> {
        let reply = self.list_plus(arg, room).await?;
        if reply.is_empty() {
            self.listing_ended(arg.fh);
        }
        Ok(reply)
    }

    async fn list_plus(&self, arg: ReadIn, room: usize) -> Outcome<'a> {
        let node = self.node()?;
        let directory = self.listing(arg.fh, arg.offset).await?;
        let limit = limit(arg.size, room);
        let mut entries = Entries {
            call: self,
            parent: &node,
            body: DirentBuffer::new(limit),
            grants: Vec::new(),
            full: false,
        };
        let listed = directory.read_plus(arg.offset, &mut entries);
        match self.interruptible(listed).await {
            Ok(()) => entries.reply(),
            Err(Error::NotSupported) => {
                self.readdir_and_lookup(arg, &node, &*directory, limit)
                    .await
            }
            Err(error) => Err(error),
        }
    }

    /// READDIRPLUS of a backend that lists names only.
    async fn readdir_and_lookup(
        &self,
        arg: ReadIn,
        node: &NodeRecord,
        directory: &dyn Directory,
        limit: usize,
    ) -> Outcome<'a> {
        let mut from = arg.offset;
        loop {
            let mut listing = Listing {
                entries: Vec::new(),
                room: limit,
                full: false,
            };
            self.interruptible(directory.read(from, &mut listing))
                .await?;
            if listing.full && listing.entries.is_empty() {
                return Err(Errno::INVAL.into());
            }
            let last = listing.entries.last().map(|listed| listed.next);
            let reply = self.resolve_all(node, listing.entries, limit).await?;
            match (reply, last) {
                // All of them vanished: an empty reply would be the end of the directory.
                (None, Some(next)) => from = next,
                (None, None) => return Ok(Reply::empty()),
                (Some(reply), _) => return Ok(reply),
            }
            // The queue need not wait for the rest.
            tokio::task::yield_now().await;
        }
    }

    /// The reply with what is left of these names; none if nothing is. An interrupt leaves it with those that came before.
    async fn resolve_all(
        &self,
        node: &NodeRecord,
        entries: Vec<Listed>,
        limit: usize,
    ) -> Outcome<'a, Option<Reply<'a>>> {
        let mut body = DirentBuffer::new(limit);
        let mut grants = Vec::new();
        for Listed {
            name,
            inode,
            kind,
            next,
        } in entries
        {
            match self.resolve(node, &name).await {
                Resolved::Entry(grant, entry) => {
                    body.push_plus(&entry, &name, inode, kind, next);
                    grants.push(grant);
                }
                Resolved::NameOnly => {
                    let entry = EntryOut::negative(std::time::Duration::ZERO);
                    body.push_plus(&entry, &name, inode, kind, next);
                }
                Resolved::Vanished => {}
                Resolved::Interrupted if body.as_bytes().is_empty() => {
                    return Err(Errno::INTR.into());
                }
                Resolved::Interrupted => break,
            }
        }
        let some = !body.as_bytes().is_empty();
        Ok(some.then(|| Reply::bytes(body.into_bytes()).granting_all(grants)))
    }

    /// What a listing tells of one of its names. A name that was removed since is left out; one
    /// that cannot be looked up is shown without attributes: for that the listing as a whole never fails.
    async fn resolve(&self, parent: &NodeRecord, name: &[u8]) -> Resolved<'a> {
        // The guest knows `.` and `..` already, and is not told of them again.
        let Ok(name) = Name::new(name) else {
            return Resolved::NameOnly;
        };
        match self.interruptible(parent.node.lookup(name)).await {
            Ok(Lookup::Found(entry)) => match self.grant_entry(parent, Some(name), &entry) {
                Ok((grant, out)) => Resolved::Entry(grant, out),
                Err(_) => Resolved::NameOnly,
            },
            Ok(Lookup::Missing { .. }) => Resolved::Vanished,
            Err(error) if error.is(Errno::NOENT) => Resolved::Vanished,
            Err(error) if error.is(Errno::INTR) => Resolved::Interrupted,
            Err(_) => Resolved::NameOnly,
        }
    }

    pub(super) fn releasedir(&self, arg: ReleaseIn) -> Outcome<'a> {
        if !self.is_implied_directory(arg.fh) {
            self.epoch
                .handles
                .release(self.header.node, arg.fh, HandleKind::Directory)?;
        }
        Ok(Reply::empty())
    }

    pub(super) async fn fsyncdir(&self, arg: FsyncIn) -> Outcome<'a> {
        let directory = match self.is_implied_directory(arg.fh) {
            true => self.directory_node()?.node.opendir().await?,
            false => self.epoch.handles.directory(self.header.node, arg.fh)?,
        };
        let data_only = arg.fsync_flags & FSYNC_FDATASYNC != 0;
        self.interruptible_sync(directory.fsync(data_only)).await?;
        Ok(Reply::empty())
    }
}

enum Resolved<'a> {
    Entry(Grant<'a>, EntryOut),
    NameOnly,
    Vanished,
    Interrupted,
}

/// How long a listing may be.
fn limit(asked: u32, room: usize) -> usize {
    usize::try_from(asked.min(MAX_TRANSFER))
        .unwrap_or(usize::MAX)
        .min(room)
}

/// Whether a name may be shown to a guest, which takes one with a `/` for a broken file system.
fn presentable(name: &[u8]) -> bool {
    matches!(name, b"." | b"..") || Name::new(name).is_ok()
}

/// Takes the entries of READDIR straight into the reply.
struct Names {
    body: DirentBuffer,
    full: bool,
}

impl DirSink for Names {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        let DirEntry {
            name,
            inode,
            kind,
            next,
        } = *entry;
        if !presentable(name) || self.body.push(name, inode, kind, next) {
            return ControlFlow::Continue(());
        }
        self.full = true;
        ControlFlow::Break(())
    }
}

/// Takes the entries of READDIRPLUS, with what they name, straight into the reply.
struct Entries<'c, 'a> {
    call: &'c Call<'a>,
    parent: &'c NodeRecord,
    body: DirentBuffer,
    grants: Vec<Grant<'a>>,
    full: bool,
}

impl<'a> Entries<'_, 'a> {
    fn reply(self) -> Outcome<'a> {
        if self.full && self.body.as_bytes().is_empty() {
            // An empty reply would be the end of the directory.
            return Err(Errno::INVAL.into());
        }
        Ok(Reply::bytes(self.body.into_bytes()).granting_all(self.grants))
    }
}

impl EntrySink for Entries<'_, '_> {
    fn has_room(&mut self, name: &[u8]) -> bool {
        // What is not shown needs none.
        let fits = !presentable(name) || self.body.has_room_plus(name.len());
        self.full |= !fits;
        fits
    }

    fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
        let DirEntry {
            name,
            inode,
            kind,
            next,
        } = *listed;
        let granted = match (Name::new(name), found) {
            (Ok(name), Some(entry)) => self.call.grant_entry(self.parent, Some(name), &entry).ok(),
            _ if presentable(name) => None,
            _ => return,
        };
        match granted {
            Some((grant, out)) => {
                if self.body.push_plus(&out, name, inode, kind, next) {
                    self.grants.push(grant);
                }
            }
            None => {
                let out = EntryOut::negative(std::time::Duration::ZERO);
                self.body.push_plus(&out, name, inode, kind, next);
            }
        }
    }
}

/// Takes the entries of READDIRPLUS, as many as fit the reply once they are looked up.
struct Listing {
    entries: Vec<Listed>,
    room: usize,
    full: bool,
}

struct Listed {
    name: Vec<u8>,
    inode: u64,
    kind: Option<FileKind>,
    next: u64,
}

impl DirSink for Listing {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        let DirEntry {
            name,
            inode,
            kind,
            next,
        } = *entry;
        if !presentable(name) {
            return ControlFlow::Continue(());
        }
        let Some(room) = self.room.checked_sub(DirentBuffer::plus_length(name.len())) else {
            self.full = true;
            return ControlFlow::Break(());
        };
        self.room = room;
        self.entries.push(Listed {
            name: name.to_vec(),
            inode,
            kind,
            next,
        });
        ControlFlow::Continue(())
    }
}
