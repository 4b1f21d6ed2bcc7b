//! Reading a tar block by block.

use std::mem;

use super::TarError;
use super::header::{BLOCK, Header, text};
use super::pax::{Pax, PaxSparseForm};
use super::sparse::{self, MapReader, Piece};
use crate::{DataExtent, EntryKind, LayerEntry};

/// Notes that are kept.
const NOTES: usize = 100;

/// How much of a tar is kept in memory.
#[derive(Debug, Clone)]
pub struct TarLimits {
    /// The most entries. 8 Mi unless changed.
    pub entries: usize,
    /// The most bytes of an extended header or a long name. 1 MiB unless changed, which is Go's.
    pub extension: usize,
    /// The most bytes of all entries together: names, targets, attributes, maps. 2 GiB unless
    /// changed.
    pub metadata: u64,
    /// The most pieces of a sparse file. 64 Ki unless changed.
    pub sparse_pieces: usize,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self {
            entries: 8 << 20,
            extension: 1 << 20,
            metadata: 2 << 30,
            sparse_pieces: 1 << 16,
        }
    }
}

/// What a tar has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarContents {
    /// Its entries, in order.
    pub entries: Vec<LayerEntry>,
    /// What was skipped and why, at most a hundred lines.
    pub notes: Vec<String>,
}

/// Reads a tar that is given piece by piece.
#[derive(Debug)]
pub struct TarParser {
    limits: TarLimits,
    /// Where the next byte stands.
    offset: u64,
    state: State,
    /// A block that is not complete yet.
    partial: Vec<u8>,
    pending: Pending,
    metadata: u64,
    contents: TarContents,
}

#[derive(Debug)]
enum State {
    /// A header is next.
    Header,
    /// A hard link came whose header has a size: a content of it may be next, or a header.
    AfterLink { content: u64 },
    /// A block of zeros came.
    Zero,
    /// So many bytes of content and padding are next, the last `padding` of which say nothing.
    Content { left: u64, padding: u64 },
    /// An extension is next.
    Extension {
        kind: u8,
        data: Vec<u8>,
        size: usize,
    },
    /// More of an old GNU sparse map is next.
    GnuMap { file: SparseFile, map: Vec<Piece> },
    /// A sparse map of form 1.0 is next.
    PaxMap { file: SparseFile, map: MapReader },
    /// The end was there; what follows is of no one.
    End,
}

/// What came before the header that it belongs to.
#[derive(Debug, Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// A sparse file whose map is being read.
#[derive(Debug)]
struct SparseFile {
    entry: LayerEntry,
    real_size: u64,
    /// Bytes of map and content that are still to come.
    stored: u64,
}

impl TarParser {
    /// A parser that has seen nothing yet.
    pub fn new(limits: TarLimits) -> Self {
        Self {
            limits,
            offset: 0,
            state: State::Header,
            partial: Vec::with_capacity(BLOCK),
            pending: Pending::default(),
            metadata: 0,
            contents: TarContents {
                entries: Vec::new(),
                notes: Vec::new(),
            },
        }
    }

    /// Takes the next bytes of the tar.
    ///
    /// # Errors
    /// A malformed tar, or a limit. The parser is of no use afterwards.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::End => {
                    self.offset = self.offset.saturating_add(size(bytes));
                    return Ok(());
                }
                State::Content { left, .. } => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX);
                    let (skipped, rest) = bytes.split_at(skipped.min(bytes.len()));
                    *left = left.saturating_sub(size(skipped));
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    self.offset = self.offset.saturating_add(size(skipped));
                    bytes = rest;
                }
                _ if self.partial.is_empty() && bytes.len() >= BLOCK => {
                    let Some((block, rest)) = bytes.split_first_chunk::<BLOCK>() else {
                        break;
                    };
                    self.take(block)?;
                    bytes = rest;
                }
                _ => {
                    let wanted = BLOCK.saturating_sub(self.partial.len());
                    let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
                    self.partial.extend_from_slice(part);
                    bytes = rest;
                    if let Ok(block) = <[u8; BLOCK]>::try_from(self.partial.as_slice()) {
                        self.partial.clear();
                        self.take(&block)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The contents, now that the tar has ended. The two blocks of zeros at the end may be missing, and the padding of
    /// the last entry: `umoci insert` writes neither, and Go's reader, so docker and containerd, miss neither.
    ///
    /// # Errors
    /// A tar that ends in the middle of an entry.
    pub fn finish(mut self) -> Result<TarContents, TarError> {
        let whole = match &self.state {
            State::Header | State::AfterLink { .. } | State::Zero => self.partial.is_empty(),
            State::End => true,
            State::Content { left, padding } => left <= padding,
            State::Extension { .. } | State::GnuMap { .. } | State::PaxMap { .. } => false,
        };
        if !whole {
            return Err(self.error("it ends in the middle of an entry"));
        }
        if self.pending.path.is_some() || self.pending.link.is_some() || self.pending.pax.is_some()
        {
            self.note("an extended header at the end is of no entry".to_owned());
        }
        Ok(self.contents)
    }

    fn error(&self, what: &'static str) -> TarError {
        TarError {
            offset: self.offset,
            what,
        }
    }

    fn note(&mut self, note: String) {
        if self.contents.notes.len() < NOTES {
            self.contents.notes.push(note);
        }
    }

    /// Takes a block that is no plain content.
    fn take(&mut self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        let at = self.offset;
        let state = mem::replace(&mut self.state, State::End);
        self.state = self
            .after(state, block)
            .map_err(|what| TarError { offset: at, what })?;
        self.offset = at.saturating_add(size(block));
        Ok(())
    }

    /// The state after a block.
    fn after(&mut self, state: State, block: &[u8; BLOCK]) -> Result<State, &'static str> {
        let is_zero = block.iter().all(|byte| *byte == 0);
        match state {
            State::Header | State::AfterLink { .. } if is_zero => Ok(State::Zero),
            State::Zero if is_zero => Ok(State::End),
            State::Zero => Err("a single block of zeros"),
            State::Header => {
                let header = Header::new(block).ok_or("a header with a wrong checksum")?;
                self.header(&header)
            }
            State::AfterLink { content } => match Header::new(block) {
                Some(header) => self.header(&header),
                None => Ok(content_after(content.saturating_sub(size(block)))),
            },
            State::Extension { kind, data, size } => self.extension(kind, data, size, block),
            State::GnuMap { mut file, mut map } => {
                if map.len() > self.limits.sparse_pieces {
                    return Err("a sparse map has too many pieces");
                }
                let (pieces, rest) = block.split_at(504);
                sparse::read_gnu(pieces, &mut map).ok_or("a sparse map has what is no number")?;
                if rest.first() != Some(&0) {
                    return Ok(State::GnuMap { file, map });
                }
                let start = self.offset.saturating_add(size(block));
                self.place(&mut file, &map, start)?;
                self.emit(file.entry)?;
                Ok(content_after(file.stored))
            }
            State::PaxMap { mut file, mut map } => {
                let stored = file.stored.checked_sub(size(block));
                file.stored = stored.ok_or("a sparse map is longer than its entry")?;
                if !map.push(block, self.limits.sparse_pieces)? {
                    return Ok(State::PaxMap { file, map });
                }
                let start = self.offset.saturating_add(size(block));
                self.place(&mut file, &map.map, start)?;
                self.emit(file.entry)?;
                Ok(content_after(file.stored))
            }
            State::Content { .. } | State::End => Ok(State::End),
        }
    }

    /// Takes a block of an extension; with the last one, what it says is pending.
    fn extension(
        &mut self,
        kind: u8,
        mut data: Vec<u8>,
        size: usize,
        block: &[u8; BLOCK],
    ) -> Result<State, &'static str> {
        let wanted = size.saturating_sub(data.len());
        data.extend_from_slice(block.get(..wanted).unwrap_or(block));
        if data.len() < size {
            return Ok(State::Extension { kind, data, size });
        }
        match kind {
            b'L' => self.pending.path = Some(text(&data).to_vec()),
            b'K' => self.pending.link = Some(text(&data).to_vec()),
            b'x' => self.pending.pax = Some(Pax::parse(&data, self.limits.sparse_pieces)?),
            // A global header has no meaning in a layer.
            _ => {}
        }
        Ok(State::Header)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<State, &'static str> {
        let size = header.size().ok_or("a size is no number")?;
        let kind = header.kind();
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let size = usize::try_from(size).ok();
            let size = size.filter(|size| *size <= self.limits.extension);
            let size = size.ok_or("an extended header is too large")?;
            return Ok(match size {
                0 => State::Header,
                _ => State::Extension {
                    kind,
                    data: Vec::with_capacity(size.min(BLOCK)),
                    size,
                },
            });
        }
        let pending = mem::take(&mut self.pending);
        let pax = pending.pax.unwrap_or_default();
        let size = pax.size.unwrap_or(size);
        let form = pax.sparse.form()?;
        // A sparse file's own name is in its records, and a made-up one in the header.
        let path = form.and(pax.sparse.name).or(pax.path).or(pending.path);
        let link = pax.link.or(pending.link);
        let entry = LayerEntry {
            path: path.unwrap_or_else(|| header.path()),
            kind: EntryKind::Directory,
            permissions: header.permissions().ok_or("a mode is no number")?,
            uid: owner(pax.uid.or_else(|| header.uid()))?,
            gid: owner(pax.gid.or_else(|| header.gid()))?,
            modified: pax
                .modified
                .or_else(|| header.modified())
                .ok_or("a time is no number")?,
            xattrs: pax.xattrs,
        };
        if entry.path.is_empty() {
            return Err("an entry has no name");
        }
        let target = || link.unwrap_or_else(|| header.link().to_vec());
        let device = || header.device().ok_or("a device number is no number");
        // As in Go, only regular files and what is unknown have content.
        let kind = match kind {
            0 if entry.path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => {
                let real_size = pax.sparse.real_size.unwrap_or(size);
                return self.regular(entry, size, real_size, form, &pax.sparse.map);
            }
            b'S' => return self.gnu_sparse(entry, size, header),
            b'1' => {
                let kind = EntryKind::HardLink { target: target() };
                self.emit(LayerEntry { kind, ..entry })?;
                // Go expects no content here; POSIX allows one, and bsdtar tells by what comes.
                return Ok(match (size, pax.size) {
                    (0, _) => State::Header,
                    (_, Some(size)) => content_after(size),
                    (content, None) => State::AfterLink { content },
                });
            }
            b'2' => EntryKind::Symlink { target: target() },
            b'3' => EntryKind::CharDevice(device()?),
            b'4' => EntryKind::BlockDevice(device()?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let path = entry.path.get(..200).unwrap_or(&entry.path);
                let (path, other) = (path.escape_ascii(), [other]);
                let other = other.escape_ascii();
                self.note(format!("{path}: skipped, its type {other} is unknown"));
                return Ok(content_after(size));
            }
        };
        self.emit(LayerEntry { kind, ..entry })?;
        Ok(State::Header)
    }

    fn regular(
        &mut self,
        mut entry: LayerEntry,
        size: u64,
        real_size: u64,
        form: Option<PaxSparseForm>,
        map: &[Piece],
    ) -> Result<State, &'static str> {
        let start = self.offset.saturating_add(512);
        let stored = size;
        let data = match form {
            Some(PaxSparseForm::InContent) => {
                let file = SparseFile {
                    entry,
                    real_size,
                    stored,
                };
                let map = MapReader::default();
                return Ok(State::PaxMap { file, map });
            }
            Some(PaxSparseForm::InRecords) => sparse::extents(map, real_size, start, stored)?,
            None if size == 0 => Vec::new(),
            None => vec![DataExtent {
                file_offset: 0,
                tar_offset: start,
                length: size,
            }],
        };
        let size = if form.is_some() { real_size } else { size };
        entry.kind = EntryKind::Regular { size, data };
        self.emit(entry)?;
        Ok(content_after(stored))
    }

    fn gnu_sparse(
        &mut self,
        entry: LayerEntry,
        stored: u64,
        header: &Header<'_>,
    ) -> Result<State, &'static str> {
        let sparse = header.sparse();
        let (pieces, more, real_size) = sparse.ok_or("a sparse file without a map")?;
        let mut map = Vec::new();
        sparse::read_gnu(pieces, &mut map).ok_or("a sparse map has what is no number")?;
        let mut file = SparseFile {
            entry,
            real_size,
            stored,
        };
        if more {
            return Ok(State::GnuMap { file, map });
        }
        let start = self.offset.saturating_add(512);
        self.place(&mut file, &map, start)?;
        self.emit(file.entry)?;
        Ok(content_after(stored))
    }

    /// Gives a sparse file its extents: its content begins at `start`.
    fn place(&self, file: &mut SparseFile, map: &[Piece], start: u64) -> Result<(), &'static str> {
        if map.len() > self.limits.sparse_pieces {
            return Err("a sparse map has too many pieces");
        }
        file.entry.kind = EntryKind::Regular {
            size: file.real_size,
            data: sparse::extents(map, file.real_size, start, file.stored)?,
        };
        Ok(())
    }

    fn emit(&mut self, entry: LayerEntry) -> Result<(), &'static str> {
        let kind = match &entry.kind {
            EntryKind::Regular { data, .. } => size(data).saturating_mul(24),
            EntryKind::Symlink { target } | EntryKind::HardLink { target } => size(target),
            _ => 0,
        };
        let xattrs = entry.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| size(name).saturating_add(size(value)));
        self.metadata = xattrs
            .fold(self.metadata, u64::saturating_add)
            .saturating_add(size(&entry.path))
            .saturating_add(kind);
        if self.metadata > self.limits.metadata {
            return Err("the entries have too many names and attributes");
        }
        if self.contents.entries.len() >= self.limits.entries {
            return Err("it has too many entries");
        }
        self.contents.entries.push(entry);
        Ok(())
    }
}

/// What follows a header whose content has so many bytes.
fn content_after(size: u64) -> State {
    match size.checked_next_multiple_of(512) {
        Some(0) => State::Header,
        Some(left) => State::Content {
            left,
            padding: left.saturating_sub(size),
        },
        // No tar has so much: it ends before.
        None => State::Content {
            left: u64::MAX,
            padding: 0,
        },
    }
}

fn owner(id: Option<i64>) -> Result<u32, &'static str> {
    let id = id.ok_or("an owner is no number")?;
    u32::try_from(id).map_err(|_| "an owner is out of range")
}

fn size<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
