//! The row of an inode: what is kept of a file besides names, extended attributes and data.

use std::sync::Arc;

use vfsd_backend::{Device, FileKind, Timestamp};

use super::codec::{BadRecord, Decoder, Encoder};

/// The row of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) kind: FileKind,
    /// Permission, set-id and sticky bits.
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    /// May get a name though it has none: a file of `O_TMPFILE`.
    pub(crate) linkable: bool,
    /// There is a data file. Without one the size is 0.
    pub(crate) has_data: bool,
    /// Bytes of content, for a regular file.
    pub(crate) size: u64,
    /// Allocated blocks of 512 bytes, for a regular file.
    pub(crate) blocks: u64,
    pub(crate) device: Device,
    pub(crate) accessed: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) born: Timestamp,
    /// `FS_*_FL` bits.
    pub(crate) flags: u32,
    pub(crate) project: u32,
    /// How many extended attributes there are, ACLs included.
    pub(crate) xattrs: u32,
    /// Of a directory: the directory above. The root is its own.
    pub(crate) parent: u64,
    /// Of a directory: how many entries it has.
    pub(crate) entries: u64,
    /// Of a directory: the cookie of the next new entry. None is used twice.
    pub(crate) next_cookie: u64,
    /// Of a symbolic link: what it points at. Empty otherwise.
    pub(crate) target: Arc<[u8]>,
}

impl NodeRow {
    /// An inode with one name and nothing in it.
    pub(crate) fn new(kind: FileKind, permissions: u32, now: Timestamp) -> Self {
        Self {
            kind,
            permissions,
            uid: 0,
            gid: 0,
            links: if kind == FileKind::Directory { 2 } else { 1 },
            linkable: false,
            has_data: false,
            size: 0,
            blocks: 0,
            device: Device::default(),
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            flags: 0,
            project: 0,
            xattrs: 0,
            parent: 0,
            entries: 0,
            next_cookie: super::FIRST_COOKIE,
            target: Arc::default(),
        }
    }

    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.u32(self.kind.mode_bits() | self.permissions);
        to.u32(self.uid);
        to.u32(self.gid);
        to.u32(self.links);
        to.u8(u8::from(self.linkable) | (u8::from(self.has_data) << 1));
        to.u64(self.size);
        to.u64(self.blocks);
        to.u32(self.device.major);
        to.u32(self.device.minor);
        for time in [self.accessed, self.modified, self.changed, self.born] {
            to.time(time);
        }
        to.u32(self.flags);
        to.u32(self.project);
        to.u32(self.xattrs);
        to.u64(self.parent);
        to.u64(self.entries);
        to.u64(self.next_cookie);
        to.bytes(&self.target);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, BadRecord> {
        let mode = from.u32()?;
        let (uid, gid, links) = (from.u32()?, from.u32()?, from.u32()?);
        let bits = from.u8()?;
        if bits > 3 {
            return Err(BadRecord);
        }
        Ok(Self {
            kind: FileKind::from_mode(mode).ok_or(BadRecord)?,
            permissions: mode & 0o7777,
            uid,
            gid,
            links,
            linkable: bits & 1 != 0,
            has_data: bits & 2 != 0,
            size: from.u64()?,
            blocks: from.u64()?,
            device: Device {
                major: from.u32()?,
                minor: from.u32()?,
            },
            accessed: from.time()?,
            modified: from.time()?,
            changed: from.time()?,
            born: from.time()?,
            flags: from.u32()?,
            project: from.u32()?,
            xattrs: from.u32()?,
            parent: from.u64()?,
            entries: from.u64()?,
            next_cookie: from.u64()?,
            target: from.bytes()?.into(),
        })
    }
}

/// The row of a directory's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRow {
    pub(crate) ino: u64,
    pub(crate) kind: FileKind,
    /// Its place in listings.
    pub(crate) cookie: u64,
}
