//! Files that a plugin makes.

use std::sync::Arc;

use vfsd_backend::{
    Attributes, Caller, Created, Entry, Errno, FileKind, LinkTarget, Name, NewDevice, NewInode,
    OpenFlags, Opened, Result,
};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{Attr, CreateIn, EntryOut, MkdirIn, MknodIn, NodeId, OpenOut};

use crate::attributes::ask_attributes;
use crate::file::PluginFile;
use crate::handle::{Handle, open, opened, raw_flags};
use crate::link::Link;
use crate::node::{PluginNode, caching};
use crate::records::{adopt, look_up};
use crate::reply::{Breach, Checked, Found, Named, found, structure};
use crate::request::{Expected, Request, Undo};

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum New<'a> {
    Directory(NewInode<'a>),
    Device(NewDevice<'a>),
    Symlink(LinkTarget<'a>, NewInode<'a>),
}

/// The file that was made: of the type that it has to have.
pub(crate) fn made(body: &[u8], kind: FileKind) -> Checked<Found> {
    let (entry, _) = structure::<EntryOut>(body)?;
    let found = found(&entry)?;
    if found.attributes.kind != kind {
        return Err(Breach("another type of file is made than was asked for"));
    }
    Ok(found)
}

/// MKDIR, MKNOD and SYMLINK.
pub(crate) async fn make(
    parent: &PluginNode,
    caller: Caller,
    name: Name<'_>,
    new: New<'_>,
) -> Result<Entry> {
    let (link, node) = parent.at().await?;
    let (request, kind, inode) = match new {
        New::Directory(inode) => {
            let arg = MkdirIn {
                mode: inode.permissions,
                umask: inode.umask,
            };
            let request = Request::new(Opcode::Mkdir, node).arg(&arg).name(name);
            (request, FileKind::Directory, inode)
        }
        New::Device(device) => {
            let like = Attributes {
                device: device.device,
                ..Attributes::new(0, device.kind, device.inode.permissions)
            };
            let arg = MknodIn {
                mode: like.mode(),
                rdev: Attr::from(&like).rdev,
                umask: device.inode.umask,
                padding: 0,
            };
            let request = Request::new(Opcode::Mknod, node).arg(&arg).name(name);
            (request, device.kind, device.inode)
        }
        New::Symlink(target, inode) => {
            let request = Request::new(Opcode::Symlink, node)
                .name(name)
                .target(target);
            (request, FileKind::Symlink, inode)
        }
    };
    let request = request
        .by(caller)
        .extensions(link.agreed.flags, caller, &inode)
        .fixed::<EntryOut>()
        .undo(Undo::Entry);
    let body = link.ask(request).await?;
    let found = link.checked(made(&body, kind))?;
    let record = link.checked(adopt(&parent.0, Some(name), &link, &found))?;
    Ok(PluginNode::entry(record, &found))
}

/// CREATE, or TMPFILE without a name.
pub(crate) async fn create(
    parent: &PluginNode,
    caller: Caller,
    name: Option<Name<'_>>,
    flags: OpenFlags,
    inode: NewInode<'_>,
) -> Result<Created> {
    let (link, node) = parent.at().await?;
    let arg = CreateIn {
        flags: raw_flags(flags),
        mode: FileKind::Regular.mode_bits() | inode.permissions,
        umask: inode.umask,
        open_flags: 0,
    };
    let request = match name {
        Some(name) => Request::new(Opcode::Create, node).arg(&arg).name(name),
        None => Request::new(Opcode::Tmpfile, node).arg(&arg).no_name(),
    };
    let length = size_of::<EntryOut>().saturating_add(size_of::<OpenOut>());
    let request = request
        .by(caller)
        .extensions(link.agreed.flags, caller, &inode)
        .expects(Expected::Exactly(length))
        .undo(Undo::Created);
    let body = match (link.ask(request).await, name) {
        // Told so, a kernel looks the name up and opens what has it now.
        (Err(error), Some(name))
            if error.is(Errno::STALE) && !flags.contains(OpenFlags::EXCLUSIVE) =>
        {
            return open_existing(parent, &link, node, name, flags).await;
        }
        (body, _) => body?,
    };
    let found = link.checked(made(&body, FileKind::Regular))?;
    let (_, rest) = link.checked(structure::<EntryOut>(&body))?;
    let (out, _) = link.checked(structure::<OpenOut>(rest))?;
    let record = link.checked(adopt(&parent.0, name, &link, &found))?;
    let open = opened(&link, found.number, &out);
    let handle = Handle::new(Arc::clone(&record), false, flags, open);
    Ok(Created {
        entry: PluginNode::entry(record, &found),
        opened: Opened {
            file: Arc::new(PluginFile(handle)),
            caching: caching(out.open_flags),
        },
    })
}

/// Opens the file that has the name already.
async fn open_existing(
    parent: &PluginNode,
    link: &Arc<Link>,
    node: NodeId,
    name: Name<'_>,
    flags: OpenFlags,
) -> Result<Created> {
    let Named::Found(mut found) = look_up(link, node, name).await? else {
        return Err(Errno::STALE.into());
    };
    let record = link.checked(adopt(&parent.0, Some(name), link, &found))?;
    match record.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::ISDIR.into()),
        FileKind::Symlink => return Err(Errno::LOOP.into()),
        _ => return Err(Errno::BADF.into()),
    }
    let truncates = flags.contains(OpenFlags::TRUNCATE);
    let existing = flags.difference(OpenFlags::EXCLUSIVE);
    let (open, open_flags) = open(link, found.number, false, existing, truncates).await?;
    let handle = Handle::new(Arc::clone(&record), false, flags, open);
    if truncates {
        found.attributes = ask_attributes(&record, link, found.number, None).await?;
    }
    Ok(Created {
        entry: PluginNode::entry(record, &found),
        opened: Opened {
            file: Arc::new(PluginFile(handle)),
            caching: caching(open_flags),
        },
    })
}
