use super::*;
use crate::EntryKind;
use crate::blob::tests::{gzip, text};
use crate::blob::{BlobOptions, Compression, Resume, Sha256Digest};
use crate::tar::tests::{Block, file, pax};

fn options(span: u64) -> IndexOptions {
    IndexOptions {
        blob: BlobOptions {
            span,
            ..BlobOptions::default()
        },
        ..IndexOptions::default()
    }
}

/// A tar with an entry of each type, some with what entries can have.
fn tar() -> Vec<u8> {
    let mut symlink = Block::new("symlink", b'2', 0);
    symlink.put(157, b"../x");
    let mut hardlink = Block::new("hardlink", b'1', 0);
    hardlink.put(157, b"a");
    let long = text(150_000);
    let size = u64::try_from(long.len()).unwrap();
    [
        Block::new("dir/", b'5', 0).bytes(),
        pax(&[
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.user.b", b""),
        ]),
        file("a", "content"),
        pax(&[
            ("GNU.sparse.size", b"9000"),
            ("GNU.sparse.map", b"10,20,4000,30"),
        ]),
        Block::new("sparse", b'0', 50).with(&[b'x'; 50]),
        Block::new("long", b'0', size).with(&long),
        symlink.bytes(),
        hardlink.bytes(),
        Block::new("fifo", b'6', 0).bytes(),
        Block::new("tty", b'3', 0).bytes(),
        Block::new("disk", b'4', 0).bytes(),
        Block::new("odd", b'Z', 0).bytes(),
        vec![0; 1024],
    ]
    .concat()
}

fn index(blob: &[u8]) -> LayerIndex {
    build_index(blob, &options(16 * 1024), |_| {}).unwrap()
}

/// With the checksum made right again.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - FOOTER;
    let footer = Sha256Digest::of(&bytes[..body]);
    bytes[body..].copy_from_slice(&footer.0);
    bytes
}

#[test]
fn an_index_is_the_same_however_the_blob_comes_and_survives_being_stored() {
    let tar = tar();
    let zstd = [&tar[..30_000], &tar[30_000..]].map(|part| zstd::bulk::compress(part, 3).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for (number, blob) in [tar.clone(), gzip(&tar, 6), zstd.concat()]
        .iter()
        .enumerate()
    {
        let index = index(blob);
        assert_eq!(index.entries.len(), 9);
        assert_eq!(index.notes.len(), 1);
        assert_eq!(index.blob.diff_id, Sha256Digest::of(&tar));
        assert!(index.blob.spans.len() > 1);
        let mut builder = IndexBuilder::new(&options(16 * 1024));
        for piece in blob.chunks(999) {
            builder.push(piece).unwrap();
        }
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
        assert_eq!(builder.progress().compressed, length(blob));
        let again = builder.finish().unwrap();
        assert_eq!(again.to_bytes(), index.to_bytes());
        let path = folder.path().join(number.to_string());
        index.store(&path).unwrap();
        index.store(&path).unwrap();
        assert_eq!(LayerIndex::load(&path).unwrap(), index);
    }
    let files = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(files.count(), 3, "no temporary file is left");
}

#[test]
fn progress_is_told_and_ends_with_the_blob() {
    let tar = [file("long", &"x".repeat(3_000_000)), vec![0; 1024]].concat();
    let blob = gzip(&tar, 0);
    let mut told = Vec::new();
    build_index(blob.as_slice(), &options(1 << 20), |at| told.push(at)).unwrap();
    assert!(told.len() > 2);
    assert!(told.is_sorted_by_key(|at| (at.compressed, at.decoded)));
    let last = told.last().unwrap();
    assert_eq!(last.compressed, u64::try_from(blob.len()).unwrap());
    assert_eq!(last.decoded, u64::try_from(tar.len()).unwrap());
}

#[test]
fn layers_that_are_malformed_or_of_no_known_compression_are_refused() {
    let tar = tar();
    let blob = gzip(&tar, 6);
    let try_index = |blob: &[u8]| build_index(blob, &IndexOptions::default(), |_| {});
    let short = try_index(&blob[..blob.len() / 2]).unwrap_err();
    assert!(matches!(short, IndexError::Blob(_)), "{short}");
    let short = try_index(&gzip(&tar[..40_000], 6)).unwrap_err();
    assert!(matches!(short, IndexError::Tar(_)), "{short}");
    let xz = try_index(&[&b"\xfd7zXZ\0"[..], &[7; 1000]].concat()).unwrap_err();
    assert!(matches!(xz, IndexError::Tar(_)), "{xz}");
    assert_eq!(try_index(&[]).unwrap().entries, []);
}

#[test]
fn a_changed_index_is_an_error_wherever_it_was_changed() {
    let bytes = index(&gzip(&tar(), 6)).to_bytes();
    for place in (0..bytes.len()).filter(|place| place % 53 == 0 || *place < 300) {
        let mut wrong = bytes.clone();
        wrong[place] ^= 1 << (place % 8);
        LayerIndex::from_bytes(&wrong).unwrap_err();
    }
    for length in (0..bytes.len()).filter(|length| length % 53 == 0 || *length < 300) {
        LayerIndex::from_bytes(&bytes[..length]).unwrap_err();
    }
    let longer = [bytes, vec![0]].concat();
    LayerIndex::from_bytes(&longer).unwrap_err();
}

#[test]
fn a_forged_index_is_read_as_a_valid_one_or_refused() {
    // Whoever makes an index can make its checksum, too.
    let bytes = index(&gzip(&tar(), 6)).to_bytes();
    let mut refused = 0;
    let places = (0..bytes.len() - FOOTER)
        .filter(|place| place % 97 == 0 || *place < 300 || *place > bytes.len() - 800);
    for (count, place) in places.enumerate() {
        let mut wrong = bytes.clone();
        wrong[place] = [0, 1, 0x7f, 0x80, 0xff][count % 5];
        match LayerIndex::from_bytes(&sealed(wrong.clone())) {
            Ok(index) => assert_eq!(index.to_bytes(), sealed(wrong), "byte {place}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_cannot_be_is_refused() {
    let valid = index(&gzip(&tar(), 6));
    let refused = |change: &dyn Fn(&mut LayerIndex)| {
        let mut wrong = valid.clone();
        change(&mut wrong);
        match LayerIndex::from_bytes(&wrong.to_bytes()) {
            Err(LoadError::Invalid(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    let blob = |change: fn(&mut crate::blob::BlobIndex)| {
        refused(&|index| change(Arc::make_mut(&mut index.blob)))
    };
    let elsewhere = "spans that end elsewhere than the layer";
    assert_eq!(blob(|blob| blob.size += 1), elsewhere);
    assert_eq!(blob(|blob| blob.spans.clear()), "no span");
    assert_eq!(blob(|blob| drop(blob.spans.pop())), elsewhere);
    let backwards = "a span that ends before it begins";
    assert_eq!(blob(|blob| blob.spans[1].decoded.end = 3), backwards);
    assert_eq!(blob(|blob| blob.spans[1].compressed.end = 3), backwards);
    let empty = blob(|blob| blob.spans[1].decoded.end = blob.spans[0].decoded.end);
    assert_eq!(empty, "an empty span");
    let unknown = "a span that begins in an unknown way";
    assert_eq!(blob(|blob| blob.compression = Compression::Zstd), unknown);
    let first = blob(|blob| blob.spans[0].resume = blob.spans[1].resume.clone());
    assert_eq!(first, unknown, "nothing comes before the first");
    let bits = blob(|blob| {
        if let Resume::Block { bits, .. } = &mut blob.spans[1].resume {
            *bits = 8;
        }
    });
    assert_eq!(bits, unknown);

    let entry = |change: fn(&mut LayerEntry)| refused(&|index| change(&mut index.entries[1]));
    assert_eq!(entry(|entry| entry.path.clear()), "a name that is none");
    assert_eq!(entry(|entry| entry.path.push(0)), "a name that is none");
    assert_eq!(
        entry(|entry| entry.permissions = 0o10_000),
        "permissions that are none"
    );
    let time = entry(|entry| entry.modified.nanoseconds = 1_000_000_000);
    assert_eq!(time, "a time that is none");
    let twice = entry(|entry| entry.xattrs[1].0 = entry.xattrs[0].0.clone());
    assert_eq!(twice, "an extended attribute that comes twice");

    let place = "an extent that is out of its place";
    let extent = |number: usize, change: fn(&mut crate::DataExtent)| {
        refused(&|index| {
            let EntryKind::Regular { data, .. } = &mut index.entries[2].kind else {
                panic!("the sparse file");
            };
            change(&mut data[number]);
        })
    };
    assert_eq!(extent(0, |extent| extent.length = 0), place);
    assert_eq!(extent(0, |extent| extent.length = u64::MAX), place);
    assert_eq!(extent(0, |extent| extent.length = 5000), place);
    assert_eq!(extent(1, |extent| extent.file_offset = 0), place);
    assert_eq!(extent(1, |extent| extent.file_offset = 8990), place);
    assert_eq!(extent(1, |extent| extent.tar_offset = 0), place);
    assert_eq!(extent(1, |extent| extent.tar_offset = 1 << 40), place);
    let large = refused(&|index| {
        if let EntryKind::Regular { size, .. } = &mut index.entries[1].kind {
            *size = 1 << 63;
        }
    });
    assert_eq!(large, "a file that is too large");
}

#[test]
fn counts_that_nothing_follows_take_no_memory() {
    let bytes = index(&tar()).to_bytes();
    let spans = 8 + 4 + 1 + 32 + 8 + 32 + 8;
    let mut wrong = bytes;
    wrong[spans..spans + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let error = LayerIndex::from_bytes(&sealed(wrong)).unwrap_err();
    assert!(matches!(error, LoadError::Invalid("it ends too early")));
}

#[test]
fn files_that_are_no_index_are_told_apart_from_damaged_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    assert!(matches!(LayerIndex::load(&path), Err(LoadError::Io(_))));
    std::fs::write(
        &path,
        b"something else, long enough to have a checksum at its end",
    )
    .unwrap();
    assert!(matches!(LayerIndex::load(&path), Err(LoadError::Foreign)));
    let mut bytes = index(&tar()).to_bytes();
    bytes[200] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(LayerIndex::load(&path), Err(LoadError::Checksum)));
    bytes[8] += 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(LayerIndex::load(&path), Err(LoadError::Foreign)));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(LayerIndex::load(&path), Err(LoadError::Foreign)));
}
