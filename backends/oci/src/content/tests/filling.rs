//! Who fills what, and when it counts.

use super::*;

#[test]
fn only_what_is_asked_for_is_fetched_and_only_once() {
    let layer = layer(<[u8]>::to_vec);
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    assert!(!content.is_resident(long, 95_000..95_001));
    assert!(content.is_resident(long, 5..5), "nothing is always there");
    assert!(
        content.is_resident(long, 300_000..u64::MAX),
        "so is what is beyond the end"
    );
    content.fill(long, 95_000..95_001).unwrap();
    assert_eq!((source.reads(), content.resident_spans()), (1, 1));
    assert!(!content.is_resident(long, 0..95_001));
    let byte = read(&content, long, 95_000..95_001);
    assert_eq!(byte, layer.contents[long][95_000..95_001]);
    content.fill(long, 95_000..95_001).unwrap();
    assert_eq!(source.reads(), 1);
    content.fill(long, 0..u64::MAX).unwrap();
    assert_eq!(source.reads(), content.resident_spans());
    assert!(content.resident_spans() < layer.spans());
    layer.assert_complete(&content);
    assert!(source.reads() <= layer.spans());
}

#[test]
fn what_another_host_has_is_asked_for_with_what_follows_it_and_each_byte_once() {
    let layer = layer(<[u8]>::to_vec);
    let folder = folder();
    let source = Source::distant(&layer);
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    content.fill(long, 95_000..95_001).unwrap();
    assert_eq!(source.reads(), 1);
    assert!(content.is_resident(long, 95_000..u64::MAX), "in 256 KiB");
    assert!(!content.is_resident(long, 0..95_000));
    layer.assert_complete(&content);
    assert_eq!(source.read.load(Ordering::Relaxed), layer.blob.len());
}

#[test]
fn who_reads_on_is_given_more_with_each_request_and_who_wants_more_all_of_it_at_once() {
    let bytes: Vec<u8> = (0..=250).cycle().take(6 << 20).collect();
    let block = Block::new("long", b'0', 6 << 20).with(&bytes);
    let layer = layer_of(vec![(block, bytes)], <[u8]>::to_vec);
    let source = Source::distant(&layer);
    let folder = folder();
    let content = layer.open(&folder, &source);
    let fetched = |range: Range<u64>| {
        let before = (source.reads(), source.read.load(Ordering::Relaxed));
        content.fill(0, range).unwrap();
        let after = (source.reads(), source.read.load(Ordering::Relaxed));
        (after.0 - before.0, (after.1 - before.1) >> 10)
    };
    let next = || {
        (0..6 << 20)
            .step_by(1 << 14)
            .find(|at| !content.is_resident(0, *at..*at + 1))
    };
    for kib in [256, 256, 512, 1024, 1024] {
        let next = next().unwrap();
        assert_eq!(fetched(next..next + 1), (1, kib), "at {next}");
    }
    assert_eq!(fetched(4 << 20..(4 << 20) + 1), (1, 256));
    let (reads, kib) = fetched(5 << 20..(5 << 20) + (600 << 10));
    assert!(reads == 1 && (600..640).contains(&kib), "{reads}, {kib}");
    assert_eq!(
        fetched(4 << 20..6 << 20).0,
        2,
        "what is missing between and after"
    );
}

#[test]
fn those_who_want_the_same_span_wait_for_one_fill() {
    let layer = gzip_layer();
    let (source, has_begun, go) = Source::gated(&layer, false);
    let folder = folder();
    let content = layer.open(&folder, &source);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                content.fill(0, 0..5).unwrap();
                assert_eq!(read(&content, 0, 0..5), b"hello");
            });
        }
        has_begun.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
    });
    assert_eq!(source.reads(), 1);
}

#[test]
fn those_who_wait_for_a_fill_share_its_failure_and_the_next_one_tries_again() {
    let layer = gzip_layer();
    let (source, has_begun, go) = Source::gated(&layer, true);
    let folder = folder();
    let content = layer.open(&folder, &source);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| content.fill(0, 0..5).unwrap_err());
        has_begun.recv_timeout(PATIENCE).unwrap();
        let second = scope.spawn(|| content.fill(0, 0..5));
        go.send(()).unwrap();
        let error = first.join().unwrap();
        let ContentError::Span(error) = &error else {
            panic!("{error:?}");
        };
        assert_eq!((error.layer, error.span), (layer.index.blob.digest, 0));
        // The second one may have come when the first had failed, and then reads by itself.
        go.send(()).unwrap();
        assert!(second.join().unwrap().is_err());
        source.fails.store(false, Ordering::Relaxed);
        go.send(()).unwrap();
    });
    content.fill(0, 0..5).unwrap();
}

#[test]
fn wrong_bytes_are_never_in_the_cache() {
    for in_memory in [IN_MEMORY, 100] {
        let layer = gzip_layer();
        let (folder, source) = (folder(), layer.source());
        let mut content = layer.open(&folder, &source);
        content.in_memory = in_memory;
        source.wrong.store(true, Ordering::Relaxed);
        let before = std::fs::read(&cache_files(&folder)[0]).unwrap();
        for entry in 0..layer.contents.len() {
            if !layer.contents[entry].is_empty() {
                let error = content.fill(entry, 0..u64::MAX).unwrap_err();
                let ContentError::Span(error) = error else {
                    panic!("{error:?}");
                };
                assert!(matches!(error.reason, SpanFault::Mismatch(_)), "{error}");
            }
        }
        assert_eq!(content.resident_spans(), 0);
        assert!(std::fs::read(&cache_files(&folder)[0]).unwrap() == before);
        source.wrong.store(false, Ordering::Relaxed);
        layer.assert_complete(&content);
    }
}

#[test]
fn a_span_too_large_for_memory_is_verified_in_a_file() {
    let layer = layer(|tar| zstd::bulk::compress(tar, 3).unwrap());
    let (folder, source) = (folder(), layer.source());
    let mut content = layer.open(&folder, &source);
    content.in_memory = 1000;
    layer.assert_complete(&content);
    assert_eq!(content.resident_spans(), 1);
    assert_eq!(cache_files(&folder).len(), 1, "no temporary file is left");
}

#[test]
fn a_span_too_large_for_memory_is_read_once_with_those_beside_it() {
    let layer = layer(<[u8]>::to_vec);
    let folder = folder();
    let source = Source::distant(&layer);
    let mut content = layer.open(&folder, &source);
    content.in_memory = 10;
    content.fill_run(0..layer.spans()).unwrap();
    layer.assert_complete(&content);
    assert_eq!(source.reads(), 1);
    assert_eq!(source.read.load(Ordering::Relaxed), layer.blob.len());
}
