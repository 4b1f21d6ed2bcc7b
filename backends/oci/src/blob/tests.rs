//! The pitfalls of random access into gzip and zstd, each as a row (Z1 to Z10), against plain
//! decoders of other makers.

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
fn z1_every_byte_of_concatenated_members_is_reachable() {
    let content = text(400_000);
    let mut blob = Vec::new();
    for piece in content.chunks(30_000) {
        blob.extend_from_slice(&gzip(piece, 6));
    }
    let index = assert_readable(&blob, &content);
    assert!(index.spans.len() > 10);
    // Members start often enough here, so that no checkpoint needs a window after the first.
    assert!(blocks(&index).count() <= 1, "{:?}", blocks(&index).count());
    let two = [gzip(&content[..5], 9), gzip(&content[5..], 1)].concat();
    assert_readable(&two, &content);
}

#[test]
fn z1_the_output_of_parallel_gzip_is_readable() {
    // As pigz and bgzip write it: blocks that end with an empty stored one; small members.
    let content = text(300_000);
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(6));
    for piece in content.chunks(20_000) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    let index = assert_readable(&encoder.finish().unwrap(), &content);
    assert!(index.spans.len() > 10);
}

#[test]
fn z2_headers_with_every_field_are_read() {
    let content = text(100_000);
    let blob = gzip_with_header(&content);
    assert_readable(&blob, &content);
    let twice = [blob.clone(), blob.clone()].concat();
    assert_readable(&twice, &[content.clone(), content].concat());
    let mut wrong = blob;
    wrong[320] ^= 1;
    assert_eq!(malformed(&wrong), "gzip: wrong header checksum");
}

#[test]
fn z3_the_first_span_is_at_the_start_and_none_is_empty() {
    for length in [1, 1000, 200_000] {
        let content = text(length);
        let index = assert_readable(&gzip(&content, 6), &content);
        assert_eq!(index.spans[0].compressed.start, 0);
        assert_eq!(index.spans[0].resume, Resume::Fresh);
        assert!(index.spans.iter().all(|span| !span.decoded.is_empty()));
    }
}

#[test]
fn z4_spans_are_as_long_as_blocks_need() {
    let zeros = vec![0; 3_000_000];
    let index = assert_readable(&gzip(&zeros, 9), &zeros);
    let longest = index
        .spans
        .iter()
        .map(|span| span.decoded.end - span.decoded.start);
    assert!(
        longest.max().unwrap() > 1_000_000,
        "one block is many spans"
    );
    let content = text(200_000);
    let index = assert_readable(&gzip(&content, 0), &content);
    assert!(index.spans.len() > 2, "stored blocks end spans, too");
}

#[test]
fn z5_lengths_and_places_beyond_4_gib_do_not_wrap() {
    // The same spans, five GiB further on in both directions.
    struct Far(Bytes);
    const AWAY: u64 = 5 << 30;
    impl BlobSource for Far {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset.checked_sub(AWAY).unwrap(), buffer)
        }
    }
    let content = text(200_000);
    let blob = gzip(&content, 6);
    let (mut index, _) = index_in_chunks(&blob, SPAN, 5000).unwrap();
    for span in &mut index.spans {
        span.compressed = span.compressed.start + AWAY..span.compressed.end + AWAY;
        span.decoded = span.decoded.start + AWAY..span.decoded.end + AWAY;
    }
    index.decoded_size += AWAY;
    let place = AWAY + 123_456;
    let found = index.span_at(place).unwrap();
    let start = index.spans[found].decoded.start;
    let reader = SpanReader::new(Far(Bytes(blob)), Arc::new(index));
    let bytes = reader.read(found, usize::MAX).unwrap();
    assert_eq!(
        bytes[usize::try_from(place - start).unwrap()],
        content[123_456]
    );
}

#[test]
#[ignore = "decodes 5 GiB: minutes without optimization"]
fn z5_a_member_of_5_gib_is_indexed() {
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(1));
    let zeros = vec![0; 1 << 20];
    for _ in 0..5 * 1024 {
        encoder.write_all(&zeros).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let mut indexer = BlobIndexer::new(BlobOptions::default());
    indexer.push(&blob, |_| Ok::<_, BlobError>(())).unwrap();
    let index = indexer.finish(|_| Ok::<_, BlobError>(())).unwrap();
    assert_eq!(index.decoded_size, 5 << 30);
    let last = index.spans.len() - 1;
    reader(blob, index).read(last, usize::MAX).unwrap();
}

#[test]
fn z6_zeros_after_the_last_member_are_padding_and_anything_else_is_refused() {
    let content = text(50_000);
    let mut blob = gzip(&content, 6);
    blob.extend_from_slice(&[0; 10_000]);
    assert_readable(&blob, &content);
    blob.push(1);
    assert_eq!(malformed(&blob), "gzip: garbage after the last member");
    let mut blob = gzip(&content, 6);
    blob.push(b'x');
    assert_eq!(malformed(&blob), "no gzip member");
    // A member after padding is one that other decoders do not see.
    let hidden = [gzip(&content, 6), vec![0; 512], gzip(&content, 6)].concat();
    assert_eq!(malformed(&hidden), "gzip: garbage after the last member");
}

#[test]
fn z7_references_reach_back_32_kib_across_the_decoders_buffer() {
    // Noise that comes again nearly as far away as can be, over several lengths of the buffer.
    let mut numbers = Numbers(7);
    let noise: Vec<u8> = (0..32_500)
        .map(|_| numbers.next().to_le_bytes()[0])
        .collect();
    let content = noise.repeat(30);
    let blob = gzip(&content, 9);
    assert!(blob.len() < content.len() / 10, "the references are there");
    let index = assert_readable(&blob, &content);
    assert!(blocks(&index).count() > 0);
}

#[test]
fn z7_a_member_may_not_refer_to_what_is_before_its_start() {
    // A block with fixed codes: a match of length 3 at distance 1, then the end of the block.
    let first = gzip(b"secret", 6);
    let mut second = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // 1 (final), 01 (fixed), 0000001 (length 3), 00000 (distance 1), 0000000 (end), from the low bit.
    second.extend_from_slice(&[0b0000_0011, 0b0000_0010, 0, 0]);
    second.extend_from_slice(&[0; 8]);
    assert_eq!(
        malformed(&[first, second].concat()),
        "gzip: no deflate stream"
    );
}

#[test]
fn z8_the_byte_that_two_spans_share_is_verified_with_both() {
    let content = text(400_000);
    let blob = gzip(&content, 6);
    let index = assert_readable(&blob, &content);
    let shared: Vec<usize> = (1..index.spans.len())
        .filter(|number| {
            let before = &index.spans[number - 1];
            index.spans[*number].compressed.start + 1 == before.compressed.end
        })
        .collect();
    let with_bits = blocks(&index).filter(|(bits, _)| *bits > 0).count();
    assert_eq!(shared.len(), with_bits);
    assert!(with_bits > 3, "{with_bits}");
    for number in shared {
        let mut wrong = blob.clone();
        wrong[usize::try_from(index.spans[number].compressed.start).unwrap()] ^= 0x80;
        let reader = reader(wrong, index.clone());
        for span in [number - 1, number] {
            let error = reader.read(span, usize::MAX).unwrap_err();
            assert!(matches!(error.reason, SpanFault::Mismatch("compressed")));
        }
    }
}

#[test]
fn z9_empty_members_and_files_are_read_as_nothing() {
    assert_readable(&[], &[]);
    assert_readable(b"ab", b"ab");
    assert_readable(&gzip(b"", 6), b"");
    let content = text(60_000);
    let blob = [
        gzip(b"", 6),
        gzip(&content, 6),
        gzip(b"", 6),
        gzip(b"", 6),
        gzip(&content, 6),
        gzip(b"", 6),
    ]
    .concat();
    let index = assert_readable(&blob, &[content.clone(), content].concat());
    assert_eq!(index.span_at(index.decoded_size), None);
    assert_eq!(index.spans_of(index.decoded_size..u64::MAX), 0..0);
    assert_eq!(index.spans_of(5..5), 0..0);
    let full = index.spans.iter().filter(|span| !span.decoded.is_empty());
    assert_eq!(index.spans_of(0..u64::MAX), 0..full.count());
    let second = index.spans[1].decoded.start;
    assert_eq!(index.spans_of(second - 1..second + 1), 0..2);
    assert_eq!(index.spans_of(second..second + 1), 1..2);
}

#[test]
fn z9_blobs_of_many_kinds_are_decoded_as_by_another_decoder() {
    let mut numbers = Numbers(99);
    for round in 0..25 {
        let content = text(numbers.below(80_000));
        let mut blob = Vec::new();
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + numbers.below(rest.len()));
            blob.extend_from_slice(&gzip(piece, u32::try_from(numbers.below(10)).unwrap()));
            rest = after;
        }
        let mut expected = Vec::new();
        flate2::read::MultiGzDecoder::new(blob.as_slice())
            .read_to_end(&mut expected)
            .unwrap();
        assert!(expected == content, "round {round}");
        let span = 1 + u64::try_from(numbers.below(40_000)).unwrap();
        assert_readable_with(&blob, &expected, span);
    }
}

#[test]
fn z10_a_changed_blob_never_gives_wrong_bytes() {
    let content = text(150_000);
    for blob in [
        gzip(&content, 6),
        content
            .chunks(20_000)
            .flat_map(|piece| gzip(piece, 6))
            .collect::<Vec<u8>>(),
        zstd::bulk::compress(&content, 3).unwrap(),
        content.clone(),
    ] {
        let (index, _) = index_in_chunks(&blob, SPAN, 5000).unwrap();
        let mut numbers = Numbers(5);
        for _ in 0..60 {
            let mut wrong = blob.clone();
            let place = numbers.below(wrong.len());
            wrong[place] ^= 1 << numbers.below(8);
            let place = u64::try_from(place).unwrap();
            let reader = reader(wrong, index.clone());
            let hit = index
                .spans
                .iter()
                .position(|span| span.compressed.contains(&place));
            let error = reader.read(hit.unwrap(), usize::MAX).unwrap_err();
            assert_eq!(error.layer, index.digest);
            assert_eq!(error.span, hit.unwrap());
            assert!(error.to_string().contains(&index.digest.hex()), "{error}");
        }
        let short = reader(blob[..blob.len() / 2].to_vec(), index.clone());
        let error = short.read(index.spans.len() - 1, usize::MAX).unwrap_err();
        assert!(matches!(error.reason, SpanFault::Source(_)), "{error}");
    }
}

#[test]
fn z10_a_changed_blob_is_indexed_to_itself_or_refused() {
    let content = text(60_000);
    for blob in [gzip(&content, 6), gzip_with_header(&content)] {
        let mut numbers = Numbers(11);
        for _ in 0..100 {
            let mut wrong = blob.clone();
            let place = numbers.below(wrong.len());
            wrong[place] ^= 1 << numbers.below(8);
            // Changes of a name or a time in the header are none of the content.
            if let Ok((index, decoded)) = index_in_chunks(&wrong, SPAN, 3000) {
                assert!(decoded == content, "byte {place}");
                assert_ne!(index.digest, Sha256Digest::of(&blob));
            }
        }
        for length in [1, 5, 11, 500, blob.len() - 1] {
            let short = index_in_chunks(&blob[..length], SPAN, 100);
            // One byte is no magic: a blob that is not compressed.
            assert_eq!(short.is_ok(), length == 1, "{length} bytes");
        }
    }
}

#[test]
fn z10_a_changed_index_never_gives_wrong_bytes() {
    let content = text(300_000);
    let blob = gzip(&content, 6);
    let (index, _) = index_in_chunks(&blob, SPAN, 5000).unwrap();
    let changes: [fn(&mut Span); 8] = [
        |span| span.compressed.start += 1,
        |span| span.compressed.end -= 1,
        |span| span.compressed.end = u64::MAX,
        |span| span.decoded.end += 1,
        |span| span.decoded.end = u64::MAX,
        |span| span.compressed_sha256.0[0] ^= 1,
        |span| span.decoded_sha256.0[31] ^= 1,
        |span| span.resume = Resume::Fresh,
    ];
    for change in changes {
        let mut wrong = index.clone();
        change(&mut wrong.spans[3]);
        let reader = reader(blob.clone(), wrong);
        reader.stream(3, |_| Ok(())).unwrap_err();
        assert!(reader.read(2, usize::MAX).is_ok());
    }
    for bits in 0..=255 {
        let mut wrong = index.clone();
        let Resume::Block { bits: own, window } = &mut wrong.spans[3].resume else {
            panic!("inside a member");
        };
        if *own == bits {
            *window = Window::from_packed(b"no window").unwrap();
        }
        *own = bits;
        reader(blob.clone(), wrong).read(3, usize::MAX).unwrap_err();
    }
    assert!(Window::from_packed(&vec![0; Window::PACKED_MAX + 1]).is_err());
    let error = reader(blob, index).read(1000, usize::MAX).unwrap_err();
    assert!(matches!(error.reason, SpanFault::Missing));
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

#[test]
fn limits_stop_a_bomb_before_it_is_decoded() {
    let bomb = gzip(&vec![0; 50_000_000], 9);
    assert!(bomb.len() < 60_000);
    let mut seen = 0;
    let mut indexer = BlobIndexer::new(BlobOptions {
        max_decoded: 1_000_000,
        ..BlobOptions::default()
    });
    let result = indexer.push(&bomb, |bytes| {
        seen += bytes.len();
        Ok::<_, BlobError>(())
    });
    assert!(matches!(result, Err(BlobError::TooLarge { .. })));
    assert!(seen <= 1_000_000);
    let mut indexer = BlobIndexer::new(BlobOptions {
        span: 1,
        max_spans: 3,
        ..BlobOptions::default()
    });
    let result = indexer.push(&text(1000), |_| Ok::<_, BlobError>(()));
    assert!(matches!(
        result,
        Err(BlobError::TooLarge { what: "spans", .. })
    ));
}

#[test]
fn a_span_larger_than_its_reader_wants_is_not_held_in_memory() {
    let zeros = vec![0; 9_000_000];
    let blob = zstd::bulk::compress(&zeros, 3).unwrap();
    let (index, _) = index_in_chunks(&blob, SPAN, 5000).unwrap();
    let reader = reader(blob, index);
    let error = reader.read(0, 1 << 20).unwrap_err();
    assert!(matches!(
        error.reason,
        SpanFault::TooLarge {
            length: 9_000_000,
            ..
        }
    ));
    let (mut sum, mut largest) = (0, 0);
    reader
        .stream(0, |piece| {
            sum += piece.len();
            largest = largest.max(piece.len());
            Ok(())
        })
        .unwrap();
    assert_eq!(sum, zeros.len());
    assert!(largest <= 4 << 20);
    let full = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
    assert!(matches!(
        reader.stream(0, full).unwrap_err().reason,
        SpanFault::Sink(_)
    ));
}
