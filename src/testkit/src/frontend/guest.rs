//! FUSE operations as methods: a guest's driver without page cache, dentries or permissions.

use super::bodies::{SetAttr, init_body, read_body, write_body};
use super::channel::{Channel, Request};
use super::wire::{self, Attr, DirEntry, Encoder, Entry, InitOut, Opened, init, opcode, valid};
use super::{Error, Result};

/// One caller on one ring.
#[derive(Debug)]
pub struct Guest {
    /// The ring below, for requests this type has no method for.
    pub channel: Channel,
    /// User in the header of each request.
    pub uid: u32,
    /// Group in the header of each request.
    pub gid: u32,
    /// `flags` both sides agreed on at INIT; 0 before.
    pub agreed: u64,
}

impl Guest {
    /// A caller with uid and gid 0.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            uid: 0,
            gid: 0,
            agreed: 0,
        }
    }

    /// A request by this caller.
    pub fn request(&self, opcode: u32, node: u64, body: Vec<u8>) -> Request {
        Request::new(opcode, node, body).by(self.uid, self.gid)
    }

    /// Sends one request by this caller and returns the body of the reply.
    ///
    /// # Errors
    /// [`Error::Errno`] for the device's refusal, otherwise what the ring gives; so it is with
    /// all methods here.
    pub fn call(&mut self, opcode: u32, node: u64, body: Vec<u8>) -> Result<Vec<u8>> {
        let request = self.request(opcode, node, body);
        self.channel.call(&request)
    }

    fn call_without_body(&mut self, opcode: u32, node: u64, body: Vec<u8>) -> Result<()> {
        let reply = self.call(opcode, node, body)?;
        wire::exactly(&reply, 0, "an empty reply").map(drop)
    }

    fn call_for_entry(&mut self, opcode: u32, node: u64, body: Vec<u8>) -> Result<Entry> {
        let reply = self.call(opcode, node, body)?;
        entry_of(&reply)
    }

    /// INIT as Linux 7.2 sends it.
    ///
    /// # Errors
    /// See [`Guest::call`]; [`Error::Protocol`] also for flags that were not offered.
    pub fn init(&mut self) -> Result<InitOut> {
        self.init_with(7, 45, init::LINUX_7_2)
    }

    /// INIT with any version and flags.
    ///
    /// # Errors
    /// As [`Guest::init`].
    pub fn init_with(&mut self, major: u32, minor: u32, flags: u64) -> Result<InitOut> {
        let reply = self.call(opcode::INIT, 0, init_body(major, minor, flags))?;
        let answer = InitOut::decode(&reply)?;
        if answer.flags & !flags != 0 {
            let extra = answer.flags & !flags;
            return Err(Error::Protocol(format!(
                "INIT answers flags not offered: {extra:#x}"
            )));
        }
        self.agreed = answer.flags;
        Ok(answer)
    }

    /// DESTROY, which has an empty reply.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn destroy(&mut self) -> Result<()> {
        self.call_without_body(opcode::DESTROY, 0, Vec::new())
    }

    /// FORGET.
    ///
    /// # Errors
    /// See [`Guest::call`]; [`Error::Protocol`] if it is answered.
    pub fn forget(&mut self, node: u64, lookups: u64) -> Result<()> {
        let request = self.request(opcode::FORGET, node, Encoder::new().u64(lookups).bytes());
        self.channel.tell(&request.without_reply())
    }

    /// BATCH_FORGET of nodes and their counts.
    ///
    /// # Errors
    /// As [`Guest::forget`].
    pub fn batch_forget(&mut self, nodes: &[(u64, u64)]) -> Result<()> {
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let body = nodes
            .iter()
            .fold(Encoder::new().u32(count).u32(0), |body, (node, lookups)| {
                body.u64(*node).u64(*lookups)
            })
            .bytes();
        let request = self.request(opcode::BATCH_FORGET, 0, body);
        self.channel.tell(&request.without_reply())
    }

    /// STATFS; the reply is 80 bytes.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn statfs(&mut self, node: u64) -> Result<Vec<u8>> {
        let reply = self.call(opcode::STATFS, node, Vec::new())?;
        wire::exactly(&reply, 80, "fuse_statfs_out").map(<[u8]>::to_vec)
    }

    /// LOOKUP. A negative entry (node 0) is an [`Error::Errno`] of ENOENT here.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn lookup(&mut self, parent: u64, name: &str) -> Result<Entry> {
        let body = Encoder::new().name(name.as_bytes()).bytes();
        let reply = self.call(opcode::LOOKUP, parent, body)?;
        match entry_of(&reply)? {
            entry if entry.node == 0 => Err(Error::Errno(2)),
            entry => Ok(entry),
        }
    }

    /// The entry at a path below the root, by one LOOKUP for each component.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn walk(&mut self, path: &str) -> Result<Entry> {
        let mut parent = wire::ROOT;
        let mut last = None;
        for name in path.split('/') {
            let entry = self.lookup(parent, name)?;
            parent = entry.node;
            last = Some(entry);
        }
        last.ok_or(Error::Errno(2))
    }

    /// MKDIR.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn mkdir(&mut self, parent: u64, name: &str, mode: u32) -> Result<Entry> {
        let body = Encoder::new()
            .u32(mode)
            .u32(0)
            .name(name.as_bytes())
            .bytes();
        self.call_for_entry(opcode::MKDIR, parent, body)
    }

    /// MKNOD with the file type in `mode`.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn mknod(&mut self, parent: u64, name: &str, mode: u32, device: u32) -> Result<Entry> {
        let body = Encoder::new()
            .u32(mode)
            .u32(device)
            .u32(0)
            .u32(0)
            .name(name.as_bytes())
            .bytes();
        self.call_for_entry(opcode::MKNOD, parent, body)
    }

    /// SYMLINK.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn symlink(&mut self, parent: u64, name: &str, target: &str) -> Result<Entry> {
        let body = Encoder::new()
            .name(name.as_bytes())
            .name(target.as_bytes())
            .bytes();
        self.call_for_entry(opcode::SYMLINK, parent, body)
    }

    /// READLINK.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn readlink(&mut self, node: u64) -> Result<Vec<u8>> {
        self.call(opcode::READLINK, node, Vec::new())
    }

    /// LINK of `node` as `name`.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn link(&mut self, node: u64, parent: u64, name: &str) -> Result<Entry> {
        let body = Encoder::new().u64(node).name(name.as_bytes()).bytes();
        self.call_for_entry(opcode::LINK, parent, body)
    }

    /// UNLINK.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn unlink(&mut self, parent: u64, name: &str) -> Result<()> {
        let body = Encoder::new().name(name.as_bytes()).bytes();
        self.call_without_body(opcode::UNLINK, parent, body)
    }

    /// RMDIR.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn rmdir(&mut self, parent: u64, name: &str) -> Result<()> {
        let body = Encoder::new().name(name.as_bytes()).bytes();
        self.call_without_body(opcode::RMDIR, parent, body)
    }

    /// RENAME2 from (directory, name) to (directory, name).
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<()> {
        let body = Encoder::new()
            .u64(to.0)
            .u32(flags)
            .u32(0)
            .name(from.1.as_bytes())
            .name(to.1.as_bytes())
            .bytes();
        self.call_without_body(opcode::RENAME2, from.0, body)
    }

    /// GETATTR without a handle.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn getattr(&mut self, node: u64) -> Result<Attr> {
        let body = Encoder::new().u32(0).u32(0).u64(0).bytes();
        wire::attr_out(&self.call(opcode::GETATTR, node, body)?)
    }

    /// SETATTR.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn setattr(&mut self, node: u64, change: &SetAttr) -> Result<Attr> {
        wire::attr_out(&self.call(opcode::SETATTR, node, change.bytes())?)
    }

    /// SETATTR of the length alone.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn truncate(&mut self, node: u64, size: u64) -> Result<Attr> {
        self.setattr(
            node,
            &SetAttr {
                valid: valid::SIZE,
                size,
                ..SetAttr::default()
            },
        )
    }

    /// SETXATTR, in the layout INIT agreed on.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn setxattr(&mut self, node: u64, name: &str, value: &[u8], flags: u32) -> Result<()> {
        let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let mut body = Encoder::new().u32(size).u32(flags);
        if self.agreed & init::SETXATTR_EXT != 0 {
            body = body.u32(0).u32(0);
        }
        let body = body.name(name.as_bytes()).raw(value).bytes();
        self.call_without_body(opcode::SETXATTR, node, body)
    }

    /// GETXATTR of up to `size` bytes (not 0).
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn getxattr(&mut self, node: u64, name: &str, size: u32) -> Result<Vec<u8>> {
        let body = Encoder::new()
            .u32(size)
            .u32(0)
            .name(name.as_bytes())
            .bytes();
        let request = self
            .request(opcode::GETXATTR, node, body)
            .with_room(size.min(1 << 16));
        self.channel.call(&request)
    }

    /// OPEN with open(2) flags.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn open(&mut self, node: u64, flags: u32) -> Result<Opened> {
        let body = Encoder::new().u32(flags).u32(0).bytes();
        Opened::decode(&self.call(opcode::OPEN, node, body)?)
    }

    /// CREATE with open(2) flags.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn create(
        &mut self,
        parent: u64,
        name: &str,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, Opened)> {
        let body = Encoder::new()
            .u32(flags)
            .u32(mode)
            .u32(0)
            .u32(0)
            .name(name.as_bytes())
            .bytes();
        created(&self.call(opcode::CREATE, parent, body)?)
    }

    /// READ of up to `size` bytes.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn read(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let request = self
            .request(opcode::READ, node, read_body(fh, offset, size))
            .with_room(size);
        self.channel.call(&request)
    }

    /// WRITE; returns how many bytes were written.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn write(&mut self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Result<u32> {
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let reply = self.call(opcode::WRITE, node, write_body(fh, offset, size, data))?;
        let mut decoder = wire::Decoder::new(wire::exactly(&reply, 8, "fuse_write_out")?);
        decoder
            .u32()
            .ok_or_else(|| Error::Protocol("fuse_write_out".into()))
    }

    /// FLUSH.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn flush(&mut self, node: u64, fh: u64) -> Result<()> {
        let body = Encoder::new().u64(fh).u32(0).u32(0).u64(0).bytes();
        self.call_without_body(opcode::FLUSH, node, body)
    }

    /// FSYNC.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn fsync(&mut self, node: u64, fh: u64) -> Result<()> {
        let body = Encoder::new().u64(fh).u32(0).u32(0).bytes();
        self.call_without_body(opcode::FSYNC, node, body)
    }

    /// RELEASE.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn release(&mut self, node: u64, fh: u64) -> Result<()> {
        let body = Encoder::new().u64(fh).u32(0).u32(0).u64(0).bytes();
        self.call_without_body(opcode::RELEASE, node, body)
    }

    /// OPENDIR.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn opendir(&mut self, node: u64) -> Result<Opened> {
        let body = Encoder::new().u32(0).u32(0).bytes();
        Opened::decode(&self.call(opcode::OPENDIR, node, body)?)
    }

    /// One READDIR from `offset`, with room for `size` bytes.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn readdir(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<DirEntry>> {
        let request = self
            .request(opcode::READDIR, node, read_body(fh, offset, size))
            .with_room(size);
        let reply = self.channel.call(&request)?;
        let mut rest = reply.as_slice();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, after) = DirEntry::decode(rest)?;
            entries.push(entry);
            rest = after;
        }
        Ok(entries)
    }

    /// One READDIRPLUS from `offset`, with room for `size` bytes.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn readdirplus(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<(Entry, DirEntry)>> {
        let request = self
            .request(opcode::READDIRPLUS, node, read_body(fh, offset, size))
            .with_room(size);
        let reply = self.channel.call(&request)?;
        let mut rest = reply.as_slice();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, after) = Entry::decode(rest)?;
            let (name, after) = DirEntry::decode(after)?;
            entries.push((entry, name));
            rest = after;
        }
        Ok(entries)
    }

    /// RELEASEDIR.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn releasedir(&mut self, node: u64, fh: u64) -> Result<()> {
        let body = Encoder::new().u64(fh).u32(0).u32(0).u64(0).bytes();
        self.call_without_body(opcode::RELEASEDIR, node, body)
    }

    /// All names in a directory, `.` and `..` among them, by READDIR in small steps.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn list(&mut self, node: u64) -> Result<Vec<Vec<u8>>> {
        let opened = self.opendir(node)?;
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let batch = self.readdir(node, opened.fh, offset, 4096)?;
            let Some(last) = batch.last() else { break };
            offset = last.offset;
            names.extend(batch.into_iter().map(|entry| entry.name));
        }
        self.releasedir(node, opened.fh)?;
        Ok(names)
    }

    /// Makes a file with `data` in it.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn put(&mut self, parent: u64, name: &str, data: &[u8]) -> Result<Entry> {
        const O_WRONLY: u32 = 1;
        let (entry, opened) = self.create(parent, name, 0o100_644, O_WRONLY)?;
        let mut offset = 0;
        for chunk in data.chunks(64 << 10) {
            self.write(entry.node, opened.fh, offset, chunk)?;
            offset += chunk.len() as u64;
        }
        self.flush(entry.node, opened.fh)?;
        self.release(entry.node, opened.fh)?;
        Ok(entry)
    }

    /// The first `size` bytes of a file.
    ///
    /// # Errors
    /// See [`Guest::call`].
    pub fn get(&mut self, node: u64, size: u32) -> Result<Vec<u8>> {
        let opened = self.open(node, 0)?;
        let data = self.read(node, opened.fh, 0, size)?;
        self.flush(node, opened.fh)?;
        self.release(node, opened.fh)?;
        Ok(data)
    }
}

/// Decodes a reply that is one entry and nothing else.
///
/// # Errors
/// [`Error::Protocol`] if it is anything else.
pub fn entry_of(reply: &[u8]) -> Result<Entry> {
    Entry::decode(wire::exactly(reply, wire::ENTRY_SIZE, "fuse_entry_out")?).map(|(entry, _)| entry)
}

/// Decodes the reply to CREATE or TMPFILE.
///
/// # Errors
/// [`Error::Protocol`] if it is anything else.
pub fn created(reply: &[u8]) -> Result<(Entry, Opened)> {
    let (entry, rest) = Entry::decode(reply)?;
    Ok((entry, Opened::decode(rest)?))
}
