//! An index as bytes. All numbers are little-endian; `bytes` are a 32-bit length and so many bytes.
//!
//! ```text
//! magic 8 | version u32 | compression u8 | digest 32 | size u64 | diff-id 32 | decoded size u64
//! spans u64 | span: compressed end u64, decoded end u64, resume u8 (0: fresh; 1 + bits: window
//!             bytes follow), BLAKE3 of its compressed and of its decoded bytes
//! entries u64 | entry: type u8, path bytes, permissions u16, uid u32, gid u32, mtime i64 u32,
//!               xattrs u32 (each: name bytes, value bytes), what the type has
//! notes u32 (each: bytes)
//! SHA-256 of all before
//! ```
//!
//! For an index from a table of contents the compression is 3 more, and the SHA-256 of the table follows the decoded
//! size. Its spans are: compressed start u64 and end u64, decoded end u64, SHA-256 of its decoded bytes.
//!
//! For an index that another host has made the compression is 6 more, and the digest of the artifact that it is from
//! follows the decoded size.

use super::{BORROWED, LayerIndex, MAGIC, OF_CONTENTS, VERSION};
use crate::blob::{Blake3Digest, Compression, Resume, Sha256Digest, Span};
use crate::{EntryKind, LayerEntry};

impl LayerIndex {
    /// The bytes to store: the same for equal indexes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        let blob = &self.blob;
        out.raw(&MAGIC);
        out.u32(VERSION);
        let compression: u8 = match blob.compression {
            Compression::Plain => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
        };
        let of_contents = blob.contents.map_or(0, |_| OF_CONTENTS);
        let borrowed = self.borrowed.map_or(0, |_| BORROWED);
        let kind = compression.saturating_add(of_contents);
        out.raw(&[kind.saturating_add(borrowed)]);
        out.raw(&blob.digest.0);
        out.u64(blob.size);
        out.raw(&blob.diff_id.0);
        out.u64(blob.decoded_size);
        if let Some(contents) = blob.contents {
            out.raw(&contents.0);
        }
        if let Some(artifact) = self.borrowed {
            out.raw(&artifact.0);
        }
        out.u64(size(&blob.spans));
        for span in &blob.spans {
            match blob.contents {
                None => out.span(span),
                Some(_) => out.chunk(span),
            }
        }
        out.u64(size(&self.entries));
        for entry in &self.entries {
            out.entry(entry);
        }
        out.u32(u32::try_from(self.notes.len()).unwrap_or(u32::MAX));
        for note in &self.notes {
            out.bytes(note.as_bytes());
        }
        let footer = Sha256Digest::of(&out.0);
        out.raw(&footer.0);
        out.0
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// What is longer than 4 GiB does not get into an index: the tar's limits are far below.
    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.raw(bytes);
    }

    fn span(&mut self, span: &Span) {
        self.u64(span.compressed.end);
        self.u64(span.decoded.end);
        match &span.resume {
            Resume::Fresh => self.raw(&[0]),
            Resume::Block { bits, window } => {
                self.raw(&[bits.saturating_add(1)]);
                self.bytes(window.packed());
            }
        }
        self.raw(&span.compressed_digest.unwrap_or(Blake3Digest([0; 32])).0);
        self.raw(span.decoded_digest.bytes());
    }

    /// A span of an index from a table of contents.
    fn chunk(&mut self, span: &Span) {
        self.u64(span.compressed.start);
        self.u64(span.compressed.end);
        self.u64(span.decoded.end);
        self.raw(span.decoded_digest.bytes());
    }

    fn entry(&mut self, entry: &LayerEntry) {
        self.raw(&[match &entry.kind {
            EntryKind::Regular { .. } => 0,
            EntryKind::Directory => 1,
            EntryKind::Symlink { .. } => 2,
            EntryKind::HardLink { .. } => 3,
            EntryKind::Fifo => 4,
            EntryKind::CharDevice(_) => 5,
            EntryKind::BlockDevice(_) => 6,
        }]);
        self.bytes(&entry.path);
        let permissions = u16::try_from(entry.permissions).unwrap_or(u16::MAX);
        self.raw(&permissions.to_le_bytes());
        self.u32(entry.uid);
        self.u32(entry.gid);
        self.raw(&entry.modified.seconds.to_le_bytes());
        self.u32(entry.modified.nanoseconds);
        self.u32(u32::try_from(entry.xattrs.len()).unwrap_or(u32::MAX));
        for (name, value) in &entry.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
        match &entry.kind {
            EntryKind::Regular { size: length, data } => {
                self.u64(*length);
                self.u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
                for extent in data {
                    self.u64(extent.file_offset);
                    self.u64(extent.tar_offset);
                    self.u64(extent.length);
                }
            }
            EntryKind::Symlink { target } | EntryKind::HardLink { target } => self.bytes(target),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                self.u32(device.major);
                self.u32(device.minor);
            }
            EntryKind::Directory | EntryKind::Fifo => {}
        }
    }
}

fn size<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
