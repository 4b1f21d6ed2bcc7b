//! FUSE 7.45 as `include/uapi/linux/fuse.h` of Linux 7.2 has it, written down independently of
//! the project's codec.

use super::{Error, Result};

/// Bytes of `fuse_in_header`.
pub const IN_HEADER_SIZE: usize = 40;
/// Bytes of `fuse_out_header`.
pub const OUT_HEADER_SIZE: usize = 16;
/// Bytes of `fuse_attr`.
pub const ATTR_SIZE: usize = 88;
/// Bytes of `fuse_entry_out`.
pub const ENTRY_SIZE: usize = 128;
/// The root's node id.
pub const ROOT: u64 = 1;

/// Request numbers.
pub mod opcode {
    #![allow(missing_docs)] // the names are those of the header file
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// INIT flags, `flags` in the low and `flags2` in the high half.
pub mod init {
    #![allow(missing_docs)] // the names are those of the header file
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const MAP_ALIGNMENT: u64 = 1 << 26;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const SECURITY_CTX: u64 = 1 << 32;
    pub const HAS_INODE_DAX: u64 = 1 << 33;
    pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub const ALLOW_IDMAP: u64 = 1 << 40;

    /// What a Linux 7.2 guest (Debian 7.2.13) offers a device without a DAX window.
    pub const LINUX_7_2: u64 = 0x5fd << 32 | 0x7bff_fffb;
    /// What a Linux 6.1 guest (Debian 6.1) offers such a device.
    pub const LINUX_6_1: u64 = 0x9 << 32 | 0x7bff_fffb;
}

/// Bits of `fuse_setattr_in.valid`.
pub mod valid {
    #![allow(missing_docs)] // the names are those of the header file
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const CTIME: u32 = 1 << 10;
}

/// Extension record that carries supplementary groups.
pub const EXT_GROUPS: u32 = 32;

/// Builds little-endian structures.
#[derive(Debug, Clone, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a u16.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Appends a u32.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Appends a u64.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a name and its NUL.
    #[must_use]
    pub fn name(self, name: &[u8]) -> Self {
        self.raw(name).raw(&[0])
    }

    /// What was built.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes little-endian structures apart; every step is `None` past the end.
#[derive(Debug, Clone)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    pub fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    /// The next u16.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next u32.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next i32.
    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// The next u64.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// `fuse_attr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the header file
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: (u64, u32),
    pub mtime: (u64, u32),
    pub ctime: (u64, u32),
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
    pub flags: u32,
}

impl Attr {
    fn decode(bytes: &mut Decoder<'_>) -> Option<Self> {
        let (ino, size, blocks) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
        let seconds = [bytes.u64()?, bytes.u64()?, bytes.u64()?];
        let nanos = [bytes.u32()?, bytes.u32()?, bytes.u32()?];
        Some(Self {
            ino,
            size,
            blocks,
            atime: (seconds[0], nanos[0]),
            mtime: (seconds[1], nanos[1]),
            ctime: (seconds[2], nanos[2]),
            mode: bytes.u32()?,
            nlink: bytes.u32()?,
            uid: bytes.u32()?,
            gid: bytes.u32()?,
            rdev: bytes.u32()?,
            blksize: bytes.u32()?,
            flags: bytes.u32()?,
        })
    }

    /// Whether the kernel would take these attributes: a file type, and a size an i64 holds.
    fn check(self) -> Result<Self> {
        let known = matches!(
            self.mode & 0o170_000,
            0o010_000 | 0o020_000 | 0o040_000 | 0o060_000 | 0o100_000 | 0o120_000 | 0o140_000
        );
        if !known || i64::try_from(self.size).is_err() {
            return Err(Error::Protocol(format!(
                "attributes no kernel takes: {self:?}"
            )));
        }
        Ok(self)
    }
}

/// `fuse_entry_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the header file
pub struct Entry {
    pub node: u64,
    pub generation: u64,
    pub entry_valid: (u64, u32),
    pub attr_valid: (u64, u32),
    pub attr: Attr,
}

impl Entry {
    /// Decodes exactly one entry at the start of `bytes` and returns what follows it.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is short or holds what a kernel refuses.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let mut decoder = Decoder::new(bytes);
        let entry = Self::fields(&mut decoder)
            .ok_or_else(|| Error::Protocol(format!("entry of {} bytes", bytes.len())))?;
        if entry.node != 0 {
            entry.attr.check()?;
        }
        Ok((entry, decoder.rest()))
    }

    fn fields(bytes: &mut Decoder<'_>) -> Option<Self> {
        let (node, generation) = (bytes.u64()?, bytes.u64()?);
        let seconds = [bytes.u64()?, bytes.u64()?];
        let nanos = [bytes.u32()?, bytes.u32()?];
        let mut attr = Decoder::new(bytes.raw(ATTR_SIZE)?);
        Some(Self {
            node,
            generation,
            entry_valid: (seconds[0], nanos[0]),
            attr_valid: (seconds[1], nanos[1]),
            attr: Attr::decode(&mut attr)?,
        })
    }
}

/// `fuse_open_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: u64,
    /// `FOPEN_*` flags.
    pub flags: u32,
}

impl Opened {
    /// Decodes exactly one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it has another length.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(exactly(bytes, 16, "fuse_open_out")?);
        let fields = || {
            Some(Self {
                fh: decoder.u64()?,
                flags: decoder.u32()?,
            })
        };
        complete(fields)
    }
}

/// Decodes a `fuse_attr_out`.
///
/// # Errors
/// [`Error::Protocol`] if it has another length or holds what a kernel refuses.
pub fn attr_out(bytes: &[u8]) -> Result<Attr> {
    let mut decoder = Decoder::new(exactly(bytes, 104, "fuse_attr_out")?);
    complete(|| {
        decoder.raw(16)?;
        Attr::decode(&mut decoder)
    })?
    .check()
}

/// What the device answered to INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the header file
pub struct InitOut {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    /// `flags` and, with INIT_EXT among them, `flags2` above.
    pub flags: u64,
    pub max_background: u16,
    pub congestion_threshold: u16,
    pub max_write: u32,
    pub time_gran: u32,
    pub max_pages: u16,
    pub map_alignment: u16,
}

impl InitOut {
    /// Decodes exactly one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it has another length.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(exactly(bytes, 64, "fuse_init_out")?);
        complete(|| {
            let (major, minor, max_readahead) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
            let low = u64::from(decoder.u32()?);
            let (max_background, congestion_threshold) = (decoder.u16()?, decoder.u16()?);
            let (max_write, time_gran) = (decoder.u32()?, decoder.u32()?);
            let (max_pages, map_alignment) = (decoder.u16()?, decoder.u16()?);
            let high = u64::from(decoder.u32()?);
            let flags = if low & init::INIT_EXT != 0 {
                high << 32 | low
            } else {
                low
            };
            Some(Self {
                major,
                minor,
                max_readahead,
                flags,
                max_background,
                congestion_threshold,
                max_write,
                time_gran,
                max_pages,
                map_alignment,
            })
        })
    }
}

/// `fuse_dirent`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the header file
pub struct DirEntry {
    pub ino: u64,
    pub offset: u64,
    pub kind: u32,
    pub name: Vec<u8>,
}

impl DirEntry {
    /// Decodes one at the start of `bytes` and returns what follows its padding.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is cut off, or its name one that fails a guest's whole read.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let mut decoder = Decoder::new(bytes);
        let (entry, len) = complete(|| {
            let (ino, offset) = (decoder.u64()?, decoder.u64()?);
            let len = decoder.u32()? as usize;
            let kind = decoder.u32()?;
            let name = decoder.raw(len)?.to_vec();
            decoder.raw(len.next_multiple_of(8) - len)?;
            Some((
                Self {
                    ino,
                    offset,
                    kind,
                    name,
                },
                len,
            ))
        })?;
        if len == 0 || len > 1024 || entry.name.contains(&b'/') || entry.name.contains(&0) {
            return Err(Error::Protocol(format!(
                "directory entry named {:?}",
                entry.name
            )));
        }
        Ok((entry, decoder.rest()))
    }
}

/// `bytes`, if there are just `len` of them.
///
/// # Errors
/// [`Error::Protocol`] otherwise.
pub fn exactly<'a>(bytes: &'a [u8], len: usize, what: &str) -> Result<&'a [u8]> {
    if bytes.len() == len {
        return Ok(bytes);
    }
    Err(Error::Protocol(format!(
        "{what} of {} bytes instead of {len}",
        bytes.len()
    )))
}

fn complete<T>(fields: impl FnOnce() -> Option<T>) -> Result<T> {
    fields().ok_or_else(|| Error::Protocol("a structure is cut off".into()))
}
