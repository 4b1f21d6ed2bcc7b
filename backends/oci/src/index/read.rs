//! An index from bytes, which may be anyone's.

use std::collections::HashSet;
use std::sync::Arc;

use vfsd_backend::{Device, Timestamp};

use super::{BORROWED, FOOTER, LayerIndex, LoadError, MAGIC, OF_CONTENTS, VERSION};
use crate::blob::{
    Blake3Digest, BlobIndex, Compression, Resume, Sha256Digest, Span, SpanDigest, Window,
};
use crate::{DataExtent, EntryKind, LayerEntry};

type Read<T> = Result<T, &'static str>;

impl LayerIndex {
    /// The index that `bytes` are. Everything that an index promises holds of it; the memory it
    /// takes is at most a small multiple of theirs.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let body = bytes.len().checked_sub(FOOTER);
        let split = body.and_then(|body| bytes.split_at_checked(body));
        let (body, footer) = split.ok_or(LoadError::Foreign)?;
        let mut reader = Reader(body);
        if reader.array() != Ok(MAGIC) || reader.u32() != Ok(VERSION) {
            return Err(LoadError::Foreign);
        }
        if Sha256Digest::of(body).0 != footer {
            return Err(LoadError::Checksum);
        }
        let index = reader.index().map_err(LoadError::Invalid)?;
        if !reader.0.is_empty() {
            return Err(LoadError::Invalid("something follows its end"));
        }
        Ok(index)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "it ends too early")
    }

    fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| "it ends too early")?)
    }

    fn digest(&mut self) -> Read<Sha256Digest> {
        self.array().map(Sha256Digest)
    }

    fn blake3(&mut self) -> Read<Blake3Digest> {
        self.array().map(Blake3Digest)
    }

    /// So many items, each of at least `least` bytes: what can't be there is not made room for.
    fn items<T>(
        &mut self,
        count: u64,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let room = self.0.len().checked_div(least).unwrap_or(0);
        let count = usize::try_from(count).ok().filter(|count| *count <= room);
        let count = count.ok_or("it ends too early")?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn index(&mut self) -> Read<LayerIndex> {
        let kind = self.u8()?;
        let borrowed = kind.checked_sub(BORROWED);
        let kind = borrowed.unwrap_or(kind);
        // Who has a table of contents needs to borrow nothing.
        let of_contents = match borrowed {
            None => kind.checked_sub(OF_CONTENTS),
            Some(_) => None,
        };
        let compression = match of_contents.unwrap_or(kind) {
            0 => Compression::Plain,
            1 => Compression::Gzip,
            2 => Compression::Zstd,
            _ => return Err("an unknown compression"),
        };
        let (digest, size) = (self.digest()?, self.u64()?);
        let (diff_id, decoded_size) = (self.digest()?, self.u64()?);
        let contents = of_contents.map(|_| self.digest()).transpose()?;
        let borrowed = borrowed.map(|_| self.digest()).transpose()?;
        let spans = match contents {
            None => self.spans(compression, (size, decoded_size))?,
            Some(_) => self.chunks((size, decoded_size))?,
        };
        let entries = self.u64()?;
        let entries = self.items(entries, 35, |reader| reader.entry(decoded_size))?;
        let notes = u64::from(self.u32()?);
        let notes = self.items(notes, 4, |reader| {
            let note = reader.bytes()?.to_vec();
            String::from_utf8(note).map_err(|_| "a note that is no text")
        })?;
        let blob = Arc::new(BlobIndex {
            compression,
            digest,
            size,
            diff_id,
            decoded_size,
            spans,
            contents,
        });
        Ok(LayerIndex {
            blob,
            entries,
            notes,
            borrowed,
        })
    }

    fn spans(&mut self, compression: Compression, size: (u64, u64)) -> Read<Vec<Span>> {
        let count = self.u64()?;
        let mut ends = (0, 0);
        let spans = self.items(count, 81, |reader| {
            let span = reader.span(compression, ends)?;
            ends = (span.compressed.end, span.decoded.end);
            Ok(span)
        })?;
        let (last, others) = spans.split_last().ok_or("no span")?;
        if others.iter().any(|span| span.decoded.is_empty()) {
            return Err("an empty span");
        }
        match (last.compressed.end, last.decoded.end) == size {
            true => Ok(spans),
            false => Err("spans that end elsewhere than the layer"),
        }
    }

    /// Spans that are chunks of files, with other bytes between them.
    fn chunks(&mut self, (size, decoded_size): (u64, u64)) -> Read<Vec<Span>> {
        let count = self.u64()?;
        let (mut compressed_end, mut decoded_end) = (0, 0);
        let spans = self.items(count, 56, |reader| {
            let compressed = reader.u64()?..reader.u64()?;
            let decoded = decoded_end..reader.u64()?;
            let within = compressed.start >= compressed_end && compressed.end <= size;
            if !within || compressed.is_empty() || decoded.is_empty() {
                return Err("a chunk that is out of its place");
            }
            (compressed_end, decoded_end) = (compressed.end, decoded.end);
            Ok(Span {
                compressed,
                decoded,
                resume: Resume::Fresh,
                compressed_digest: None,
                decoded_digest: SpanDigest::Sha256(reader.digest()?),
            })
        })?;
        match decoded_end == decoded_size {
            true => Ok(spans),
            false => Err("chunks that end elsewhere than the layer"),
        }
    }

    /// A span that follows one with these ends, of which the first has none.
    fn span(&mut self, compression: Compression, ends: (u64, u64)) -> Read<Span> {
        let (compressed_end, decoded_end) = (self.u64()?, self.u64()?);
        let (compressed_start, resume) = match self.u8()? {
            0 => (Some(ends.0), Resume::Fresh),
            kind @ 1..=8 if compression == Compression::Gzip && ends.1 > 0 => {
                let bits = kind.saturating_sub(1);
                let window =
                    Window::from_packed(self.bytes()?).map_err(|_| "a window too large")?;
                // The first byte is shared if bits of it are still unread.
                let start = ends.0.checked_sub(u64::from(bits > 0));
                (start, Resume::Block { bits, window })
            }
            _ => return Err("a span that begins in an unknown way"),
        };
        let start = compressed_start.filter(|start| *start <= compressed_end);
        let start = start.ok_or("a span that ends before it begins")?;
        if decoded_end < ends.1 {
            return Err("a span that ends before it begins");
        }
        Ok(Span {
            compressed: start..compressed_end,
            decoded: ends.1..decoded_end,
            resume,
            compressed_digest: Some(self.blake3()?),
            decoded_digest: SpanDigest::Blake3(self.blake3()?),
        })
    }

    fn entry(&mut self, decoded_size: u64) -> Read<LayerEntry> {
        let kind = self.u8()?;
        let path = name(self.bytes()?)?;
        let permissions = u32::from(u16::from_le_bytes(self.array()?));
        if permissions > 0o7777 {
            return Err("permissions that are none");
        }
        let (uid, gid) = (self.u32()?, self.u32()?);
        let seconds = i64::from_le_bytes(self.array()?);
        let modified = Timestamp::new(seconds, self.u32()?).map_err(|_| "a time that is none")?;
        let xattrs = u64::from(self.u32()?);
        let xattrs = self.items(xattrs, 8, |reader| {
            Ok((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()))
        })?;
        let mut names = HashSet::new();
        if !xattrs.iter().all(|(name, _)| names.insert(name)) {
            return Err("an extended attribute that comes twice");
        }
        let kind = match kind {
            0 => self.regular(decoded_size)?,
            1 => EntryKind::Directory,
            2 => EntryKind::Symlink {
                target: self.bytes()?.to_vec(),
            },
            3 => EntryKind::HardLink {
                target: self.bytes()?.to_vec(),
            },
            4 => EntryKind::Fifo,
            5 => EntryKind::CharDevice(self.device()?),
            6 => EntryKind::BlockDevice(self.device()?),
            _ => return Err("an entry of an unknown type"),
        };
        Ok(LayerEntry {
            path,
            kind,
            permissions,
            uid,
            gid,
            modified,
            xattrs,
        })
    }

    fn device(&mut self) -> Read<Device> {
        Ok(Device {
            major: self.u32()?,
            minor: self.u32()?,
        })
    }

    fn regular(&mut self, decoded_size: u64) -> Read<EntryKind> {
        let size = self.u64()?;
        if i64::try_from(size).is_err() {
            return Err("a file that is too large");
        }
        let extents = u64::from(self.u32()?);
        let (mut file_end, mut tar_end) = (0, 0);
        let data = self.items(extents, 24, |reader| {
            let extent = DataExtent {
                file_offset: reader.u64()?,
                tar_offset: reader.u64()?,
                length: reader.u64()?,
            };
            let ascends = extent.file_offset >= file_end && extent.tar_offset >= tar_end;
            let ends = (
                extent.file_offset.checked_add(extent.length),
                extent.tar_offset.checked_add(extent.length),
            );
            match ends {
                (Some(in_file), Some(in_tar))
                    if ascends
                        && extent.length > 0
                        && in_file <= size
                        && in_tar <= decoded_size =>
                {
                    (file_end, tar_end) = (in_file, in_tar);
                    Ok(extent)
                }
                _ => Err("an extent that is out of its place"),
            }
        })?;
        Ok(EntryKind::Regular { size, data })
    }
}

fn name(bytes: &[u8]) -> Read<Vec<u8>> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err("a name that is none");
    }
    Ok(bytes.to_vec())
}
