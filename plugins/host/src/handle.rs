//! What a plugin has open for us.

use std::sync::Arc;

use parking_lot::Mutex;
use vfsd_backend::{OpenFlags, Result};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{HandleId, NodeId, OpenIn, OpenOut};

use crate::link::Link;
use crate::receive::release;
use crate::records::Record;
use crate::reply::structure;
use crate::request::{Request, Undo};

/// A file or directory that is open. If the plugin has come back since, it is opened again.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) record: Arc<Record>,
    directory: bool,
    flags: OpenFlags,
    open: Mutex<Open>,
}

/// A plugin's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// The link for which it counts; 0 is none.
    generation: u64,
    pub(crate) node: NodeId,
    pub(crate) handle: HandleId,
}

impl Handle {
    /// What was opened just now.
    pub(crate) fn new(record: Arc<Record>, directory: bool, flags: OpenFlags, open: Open) -> Self {
        Self {
            record,
            directory,
            flags: flags.difference(OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE),
            open: Mutex::new(open),
        }
    }

    /// The numbers by which the plugin knows it.
    ///
    /// # Errors
    /// ESTALE when it is not found again, and what opening it again answers; EIO.
    pub(crate) async fn at(&self, link: &Arc<Link>) -> Result<Open> {
        let known = *self.open.lock();
        if known.generation == link.generation {
            return Ok(known);
        }
        let node = self.record.bind(link).await?;
        let (open, _) = open(link, node, self.directory, self.flags, false).await?;
        let other = {
            let mut known = self.open.lock();
            match known.generation == link.generation {
                // Somebody else was faster.
                true => Some(*known),
                false => {
                    *known = open;
                    None
                }
            }
        };
        match other {
            Some(other) => {
                link.tell(release(node, self.directory, open.handle));
                Ok(other)
            }
            None => Ok(open),
        }
    }

    /// Takes it: it is closed by whoever has it.
    pub(crate) fn take(&self, link: &Link) -> Option<Open> {
        let mut open = self.open.lock();
        let taken = *open;
        // A link of that number there never was.
        open.generation = u64::MAX;
        (taken.generation == link.generation).then_some(taken)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(link) = self.record.shared.link()
            && let Some(open) = self.take(&link)
        {
            link.tell(release(open.node, self.directory, open.handle));
        }
    }
}

/// Opens a file or directory, and says what the plugin wants to be cached.
///
/// # Errors
/// What the plugin answers.
pub(crate) async fn open(
    link: &Arc<Link>,
    node: NodeId,
    directory: bool,
    flags: OpenFlags,
    kill_privileges: bool,
) -> Result<(Open, u32)> {
    let opcode = match directory {
        true => Opcode::Opendir,
        false => Opcode::Open,
    };
    let arg = OpenIn {
        flags: raw_flags(flags),
        open_flags: match kill_privileges {
            true => vfsd_fuse::wire::OPEN_KILL_SUIDGID,
            false => 0,
        },
    };
    let request = Request::new(opcode, node)
        .arg(&arg)
        .fixed::<OpenOut>()
        .undo(Undo::Open { node, directory });
    let body = link.ask(request).await?;
    let (out, _) = link.checked(structure::<OpenOut>(&body))?;
    Ok((opened(link, node, &out), out.open_flags))
}

/// What a reply says is open.
pub(crate) fn opened(link: &Link, node: NodeId, out: &OpenOut) -> Open {
    Open {
        generation: link.generation,
        node,
        handle: out.fh,
    }
}

/// The flags of open(2).
pub(crate) fn raw_flags(flags: OpenFlags) -> u32 {
    use rustix::fs::OFlags;
    let mode = match (
        flags.contains(OpenFlags::READ),
        flags.contains(OpenFlags::WRITE),
    ) {
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    };
    let mut raw = mode;
    for (flag, bit) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::DIRECT, OFlags::DIRECT),
        (OpenFlags::SYNC, OFlags::SYNC),
        (OpenFlags::DSYNC, OFlags::DSYNC),
        (OpenFlags::NOATIME, OFlags::NOATIME),
        (OpenFlags::EXCLUSIVE, OFlags::EXCL),
    ] {
        if flags.contains(flag) {
            raw |= bit;
        }
    }
    raw.bits()
}
