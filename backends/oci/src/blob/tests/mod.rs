//! The pitfalls of random access into gzip and zstd, each as a row (Z1 to Z10), against plain
//! decoders of other makers.

mod gzip_rows;
mod hostile;
mod windows;

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::*;

const SPAN: u64 = 16 * 1024;

pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl BlobSource for Bytes {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let bytes = self.0.get(offset..).and_then(|all| all.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// Text with words that come again, near and far, and noise in between.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut text = Vec::with_capacity(length + 300);
    while text.len() < length {
        match numbers.below(4) {
            0 => text.extend_from_slice(&numbers.next().to_le_bytes()),
            1 => text.extend_from_slice(format!("line {}\n", numbers.below(1000)).as_bytes()),
            _ if text.len() > 300 => {
                let back = 1 + numbers.below((text.len() - 300).min(32_000));
                let start = text.len() - back;
                let end = (start + 4 + numbers.below(20)).min(text.len());
                text.extend_from_within(start..end);
            }
            _ => text.push(0),
        }
    }
    text.truncate(length);
    text
}

pub(crate) fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A member with all optional header fields.
fn gzip_with_header(content: &[u8]) -> Vec<u8> {
    let plain = gzip(content, 6);
    let mut header = vec![0x1f, 0x8b, 8, 0b0001_1110, 1, 2, 3, 4, 0, 255];
    header.extend_from_slice(&300_u16.to_le_bytes());
    header.extend_from_slice(&[0x1f; 300]);
    header.extend_from_slice(b"layer.tar\0a comment\0");
    let crc = crc32fast::hash(&header).to_le_bytes();
    header.extend_from_slice(&crc[..2]);
    header.extend_from_slice(&plain[10..]);
    header
}

fn index_in_chunks(
    blob: &[u8],
    span: u64,
    chunk: usize,
) -> Result<(BlobIndex, Vec<u8>), BlobError> {
    let mut decoded = Vec::new();
    let mut indexer = BlobIndexer::new(BlobOptions {
        span,
        ..BlobOptions::default()
    });
    for piece in blob.chunks(chunk) {
        indexer.push(piece, |bytes| {
            decoded.extend_from_slice(bytes);
            Ok::<_, BlobError>(())
        })?;
    }
    let index = indexer.finish(|bytes| {
        decoded.extend_from_slice(bytes);
        Ok::<_, BlobError>(())
    })?;
    Ok((index, decoded))
}

fn reader(blob: Vec<u8>, index: BlobIndex) -> SpanReader<Bytes> {
    SpanReader::new(Bytes(blob), Arc::new(index))
}

/// Indexes a blob and reads each span, which must be the piece of `content` that the index says.
fn assert_readable(blob: &[u8], content: &[u8]) -> BlobIndex {
    assert_readable_with(blob, content, SPAN)
}

fn assert_readable_with(blob: &[u8], content: &[u8], span: u64) -> BlobIndex {
    let (index, decoded) = index_in_chunks(blob, span, 10_000).unwrap();
    assert!(decoded == content, "decoded as other decoders do");
    for chunk in [1 + blob.len() / 40_000, blob.len().max(1)] {
        let (again, decoded) = index_in_chunks(blob, span, chunk).unwrap();
        assert!(decoded == content, "in chunks of {chunk}");
        assert_eq!(again, index, "in chunks of {chunk}");
    }
    assert_eq!(index.digest, Sha256Digest::of(blob));
    assert_eq!(index.diff_id, Sha256Digest::of(content));
    assert_eq!(index.size, u64::try_from(blob.len()).unwrap());
    assert_eq!(index.decoded_size, u64::try_from(content.len()).unwrap());
    let mut at = 0;
    let reader = reader(blob.to_vec(), index.clone());
    // Backwards, so that nothing depends on what was read before.
    for (number, span) in index.spans.iter().enumerate().rev() {
        let range = usize::try_from(span.decoded.start).unwrap()
            ..usize::try_from(span.decoded.end).unwrap();
        let bytes = reader.read(number, usize::MAX).unwrap();
        assert!(bytes == content[range], "span {number}");
    }
    for span in &index.spans {
        assert_eq!(span.decoded.start, at);
        at = span.decoded.end;
    }
    assert_eq!(at, index.decoded_size);
    index
}

fn blocks(index: &BlobIndex) -> impl Iterator<Item = (u8, &Window)> {
    index.spans.iter().filter_map(|span| match &span.resume {
        Resume::Block { bits, window } => Some((*bits, window)),
        Resume::Fresh => None,
    })
}

fn malformed(blob: &[u8]) -> &'static str {
    match index_in_chunks(blob, SPAN, 5000) {
        Err(BlobError::Malformed(what)) => what,
        other => panic!("{:?}", other.map(|(index, _)| index)),
    }
}

#[test]
fn zstd_frames_are_spans_and_one_frame_is_one_span() {
    let content = text(300_000);
    let one = zstd::bulk::compress(&content, 3).unwrap();
    assert_eq!(assert_readable(&one, &content).spans.len(), 1);
    let mut many = Vec::new();
    for piece in content.chunks(10_000) {
        many.extend_from_slice(&zstd::bulk::compress(piece, 3).unwrap());
        // Skippable frames, one of them empty, as seekable zstd and zstd:chunked have them.
        many.extend_from_slice(&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        many.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    }
    let index = assert_readable(&many, &content);
    assert!(index.spans.len() > 10);
    let first = [&[0x5e, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], one.as_slice()].concat();
    assert_readable(&first, &content);
    assert!(index_in_chunks(&one[..one.len() - 1], SPAN, 100).is_err());
    assert!(index_in_chunks(&[one, vec![0; 512]].concat(), SPAN, 100).is_err());
}

#[test]
fn zstd_frames_that_ask_for_too_large_a_window_are_refused() {
    // Magic, descriptor without a single segment, a window of 2^41 bytes.
    let blob = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    let what = malformed(&blob);
    assert!(what.contains("too much memory"), "{what}");
}

#[test]
fn a_plain_blob_has_spans_of_the_size_asked_for() {
    let content = text(100_000);
    let index = assert_readable(&content, &content);
    assert_eq!(index.spans.len(), 7);
    let exact = &content[..65_536];
    assert_eq!(assert_readable(exact, exact).spans.len(), 4);
}
