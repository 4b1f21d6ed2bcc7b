//! Indexes of layers that another host has pushed: right ones, wrong ones, and hostile ones.

use std::sync::Arc;

use serde_json::json;
use vfsd_backend::{Backend as _, Errno, OpenFlags};
use vfsd_testkit::place::{Outcome, Place};

use crate::ahead::Stopped;
use crate::blob::{Blake3Digest, Resume, SpanDigest, Window};
use crate::index::LayerIndex;
use crate::referrer::{IndexFrom, push_indexes};
use crate::{EntryKind, Options};

use super::*;

const ARTIFACT: &str = "application/vnd.vfsd.layer-indexes.v1";

/// A host that has nothing yet, and an artifact in the registry that it may believe.
struct Borrowing {
    scene: Scene,
    /// The host's folder.
    host: TempDir,
    artifact: Sha256Digest,
}

impl Borrowing {
    /// Beside an image whose indexes another host has pushed, as they are.
    fn right() -> Self {
        let scene = Scene::in_spans();
        let artifact = push_indexes(&scene.options()).unwrap().artifact;
        Self {
            host: tempfile::tempdir().unwrap(),
            scene,
            artifact,
        }
    }

    /// Where somebody has changed the index of the larger layer, and made all sums right again.
    fn forged(change: impl FnOnce(&mut LayerIndex)) -> Self {
        let mut this = Self::right();
        this.forge(change);
        this
    }

    /// The same beside the same image, for a host that has nothing.
    fn forge(&mut self, change: impl FnOnce(&mut LayerIndex)) {
        self.send(|index| {
            change(index);
            zstd::bulk::compress(&index.to_bytes(), 1).unwrap()
        });
    }

    /// As [`forge`](Self::forge), with anything for an index.
    fn send(&mut self, bytes: impl FnOnce(&mut LayerIndex) -> Vec<u8>) {
        let layer = self.scene.layers[0];
        let kept = self.scene.cache().join("layers");
        let mut index = LayerIndex::load(&kept.join(format!("{}.index", layer.hex()))).unwrap();
        self.artifact = self.scene.artifact(layer, &bytes(&mut index));
        self.host = tempfile::tempdir().unwrap();
    }

    fn options(&self) -> Options {
        let mut options = self.scene.options();
        options.cache = self.host.path().to_owned();
        options.index_from = IndexFrom::Artifact(self.artifact);
        options
    }

    fn open(&self) -> Arc<OciImage> {
        Arc::new(OciImage::open(&self.options()).unwrap())
    }

    /// Opens the image, which no index of others helped with.
    #[track_caller]
    fn assert_reads_layers(&self) {
        self.scene.server.sent();
        let image = self.open();
        assert!(self.scene.server.sent() > self.scene.blob.len());
        assert_eq!(image.doubted_layers(), 0);
        assert!(content(&image, "large").unwrap() == noise(3 << 20, 1));
    }

    /// The files of the host's cache that are of an artifact.
    fn borrowed(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.host.path().join("layers")).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        let hex = self.artifact.hex();
        let mut found: Vec<PathBuf> = paths
            .filter(|path| path.to_str().unwrap().contains(&hex))
            .collect();
        found.sort();
        found
    }
}

impl Scene {
    /// Has an artifact with the index of one layer in the registry, and a tag that lists it.
    fn artifact(&self, layer: Sha256Digest, packed: &[u8]) -> Sha256Digest {
        let mut blob = self
            .layout
            .blob("application/vnd.vfsd.layer-index.v1+zstd", packed);
        blob["annotations"] = json!({"dev.vfsd.layer.digest": layer.to_string()});
        let manifest = json!({"schemaVersion": 2, "artifactType": ARTIFACT, "layers": [blob]});
        let mut listed = self.layout.json(crate::testing::MANIFEST, &manifest);
        listed["artifactType"] = json!(ARTIFACT);
        let list = json!({"schemaVersion": 2, "manifests": [listed]}).to_string();
        let tag = format!("sha256-{}", self.manifest.hex());
        let ImageName::Registry(name) = self.name(":t") else {
            panic!("an image in a registry");
        };
        let client = super::super::client::Client::pushing(name, &self.settings()).unwrap();
        let bytes = list.into_bytes().into();
        client
            .put_manifest(&tag, crate::testing::INDEX, &bytes)
            .unwrap();
        digest(&listed)
    }
}

fn content(image: &OciImage, name: &str) -> Outcome<Vec<u8>> {
    Place(image.root()).lookup(name)?.content()
}

fn fetch_rest(image: &Arc<OciImage>) -> Stopped {
    let weak = Arc::downgrade(image);
    OciImage::fetch_rest(&weak, Duration::ZERO, || true, |error| panic!("{error}"))
}

#[test]
fn with_an_index_from_the_registry_no_layer_is_read_before_the_first_file_is() {
    let host = Borrowing::right();
    host.scene.server.sent();
    host.scene.server.seen();
    let image = host.open();
    assert_eq!(image.doubted_layers(), 2);
    let asked = host.scene.blobs();
    // The configuration, and two indexes.
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(host.scene.server.sent() < host.scene.blob.len() / 10);
    assert_eq!(content(&image, "small").unwrap(), b"top");
    assert!(host.scene.server.sent() < 1000, "the smaller layer");
    let file = Place(image.root()).lookup("large").unwrap();
    let file = file.open(OpenFlags::READ).unwrap();
    assert_eq!(file.read(1_500_000, 100).unwrap().len(), 100);
    let sent = host.scene.server.sent();
    assert!(sent > 0 && sent < host.scene.blob.len() * 2 / 3, "{sent}");
    // The next start asks nobody for an index.
    drop((file, image));
    host.scene.server.seen();
    let image = host.open();
    assert_eq!(image.doubted_layers(), 2);
    assert_eq!(host.scene.server.seen().len(), 1, "the tag alone");
}

#[test]
fn offline_an_index_that_was_borrowed_is_used_where_none_can_be_made() {
    let host = Borrowing::right();
    let mut options = host.options();
    let image = OciImage::open(&options).unwrap();
    assert_eq!(content(&Arc::new(image), "small").unwrap(), b"top");
    options.index_from = IndexFrom::Off;
    options.registries.offline = true;
    host.scene.server.seen();
    let image = Arc::new(OciImage::open(&options).unwrap());
    assert_eq!(image.doubted_layers(), 2);
    assert_eq!(content(&image, "small").unwrap(), b"top");
    assert!(host.scene.server.seen().is_empty());
    drop(image);
    // Layers that are here are read instead.
    options.registries.offline = false;
    assert_eq!(OciImage::open(&options).unwrap().doubted_layers(), 0);
    for entry in std::fs::read_dir(host.host.path().join("layers")).unwrap() {
        let path = entry.unwrap().path();
        let is_own = |name: &str| name.ends_with(".index") && !name.contains('-');
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_own)
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    options.registries.offline = true;
    assert_eq!(OciImage::open(&options).unwrap().doubted_layers(), 0);
}

#[test]
fn the_registry_is_asked_what_refers_to_the_image_only_when_it_is_to_be_believed() {
    for lists in [false, true] {
        let scene = Scene::in_spans();
        if lists {
            scene.server.pushes().begin_to_list();
        }
        let artifact = push_indexes(&scene.options()).unwrap().artifact;
        let host = Borrowing {
            host: tempfile::tempdir().unwrap(),
            scene,
            artifact,
        };
        let mut options = host.options();
        options.index_from = IndexFrom::Referrers;
        assert_eq!(OciImage::open(&options).unwrap().doubted_layers(), 2);
        host.scene.server.seen();
        assert_eq!(OciImage::open(&options).unwrap().doubted_layers(), 2);
        assert_eq!(host.scene.server.seen().len(), 1, "the tag alone");
        // What was borrowed once is not believed when it is not to be.
        options.index_from = IndexFrom::Off;
        assert_eq!(OciImage::open(&options).unwrap().doubted_layers(), 0);
        let seen = host.scene.server.seen();
        let is_of_artifact = |seen: &Seen| seen.target.contains(&artifact.hex());
        assert!(!seen.iter().any(is_of_artifact), "{seen:?}");
    }
}

#[test]
fn without_an_index_that_can_be_used_the_layers_are_read() {
    let mut host = Borrowing::right();
    host.artifact = Sha256Digest::of(b"there is none");
    host.assert_reads_layers();
    // An image is no artifact of indexes.
    host.host = tempfile::tempdir().unwrap();
    host.artifact = host.scene.manifest;
    host.assert_reads_layers();
    let sent: [fn(&mut LayerIndex) -> Vec<u8>; 4] = [
        |_| b"no zstd".to_vec(),
        |_| zstd::bulk::compress(b"no index", 1).unwrap(),
        |index| {
            let mut bytes = index.to_bytes();
            bytes[100] ^= 1;
            zstd::bulk::compress(&bytes, 1).unwrap()
        },
        // Of an earlier version, whose sum is right.
        |index| {
            let mut bytes = index.to_bytes();
            bytes.truncate(bytes.len() - 32);
            bytes[8] -= 1;
            bytes.extend(Sha256Digest::of(&bytes).0);
            zstd::bulk::compress(&bytes, 1).unwrap()
        },
    ];
    for bytes in sent {
        host.send(bytes);
        host.assert_reads_layers();
    }
}

#[test]
fn a_bomb_of_an_index_is_not_unpacked() {
    let mut zeros = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..17 {
        std::io::Write::write_all(&mut zeros, &[0; 1 << 20]).unwrap();
    }
    let bomb = zeros.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let mut host = Borrowing::right();
    host.send(|_| bomb);
    host.assert_reads_layers();
}

#[test]
fn an_index_whose_bytes_are_others_than_the_artifact_names_is_not_used() {
    let host = Borrowing::right();
    // The configuration is kept, so that the next blobs are the indexes.
    host.scene.find(":t").unwrap();
    let mut options = host.options();
    options.cache = host.scene.cache();
    std::fs::remove_dir_all(options.cache.join("layers")).unwrap();
    host.scene
        .server
        .faults([Fault::Wrong(40), Fault::Wrong(40)]);
    let image = OciImage::open(&options).unwrap();
    assert_eq!((host.scene.server.left(), image.doubted_layers()), (0, 0));
}

#[test]
fn an_index_that_cannot_be_the_layers_is_not_used() {
    let changes: [fn(&mut LayerIndex); 5] = [
        |index| Arc::make_mut(&mut index.blob).digest = Sha256Digest::of(b""),
        |index| Arc::make_mut(&mut index.blob).diff_id = Sha256Digest::of(b""),
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            blob.size += 1;
            blob.spans.last_mut().unwrap().compressed.end += 1;
        },
        // More than a layer may decode to.
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            blob.decoded_size = 1 << 41;
            blob.spans.last_mut().unwrap().decoded.end = 1 << 41;
        },
        // Of what its maker has only borrowed.
        |index| index.borrowed = Some(Sha256Digest::of(b"")),
    ];
    let mut host = Borrowing::right();
    for change in changes {
        host.forge(change);
        host.assert_reads_layers();
    }
    // The tree and the cache find these out.
    let hostile: [fn(&mut LayerIndex); 2] = [
        |index| {
            let mut link = index.entries[0].clone();
            link.path = b"link".to_vec();
            link.kind = EntryKind::HardLink {
                target: b"nowhere".to_vec(),
            };
            index.entries.push(link);
        },
        // Twice the same bytes of the tar.
        |index| {
            let mut again = index.entries[0].clone();
            again.path = b"again".to_vec();
            index.entries.push(again);
        },
    ];
    for change in hostile {
        host.forge(change);
        host.assert_reads_layers();
    }
}

#[test]
fn a_piece_that_is_not_what_the_index_says_is_an_error_and_never_data() {
    let changes: [fn(&mut LayerIndex); 4] = [
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            blob.spans[0].compressed_digest = Some(Blake3Digest::of(b""));
        },
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            blob.spans[0].decoded_digest = SpanDigest::Blake3(Blake3Digest::of(b""));
        },
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            for span in &mut blob.spans {
                if let Resume::Block { window, .. } = &mut span.resume {
                    *window = Window::from_packed(b"none").unwrap();
                }
            }
        },
        |index| {
            let blob = Arc::make_mut(&mut index.blob);
            for span in &mut blob.spans {
                if let Resume::Block { bits, .. } = &mut span.resume {
                    *bits = (*bits + 1) % 8;
                }
            }
        },
    ];
    let mut host = Borrowing::right();
    for change in changes {
        host.forge(change);
        let image = host.open();
        assert_eq!(image.doubted_layers(), 1);
        assert_eq!(content(&image, "large"), Err(Errno::IO));
    }
}

#[test]
fn a_right_index_is_compared_with_the_layer_and_then_this_hosts_own() {
    let host = Borrowing::right();
    let image = host.open();
    assert!(content(&image, "large").unwrap() == noise(3 << 20, 1));
    assert_eq!(host.borrowed().len(), 4, "two indexes and contents");
    assert_eq!(fetch_rest(&image), Stopped::Complete);
    assert_eq!((image.doubted_layers(), host.borrowed()), (0, vec![]));
    assert!(content(&image, "large").unwrap() == noise(3 << 20, 1));
    drop(image);
    // What was read before counts, and nobody is asked for an index.
    host.scene.server.seen();
    let mut options = host.options();
    options.index_from = IndexFrom::Off;
    let image = Arc::new(OciImage::open(&options).unwrap());
    assert_eq!(image.doubted_layers(), 0);
    let there: Vec<_> = image.contents().map(|it| it.resident_spans()).collect();
    assert!(there[0] > 1, "{there:?}");
    assert_eq!(host.scene.server.seen().len(), 1, "the tag alone");
}

/// One that says that a file is a set-id program, and otherwise what is so.
fn setuid(index: &mut LayerIndex) {
    index.entries[0].permissions = 0o4755;
}

/// One that has other bytes for a piece of the layer, and a window to make them of.
fn other_bytes(index: &mut LayerIndex) {
    let blob = Arc::make_mut(&mut index.blob);
    let (first, second) = blob.spans.split_at_mut(1);
    // Two pieces of which one says what the other one is: nothing is missing, but not where it should be.
    first[0].decoded_digest = second[0].decoded_digest;
}

#[test]
fn a_wrong_index_ends_the_service_and_the_next_start_shows_what_is_right() {
    let host = Borrowing::forged(setuid);
    let image = host.open();
    let mode = |image: &OciImage| {
        let file = Place(image.root()).lookup("large")?;
        file.attributes().map(|it| it.permissions)
    };
    // This is what it is believed for.
    assert_eq!(mode(&image).unwrap(), 0o4755);
    let open = Place(image.root()).lookup("large").unwrap();
    let open = open.open(OpenFlags::READ).unwrap();
    open.read(0, 100).unwrap();
    assert_eq!(fetch_rest(&image), Stopped::Refuted);
    assert_eq!(mode(&image), Err(Errno::IO));
    assert_eq!(open.read(0, 100), Err(Errno::IO));
    assert_eq!(content(&image, "small"), Err(Errno::IO));
    assert_eq!(host.borrowed(), Vec::<PathBuf>::new());
    drop((open, image));
    host.scene.server.seen();
    let image = host.open();
    assert_eq!(mode(&image).unwrap(), 0o644);
    assert!(content(&image, "large").unwrap() == noise(3 << 20, 1));
    let seen = host.scene.server.seen();
    assert!(
        seen.iter()
            .all(|it| !it.target.contains(&host.artifact.hex()))
    );
}

#[test]
fn other_contents_than_the_layers_are_found_out() {
    let host = Borrowing::forged(other_bytes);
    let image = host.open();
    assert_eq!(content(&image, "large"), Err(Errno::IO));
    assert_eq!(fetch_rest(&image), Stopped::Refuted);
}

#[test]
fn what_a_pull_finds_out_counts_for_a_daemon_that_serves() {
    for (host, right) in [
        (Borrowing::right(), true),
        (Borrowing::forged(setuid), false),
    ] {
        let image = host.open();
        let mut pull = host.options();
        pull.index_from = IndexFrom::Off;
        drop(OciImage::open(&pull).unwrap());
        host.scene.blobs();
        let stopped = fetch_rest(&image);
        assert_eq!(stopped == Stopped::Complete, right, "{stopped:?}");
        assert_eq!(host.scene.blobs(), [], "no layer is fetched again");
    }
}

#[test]
fn a_guest_that_is_never_quiet_does_not_keep_layers_from_being_compared() {
    let shown = Borrowing::right();
    let image = shown.open();
    assert!(image.doubted_layers() > 0);
    let weak = Arc::downgrade(&image);
    let _waits = image.demand().wait();
    let quiet = Duration::from_secs(3600);
    let compared = OciImage::compare_layers(&weak, quiet, &|| true, &|error| panic!("{error}"));
    assert_eq!((compared, image.doubted_layers()), (Ok(()), 0));
}

#[test]
fn a_layer_that_does_not_arrive_proves_nothing() {
    let host = Borrowing::right();
    let image = host.open();
    host.scene.server.faults(vec![Fault::Status(404, ""); 1]);
    let weak = Arc::downgrade(&image);
    let failures = std::cell::Cell::new(0);
    // It is tried again later: not in a test.
    let once = || failures.get() == 0;
    let failed = |_: &_| {
        failures.set(failures.get() + 1);
        host.scene.server.faults([]);
    };
    let kept = std::cell::RefCell::new(Some(image));
    let stopped = OciImage::fetch_rest(&weak, Duration::ZERO, once, |error| {
        failed(error);
        // Closed, so that nobody waits for the next attempt.
        drop(kept.borrow_mut().take());
    });
    assert_eq!((stopped, failures.get()), (Stopped::Closed, 1));
    assert_eq!(host.open().doubted_layers(), 2);
}
