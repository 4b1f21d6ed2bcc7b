use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::blob::tests::{gzip, text};
use crate::blob::{BlobOptions, SpanFault};
use crate::index::{IndexOptions, build_index};
use crate::tar::tests::{Block, file, pax};

/// What a test waits for at most, if what it tests is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blob that counts how often it is read, can be broken, and can hold its readers up.
#[derive(Default)]
struct Source {
    blob: Vec<u8>,
    reads: AtomicUsize,
    wrong: AtomicBool,
    fails: AtomicBool,
    /// Takes a note when a read begins, and waits for the other end.
    gate: Option<(mpsc::SyncSender<()>, parking_lot::Mutex<mpsc::Receiver<()>>)>,
}

impl BlobSource for Source {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some((begun, go_on)) = &self.gate {
            begun.send(()).unwrap();
            go_on.lock().recv_timeout(PATIENCE).unwrap();
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.blob[start..start + buffer.len()]);
        if self.wrong.load(Ordering::Relaxed) {
            buffer.iter_mut().for_each(|byte| *byte ^= 0x55);
        }
        Ok(())
    }
}

impl Source {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

/// Files with their contents, and what they are in the tar.
fn files() -> Vec<(Vec<u8>, Vec<u8>)> {
    let long = text(300_000);
    let long_size = u64::try_from(long.len()).unwrap();
    let page = "p".repeat(4096);
    let mut sparse = vec![0; 1_000_000];
    sparse[10..30].copy_from_slice(b"abcdefghijklmnopqrst");
    sparse[5000..5003].copy_from_slice(b"xyz");
    sparse[900_000..900_007].copy_from_slice(b"the end");
    let sparse_tar = [
        pax(&[
            ("GNU.sparse.size", b"1000000"),
            ("GNU.sparse.map", b"10,20,5000,3,900000,7"),
        ]),
        Block::new("sparse", b'0', 30).with(b"abcdefghijklmnopqrstxyzthe end"),
    ];
    let mut all = vec![
        (file("a", "hello"), b"hello".to_vec()),
        (file("empty", ""), vec![]),
        (file("page", &page), page.into_bytes()),
        (Block::new("dir/", b'5', 0).bytes(), vec![]),
        (Block::new("long", b'0', long_size).with(&long), long),
        (sparse_tar.concat(), sparse),
    ];
    for number in 0..200 {
        let content = format!("small file {number}").repeat(number);
        all.push((
            file(&format!("small-{number}"), &content),
            content.into_bytes(),
        ));
    }
    all
}

struct Layer {
    index: Arc<LayerIndex>,
    contents: Vec<Vec<u8>>,
    blob: Vec<u8>,
}

fn layer(compress: fn(&[u8]) -> Vec<u8>) -> Layer {
    let (mut tar, mut contents) = (Vec::new(), Vec::new());
    for (bytes, content) in files() {
        tar.extend_from_slice(&bytes);
        contents.push(content);
    }
    tar.resize(tar.len() + 1024, 0);
    let blob = compress(&tar);
    let options = IndexOptions {
        blob: BlobOptions {
            span: 16 * 1024,
            ..BlobOptions::default()
        },
        ..IndexOptions::default()
    };
    let index = Arc::new(build_index(blob.as_slice(), &options, |_| {}).unwrap());
    assert_eq!(index.entries.len(), contents.len());
    Layer {
        index,
        contents,
        blob,
    }
}

fn gzip_layer() -> Layer {
    layer(|tar| gzip(tar, 6))
}

impl Layer {
    fn source(&self) -> Arc<Source> {
        Arc::new(Source {
            blob: self.blob.clone(),
            ..Source::default()
        })
    }

    fn open(&self, folder: &TempDir, source: &Arc<Source>) -> LayerContent {
        self.open_in(folder, source, boot(1))
    }

    fn open_in(&self, folder: &TempDir, source: &Arc<Source>, boot: Boot) -> LayerContent {
        let source: Arc<dyn BlobSource> = Arc::clone(source) as _;
        LayerContent::open_in(folder.path(), Arc::clone(&self.index), source, boot).unwrap()
    }

    fn number(&self, name: &str) -> usize {
        let mut entries = self.index.entries.iter();
        entries
            .position(|entry| entry.path == name.as_bytes())
            .unwrap()
    }

    fn spans(&self) -> usize {
        self.index.blob.spans.len()
    }

    /// Every file, filled and read, is what it was.
    fn assert_complete(&self, content: &LayerContent) {
        for (entry, expected) in self.contents.iter().enumerate() {
            content.fill(entry, 0..u64::MAX).unwrap();
            assert!(
                read(content, entry, 0..u64::MAX) == *expected,
                "entry {entry}"
            );
        }
    }
}

fn boot(number: u8) -> Boot {
    Boot([number; 36])
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A part of a file, as one who serves it reads it.
fn read(content: &LayerContent, entry: usize, range: Range<u64>) -> Vec<u8> {
    assert!(content.is_resident(entry, range.clone()));
    let file = std::fs::File::from(content.descriptor().try_clone_to_owned().unwrap());
    let mut bytes = Vec::new();
    let mut at = range.start;
    for piece in content.locate(entry, range) {
        assert_eq!(piece.file_offset, at, "without gaps");
        at += piece.length;
        let mut buffer = vec![0; usize::try_from(piece.length).unwrap()];
        if let Some(offset) = piece.cache_offset {
            assert_eq!(offset % 4096, piece.file_offset % 4096, "pages are pages");
            file.read_exact_at(&mut buffer, offset).unwrap();
        }
        bytes.extend_from_slice(&buffer);
    }
    bytes
}

fn cache_files(folder: &TempDir) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.path()).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn every_file_of_every_kind_of_layer_is_read_as_it_is() {
    for compress in [
        |tar: &[u8]| tar.to_vec(),
        |tar: &[u8]| gzip(tar, 6),
        |tar: &[u8]| zstd::bulk::compress(tar, 3).unwrap(),
        |tar: &[u8]| tar.chunks(20_000).flat_map(|it| gzip(it, 6)).collect(),
    ] {
        let layer = layer(compress);
        let folder = folder();
        let content = layer.open(&folder, &layer.source());
        assert_eq!(content.resident_spans(), 0);
        layer.assert_complete(&content);
    }
}

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
fn files_begin_at_pages_and_holes_are_nowhere() {
    let layer = gzip_layer();
    let folder = folder();
    let content = layer.open(&folder, &layer.source());
    let mut pages = HashSet::new();
    for (entry, expected) in layer.contents.iter().enumerate() {
        let pieces: Vec<_> = content.locate(entry, 0..u64::MAX).collect();
        let length: u64 = pieces.iter().map(|piece| piece.length).sum();
        assert_eq!(length, u64::try_from(expected.len()).unwrap());
        for piece in pieces {
            if let Some(offset) = piece.cache_offset {
                let last = (offset + piece.length - 1) / 4096;
                assert!(
                    (offset / 4096..=last).all(|page| pages.insert(page)),
                    "one file a page"
                );
            }
        }
    }
    let sparse = layer.number("sparse");
    let pieces: Vec<_> = content.locate(sparse, 0..u64::MAX).collect();
    let places: Vec<_> = pieces
        .iter()
        .map(|piece| {
            (
                piece.file_offset,
                piece.length,
                piece.cache_offset.is_some(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (0, 8192, true),
            (8192, 888_832, false),
            (897_024, 4096, true),
            (901_120, 98_880, false)
        ]
    );
    let cut: Vec<_> = content.locate(sparse, 100..9000).collect();
    assert_eq!(
        cut[0].cache_offset,
        pieces[0].cache_offset.map(|offset| offset + 100)
    );
    assert_eq!(
        (cut[0].length, cut[1].length, cut[1].cache_offset),
        (8092, 808, None)
    );
    assert!(
        content.is_resident(sparse, 100_000..800_000),
        "a hole is there"
    );
    assert_eq!(content.locate(sparse, 1_000_000..2_000_000).count(), 0);
    assert_eq!(content.locate(layer.number("dir/"), 0..10).count(), 0);
    assert_eq!(content.locate(1_000_000, 0..10).count(), 0);
    content.fill(1_000_000, 0..10).unwrap();
}

#[test]
fn pages_are_zero_after_the_end_of_their_file() {
    let layer = gzip_layer();
    let folder = folder();
    let content = layer.open(&folder, &layer.source());
    layer.assert_complete(&content);
    let file = std::fs::File::from(content.descriptor().try_clone_to_owned().unwrap());
    for entry in 0..layer.contents.len() {
        let Some(last) = content.locate(entry, 0..u64::MAX).last() else {
            continue;
        };
        if let Some(offset) = last.cache_offset {
            let end = offset + last.length;
            let tail = usize::try_from(end.next_multiple_of(4096) - end).unwrap();
            let mut bytes = vec![1; tail];
            file.read_exact_at(&mut bytes, end).unwrap();
            assert_eq!(bytes, vec![0; tail], "entry {entry}");
        }
    }
}

#[test]
fn those_who_want_the_same_span_wait_for_one_fill() {
    let layer = gzip_layer();
    let (begun, has_begun) = mpsc::sync_channel(100);
    let (go, go_on) = mpsc::channel();
    let source = Arc::new(Source {
        blob: layer.blob.clone(),
        gate: Some((begun, go_on.into())),
        ..Source::default()
    });
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
    let (begun, has_begun) = mpsc::sync_channel(100);
    let (go, go_on) = mpsc::channel();
    let source = Arc::new(Source {
        blob: layer.blob.clone(),
        gate: Some((begun, go_on.into())),
        fails: true.into(),
        ..Source::default()
    });
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

#[test]
fn indexes_whose_files_have_no_place_are_refused() {
    let layer = gzip_layer();
    let refused = |change: fn(&mut LayerIndex)| {
        let mut index = (*layer.index).clone();
        change(&mut index);
        let folder = folder();
        let source: Arc<dyn BlobSource> = layer.source();
        match LayerContent::open(folder.path(), Arc::new(index), source) {
            Err(error) => error,
            Ok(_) => panic!("it was opened"),
        }
    };
    let shared = refused(|index| index.entries[2] = index.entries[0].clone());
    assert!(matches!(shared, ContentError::Disordered), "{shared}");
    let large = refused(|index| {
        if let EntryKind::Regular { data, .. } = &mut index.entries[0].kind {
            data[0].length = u64::MAX - 5;
        }
    });
    assert!(matches!(large, ContentError::TooLarge), "{large}");
    assert!(
        layer
            .open(&folder(), &layer.source())
            .fill_span(1 << 40)
            .is_err()
    );
}
