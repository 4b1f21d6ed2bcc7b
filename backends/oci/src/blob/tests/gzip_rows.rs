//! Rows Z1 to Z9: the dialects of gzip, and what random access into it must mind.

use super::*;

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
