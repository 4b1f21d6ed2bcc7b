//! What replies say, checked: all of it comes from a process that may be hostile.

use vfsd_backend::{
    Attributes, Device, FileKind, FsStatistics, HeldLock, LockKind, LockRange, Timestamp, Ttl,
};
use vfsd_fuse::ROOT_ID;
use vfsd_fuse::wire::{
    ATTR_SUBMOUNT, Attr, AttrOut, EntryOut, FileLock, MknodIn, NodeId, StatfsOut, StatxOut, SxTime,
};
use vfsd_plugin_protocol::ttl_from_wire;
use zerocopy::{FromBytes, FromZeros};

/// What a plugin did that the protocol forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Breach(pub(crate) &'static str);

pub(crate) type Checked<T> = Result<T, Breach>;

/// A file that a plugin has told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The plugin's number for it.
    pub(crate) number: NodeId,
    pub(crate) attributes: Attributes,
    pub(crate) entry_ttl: Ttl,
    pub(crate) attribute_ttl: Ttl,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named {
    Found(Found),
    Missing(Ttl),
}

/// The structure that a body begins with, and what follows. Its length was checked when it came.
pub(crate) fn structure<T: FromBytes>(body: &[u8]) -> Checked<(T, &[u8])> {
    T::read_from_prefix(body).map_err(|_| Breach("a reply is too long or too short"))
}

/// A name, or the knowledge that it does not exist.
pub(crate) fn named(body: &[u8]) -> Checked<Named> {
    let (entry, _) = structure::<EntryOut>(body)?;
    entry_or_none(&entry)
}

/// As [`named`], from the structure.
pub(crate) fn entry_or_none(entry: &EntryOut) -> Checked<Named> {
    if entry.nodeid == NodeId::NONE {
        return ttl(entry.entry_valid, entry.entry_valid_nsec).map(Named::Missing);
    }
    found(entry).map(Named::Found)
}

/// A file that is there.
pub(crate) fn found(entry: &EntryOut) -> Checked<Found> {
    if entry.nodeid <= ROOT_ID {
        return Err(Breach("a file has the number of the root, or none"));
    }
    Ok(Found {
        number: entry.nodeid,
        attributes: attributes(&entry.attr)?,
        entry_ttl: ttl(entry.entry_valid, entry.entry_valid_nsec)?,
        attribute_ttl: ttl(entry.attr_valid, entry.attr_valid_nsec)?,
    })
}

fn ttl(seconds: u64, nanoseconds: u32) -> Checked<Ttl> {
    ttl_from_wire(seconds, nanoseconds).ok_or(Breach("a lifetime has a second of nanoseconds"))
}

fn time(seconds: i64, nanoseconds: u32) -> Checked<Timestamp> {
    Timestamp::new(seconds, nanoseconds).map_err(|_| Breach("a time has a second of nanoseconds"))
}

fn size(size: u64) -> Checked<u64> {
    i64::try_from(size)
        .map(|_| size)
        .map_err(|_| Breach("a size is larger than any file"))
}

fn kind(mode: u32) -> Checked<FileKind> {
    FileKind::from_mode(mode).ok_or(Breach("a file has a type that there is not"))
}

/// The attributes of `fuse_attr`.
pub(crate) fn attributes(attr: &Attr) -> Checked<Attributes> {
    Ok(Attributes {
        inode: attr.ino,
        kind: kind(attr.mode)?,
        permissions: attr.mode & 0o7777,
        links: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        device: device(attr.rdev),
        size: size(attr.size)?,
        blocks: attr.blocks,
        block_size: attr.blksize,
        accessed: time(attr.atime.cast_signed(), attr.atimensec)?,
        modified: time(attr.mtime.cast_signed(), attr.mtimensec)?,
        changed: time(attr.ctime.cast_signed(), attr.ctimensec)?,
        born: None,
        mount_root: attr.flags & ATTR_SUBMOUNT != 0,
    })
}

fn device(number: u32) -> Device {
    MknodIn {
        rdev: number,
        ..MknodIn::new_zeroed()
    }
    .device()
}

/// The reply to GETATTR and SETATTR.
pub(crate) fn getattr(body: &[u8]) -> Checked<Attributes> {
    let (out, _) = structure::<AttrOut>(body)?;
    attributes(&out.attr)
}

/// The reply to STATX.
pub(crate) fn statx(body: &[u8]) -> Checked<Attributes> {
    /// `STATX_BTIME` of linux/stat.h.
    const STATX_BTIME: u32 = 0x800;
    let (out, _) = structure::<StatxOut>(body)?;
    let stat = out.stat;
    let at = |point: SxTime| time(point.tv_sec, point.tv_nsec);
    let mode = u32::from(stat.mode);
    Ok(Attributes {
        inode: stat.ino,
        kind: kind(mode)?,
        permissions: mode & 0o7777,
        links: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        device: Device {
            major: stat.rdev_major,
            minor: stat.rdev_minor,
        },
        size: size(stat.size)?,
        blocks: stat.blocks,
        block_size: stat.blksize,
        accessed: at(stat.atime)?,
        modified: at(stat.mtime)?,
        changed: at(stat.ctime)?,
        born: match stat.mask & STATX_BTIME {
            0 => None,
            _ => Some(at(stat.btime)?),
        },
        mount_root: false,
    })
}

/// The reply to STATFS.
pub(crate) fn statfs(body: &[u8]) -> Checked<FsStatistics> {
    let (out, _) = structure::<StatfsOut>(body)?;
    Ok(FsStatistics {
        blocks: out.blocks,
        blocks_free: out.bfree,
        blocks_available: out.bavail,
        files: out.files,
        files_free: out.ffree,
        block_size: out.bsize,
        fragment_size: out.frsize,
        name_max: out.namelen,
    })
}

/// The reply to READLINK.
pub(crate) fn target(body: Vec<u8>) -> Checked<Vec<u8>> {
    match vfsd_backend::LinkTarget::new(&body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Breach("a link's target is empty, or has a NUL")),
    }
}

/// The reply to LISTXATTR.
pub(crate) fn xattr_names(body: Vec<u8>) -> Checked<Vec<u8>> {
    let bad = Breach("a list of attributes is none");
    if body.last().is_some_and(|last| *last != 0) {
        return Err(bad);
    }
    let mut names = body.split_inclusive(|byte| *byte == 0);
    let fine = names.all(|name| (2..=256).contains(&name.len()));
    if fine { Ok(body) } else { Err(bad) }
}

/// The reply to GETLK.
pub(crate) fn lock(body: &[u8]) -> Checked<Option<HeldLock>> {
    let (lock, _) = structure::<FileLock>(body)?;
    let kind = match lock.r#type {
        0 => LockKind::Read,
        1 => LockKind::Write,
        2 => return Ok(None),
        _ => return Err(Breach("a lock is of a kind that there is not")),
    };
    let end = lock.end.min(i64::MAX.unsigned_abs());
    if lock.start > end {
        return Err(Breach("a lock ends before it starts"));
    }
    Ok(Some(HeldLock {
        kind,
        range: LockRange {
            start: lock.start,
            end,
        },
        pid: lock.pid,
    }))
}

/// A number of bytes that cannot be more than were asked for.
pub(crate) fn count(done: u64, asked: u64) -> Checked<u64> {
    if done > asked {
        return Err(Breach("more was done than was asked for"));
    }
    Ok(done)
}
