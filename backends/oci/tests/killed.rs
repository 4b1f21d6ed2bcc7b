//! A daemon that is killed while it fills a cache, alone or beside others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::{Arguments, Trial};
use vfsd_oci::blob::BlobOptions;
use vfsd_oci::content::{HostBoot, LayerContent};
use vfsd_oci::index::{IndexOptions, LayerIndex, build_index};

/// Names the folder, for a process that is to fill and to be killed.
const FOLDER: &str = "VFSD_TEST_FILLS_CACHE_IN";

fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(FOLDER) {
        fill(Path::new(&folder));
        return ExitCode::SUCCESS;
    }
    let rows = [0, 1, 5, 20].map(|spans| {
        let name =
            format!("a cache is correct after its daemon was killed with {spans} spans there");
        Trial::test(name, move || {
            let layer = Layer::new();
            let mut child = layer.child();
            layer.kill_after(&mut child, spans);
            layer.assert_correct(spans);
            Ok(())
        })
    });
    let beside = Trial::test(
        "a cache is correct after one of its daemons was killed",
        || {
            let layer = Layer::new();
            let mut children = [layer.child(), layer.child(), layer.child()];
            let [first, second, third] = &mut children;
            layer.kill_after(first, 3);
            layer.kill_after(second, 7);
            assert!(third.wait()?.success());
            layer.assert_correct(layer.index.blob.spans.len());
            Ok(())
        },
    );
    let rows = rows.into_iter().chain([beside]).collect();
    libtest_mimic::run(&Arguments::from_args(), rows).exit_code()
}

/// Fills the cache, and writes a line for each span.
fn fill(folder: &Path) {
    let index = LayerIndex::load(&folder.join("index")).unwrap();
    let blob = File::open(folder.join("blob")).unwrap();
    let content = LayerContent::open(
        &folder.join("cache"),
        &index,
        Arc::new(blob),
        HostBoot::current(),
    )
    .unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "open").unwrap();
    for span in 0..content.blob().spans.len() {
        content.fill_span(span).unwrap();
        writeln!(out, "{span}").unwrap();
    }
}

struct Layer {
    folder: tempfile::TempDir,
    contents: Vec<Vec<u8>>,
    index: Arc<LayerIndex>,
}

impl Layer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = Vec::new();
        let mut contents = Vec::new();
        let mut number: u64 = 1;
        for size in (0..60_000).step_by(997) {
            let content: Vec<u8> = std::iter::repeat_with(|| {
                number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                number.to_le_bytes()[7] & 0x3f
            })
            .take(size)
            .collect();
            tar.extend_from_slice(&header(&format!("file-{size}"), size));
            tar.extend_from_slice(&content);
            tar.resize(tar.len().next_multiple_of(512), 0);
            contents.push(content);
        }
        tar.resize(tar.len() + 1024, 0);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(&tar).unwrap();
        let blob = encoder.finish().unwrap();
        let options = IndexOptions {
            blob: BlobOptions {
                span: 32 * 1024,
                ..BlobOptions::default()
            },
            ..IndexOptions::default()
        };
        let index = build_index(blob.as_slice(), &options, |_| {}).unwrap();
        assert!(index.blob.spans.len() > 30);
        std::fs::create_dir(folder.path().join("cache")).unwrap();
        std::fs::write(folder.path().join("blob"), &blob).unwrap();
        index.store(&folder.path().join("index")).unwrap();
        Self {
            folder,
            contents,
            index: Arc::new(index),
        }
    }

    fn child(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .env(FOLDER, self.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Kills the child when it has filled so many spans; it may be in the middle of the next.
    fn kill_after(&self, child: &mut Child, spans: usize) {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.take(spans + 1).map_while(Result::ok).count();
        assert_eq!(seen, spans + 1, "it got so far");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn assert_correct(&self, spans: usize) {
        let blob = File::open(self.folder.path().join("blob")).unwrap();
        let folder = self.folder.path().join("cache");
        let content =
            LayerContent::open(&folder, &self.index, Arc::new(blob), HostBoot::current()).unwrap();
        assert!(
            content.resident_spans() >= spans,
            "{}",
            content.resident_spans()
        );
        let file = File::from(content.descriptor().try_clone_to_owned().unwrap());
        let read = |entry: usize| {
            let mut bytes = Vec::new();
            for piece in content.locate(entry, 0..u64::MAX) {
                let mut buffer = vec![0; usize::try_from(piece.length).unwrap()];
                file.read_exact_at(&mut buffer, piece.cache_offset.unwrap())
                    .unwrap();
                bytes.extend_from_slice(&buffer);
            }
            bytes
        };
        for (entry, expected) in self.contents.iter().enumerate() {
            if content.is_resident(entry, 0..u64::MAX) {
                assert!(
                    read(entry) == *expected,
                    "what is said to be there: entry {entry}"
                );
            }
            content.fill(entry, 0..u64::MAX).unwrap();
            assert!(read(entry) == *expected, "entry {entry}");
        }
    }
}

fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
