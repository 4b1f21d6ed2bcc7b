//! A backend as tests use it: calls that wait for their answers, with errors as errno.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, BufferSink, Caller, CopyRange, Device,
    DirEntry, DirSink, Directory, Errno, Error, FallocateMode, FallocateRequest, File, FileKind,
    HeldLock, Identity, LinkTarget, LockKind, LockOwner, LockRange, LockRequest, LockStyle, Lookup,
    Name, NewDevice, NewInode, Node, NodeIdentity, OpenFlags, OpenRequest, ReadRequest, Rename,
    RenameFlags, SeekFrom, SliceSource, WriteRequest, XattrFlags, XattrName,
};

use crate::block_on;

/// The result of a call: what the guest would see.
pub type Outcome<T> = Result<T, Errno>;

/// Waits for an answer and tells errors apart as a guest can: EOPNOTSUPP for what is not
/// implemented, EIO for a failure of the storage.
pub fn wait<T>(answer: Answer<'_, T>) -> Outcome<T> {
    block_on(answer).map_err(|error| match error {
        Error::Errno(errno) => errno,
        Error::NotSupported => Errno::OPNOTSUPP,
        Error::Storage(_) => Errno::IO,
    })
}

/// The superuser of a guest.
pub fn superuser() -> Caller {
    caller(0, 0)
}

/// A process of a guest with one group.
pub fn caller(uid: u32, gid: u32) -> Caller {
    Caller {
        identity: Some(Identity {
            uid,
            gid,
            supplementary: None,
        }),
        pid: 1,
    }
}

/// A new inode with permissions, an empty umask and no label.
pub fn with_permissions(permissions: u32) -> NewInode<'static> {
    NewInode {
        permissions,
        umask: 0,
        security: None,
    }
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// The inode number.
    pub inode: u64,
    /// The type, if the listing tells it.
    pub kind: Option<FileKind>,
    /// Where to go on after it.
    pub next: u64,
}

/// A [`DirSink`] that has room for so many entries.
#[derive(Debug)]
pub struct ListSink {
    /// What was taken.
    pub entries: Vec<Listed>,
    room: usize,
}

impl ListSink {
    /// An empty sink with room for `room` entries.
    pub fn new(room: usize) -> Self {
        Self {
            entries: Vec::new(),
            room,
        }
    }
}

impl DirSink for ListSink {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        if self.entries.len() >= self.room {
            return ControlFlow::Break(());
        }
        self.entries.push(Listed {
            name: entry.name.to_vec(),
            inode: entry.inode,
            kind: entry.kind,
            next: entry.next,
        });
        ControlFlow::Continue(())
    }
}

/// A file of any type, known by its node.
#[derive(Clone)]
pub struct Place(pub Arc<dyn Node>);

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.0.identity()).finish()
    }
}

/// Attributes, type and identity.
impl Place {
    /// What tells it apart.
    pub fn identity(&self) -> NodeIdentity {
        self.0.identity()
    }

    /// The attributes now.
    pub fn attributes(&self) -> Outcome<Attributes> {
        wait(self.0.getattr())
    }

    /// Changes attributes.
    pub fn set(&self, changes: AttributeChanges) -> Outcome<Attributes> {
        wait(self.0.setattr(changes))
    }

    /// chmod(2).
    pub fn chmod(&self, permissions: u32) -> Outcome<Attributes> {
        self.set(AttributeChanges {
            permissions: Some(permissions),
            ..AttributeChanges::default()
        })
    }

    /// chown(2).
    pub fn chown(&self, uid: u32, gid: u32) -> Outcome<Attributes> {
        self.set(AttributeChanges {
            uid: Some(uid),
            gid: Some(gid),
            ..AttributeChanges::default()
        })
    }

    /// truncate(2).
    pub fn truncate(&self, size: u64) -> Outcome<Attributes> {
        self.set(AttributeChanges {
            size: Some(size),
            ..AttributeChanges::default()
        })
    }

    /// access(2).
    pub fn access(&self, caller: Caller, mask: AccessMask) -> Outcome<()> {
        wait(self.0.access(caller, mask))
    }

    /// readlink(2).
    pub fn readlink(&self) -> Outcome<Vec<u8>> {
        wait(self.0.readlink())
    }
}

/// Names in a directory.
impl Place {
    /// What a name stands for. ENOENT when the name is missing.
    pub fn lookup(&self, name: &str) -> Outcome<Self> {
        match wait(self.0.lookup(Name::new(name.as_bytes())?))? {
            Lookup::Found(entry) => Ok(Self(entry.node)),
            Lookup::Missing { .. } => Err(Errno::NOENT),
        }
    }

    /// Whether a name is there.
    pub fn has(&self, name: &str) -> bool {
        self.lookup(name).is_ok()
    }

    /// Makes a directory with permissions 0755.
    pub fn mkdir(&self, name: &str) -> Outcome<Self> {
        self.mkdir_as(superuser(), name, with_permissions(0o755))
    }

    /// mkdir(2).
    pub fn mkdir_as(&self, caller: Caller, name: &str, inode: NewInode<'_>) -> Outcome<Self> {
        let name = Name::new(name.as_bytes())?;
        wait(self.0.mkdir(caller, name, inode)).map(|entry| Self(entry.node))
    }

    /// Makes an empty regular file with permissions 0644 and opens it for reading and writing. The
    /// name must not exist.
    pub fn create(&self, name: &str) -> Outcome<(Self, Handle)> {
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::EXCLUSIVE;
        self.create_as(superuser(), name, flags, with_permissions(0o644))
    }

    /// open(2) with `O_CREAT`.
    pub fn create_as(
        &self,
        caller: Caller,
        name: &str,
        flags: OpenFlags,
        inode: NewInode<'_>,
    ) -> Outcome<(Self, Handle)> {
        let name = Name::new(name.as_bytes())?;
        let created = wait(self.0.create(caller, name, flags, inode))?;
        Ok((Self(created.entry.node), Handle(created.opened.file)))
    }

    /// Makes a regular file with this content.
    pub fn put(&self, name: &str, content: &[u8]) -> Outcome<Self> {
        let (place, handle) = self.create(name)?;
        handle.write_all(0, content)?;
        Ok(place)
    }

    /// Makes a file without a name and opens it for reading and writing.
    pub fn tmpfile(&self, flags: OpenFlags) -> Outcome<(Self, Handle)> {
        let flags = flags | OpenFlags::READ | OpenFlags::WRITE;
        let created = wait(self.0.tmpfile(superuser(), flags, with_permissions(0o644)))?;
        Ok((Self(created.entry.node), Handle(created.opened.file)))
    }

    /// Makes a FIFO, socket, device or empty regular file with permissions 0644.
    pub fn mknod(&self, name: &str, kind: FileKind, device: Device) -> Outcome<Self> {
        let new = NewDevice {
            kind,
            device,
            inode: with_permissions(0o644),
        };
        let name = Name::new(name.as_bytes())?;
        wait(self.0.mknod(superuser(), name, new)).map(|entry| Self(entry.node))
    }

    /// symlink(2).
    pub fn symlink(&self, name: &str, target: &str) -> Outcome<Self> {
        let target = LinkTarget::new(target.as_bytes())?;
        let name = Name::new(name.as_bytes())?;
        wait(
            self.0
                .symlink(superuser(), name, target, with_permissions(0o777)),
        )
        .map(|entry| Self(entry.node))
    }

    /// link(2).
    pub fn link(&self, target: &Self, name: &str) -> Outcome<Self> {
        let name = Name::new(name.as_bytes())?;
        wait(self.0.link(target.0.as_ref(), name)).map(|entry| Self(entry.node))
    }

    /// unlink(2).
    pub fn unlink(&self, name: &str) -> Outcome<()> {
        wait(self.0.unlink(Name::new(name.as_bytes())?))
    }

    /// rmdir(2).
    pub fn rmdir(&self, name: &str) -> Outcome<()> {
        wait(self.0.rmdir(Name::new(name.as_bytes())?))
    }

    /// rename(2).
    pub fn rename(&self, name: &str, new_parent: &Self, new_name: &str) -> Outcome<()> {
        self.rename_with(name, new_parent, new_name, RenameFlags::empty())
    }

    /// renameat2(2).
    pub fn rename_with(
        &self,
        name: &str,
        new_parent: &Self,
        new_name: &str,
        flags: RenameFlags,
    ) -> Outcome<()> {
        let rename = Rename {
            name: Name::new(name.as_bytes())?,
            new_parent: new_parent.0.as_ref(),
            new_name: Name::new(new_name.as_bytes())?,
            flags,
        };
        wait(self.0.rename(superuser(), rename))
    }

    /// opendir(3).
    pub fn opendir(&self) -> Outcome<Arc<dyn Directory>> {
        wait(self.0.opendir())
    }

    /// All entries, `.` and `..` included, read a few at a time.
    pub fn list(&self) -> Outcome<Vec<Listed>> {
        let directory = self.opendir()?;
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let cookie = all.last().map_or(0, |entry| entry.next);
            let batch = read_some(directory.as_ref(), cookie, 7)?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch);
        }
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn names(&self) -> Outcome<Vec<String>> {
        let mut names: Vec<String> = self
            .list()?
            .into_iter()
            .filter(|entry| !matches!(entry.name.as_slice(), b"." | b".."))
            .map(|entry| entry.name.escape_ascii().to_string())
            .collect();
        names.sort();
        Ok(names)
    }
}

/// Up to `room` entries after `cookie`.
pub fn read_some(directory: &dyn Directory, cookie: u64, room: usize) -> Outcome<Vec<Listed>> {
    let mut sink = ListSink::new(room);
    wait(directory.read(cookie, &mut sink))?;
    Ok(sink.entries)
}

/// Content and extended attributes.
impl Place {
    /// open(2).
    pub fn open(&self, flags: OpenFlags) -> Outcome<Handle> {
        let request = OpenRequest {
            flags,
            kill_privileges: false,
        };
        wait(self.0.open(request)).map(|opened| Handle(opened.file))
    }

    /// Opens for reading and writing.
    pub fn open_both(&self) -> Outcome<Handle> {
        self.open(OpenFlags::READ | OpenFlags::WRITE)
    }

    /// The whole content.
    pub fn content(&self) -> Outcome<Vec<u8>> {
        self.open(OpenFlags::READ)?.content()
    }

    /// getxattr(2).
    pub fn getxattr(&self, name: &str) -> Outcome<Vec<u8>> {
        wait(self.0.getxattr(XattrName::new(name.as_bytes())?))
    }

    /// setxattr(2).
    pub fn setxattr(&self, name: &str, value: &[u8]) -> Outcome<()> {
        self.setxattr_with(name, value, XattrFlags::empty())
    }

    /// setxattr(2) with flags.
    pub fn setxattr_with(&self, name: &str, value: &[u8], flags: XattrFlags) -> Outcome<()> {
        let name = XattrName::new(name.as_bytes())?;
        wait(self.0.setxattr(name, value, flags))
    }

    /// removexattr(2).
    pub fn removexattr(&self, name: &str) -> Outcome<()> {
        wait(self.0.removexattr(XattrName::new(name.as_bytes())?))
    }

    /// The names of all extended attributes, sorted.
    pub fn xattr_names(&self) -> Outcome<Vec<String>> {
        let list = wait(self.0.listxattr())?;
        let mut names: Vec<String> = list
            .split_inclusive(|&byte| byte == 0)
            .map(|name| name.strip_suffix(b"\0").unwrap_or(name))
            .map(|name| name.escape_ascii().to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// All extended attributes whose name begins with `prefix`.
    pub fn xattrs(&self, prefix: &str) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let mut values = BTreeMap::new();
        for name in self.xattr_names()? {
            if name.starts_with(prefix) {
                let value = self.getxattr(&name)?;
                values.insert(name, value);
            }
        }
        Ok(values)
    }
}

/// An open file.
#[derive(Clone)]
pub struct Handle(pub Arc<dyn File>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// pread(2).
    pub fn read(&self, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let mut buffer = vec![0; length];
        let mut sink = BufferSink::new(&mut buffer);
        let read = wait(self.0.read(ReadRequest { offset, length }, &mut sink))?;
        if read != sink.filled() {
            return Err(Errno::PROTO);
        }
        buffer.truncate(read);
        Ok(buffer)
    }

    /// pwrite(2).
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Outcome<usize> {
        self.write_with(offset, bytes, false)
    }

    /// pwrite(2) by someone who is privileged or not.
    pub fn write_with(&self, offset: u64, bytes: &[u8], kill_privileges: bool) -> Outcome<usize> {
        let request = WriteRequest {
            offset,
            kill_privileges,
            cached: false,
        };
        wait(self.0.write(request, &mut SliceSource::new(bytes)))
    }

    /// pwrite(2) that must take all.
    pub fn write_all(&self, offset: u64, bytes: &[u8]) -> Outcome<()> {
        match self.write(offset, bytes)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }

    /// The whole content, read until the end.
    pub fn content(&self) -> Outcome<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let offset = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let part = self.read(offset, 1 << 20)?;
            if part.is_empty() {
                return Ok(content);
            }
            content.extend(part);
        }
    }

    /// fstat(2).
    pub fn attributes(&self) -> Outcome<Attributes> {
        wait(self.0.getattr())
    }

    /// ftruncate(2).
    pub fn truncate(&self, size: u64) -> Outcome<Attributes> {
        wait(self.0.setattr(AttributeChanges {
            size: Some(size),
            ..AttributeChanges::default()
        }))
    }

    /// fallocate(2) by someone who is not privileged.
    pub fn fallocate(&self, mode: FallocateMode, offset: u64, length: u64) -> Outcome<()> {
        self.fallocate_with(mode, offset, length, true)
    }

    /// fallocate(2) by someone who is privileged or not.
    pub fn fallocate_with(
        &self,
        mode: FallocateMode,
        offset: u64,
        length: u64,
        kill_privileges: bool,
    ) -> Outcome<()> {
        wait(self.0.fallocate(FallocateRequest {
            mode,
            offset,
            length,
            kill_privileges,
        }))
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    pub fn seek(&self, from: SeekFrom, offset: u64) -> Outcome<u64> {
        wait(self.0.seek(from, offset))
    }

    /// copy_file_range(2) by someone who is not privileged.
    pub fn copy_range(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        length: u64,
    ) -> Outcome<u64> {
        self.copy_range_with(offset, target, target_offset, length, true)
    }

    /// copy_file_range(2) by someone who is privileged or not.
    pub fn copy_range_with(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        length: u64,
        kill_privileges: bool,
    ) -> Outcome<u64> {
        wait(self.0.copy_range(CopyRange {
            offset,
            target: target.0.as_ref(),
            target_offset,
            length,
            kill_privileges,
        }))
    }

    /// fsync(2).
    pub fn fsync(&self) -> Outcome<()> {
        wait(self.0.fsync(false))
    }

    /// close(2) of one descriptor of an owner.
    pub fn flush(&self, owner: u64) -> Outcome<()> {
        wait(self.0.flush(LockOwner(owner)))
    }

    /// Sets a byte-range lock, or fails with EAGAIN.
    pub fn lock(&self, owner: u64, kind: LockKind, range: (u64, u64)) -> Outcome<()> {
        wait(self.0.setlk(range_lock(owner, Some(kind), range)))
    }

    /// Releases a range.
    pub fn unlock(&self, owner: u64, range: (u64, u64)) -> Outcome<()> {
        wait(self.0.setlk(range_lock(owner, None, range)))
    }

    /// The lock in the way of another.
    pub fn conflict(
        &self,
        owner: u64,
        kind: LockKind,
        range: (u64, u64),
    ) -> Outcome<Option<HeldLock>> {
        wait(self.0.getlk(range_lock(owner, Some(kind), range)))
    }

    /// flock(2), without waiting.
    pub fn flock(&self, owner: u64, kind: Option<LockKind>) -> Outcome<()> {
        wait(self.0.setlk(whole_lock(owner, kind)))
    }
}

/// The end of a lock that reaches to the end of the file, whatever it becomes.
pub const TO_THE_END: u64 = i64::MAX.unsigned_abs();

/// A byte-range lock, first and last byte, without waiting. The owner's process id is its number.
pub fn range_lock(owner: u64, kind: Option<LockKind>, (start, end): (u64, u64)) -> LockRequest {
    LockRequest {
        owner: LockOwner(owner),
        pid: u32::try_from(owner).unwrap_or(0),
        style: LockStyle::Posix,
        kind,
        range: LockRange { start, end },
        wait: false,
    }
}

/// A lock of a whole open file, without waiting.
pub fn whole_lock(owner: u64, kind: Option<LockKind>) -> LockRequest {
    LockRequest {
        style: LockStyle::Flock,
        ..range_lock(owner, kind, (0, TO_THE_END))
    }
}
