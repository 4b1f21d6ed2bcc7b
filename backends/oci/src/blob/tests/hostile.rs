//! Row Z10 and limits: blobs and indexes that were changed, and bombs.

use super::*;

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
        |span| span.compressed_digest.as_mut().unwrap().0[0] ^= 1,
        |span| {
            if let SpanDigest::Blake3(digest) = &mut span.decoded_digest {
                digest.0[31] ^= 1;
            }
        },
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
