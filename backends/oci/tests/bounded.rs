//! Images in use that are larger than their cache may be: processes that read one at once, and are killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by it"
)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use vfsd_backend::{Backend as _, OpenFlags};
use vfsd_oci::blob::Sha256Digest;
use vfsd_oci::catalogue::{Catalogue, slack};
use vfsd_oci::image::ImageName;
use vfsd_oci::{OciImage, Options};
use vfsd_testkit::place::Place;

/// Names a folder, for a process that is to read the image there; and a seed.
const FOLDER: &str = "VFSD_TEST_READS_BOUNDED";

/// Files of the image, and bytes of each.
const FILES: usize = 32;
const SIZE: usize = 256 << 10;

/// A quarter of that.
const LIMIT: u64 = 2 << 20;

const SPAN: u64 = 32 << 10;
const THREADS: usize = 4;
/// Reads of a thread, each of at most two spans.
const READS: usize = 200;
const LONGEST: usize = 32 << 10;

fn main() -> ExitCode {
    if let Ok(words) = std::env::var(FOLDER) {
        let (seed, folder) = words.split_once(' ').unwrap();
        read_at_random(Path::new(folder), seed.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let rows = vec![
        Trial::test(
            "two processes read an image of four times the cache, which stays within its size",
            || {
                two_at_once();
                Ok(())
            },
        ),
        Trial::test(
            "readers that are killed while content is taken away leave a cache that is right",
            || {
                killed();
                Ok(())
            },
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), rows).exit_code()
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// What a file has: no two pages are the same, and none is zeros.
fn content(file: usize) -> Vec<u8> {
    let mut numbers = Numbers(u64::try_from(file).unwrap() + 1);
    let bytes = std::iter::repeat_with(|| u8::try_from(numbers.below(255) + 1).unwrap());
    bytes.take(SIZE).collect()
}

/// An image of one layer that is not compressed, in an OCI layout.
fn image(folder: &Path) {
    let mut tar = Vec::new();
    for file in 0..FILES {
        let mut entry = tar_core::builder::EntryBuilder::new_ustar();
        entry.path(format!("f{file}")).size(SIZE as u64).unwrap();
        entry.mode(0o644).unwrap().uid(0).unwrap().gid(0).unwrap();
        entry.mtime(1).unwrap();
        entry.entry_type(tar_core::EntryType::Regular);
        tar.extend(entry.finish_bytes());
        tar.extend(content(file));
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend([0; 1024]);
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = Sha256Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let layer = blob("layer.v1.tar", &tar);
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

fn cache(folder: &Path) -> PathBuf {
    folder.join("cache")
}

fn open(folder: &Path, limit: Option<u64>) -> OciImage {
    let name = ImageName::layout(folder.join("image").as_os_str());
    let mut options = Options::new(name, cache(folder));
    options.platform = Some("linux/amd64".parse().unwrap());
    options.index.blob.span = SPAN;
    options.cache_limit = limit;
    OciImage::open(&options).unwrap()
}

/// Reads, with several threads and two images that have the same cache, and says how far it is.
fn read_at_random(folder: &Path, seed: u64) {
    let images = [open(folder, Some(LIMIT)), open(folder, Some(LIMIT))];
    let contents: Vec<Vec<u8>> = (0..FILES).map(content).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (images, contents) = (&images, &contents);
            scope.spawn(move || {
                let mut numbers = Numbers(seed + u64::try_from(thread).unwrap());
                let root = Place(images[thread % 2].root());
                for read in 0..READS {
                    let file = numbers.below(FILES);
                    let (at, length) = (numbers.below(SIZE), numbers.below(LONGEST));
                    let opened = root.lookup(&format!("f{file}")).unwrap();
                    let opened = opened.open(OpenFlags::READ).unwrap();
                    let bytes = opened.read(u64::try_from(at).unwrap(), length).unwrap();
                    let end = (at + length).min(SIZE);
                    assert!(bytes == contents[file][at..end], "{file}, {at}..{end}");
                    if read % 10 == 0 {
                        println!("{read}");
                    }
                    // As a daemon does now and then.
                    if read % 100 == 50 {
                        images[thread % 2]
                            .contents()
                            .for_each(|it| it.sync().unwrap());
                    }
                }
            });
        }
    });
}

fn child(folder: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(FOLDER, format!("{seed} {}", folder.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Bytes that the cache takes on the disk.
fn disk(folder: &Path) -> u64 {
    let kinds = ["layers", "trees", "traces", "blobs/sha256"];
    let files = kinds
        .iter()
        .filter_map(|kind| std::fs::read_dir(cache(folder).join(kind)).ok());
    let sizes = files.flatten().map(|file| {
        let found = file.unwrap().metadata();
        found.map_or(0, |found| found.blocks() * 512)
    });
    sizes.sum()
}

/// The limit, what two processes with two images each may fill between two looks, and what eight threads read.
fn bound() -> u64 {
    LIMIT + 4 * slack(LIMIT) + 8 * 3 * SPAN
}

fn two_at_once() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("image"));
    // The index is there, and counts.
    drop(open(folder.path(), None));
    let children = [1, 100].map(|seed| child(folder.path(), seed));
    std::thread::scope(|scope| {
        for mut child in children {
            let folder = folder.path();
            scope.spawn(move || {
                for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                    line.unwrap();
                    let found = disk(folder);
                    assert!(found <= bound(), "{found} bytes, at most {}", bound());
                }
                assert!(child.wait().unwrap().success(), "all bytes were right");
            });
        }
    });
    let evicted = Catalogue::new(&cache(folder.path())).evict(LIMIT).unwrap();
    assert!(evicted.left <= LIMIT, "{evicted:?}");
    assert_right(folder.path());
}

fn killed() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("image"));
    drop(open(folder.path(), None));
    for (seed, lines) in [(1, 3), (2, 20), (3, 45)] {
        let mut children = [child(folder.path(), seed), child(folder.path(), seed + 50)];
        let lines = BufReader::new(children[0].stdout.take().unwrap())
            .lines()
            .take(lines);
        assert!(lines.map_while(Result::ok).count() > 0);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_right(folder.path());
    }
    let evicted = Catalogue::new(&cache(folder.path())).evict(LIMIT).unwrap();
    assert!(evicted.left <= LIMIT, "{evicted:?}");
}

/// What the cache says is there is right, and so is all that is read.
fn assert_right(folder: &Path) {
    let verified = Catalogue::new(&cache(folder)).verify(None).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    let image = open(folder, Some(LIMIT));
    for file in 0..FILES {
        let place = Place(image.root()).lookup(&format!("f{file}")).unwrap();
        assert!(place.content().unwrap() == content(file), "{file}");
    }
}
