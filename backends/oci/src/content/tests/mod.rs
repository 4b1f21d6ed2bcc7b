mod bounded;
mod filling;
mod lasting;

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::EntryKind;
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
    /// Bytes that were read.
    read: AtomicUsize,
    is_distant: bool,
    wrong: AtomicBool,
    fails: AtomicBool,
    /// Takes a note when a read begins, and waits for the other end.
    gate: Option<(mpsc::SyncSender<()>, parking_lot::Mutex<mpsc::Receiver<()>>)>,
}

impl BlobSource for Source {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(buffer.len(), Ordering::Relaxed);
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

    fn is_distant(&self) -> bool {
        self.is_distant
    }
}

impl Source {
    /// A layer that another host has.
    fn distant(layer: &Layer) -> Arc<Self> {
        Arc::new(Self {
            blob: layer.blob.clone(),
            is_distant: true,
            ..Self::default()
        })
    }

    /// A layer whose readers are held up: who has begun is told at the first end, and goes on by the second.
    fn gated(layer: &Layer, fails: bool) -> (Arc<Self>, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::sync_channel(100);
        let (go, go_on) = mpsc::channel();
        let source = Arc::new(Self {
            blob: layer.blob.clone(),
            gate: Some((begun, go_on.into())),
            fails: fails.into(),
            ..Self::default()
        });
        (source, has_begun, go)
    }

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
    layer_of(files(), compress)
}

fn layer_of(files: Vec<(Vec<u8>, Vec<u8>)>, compress: fn(&[u8]) -> Vec<u8>) -> Layer {
    let (mut tar, mut contents) = (Vec::new(), Vec::new());
    for (bytes, content) in files {
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

    fn open_in(&self, folder: &TempDir, source: &Arc<Source>, boot: HostBoot) -> LayerContent {
        let source: Arc<dyn BlobSource> = Arc::clone(source) as _;
        LayerContent::open(folder.path(), &self.index, source, boot).unwrap()
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

fn boot(number: u8) -> HostBoot {
    HostBoot([number; 36])
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
fn indexes_whose_files_have_no_place_are_refused() {
    let layer = gzip_layer();
    let refused = |change: fn(&mut LayerIndex)| {
        let mut index = (*layer.index).clone();
        change(&mut index);
        let folder = folder();
        let source: Arc<dyn BlobSource> = layer.source();
        match LayerContent::open(folder.path(), &index, source, boot(1)) {
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
