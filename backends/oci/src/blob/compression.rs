//! How a layer is compressed.

/// How a layer is compressed. Told by its first bytes, because media types are wrong at times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952), one member or several.
    Gzip,
    /// zstd (RFC 8878), one frame or several.
    Zstd,
}

impl Compression {
    /// Bytes that are enough to tell.
    pub const MAGIC: usize = 4;

    /// Tells by the first [`MAGIC`](Self::MAGIC) bytes of a blob, or all if it has fewer.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}
