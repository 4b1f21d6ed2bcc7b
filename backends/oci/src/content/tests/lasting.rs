//! What is in the cache when it is opened again, or by others.

use super::*;

#[test]
fn what_was_filled_is_there_after_the_daemon_ended_however_it_ended() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    content.fill(long, 0..u64::MAX).unwrap();
    let filled = content.resident_spans();
    // As after kill -9: nothing is said at the end.
    std::mem::forget(content);
    source.fails.store(true, Ordering::Relaxed);
    let content = layer.open(&folder, &source);
    assert_eq!(content.resident_spans(), filled);
    assert!(read(&content, long, 0..u64::MAX) == layer.contents[long]);
    assert_eq!(cache_files(&folder).len(), 1);
}

#[test]
fn after_a_crash_of_the_host_only_what_was_synced_counts() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    content.fill(0, 0..5).unwrap();
    content.sync().unwrap();
    let long = layer.number("long");
    content.fill(long, 40_000..u64::MAX).unwrap();
    assert!(content.resident_spans() > 1);
    drop(content);
    let content = layer.open_in(&folder, &source, boot(2));
    assert_eq!(content.resident_spans(), 1);
    assert_eq!(read(&content, 0, 0..5), b"hello");
    layer.assert_complete(&content);
    content.sync().unwrap();
    content.sync().unwrap();
    let all = content.resident_spans();
    drop(content);
    assert_eq!(
        layer.open_in(&folder, &source, boot(3)).resident_spans(),
        all
    );
}

#[test]
fn contents_without_their_mark_are_written_again() {
    // As after kill -9 in the middle of a fill: some bytes are there, the span's mark is not.
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    let place = content
        .locate(long, 0..1)
        .next()
        .unwrap()
        .cache_offset
        .unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&cache_files(&folder)[0])
        .unwrap();
    file.write_all_at(&[0xee; 5000], place).unwrap();
    drop(content);
    layer.assert_complete(&layer.open(&folder, &source));
}

#[test]
fn several_daemons_share_a_cache() {
    let layer = gzip_layer();
    let folder = folder();
    let sources = [layer.source(), layer.source()];
    let one = layer.open(&folder, &sources[0]);
    let other = layer.open(&folder, &sources[1]);
    layer.assert_complete(&one);
    layer.assert_complete(&other);
    assert_eq!(
        sources[1].reads(),
        0,
        "what one has fetched, the other finds"
    );

    let folder = self::folder();
    let source = layer.source();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| layer.assert_complete(&layer.open(&folder, &source)));
        }
    });
    assert_eq!(cache_files(&folder).len(), 1);
    layer.assert_complete(&layer.open(&folder, &source));
}

#[test]
fn a_file_that_is_no_cache_of_the_layer_is_replaced() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    layer.assert_complete(&layer.open(&folder, &source));
    let path = cache_files(&folder).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.clear(),
        |bytes| bytes[0] ^= 1,
        |bytes| bytes[8] ^= 1,
        |bytes| bytes[20] ^= 1,
        |bytes| bytes[4096] = 7,
        |bytes| bytes.push(0),
    ];
    for damage in damages {
        let mut damaged = whole.clone();
        damage(&mut damaged);
        std::fs::write(&path, damaged).unwrap();
        let content = layer.open(&folder, &source);
        assert_eq!(content.resident_spans(), 0);
        layer.assert_complete(&content);
    }
    assert_eq!(cache_files(&folder), [path]);
}

#[test]
fn an_index_of_other_spans_has_a_cache_of_its_own() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    layer.assert_complete(&layer.open(&folder, &source));
    let index = build_index(layer.blob.as_slice(), &IndexOptions::default(), |_| {}).unwrap();
    let other = Layer {
        index: Arc::new(index),
        ..gzip_layer()
    };
    let content = other.open(&folder, &source);
    assert_eq!(content.resident_spans(), 0);
    other.assert_complete(&content);
    assert_eq!(cache_files(&folder).len(), 2);
}

fn failed() -> io::Result<()> {
    Err(io::Error::other("the disk"))
}

#[test]
fn what_was_written_while_a_sync_failed_is_not_there() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    content.fill(0, 0..5).unwrap();
    content.sync().unwrap();
    let durable = content.resident_spans();
    content.fill(long, 100_000..100_001).unwrap();
    let synced = content.sync_by(|| {
        content.fill(long, 250_000..250_001).unwrap();
        failed()
    });
    assert!(synced.is_err());
    assert_eq!(content.resident_spans(), durable);
    // The disk says it once.
    content.sync().unwrap();
    drop(content);
    let content = layer.open_in(&folder, &source, boot(2));
    assert_eq!(content.resident_spans(), durable);
    layer.assert_complete(&content);
}

#[test]
fn what_is_being_written_while_a_sync_fails_is_an_error() {
    let layer = gzip_layer();
    let (source, has_begun, go) = Source::gated(&layer, false);
    let folder = folder();
    let content = layer.open(&folder, &source);
    let long = layer.number("long");
    go.send(()).unwrap();
    content.fill(0, 0..1).unwrap();
    has_begun.recv_timeout(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        let filling = scope.spawn(|| content.fill(long, 250_000..250_001));
        has_begun.recv_timeout(PATIENCE).unwrap();
        assert!(content.sync_by(failed).is_err());
        go.send(()).unwrap();
        assert!(filling.join().unwrap().is_err());
    });
    assert_eq!(content.resident_spans(), 0);
}

#[test]
fn what_is_found_wrong_while_it_is_synced_does_not_become_durable() {
    let layer = gzip_layer();
    let (folder, source) = (folder(), layer.source());
    let content = layer.open(&folder, &source);
    content.fill(0, 0..5).unwrap();
    let span = content.spans_of(0, 0..5).next().unwrap().start;
    let absent = crate::content::file::ABSENT;
    content
        .sync_by(|| content.file.set_state(span, absent))
        .unwrap();
    drop(content);
    let content = layer.open_in(&folder, &source, boot(2));
    assert_eq!(content.resident_spans(), 0);
}
