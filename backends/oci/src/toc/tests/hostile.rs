//! Tables that say what cannot be, and layers that are not what their tables say.

use crate::index::IndexOptions;
use crate::index::LayerIndex;
use crate::toc::{TocError, TocLayer, read_toc};

use super::*;

fn layer(made: &Made) -> TocLayer {
    TocLayer {
        digest: Sha256Digest::of(&made.blob),
        size: made.blob.len() as u64,
        diff_id: made.diff_id,
    }
}

fn read_with(made: &Made, options: &IndexOptions) -> Result<LayerIndex, TocError> {
    read_toc(&made.blob, layer(made), &made.reference(), options)
}

fn read(made: &Made) -> Result<LayerIndex, TocError> {
    read_with(made, &IndexOptions::default())
}

fn tar() -> Vec<u8> {
    let tar = Tar::default().file("a", &pattern(2_500, 1));
    tar.file("b", b"b").symlink("c", "a").finish()
}

type Change = Box<dyn Fn(&mut Vec<Value>)>;

/// Sets a field of an entry.
fn set(entry: usize, field: &'static str, value: Value) -> impl Fn(&mut Vec<Value>) {
    move |entries| entries[entry][field] = value.clone()
}

#[test]
fn a_table_that_contradicts_itself_or_leaves_the_layer_is_none() {
    // Chunks of a: entries 0 to 2; b: 3; c: 4.
    let changes: Vec<(&str, Change)> = vec![
        (
            "out of the layer",
            Box::new(set(2, "offset", json!(1_u64 << 40))),
        ),
        (
            "in the table itself",
            Box::new(|entries| {
                let last = entries[3]["offset"].as_u64().unwrap();
                entries[3]["offset"] = json!(last + 10_000);
            }),
        ),
        (
            "before the one before",
            Box::new(set(1, "offset", json!(0))),
        ),
        (
            "where another is",
            Box::new(|entries| entries[1]["offset"] = entries[0]["offset"].clone()),
        ),
        ("negative", Box::new(set(1, "offset", json!(-1)))),
        ("a gap", Box::new(set(1, "chunkOffset", json!(1_001)))),
        ("an overlap", Box::new(set(1, "chunkOffset", json!(999)))),
        (
            "longer than the file",
            Box::new(set(1, "chunkSize", json!(u64::MAX))),
        ),
        (
            "shorter than the file",
            Box::new(set(2, "chunkSize", json!(1))),
        ),
        (
            "a chunk of nothing",
            Box::new(|entries| entries.push(json!({"type": "chunk", "name": "c"}))),
        ),
        (
            "a chunk of another file",
            Box::new(set(1, "name", json!("b"))),
        ),
        (
            "a chunk that is missing",
            Box::new(|entries| drop(entries.remove(1))),
        ),
        (
            "a size that no file has",
            Box::new(set(3, "size", json!(u64::MAX))),
        ),
        ("no digest", Box::new(set(1, "chunkDigest", json!("")))),
        (
            "another kind of digest",
            Box::new(set(1, "chunkDigest", json!("sha512:00"))),
        ),
        (
            "a member for several chunks",
            Box::new(set(3, "innerOffset", json!(5))),
        ),
        (
            "an unknown chunk",
            Box::new(set(3, "chunkType", json!("ones"))),
        ),
        ("an unknown entry", Box::new(set(4, "type", json!("door")))),
        ("a type that is no text", Box::new(set(4, "type", json!(5)))),
        ("no name", Box::new(set(4, "name", json!("")))),
        ("a NUL", Box::new(set(4, "name", json!("a\0b")))),
        (
            "a name that was no UTF-8",
            Box::new(set(4, "name", json!("a\u{fffd}"))),
        ),
        (
            "a target that was no UTF-8",
            Box::new(set(4, "linkName", json!("\u{fffd}"))),
        ),
        ("an owner", Box::new(set(4, "uid", json!(1_u64 << 32)))),
        ("a negative owner", Box::new(set(4, "gid", json!(-1)))),
        ("a time", Box::new(set(4, "modtime", json!("yesterday")))),
        (
            "an attribute",
            Box::new(set(4, "xattrs", json!({"user.a": "no base64"}))),
        ),
        ("no entry", Box::new(set(4, "xattrs", json!("text")))),
    ];
    for writer in WRITERS {
        for (what, change) in &changes {
            let made = writer(&tar(), 1_000, change);
            assert!(read(&made).is_err(), "{what}");
            // The layer itself is right, and is read as a whole.
            let image = Scene::new(&[made], true).open().unwrap();
            assert_eq!(by_tables(&image), 0, "{what}");
            assert_eq!(at(&image, "b").content().unwrap(), b"b");
        }
        assert!(read(&writer(&tar(), 1_000, &unchanged)).is_ok());
    }
}

#[test]
fn a_table_of_other_bytes_than_the_manifest_names_is_none() {
    for writer in WRITERS {
        let right = writer(&tar(), 1_000, &unchanged);
        let mut wrong = writer(&tar(), 1_000, &set(4, "mode", json!(0o4777)));
        wrong.annotations = right.annotations;
        assert!(matches!(
            read(&wrong),
            Err(TocError::Digest | TocError::Malformed(_))
        ));
        for length in [
            0,
            1,
            50,
            51,
            52,
            100,
            wrong.blob.len() / 2,
            wrong.blob.len() - 60,
        ] {
            let mut cut = writer(&tar(), 1_000, &unchanged);
            cut.blob.truncate(length);
            assert!(read(&cut).is_err(), "{length}");
        }
    }
}

#[test]
fn what_a_table_takes_is_bounded() {
    for writer in WRITERS {
        let made = writer(&tar(), 1_000, &unchanged);
        let with = |change: fn(&mut IndexOptions)| {
            let mut options = IndexOptions::default();
            change(&mut options);
            read_with(&made, &options)
        };
        for change in [
            (|options: &mut IndexOptions| options.tar.entries = 2) as fn(&mut IndexOptions),
            |options| options.tar.metadata = 10,
            |options| options.blob.max_decoded = 1_000,
            |options| options.blob.max_spans = 3,
        ] {
            assert!(with(change).is_err());
        }
        assert!(with(|options| options.blob.max_spans = 4).is_ok());
    }
    // A bomb: it decodes to more than it says.
    let mut made = chunked(&tar(), 1_000, &|entries| {
        for _ in 0..100_000 {
            entries.push(json!({"type": "dir", "name": "d"}));
        }
    });
    let position = &mut made.annotations[0].1;
    let numbers: Vec<&str> = position.split(':').collect();
    *position = format!("{}:{}:1000:1", numbers[0], numbers[1]);
    assert!(matches!(read(&made), Err(TocError::TooLarge { .. })));
}

#[test]
fn a_chunk_that_is_not_what_its_table_says_is_an_error_and_never_data() {
    for writer in WRITERS {
        let mut made = writer(&tar(), 1_000, &unchanged);
        let digest = Sha256Digest::of(&made.blob);
        let index = read(&made).unwrap();
        let place = &index.blob.spans[1].compressed;
        let middle = usize::try_from(place.start.midpoint(place.end)).unwrap();
        let scene = Scene::new(std::slice::from_ref(&made), true);
        made.blob[middle] ^= 1;
        std::fs::write(scene.layout.blob_path(digest), &made.blob).unwrap();
        let image = scene.open().unwrap();
        let file = at(&image, "a").open(vfsd_backend::OpenFlags::READ).unwrap();
        let content = pattern(2_500, 1);
        assert!(file.read(0, 1_000).unwrap() == content[..1_000]);
        assert_eq!(file.read(999, 2), Err(vfsd_backend::Errno::IO));
        assert_eq!(file.read(1_500, 10), Err(vfsd_backend::Errno::IO));
        assert!(file.read(2_000, 500).unwrap() == content[2_000..]);
    }
    // A digest of a table that is another's: the chunk is right, and the table wrong.
    let wrong = Sha256Digest::of(b"").to_string();
    let made = estargz(&tar(), 1_000, &set(3, "chunkDigest", json!(wrong)));
    let image = Scene::new(&[made], true).open().unwrap();
    assert_eq!(by_tables(&image), 1);
    assert_eq!(at(&image, "b").content(), Err(vfsd_backend::Errno::IO));
}

#[test]
fn what_one_image_says_of_a_layer_is_not_believed_for_another() {
    let made = estargz(&tar(), 1_000, &unchanged);
    let honest = Scene::new(std::slice::from_ref(&made), true);
    // The same digest, but the folder has other bytes, and their table is the one that the other manifest names.
    let forged = estargz(
        &Tar::default().file("b", b"forged").finish(),
        100_000,
        &unchanged,
    );
    let mut layout = Layout::new();
    let (_, mut descriptor) = forged.layer(&layout, true);
    let digest = Sha256Digest::of(&made.blob);
    descriptor["digest"] = json!(digest.to_string());
    std::fs::write(layout.blob_path(digest), &forged.blob).unwrap();
    let manifest = layout.image_of("amd64", vec![(made.diff_id, descriptor)]);
    layout.name(manifest, Some("t"));
    let forger = Scene {
        layout,
        cache: honest.cache,
    };
    let image = forger.open().unwrap();
    assert_eq!(at(&image, "b").content().unwrap(), b"forged");
    let honest = Scene {
        layout: honest.layout,
        cache: forger.cache,
    };
    let image = honest.open().unwrap();
    assert_eq!(by_tables(&image), 1);
    assert_eq!(at(&image, "b").content().unwrap(), b"b");
}

#[test]
fn paths_and_links_of_a_table_stay_in_the_root() {
    let tar = Tar::default()
        .file("../../a/../../b", b"b")
        .symlink("up", "../../../..")
        .file("up/c", b"c")
        .symlink("x", "y")
        .symlink("y", "x")
        .finish();
    for writer in WRITERS {
        let made = writer(&tar, 1 << 20, &unchanged);
        let image = Scene::new(&[made], true).open().unwrap();
        assert_eq!(by_tables(&image), 1);
        assert_eq!(
            Place(image.root()).names().unwrap(),
            ["b", "c", "up", "x", "y"]
        );
        // Through a cycle nothing can be put.
        let made = writer(&tar, 1 << 20, &|entries| {
            entries.push(json!({"type": "dir", "name": "x/z"}));
        });
        assert!(matches!(
            Scene::new(&[made], true).open(),
            Err(OpenError::Tree(_))
        ));
    }
}
