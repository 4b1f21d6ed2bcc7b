//! An index from the entries of a table.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vfsd_backend::{Device, Timestamp};

use crate::blob::{BlobIndex, Compression, Resume, Sha256Digest, Span, SpanDigest};
use crate::index::{IndexOptions, LayerIndex};
use crate::{DataExtent, EntryKind, LayerEntry};

use super::document::Record;
use super::{TocError, TocLayer};

/// What writers of JSON put in the place of bytes that are no UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Entries and chunks so far.
pub(super) struct Assembly {
    options: IndexOptions,
    /// Where chunks end in the layer.
    end: u64,
    entries: Vec<LayerEntry>,
    chunks: Vec<Chunk>,
    /// The file whose chunks come.
    open: Option<OpenFile>,
    /// Bytes of all chunks.
    decoded: u64,
    /// Bytes of names, targets and attributes.
    metadata: u64,
}

/// A chunk of a file, by itself in a member or frame.
struct Chunk {
    offset: u64,
    /// Where it ends, if that is known; else where the next one begins.
    end: Option<u64>,
    decoded_end: u64,
    sha256: Sha256Digest,
}

struct OpenFile {
    name: String,
    size: u64,
    /// How much of it the chunks so far have.
    covered: u64,
    data: Vec<DataExtent>,
    /// Where its last chunk ends in the layer.
    end: Option<u64>,
}

/// What the index is of.
pub(super) struct Whole {
    pub(super) compression: Compression,
    pub(super) layer: TocLayer,
    pub(super) toc: Sha256Digest,
}

impl Assembly {
    pub(super) fn new(options: &IndexOptions, end: u64) -> Self {
        Self {
            options: options.clone(),
            end,
            entries: Vec::new(),
            chunks: Vec::new(),
            open: None,
            decoded: 0,
            metadata: 0,
        }
    }

    /// Takes the next entry.
    pub(super) fn take(&mut self, record: Record) -> Result<(), TocError> {
        if record.r#type == "chunk" {
            let open = self.open.as_ref();
            let belongs = |open: &OpenFile| record.name.is_empty() || record.name == open.name;
            return match open.is_some_and(belongs) {
                true => self.chunk(&record),
                false => Err(TocError::Malformed("a chunk follows another file")),
            };
        }
        self.close()?;
        let entry = self.entry(&record)?;
        if self.entries.len() >= self.options.tar.entries {
            return Err(too_large("entries", self.options.tar.entries));
        }
        let is_file = record.size > 0 && matches!(entry.kind, EntryKind::Regular { .. });
        self.entries.push(entry);
        if !is_file {
            return Ok(());
        }
        self.open = Some(OpenFile {
            name: record.name.clone(),
            size: record.size,
            covered: 0,
            data: Vec::new(),
            end: (record.end_offset > 0).then_some(record.end_offset),
        });
        self.chunk(&record)
    }

    fn entry(&mut self, record: &Record) -> Result<LayerEntry, TocError> {
        let target = || text(&record.link_name);
        let kind = match record.r#type.as_str() {
            "dir" => EntryKind::Directory,
            "reg" => EntryKind::Regular {
                size: record.size,
                data: Vec::new(),
            },
            "symlink" => EntryKind::Symlink { target: target()? },
            "hardlink" => EntryKind::HardLink { target: target()? },
            "fifo" => EntryKind::Fifo,
            "char" => EntryKind::CharDevice(device(record)?),
            "block" => EntryKind::BlockDevice(device(record)?),
            _ => return Err(TocError::Unfit("an entry of an unknown type")),
        };
        if i64::try_from(record.size).is_err() {
            return Err(TocError::Malformed("a file that is too large"));
        }
        let mut xattrs = Vec::new();
        for (name, value) in record.xattrs.iter().flatten() {
            let value = STANDARD.decode(value);
            let value = value.map_err(|_| TocError::Malformed("an attribute that is no base64"))?;
            // As in a tar: no attribute is without a name.
            if !name.is_empty() {
                xattrs.push((text(name)?, value));
            }
        }
        let path = text(&record.name)?;
        if path.is_empty() {
            return Err(TocError::Unfit("an entry has no name"));
        }
        let names = path.len().saturating_add(record.link_name.len());
        let sizes = xattrs
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()));
        self.count(sizes.fold(names, usize::saturating_add))?;
        Ok(LayerEntry {
            path,
            kind,
            permissions: u32::try_from(record.mode & 0o7777).unwrap_or(0),
            uid: owner(record.uid)?,
            gid: owner(record.gid)?,
            modified: time(record.modtime.as_deref())?,
            xattrs,
        })
    }

    /// Adds to what entries take in memory.
    fn count(&mut self, bytes: usize) -> Result<(), TocError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.metadata = self.metadata.saturating_add(bytes);
        match self.metadata > self.options.tar.metadata {
            true => Err(TocError::TooLarge {
                what: "bytes of names and attributes",
                limit: self.options.tar.metadata,
            }),
            false => Ok(()),
        }
    }

    /// Takes the next chunk of the open file.
    fn chunk(&mut self, record: &Record) -> Result<(), TocError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let left = open.size.saturating_sub(open.covered);
        let length = match record.chunk_size {
            0 => left,
            size => size,
        };
        if record.chunk_offset != open.covered || length == 0 || length > left {
            return Err(TocError::Malformed("chunks that do not make up their file"));
        }
        let file_offset = open.covered;
        open.covered = open.covered.saturating_add(length);
        match record.chunk_type.as_str() {
            "" => {}
            "zeros" => return Ok(()),
            _ => return Err(TocError::Unfit("a chunk of an unknown type")),
        }
        if record.inner_offset > 0 {
            return Err(TocError::Unfit("several chunks share a member"));
        }
        let is_all = length == open.size;
        let sha256 = record.chunk_digest.as_ref().filter(|it| !it.is_empty());
        let sha256 = sha256.or(record.digest.as_ref().filter(|_| is_all));
        let sha256 = sha256.and_then(|it| it.parse().ok());
        let sha256 = sha256.ok_or(TocError::Unfit("a chunk without a SHA-256"))?;
        match open.data.last_mut() {
            Some(last) if last.file_offset.saturating_add(last.length) == file_offset => {
                last.length = last.length.saturating_add(length);
            }
            _ => {
                open.data.push(DataExtent {
                    file_offset,
                    tar_offset: self.decoded,
                    length,
                });
                self.count(size_of::<DataExtent>())?;
            }
        }
        self.decoded = self.decoded.saturating_add(length);
        self.place(record.offset, sha256)
    }

    /// Gives the chunk that ends what is decoded its place in the layer.
    fn place(&mut self, offset: u64, sha256: Sha256Digest) -> Result<(), TocError> {
        let limits = &self.options.blob;
        if self.decoded > limits.max_decoded {
            return Err(TocError::TooLarge {
                what: "decoded bytes",
                limit: limits.max_decoded,
            });
        }
        if u64::try_from(self.chunks.len()).unwrap_or(u64::MAX) >= limits.max_spans {
            return Err(TocError::TooLarge {
                what: "chunks",
                limit: limits.max_spans,
            });
        }
        let last = self.chunks.last();
        let after = last.map_or(0, |last| last.end.unwrap_or(last.offset.saturating_add(1)));
        if offset < after || offset >= self.end {
            return Err(TocError::Malformed(
                "chunks that overlap or are out of the layer",
            ));
        }
        self.chunks.push(Chunk {
            offset,
            end: None,
            decoded_end: self.decoded,
            sha256,
        });
        Ok(())
    }

    /// Ends the open file.
    fn close(&mut self) -> Result<(), TocError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        if open.covered != open.size {
            return Err(TocError::Malformed("chunks that do not make up their file"));
        }
        if let (Some(end), Some(last), false) =
            (open.end, self.chunks.last_mut(), open.data.is_empty())
        {
            if end <= last.offset || end > self.end {
                return Err(TocError::Malformed("a file that ends before it begins"));
            }
            last.end = Some(end);
        }
        if let Some(EntryKind::Regular { data, .. }) =
            self.entries.last_mut().map(|entry| &mut entry.kind)
        {
            *data = open.data;
        }
        Ok(())
    }

    /// The index, now that all entries were taken.
    pub(super) fn finish(mut self, whole: Whole) -> Result<LayerIndex, TocError> {
        self.close()?;
        let nexts = self.chunks.iter().skip(1).map(|next| next.offset);
        let nexts: Vec<u64> = nexts.chain([self.end]).collect();
        let mut decoded_start = 0;
        let spans = self.chunks.into_iter().zip(nexts).map(|(chunk, next)| {
            let decoded = decoded_start..chunk.decoded_end;
            decoded_start = chunk.decoded_end;
            Span {
                compressed: chunk.offset..chunk.end.unwrap_or(next),
                decoded,
                resume: Resume::Fresh,
                compressed_digest: None,
                decoded_digest: SpanDigest::Sha256(chunk.sha256),
            }
        });
        let blob = BlobIndex {
            compression: whole.compression,
            digest: whole.layer.digest,
            size: whole.layer.size,
            diff_id: whole.layer.diff_id,
            decoded_size: self.decoded,
            spans: spans.collect(),
            contents: Some(whole.toc),
        };
        Ok(LayerIndex {
            blob: Arc::new(blob),
            entries: self.entries,
            notes: Vec::new(),
            borrowed: None,
        })
    }
}

/// A name, as the tar has it: JSON has no other bytes than those of UTF-8.
fn text(text: &str) -> Result<Vec<u8>, TocError> {
    if text.contains(REPLACEMENT) {
        return Err(TocError::Unfit("a name was no UTF-8"));
    }
    if text.contains('\0') {
        return Err(TocError::Malformed("a name has a NUL"));
    }
    Ok(text.as_bytes().to_vec())
}

fn owner(id: i64) -> Result<u32, TocError> {
    u32::try_from(id).map_err(|_| TocError::Malformed("an owner is out of range"))
}

fn device(record: &Record) -> Result<Device, TocError> {
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| TocError::Malformed("a device number is out of range"))
    };
    Ok(Device {
        major: number(record.dev_major)?,
        minor: number(record.dev_minor)?,
    })
}

fn time(text: Option<&str>) -> Result<Timestamp, TocError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Timestamp::default());
    };
    let time = OffsetDateTime::parse(text, &Rfc3339);
    let time = time.map_err(|_| TocError::Malformed("a time is no time"))?;
    Ok(Timestamp {
        seconds: time.unix_timestamp(),
        nanoseconds: time.nanosecond(),
    })
}

fn too_large(what: &'static str, limit: usize) -> TocError {
    TocError::TooLarge {
        what,
        limit: u64::try_from(limit).unwrap_or(u64::MAX),
    }
}
