//! Builds the bodies of READDIR and READDIRPLUS.

use vfsd_backend::FileKind;
use zerocopy::IntoBytes;

use crate::wire::{Dirent, EntryOut};

/// A listing that grows up to a limit.
#[derive(Debug)]
pub struct DirentBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl DirentBuffer {
    /// An empty listing of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    /// Adds an entry of READDIR. `false` when it does not fit; then nothing was added.
    pub fn push(&mut self, name: &[u8], inode: u64, kind: Option<FileKind>, next: u64) -> bool {
        self.push_record(&[], name, inode, kind, next)
    }

    /// Adds an entry of READDIRPLUS. One without attributes has node id 0: the guest then only
    /// learns the name.
    pub fn push_plus(
        &mut self,
        entry: &EntryOut,
        name: &[u8],
        inode: u64,
        kind: Option<FileKind>,
        next: u64,
    ) -> bool {
        self.push_record(entry.as_bytes(), name, inode, kind, next)
    }

    /// Whether an entry of READDIRPLUS fits.
    pub fn has_room_plus(&self, name_length: usize) -> bool {
        self.bytes
            .len()
            .saturating_add(Self::plus_length(name_length))
            <= self.limit
    }

    /// Bytes that an entry of READDIRPLUS takes up.
    pub fn plus_length(name_length: usize) -> usize {
        record_length(size_of::<EntryOut>(), name_length)
    }

    fn push_record(
        &mut self,
        head: &[u8],
        name: &[u8],
        inode: u64,
        kind: Option<FileKind>,
        next: u64,
    ) -> bool {
        let Ok(name_length) = u32::try_from(name.len()) else {
            return false;
        };
        let length = record_length(head.len(), name.len());
        if self.bytes.len().saturating_add(length) > self.limit {
            return false;
        }
        // DT_* of dirent.h are the type bits of st_mode, shifted.
        let kind = kind.map_or(0, |kind| kind.mode_bits() >> 12);
        let dirent = Dirent {
            ino: inode,
            off: next,
            namelen: name_length,
            r#type: kind,
        };
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        true
    }

    /// The body so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The body.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Records begin at multiples of 8 bytes (`FUSE_DIRENT_ALIGN`).
fn record_length(head: usize, name_length: usize) -> usize {
    head.saturating_add(size_of::<Dirent>())
        .saturating_add(name_length)
        .checked_next_multiple_of(8)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned_and_never_exceed_the_limit() {
        let mut listing = DirentBuffer::new(72);
        assert!(listing.push(b"a", 1, Some(FileKind::Directory), 1));
        assert_eq!(listing.as_bytes().len(), 32);
        assert_eq!(listing.as_bytes()[20], 4, "DT_DIR");
        assert!(listing.push(b"12345678", 2, None, 2));
        assert_eq!(listing.as_bytes().len(), 64);
        assert!(!listing.push(b"b", 3, None, 3));
        assert_eq!(
            listing.as_bytes().len(),
            64,
            "a record that does not fit leaves no trace"
        );
    }
}
