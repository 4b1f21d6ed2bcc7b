//! Bodies of requests with more fields than a call shows well.

use super::wire::Encoder;

/// What SETATTR is to change.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)] // the names are those of the header file
pub struct SetAttr {
    /// Bits of [`valid`](super::wire::valid).
    pub valid: u32,
    pub fh: u64,
    pub size: u64,
    pub atime: (u64, u32),
    pub mtime: (u64, u32),
    pub ctime: (u64, u32),
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl SetAttr {
    /// The body of the request.
    pub fn bytes(&self) -> Vec<u8> {
        Encoder::new()
            .u32(self.valid)
            .u32(0)
            .u64(self.fh)
            .u64(self.size)
            .u64(0)
            .u64(self.atime.0)
            .u64(self.mtime.0)
            .u64(self.ctime.0)
            .u32(self.atime.1)
            .u32(self.mtime.1)
            .u32(self.ctime.1)
            .u32(self.mode)
            .u32(0)
            .u32(self.uid)
            .u32(self.gid)
            .u32(0)
            .bytes()
    }
}

/// The body of an INIT request of protocol 7.36 or later.
pub fn init_body(major: u32, minor: u32, flags: u64) -> Vec<u8> {
    let [low, high] = [flags & 0xffff_ffff, flags >> 32].map(|half| half as u32);
    Encoder::new()
        .u32(major)
        .u32(minor)
        .u32(1 << 20)
        .u32(low)
        .u32(high)
        .raw(&[0; 44])
        .bytes()
}

/// The body of a READ, READDIR or READDIRPLUS request.
pub fn read_body(fh: u64, offset: u64, size: u32) -> Vec<u8> {
    Encoder::new()
        .u64(fh)
        .u64(offset)
        .u32(size)
        .u32(0)
        .u64(0)
        .u32(0)
        .u32(0)
        .bytes()
}

/// The body of a WRITE request that claims `size` bytes and carries `data`.
pub fn write_body(fh: u64, offset: u64, size: u32, data: &[u8]) -> Vec<u8> {
    Encoder::new()
        .u64(fh)
        .u64(offset)
        .u32(size)
        .u32(0)
        .u64(0)
        .u32(0)
        .u32(0)
        .raw(data)
        .bytes()
}
