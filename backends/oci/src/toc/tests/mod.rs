//! Layers that are opened by their tables, beside the same layers read as a whole.

mod hostile;
pub(crate) mod writer;

use std::path::Path;

use serde_json::{Value, json};
use tar_core::EntryType;
use tempfile::TempDir;
use vfsd_backend::{Backend as _, FileKind, Locator};
use vfsd_testkit::place::{Place, wait};

use crate::blob::Sha256Digest;
use crate::image::ImageName;
use crate::testing::{Layout, Tar};
use crate::tree::{NodeId, Tree};
use crate::{OciImage, OpenError, Options};
use writer::{Made, chunked, estargz};

/// Content that looks different everywhere.
pub(crate) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A lower and an upper layer with a bit of everything that a table can say.
fn tars() -> [Vec<u8>; 2] {
    let of_type = |kind: EntryType| {
        move |entry: &mut tar_core::builder::EntryBuilder| {
            entry.entry_type(kind);
        }
    };
    let lower = Tar::default()
        .member("./", b"", of_type(EntryType::Directory))
        .member("usr/", b"", |entry| {
            entry.entry_type(EntryType::Directory);
            entry.mode(0o1750).unwrap().uid(3).unwrap().gid(4).unwrap();
        })
        .file("usr/lib/big", &pattern(500_000, 1))
        .file("usr/lib/exact", &pattern(200_000, 2))
        .file("usr/lib/gone", b"gone")
        .file("etc/empty", b"")
        .file("etc/first", b"the first of two")
        .symlink("lib", "usr/lib")
        .symlink("dead", "../../nowhere");
    let upper = Tar::default()
        .file("lib/.wh.gone", b"")
        .file("lib/small", b"small")
        .file("etc/first", b"the second")
        .file("etc/first", b"the last counts")
        .member("fifo", b"", of_type(EntryType::Fifo))
        .member("null", b"", |entry| {
            entry.entry_type(EntryType::Char);
            entry.device(1, 3).unwrap();
        })
        .member("twice", b"", |entry| {
            entry.entry_type(EntryType::Link);
            entry.link_name("usr/lib/big");
        })
        .member("tool", b"tool", |entry| {
            entry.mode(0o4755).unwrap();
            entry.add_pax("SCHILY.xattr.user.mime", b"text");
            entry.add_pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02");
        })
        .file(".prefetch.landmark", b"\x0f");
    [lower.finish(), upper.finish()]
}

struct Scene {
    layout: Layout,
    cache: TempDir,
}

impl Scene {
    /// An image of these layers, with their annotations or without.
    fn new(layers: &[Made], annotated: bool) -> Self {
        let mut layout = Layout::new();
        let layers = layers.iter().map(|made| made.layer(&layout, annotated));
        let layers = layers.collect();
        let manifest = layout.image_of("amd64", layers);
        layout.name(manifest, Some("t"));
        Self {
            layout,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn options(&self, cache: &Path) -> Options {
        let name = format!("{}:t", self.layout.path().display());
        let mut options = Options::new(ImageName::layout(name.as_ref()), cache.to_owned());
        options.platform = Some("linux/amd64".parse().unwrap());
        options
    }

    fn open(&self) -> Result<OciImage, OpenError> {
        OciImage::open(&self.options(self.cache.path()))
    }

    /// Opened in another cache, each layer read from its first byte to its last.
    fn open_as_a_whole(&self) -> (OciImage, TempDir) {
        let cache = tempfile::tempdir().unwrap();
        let mut options = self.options(cache.path());
        options.by_contents = false;
        (OciImage::open(&options).unwrap(), cache)
    }
}

/// How many layers were opened by their tables.
fn by_tables(image: &OciImage) -> usize {
    let tables = image.contents().map(|it| it.blob().contents);
    tables.flatten().count()
}

fn place(image: &OciImage, node: NodeId) -> Place {
    let locator = Locator::of_inode(node.inode());
    let node = wait(image.resolve(&locator));
    Place(node.unwrap())
}

fn at(image: &OciImage, path: &str) -> Place {
    let root = Place(image.root());
    path.split('/')
        .fold(root, |place, name| place.lookup(name).unwrap())
}

/// Whether two images are the same: names, attributes, links, targets, extended attributes, contents.
#[track_caller]
fn assert_same(one: &OciImage, other: &OciImage) {
    let (a, b) = (one.tree(), other.tree());
    assert_eq!(a.nodes().count(), b.nodes().count());
    for node in a.nodes() {
        let told = a.attributes(node);
        assert_eq!(told, b.attributes(node));
        let names = |tree: &Tree| {
            let children = tree.children(node, 0);
            let children = children.map(|(name, child)| (name.to_vec(), child));
            children.collect::<Vec<_>>()
        };
        assert_eq!(names(a), names(b));
        assert_eq!(a.target(node), b.target(node));
        let xattrs = |tree: &Tree| {
            let all = tree.xattrs(node);
            let all = all.map(|(name, value)| (name.to_vec(), value.to_vec()));
            all.collect::<Vec<_>>()
        };
        assert_eq!(xattrs(a), xattrs(b));
        if told.kind == FileKind::Regular {
            let contents = [one, other].map(|image| place(image, node).content().unwrap());
            assert!(contents[0] == contents[1], "content of {node:?}");
        }
    }
}

type Writer = fn(&[u8], usize, writer::Edit<'_>) -> Made;

const WRITERS: [Writer; 2] = [estargz, chunked];

fn unchanged(_: &mut Vec<Value>) {}

#[test]
fn a_layer_opened_by_its_table_is_the_one_that_is_read_as_a_whole() {
    for writer in WRITERS {
        for chunk in [100_000, 4 << 20] {
            let layers = tars().map(|tar| writer(&tar, chunk, &unchanged));
            let scene = Scene::new(&layers, true);
            let image = scene.open().unwrap();
            assert_eq!(by_tables(&image), 2);
            let (whole, _cache) = scene.open_as_a_whole();
            assert_eq!(by_tables(&whole), 0);
            assert_same(&image, &whole);
            assert!(at(&image, "usr/lib/big").content().unwrap() == pattern(500_000, 1));
            assert_eq!(
                at(&image, "etc/first").content().unwrap(),
                b"the last counts"
            );
            let names = Place(image.root()).names().unwrap();
            let of_format = names.iter().filter(|name| name.contains("stargz"));
            assert_eq!(of_format.count(), 0, "{names:?}");
        }
    }
}

#[test]
fn what_a_table_said_is_kept_and_an_index_of_the_whole_layer_comes_first() {
    let layers = tars().map(|tar| estargz(&tar, 1 << 20, &unchanged));
    let scene = Scene::new(&layers, true);
    let image = scene.open().unwrap();
    let content = at(&image, "usr/lib/exact").content().unwrap();
    drop(image);
    // Nothing of the layers is needed any more.
    for made in &layers {
        let path = scene.layout.blob_path(Sha256Digest::of(&made.blob));
        let emptied = vec![0; made.blob.len()];
        std::fs::write(path, emptied).unwrap();
    }
    let image = scene.open().unwrap();
    assert_eq!(by_tables(&image), 2);
    assert!(at(&image, "usr/lib/exact").content().unwrap() == content);
    at(&image, "usr/lib/big").content().unwrap_err();
    drop(image);
    for made in &layers {
        let path = scene.layout.blob_path(Sha256Digest::of(&made.blob));
        std::fs::write(path, &made.blob).unwrap();
    }
    let mut options = scene.options(scene.cache.path());
    options.by_contents = false;
    assert_eq!(by_tables(&OciImage::open(&options).unwrap()), 0);
    let image = scene.open().unwrap();
    assert_eq!(by_tables(&image), 0);
    assert!(at(&image, "usr/lib/exact").content().unwrap() == content);
}

#[test]
fn a_table_that_the_manifest_does_not_vouch_for_is_not_looked_at() {
    for writer in WRITERS {
        let layers = tars().map(|tar| writer(&tar, 1 << 20, &unchanged));
        let image = Scene::new(&layers, false).open().unwrap();
        assert_eq!(by_tables(&image), 0);
    }
}

#[test]
fn a_hole_that_a_table_names_is_zeros_and_not_fetched() {
    let mut content = pattern(300_000, 7);
    content[100_000..200_000].fill(0);
    let tar = Tar::default().file("sparse", &content).finish();
    let made = chunked(&tar, 100_000, &|entries| {
        let hole = entries[1].as_object_mut().unwrap();
        hole.insert("chunkType".to_owned(), json!("zeros"));
        hole.remove("chunkDigest");
    });
    let scene = Scene::new(&[made], true);
    let image = scene.open().unwrap();
    assert_eq!(by_tables(&image), 1);
    assert_eq!(image.contents().next().unwrap().blob().spans.len(), 2);
    assert!(at(&image, "sparse").content().unwrap() == content);
}
