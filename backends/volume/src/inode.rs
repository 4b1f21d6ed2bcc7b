//! An inode in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use vfsd_backend::posix::{
    ACL_ACCESS, ACL_DEFAULT, Acl, CAPABILITY, InodeFlags, LockTable, SET_GROUP_ID, SET_USER_ID,
    mode_permits, without_set_id,
};
use vfsd_backend::{
    AccessMask, Attributes, Device, Errno, FileKind, Identity, Result, SetTime, Timestamp,
};

use crate::content::Content;
use crate::core::Core;
use crate::entries::Entries;
use crate::meta::NodeRow;
use crate::meta::tables::Attribute;

/// The most hard links of a file, as on ext4.
pub(crate) const MAX_LINKS: u32 = 65_000;
pub(crate) const BLOCK_SIZE: u32 = 4096;
const BLOCK_BYTES: u64 = 4096;
/// What an entry adds to the size that its directory seems to have.
const ENTRY_BYTES: u64 = 128;
/// Access times are brought up to date at least this often.
const ACCESS_TIME_AGE_SECONDS: i64 = 24 * 60 * 60;
/// A link target this short fits into an inode of ext4, without a block.
const FAST_SYMLINK_BYTES: u64 = 60;

/// A file: regular, directory, symbolic link or special.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Never given to another inode, so that no generation is needed.
    pub(crate) ino: u64,
    pub(crate) kind: FileKind,
    pub(crate) core: Arc<Core>,
    /// Made when the first lock is asked about.
    locks: OnceLock<Box<LockTable>>,
    pub(crate) state: RwLock<State>,
    /// Of a directory: its entries, when they are in memory.
    pub(crate) entries: RwLock<Option<Entries>>,
    pub(crate) content: Content,
}

/// What is newer in memory than in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pending {
    #[default]
    Nothing,
    /// The access time. Lost when the daemon is killed.
    AccessTime,
    /// Size and times of the content, which the data file has, too. The inode is marked as unsettled.
    Content,
}

/// Extended attributes that are no ACLs: names and values.
pub(crate) type Xattrs = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// What can change of an inode. A copy costs little.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) row: NodeRow,
    pub(crate) xattrs: Arc<Xattrs>,
    pub(crate) acl: Option<Arc<Acl>>,
    pub(crate) default_acl: Option<Arc<Acl>>,
    pub(crate) pending: Pending,
}

impl State {
    pub(crate) fn new(row: NodeRow) -> Self {
        Self {
            row,
            xattrs: Arc::default(),
            acl: None,
            default_acl: None,
            pending: Pending::Nothing,
        }
    }

    /// From what the tables have.
    ///
    /// # Errors
    /// EINVAL for an ACL that is none.
    pub(crate) fn load(row: NodeRow, attributes: Vec<Attribute>) -> Result<Self, Errno> {
        let mut state = Self::new(row);
        let mut plain = BTreeMap::new();
        for (name, value) in attributes {
            match &*name {
                ACL_ACCESS => state.acl = Acl::decode(&value)?.map(Arc::new),
                ACL_DEFAULT => state.default_acl = Acl::decode(&value)?.map(Arc::new),
                _ => {
                    plain.insert(name, value);
                }
            }
        }
        state.xattrs = Arc::new(plain);
        Ok(state)
    }

    pub(crate) fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_truncate(self.row.flags)
    }

    /// Takes note of a change of the content.
    pub(crate) fn content_changed(&mut self) {
        let now = Timestamp::now();
        self.row.modified = now;
        self.row.changed = now;
    }

    /// Takes note of a change of attributes.
    pub(crate) fn attributes_changed(&mut self) {
        self.row.changed = Timestamp::now();
    }

    /// Whether a read should bring the access time up to date: if it is not later than the last
    /// change, or a day old (`relatime`, the default of Linux mounts).
    pub(crate) fn access_time_is_stale(&self, now: Timestamp) -> bool {
        let row = &self.row;
        let age = now.seconds.saturating_sub(row.accessed.seconds);
        !self.flags().contains(InodeFlags::NOATIME)
            && (row.accessed <= row.modified
                || row.accessed <= row.changed
                || age >= ACCESS_TIME_AGE_SECONDS)
    }

    /// Clears what gives a program more rights than its caller has.
    pub(crate) fn clear_set_id(&mut self) {
        self.row.permissions = without_set_id(self.row.permissions);
    }

    /// As [`clear_set_id`](Self::clear_set_id), and set-group-id also where the group may not execute.
    pub(crate) fn clear_all_set_id(&mut self) {
        self.row.permissions &= !(SET_USER_ID | SET_GROUP_ID);
    }

    /// Whether a write by a caller without privileges takes anything away.
    pub(crate) fn has_privileges(&self) -> bool {
        without_set_id(self.row.permissions) != self.row.permissions
            || self.xattrs.contains_key(CAPABILITY)
    }

    /// Whether `caller` may use the file as the mask says, by its ACL or its permission bits.
    pub(crate) fn permits(&self, caller: &Identity, mask: AccessMask) -> bool {
        let row = &self.row;
        match &self.acl {
            Some(acl) => acl.permits(caller, row.uid, row.gid, mask),
            None => mode_permits(row.permissions, caller, row.uid, row.gid, mask),
        }
    }

    fn size_and_blocks(&self) -> (u64, u64) {
        let row = &self.row;
        match row.kind {
            FileKind::Regular => (row.size, row.blocks),
            FileKind::Symlink => {
                let size = u64::try_from(row.target.len()).unwrap_or(u64::MAX);
                let inline = size < FAST_SYMLINK_BYTES;
                (size, if inline { 0 } else { BLOCK_BYTES / 512 })
            }
            FileKind::Directory => {
                let bytes = row.entries.saturating_mul(ENTRY_BYTES).max(1);
                let size = bytes
                    .checked_next_multiple_of(BLOCK_BYTES)
                    .unwrap_or(BLOCK_BYTES);
                (size, size / 512)
            }
            _ => (0, 0),
        }
    }

    pub(crate) fn attributes(&self, ino: u64) -> Attributes {
        let row = &self.row;
        let (size, blocks) = self.size_and_blocks();
        let device = match row.kind {
            FileKind::CharDevice | FileKind::BlockDevice => row.device,
            _ => Device::default(),
        };
        Attributes {
            inode: ino,
            kind: row.kind,
            permissions: row.permissions,
            links: row.links,
            uid: row.uid,
            gid: row.gid,
            device,
            size,
            blocks,
            block_size: BLOCK_SIZE,
            accessed: row.accessed,
            modified: row.modified,
            changed: row.changed,
            born: Some(row.born),
            mount_root: false,
        }
    }
}

impl Inode {
    pub(crate) fn new(ino: u64, state: State, core: Arc<Core>) -> Self {
        Self {
            ino,
            kind: state.row.kind,
            core,
            locks: OnceLock::new(),
            state: RwLock::new(state),
            entries: RwLock::new(None),
            content: Content::default(),
        }
    }

    /// Advisory locks.
    pub(crate) fn locks(&self) -> &LockTable {
        let new = || Box::new(LockTable::new(self.core.locks.clone()));
        self.locks.get_or_init(new)
    }

    /// Advisory locks, if there ever were some.
    pub(crate) fn locks_if_any(&self) -> Option<&LockTable> {
        self.locks.get().map(AsRef::as_ref)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// The attributes, and blocks as the data file has them while it is written to.
    pub(crate) fn attributes(&self) -> Attributes {
        let attributes = {
            let state = self.state.read();
            let attributes = state.attributes(self.ino);
            if state.pending != Pending::Content {
                return attributes;
            }
            attributes
        };
        let blocks = self.blocks_now().unwrap_or(attributes.blocks);
        Attributes {
            blocks,
            ..attributes
        }
    }

    /// Takes note that the content was read.
    pub(crate) fn touch_access_time(self: &Arc<Self>) {
        if self.core.is_frozen() {
            return;
        }
        let now = Timestamp::now();
        if !self.state.read().access_time_is_stale(now) {
            return;
        }
        let mut state = self.state.write();
        state.row.accessed = state.row.accessed.max(now);
        if state.pending == Pending::Nothing && state.row.links > 0 {
            state.pending = Pending::AccessTime;
            drop(state);
            self.core.upkeep.access_time_is_pending(self.clone());
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let loaded = self.entries.get_mut().as_ref().map_or(0, Entries::len);
        let row = &self.state.get_mut().row;
        let gone = (row.links == 0).then_some((row.has_data, row.size));
        self.core
            .forget(self.ino, std::ptr::from_ref(self), loaded, gone);
    }
}

/// A time to be set, as a time.
pub(crate) fn resolve(time: SetTime, now: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}
