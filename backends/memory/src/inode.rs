//! An inode: what a file is, apart from its names.

use std::sync::Arc;

use parking_lot::RwLock;
use vfsd_backend::posix::{
    Acl, CAPABILITY, InodeFlags, LockTable, SET_GROUP_ID, SET_USER_ID, mode_permits, without_set_id,
};
use vfsd_backend::{Attributes, Device, Errno, FileKind, Identity, SetTime, Timestamp, XattrFlags};

use crate::content::{BLOCK_BYTES, BLOCK_SIZE, Content};
use crate::space::Space;
use crate::xattrs::Xattrs;

/// The most hard links of a file, as on ext4.
pub(crate) const MAX_LINKS: u32 = 65_000;
/// Access times are brought up to date at least this often.
const ACCESS_TIME_AGE_SECONDS: i64 = 24 * 60 * 60;
/// A link target this short fits into an inode of ext4, without a block.
const FAST_SYMLINK_BYTES: u64 = 60;

/// A file: regular, directory, symbolic link or special.
pub(crate) struct Inode {
    /// Never given to another inode, so that no generation is needed.
    pub(crate) number: u64,
    pub(crate) kind: FileKind,
    pub(crate) device: Device,
    pub(crate) locks: LockTable,
    pub(crate) space: Arc<Space>,
    pub(crate) state: RwLock<State>,
}

/// What can change of an inode.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    /// May get a name though it has none: a file of `O_TMPFILE`.
    pub(crate) linkable: bool,
    pub(crate) accessed: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) born: Timestamp,
    pub(crate) flags: InodeFlags,
    pub(crate) project: u32,
    pub(crate) xattrs: Xattrs,
    pub(crate) acl: Option<Acl>,
    pub(crate) default_acl: Option<Acl>,
    pub(crate) body: Body,
}

/// What an inode contains.
#[derive(Debug)]
pub(crate) enum Body {
    Regular(Content),
    Symlink(Box<[u8]>),
    /// Entries are in the [`Namespace`](crate::namespace::Namespace); here is how much room they take.
    Directory {
        entry_bytes: u64,
    },
    Special,
}

impl Body {
    fn charged_bytes(&self) -> u64 {
        match self {
            Self::Regular(content) => content.charged_bytes(),
            Self::Symlink(target) => u64::try_from(target.len()).unwrap_or(u64::MAX),
            Self::Directory { .. } | Self::Special => 0,
        }
    }
}

impl State {
    /// The content of a regular file.
    ///
    /// # Errors
    /// EISDIR for a directory, EINVAL for all else that has none.
    pub(crate) fn content(&self) -> Result<&Content, Errno> {
        match &self.body {
            Body::Regular(content) => Ok(content),
            Body::Directory { .. } => Err(Errno::ISDIR),
            Body::Symlink(_) | Body::Special => Err(Errno::INVAL),
        }
    }

    /// As [`content`](Self::content), to change it.
    pub(crate) fn content_mut(&mut self) -> Result<&mut Content, Errno> {
        match &mut self.body {
            Body::Regular(content) => Ok(content),
            Body::Directory { .. } => Err(Errno::ISDIR),
            Body::Symlink(_) | Body::Special => Err(Errno::INVAL),
        }
    }

    /// Takes note of a change of the content.
    pub(crate) fn content_changed(&mut self) {
        let now = Timestamp::now();
        self.modified = now;
        self.changed = now;
    }

    /// Takes note of a change of attributes.
    pub(crate) fn attributes_changed(&mut self) {
        self.changed = Timestamp::now();
    }

    /// Whether a read should bring the access time up to date: if it is not later than the last
    /// change, or a day old (`relatime`, the default of Linux mounts).
    fn access_time_is_stale(&self, now: Timestamp) -> bool {
        let age = now.seconds.saturating_sub(self.accessed.seconds);
        !self.flags.contains(InodeFlags::NOATIME)
            && (self.accessed <= self.modified
                || self.accessed <= self.changed
                || age >= ACCESS_TIME_AGE_SECONDS)
    }

    /// Clears what gives a program more rights than its caller has: set-user-id, and set-group-id
    /// where the group may execute.
    pub(crate) fn clear_set_id(&mut self) {
        self.permissions = without_set_id(self.permissions);
    }

    /// As [`clear_set_id`](Self::clear_set_id), and set-group-id also where the group may not execute.
    pub(crate) fn clear_all_set_id(&mut self) {
        self.permissions &= !(SET_USER_ID | SET_GROUP_ID);
    }

    /// Drops file capabilities, which were granted to other content or another owner. Unlike set-id
    /// bits, they go whoever makes the change.
    pub(crate) fn drop_capability(&mut self, space: &Space) {
        self.xattrs.remove(CAPABILITY, space);
    }

    /// Replaces the permission bits, and those of the access ACL.
    pub(crate) fn set_permissions(&mut self, permissions: u32) {
        self.permissions = permissions & 0o7777;
        if let Some(acl) = &mut self.acl {
            acl.apply_mode(self.permissions);
        }
    }

    /// Replaces the access ACL, and the permission bits by what it says. A list that says no more
    /// than the bits is not kept.
    pub(crate) fn set_access_acl(
        &mut self,
        acl: Option<Acl>,
        flags: XattrFlags,
        space: &Space,
    ) -> Result<(), Errno> {
        let mut permissions = self.permissions;
        if let Some(acl) = &acl {
            permissions = acl.apply_to_mode(permissions);
            if flags.contains(XattrFlags::KILL_SGID) {
                permissions &= !SET_GROUP_ID;
            }
        }
        let kept = acl.filter(|acl| !acl.is_minimal());
        space.recharge(acl_bytes(&self.acl), acl_bytes(&kept))?;
        self.acl = kept;
        self.permissions = permissions;
        Ok(())
    }

    /// Replaces the default ACL.
    pub(crate) fn set_default_acl(&mut self, acl: Option<Acl>, space: &Space) -> Result<(), Errno> {
        space.recharge(acl_bytes(&self.default_acl), acl_bytes(&acl))?;
        self.default_acl = acl;
        Ok(())
    }

    fn charged_bytes(&self) -> u64 {
        [
            self.xattrs.charged_bytes(),
            acl_bytes(&self.acl),
            acl_bytes(&self.default_acl),
            self.body.charged_bytes(),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

fn acl_bytes(acl: &Option<Acl>) -> u64 {
    acl.as_ref().map_or(0, Acl::encoded_bytes)
}

/// A time to be set, as a time.
pub(crate) fn resolve(time: SetTime, now: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}

/// What an inode begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) number: u64,
    pub(crate) kind: FileKind,
    pub(crate) device: Device,
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) flags: InodeFlags,
    pub(crate) project: u32,
    pub(crate) body: Body,
}

impl Inode {
    /// Makes an inode.
    ///
    /// # Errors
    /// ENOSPC when there are too many, or no room for what it contains.
    pub(crate) fn new(begin: Beginning, space: &Arc<Space>) -> Result<Self, Errno> {
        space.charge_inode()?;
        if let Err(errno) = space.charge(begin.body.charged_bytes()) {
            space.refund_inode();
            return Err(errno);
        }
        let now = Timestamp::now();
        Ok(Self {
            number: begin.number,
            kind: begin.kind,
            device: begin.device,
            locks: LockTable::new(Arc::clone(&space.locks)),
            space: space.clone(),
            state: RwLock::new(State {
                permissions: begin.permissions,
                uid: begin.uid,
                gid: begin.gid,
                links: begin.links,
                linkable: false,
                accessed: now,
                modified: now,
                changed: now,
                born: now,
                flags: begin.flags,
                project: begin.project,
                xattrs: Xattrs::default(),
                acl: None,
                default_acl: None,
                body: begin.body,
            }),
        })
    }

    pub(crate) fn attributes(&self) -> Attributes {
        self.attributes_of(&self.state.read())
    }

    /// The attributes, for who holds the state locked.
    pub(crate) fn attributes_of(&self, state: &State) -> Attributes {
        let (size, allocated) = match &state.body {
            Body::Regular(content) => (content.size(), content.charged_bytes()),
            Body::Symlink(target) => {
                let size = u64::try_from(target.len()).unwrap_or(u64::MAX);
                let inline = size < FAST_SYMLINK_BYTES;
                (size, if inline { 0 } else { BLOCK_BYTES })
            }
            Body::Directory { entry_bytes } => {
                let size = entry_bytes
                    .max(&1)
                    .checked_next_multiple_of(BLOCK_BYTES)
                    .unwrap_or(BLOCK_BYTES);
                (size, size)
            }
            Body::Special => (0, 0),
        };
        Attributes {
            inode: self.number,
            kind: self.kind,
            permissions: state.permissions,
            links: state.links,
            uid: state.uid,
            gid: state.gid,
            device: self.device,
            size,
            blocks: allocated / 512,
            block_size: BLOCK_SIZE,
            accessed: state.accessed,
            modified: state.modified,
            changed: state.changed,
            born: Some(state.born),
            mount_root: false,
        }
    }

    /// Takes note that the content was read.
    pub(crate) fn touch_access_time(&self) {
        let now = Timestamp::now();
        if self.state.read().access_time_is_stale(now) {
            let mut state = self.state.write();
            state.accessed = state.accessed.max(now);
        }
    }

    /// Takes note, in a directory, that entries were made or removed. `subdirectories` is by how many
    /// there are more or fewer.
    pub(crate) fn entries_changed(&self, entry_bytes: u64, subdirectories: i32) {
        let mut state = self.state.write();
        state.links = state.links.saturating_add_signed(subdirectories);
        state.body = Body::Directory { entry_bytes };
        state.content_changed();
    }

    /// Takes note that the inode has one name more or less.
    pub(crate) fn change_links(&self, by: i32) {
        let mut state = self.state.write();
        state.links = state.links.saturating_add_signed(by);
        state.linkable = false;
        state.attributes_changed();
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.space.refund(self.state.get_mut().charged_bytes());
        self.space.refund_inode();
    }
}

impl State {
    /// Whether `caller` may use the file as the mask says, by its ACL or its permission bits.
    pub(crate) fn permits(&self, caller: &Identity, mask: vfsd_backend::AccessMask) -> bool {
        match &self.acl {
            Some(acl) => acl.permits(caller, self.uid, self.gid, mask),
            None => mode_permits(self.permissions, caller, self.uid, self.gid, mask),
        }
    }
}
