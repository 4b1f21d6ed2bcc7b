//! An open directory of a plugin.

use vfsd_backend::{Answer, DirEntry, DirSink, Directory, Entry, EntrySink, Errno, Error};
use vfsd_fuse::wire::{FSYNC_FDATASYNC, FsyncIn, HandleId, ReadIn};
use vfsd_fuse::{InitFlags, Opcode};
use zerocopy::FromZeros;

use crate::handle::Handle;
use crate::listing::entries;
use crate::node::PluginNode;
use crate::records::adopt;
use crate::request::{Expected, Request};

/// Bytes of a listing that are asked for at once.
const AT_ONCE: u32 = 32 << 10;

/// Entries that one call lists at most: whoever collects them all does not run out of memory.
const MOST: usize = 1 << 22;

pub(crate) struct PluginDirectory(pub(crate) Handle);

fn read_in(handle: HandleId, offset: u64) -> ReadIn {
    ReadIn {
        fh: handle,
        offset,
        size: AT_ONCE,
        ..ReadIn::new_zeroed()
    }
}

fn room() -> Expected {
    Expected::AtMost(usize::try_from(AT_ONCE).unwrap_or(0))
}

impl Directory for PluginDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::later(async move {
            let link = self.0.record.shared.link()?;
            let open = self.0.at(&link).await?;
            let mut cookie = cookie;
            let mut count = 0_usize;
            loop {
                let request = Request::new(Opcode::Readdir, open.node)
                    .arg(&read_in(open.handle, cookie))
                    .expects(room());
                let body = link.ask(request).await?;
                let listed = link.checked(entries(&body, false))?;
                let Some(last) = listed.last() else {
                    return Ok(());
                };
                cookie = last.next;
                count = count.saturating_add(listed.len());
                if count > MOST {
                    return Err(Errno::IO.into());
                }
                for entry in &listed {
                    let entry = DirEntry {
                        name: entry.name,
                        inode: entry.inode,
                        kind: entry.kind,
                        next: entry.next,
                    };
                    if sink.entry(&entry).is_break() {
                        return Ok(());
                    }
                }
            }
        })
    }

    fn read_plus<'a>(&'a self, cookie: u64, sink: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::later(async move {
            let link = self.0.record.shared.link()?;
            if !link.agreed.flags.contains(InitFlags::DO_READDIRPLUS) {
                return Err(Error::NotSupported);
            }
            let open = self.0.at(&link).await?;
            let request = Request::new(Opcode::Readdirplus, open.node)
                .arg(&read_in(open.handle, cookie))
                .expects(room());
            let body = link.ask(request).await?;
            let listed = link.checked(entries(&body, true))?;
            // The plugin counts all that it told of: those for which there is no room are forgotten again.
            let mut full = false;
            for entry in &listed {
                let name = vfsd_backend::Name::new(entry.name).ok();
                let found = match (name, entry.found) {
                    (Some(name), Some(found)) => {
                        let adopted = adopt(&self.0.record, Some(name), &link, &found);
                        let record = link.checked(adopted)?;
                        Some(PluginNode::entry(record, &found))
                    }
                    _ => None,
                };
                full = full || !sink.has_room(entry.name);
                if !full {
                    tell(sink, entry, found);
                }
            }
            Ok(())
        })
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        Answer::later(async move {
            let link = self.0.record.shared.link()?;
            let open = self.0.at(&link).await?;
            let arg = FsyncIn {
                fh: open.handle,
                fsync_flags: if data_only { FSYNC_FDATASYNC } else { 0 },
                padding: 0,
            };
            link.ask(Request::new(Opcode::Fsyncdir, open.node).arg(&arg))
                .await?;
            Ok(())
        })
    }
}

fn tell(sink: &mut dyn EntrySink, entry: &crate::listing::Listed<'_>, found: Option<Entry>) {
    let listed = DirEntry {
        name: entry.name,
        inode: entry.inode,
        kind: entry.kind,
        next: entry.next,
    };
    sink.entry(&listed, found);
}
