//! An image as a guest's requests meet it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use tar_core::EntryType;
use vfsd_backend::{
    Answer, Backend, BufferSink, Capabilities, Directory, Entry, EntrySink, Errno, FileCaching,
    FileKind, Locator, Lookup, Name, OpenFlags, OpenRequest, ReadRequest, SeekFrom, Ttl,
};
use vfsd_testkit::place::{Place, read_some, wait};

use crate::image::ImageName;
use crate::testing::{Layout, Tar, digest};
use crate::tree::NodeId;
use crate::{OciImage, OpenError, Options};

/// Content that looks different everywhere.
fn pattern(length: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

fn zstd(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

/// A lower and an upper layer with a bit of everything.
fn tars() -> [Vec<u8>; 2] {
    let sparse = |entry: &mut tar_core::builder::EntryBuilder| {
        entry.entry_type(EntryType::Regular);
        entry
            .add_pax("GNU.sparse.major", b"0")
            .add_pax("GNU.sparse.minor", b"1");
        entry
            .add_pax("GNU.sparse.name", b"sparse")
            .add_pax("GNU.sparse.size", b"300000");
        entry
            .add_pax("GNU.sparse.numblocks", b"2")
            .add_pax("GNU.sparse.map", b"8192,100,200000,50");
    };
    let lower = Tar::default()
        .file("usr/lib/big", &pattern(1_500_000))
        .file("usr/lib/gone", b"gone")
        .file("etc/empty", b"")
        .symlink("lib", "usr/lib");
    let upper = Tar::default()
        .file("lib/.wh.gone", b"")
        .file("lib/small", b"small")
        .member("fifo", b"", |entry| {
            entry.entry_type(EntryType::Fifo);
        })
        .member("sparse", &pattern(150), sparse)
        .member("tool", b"tool", |entry| {
            entry.add_pax("SCHILY.xattr.user.mime", b"text");
            entry.add_pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02");
        });
    [lower.finish(), upper.finish()]
}

/// A layout with the image of some tars, and a cache for it.
struct Served {
    layout: Layout,
    manifest: Value,
    cache: tempfile::TempDir,
}

impl Served {
    fn new(tars: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let mut layout = Layout::new();
        let manifest = layout.image("amd64", tars, pack);
        layout.name(manifest.clone(), Some("t"));
        Self {
            layout,
            manifest,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn options(&self) -> Options {
        let name = ImageName::layout(self.layout.path().as_os_str());
        Options::new(name, self.cache.path().join("vfsd"))
    }

    fn open(&self) -> Result<OciImage, OpenError> {
        OciImage::open(&self.options())
    }

    /// The digest of a layer.
    fn layer(&self, number: usize) -> crate::blob::Sha256Digest {
        let path = self.layout.blob_path(digest(&self.manifest));
        let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        digest(&manifest["layers"][number])
    }
}

fn root(image: &OciImage) -> Place {
    Place(image.root())
}

fn at(image: &OciImage, path: &str) -> Place {
    path.split('/')
        .fold(root(image), |place, name| place.lookup(name).unwrap())
}

/// What an answer is at its first poll, which is what a queue's thread does.
fn at_once<T>(mut answer: Answer<'_, T>) -> Option<vfsd_backend::Result<T>> {
    match std::pin::pin!(&mut answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[test]
fn an_image_is_the_tree_of_its_layers_however_they_are_compressed() {
    for pack in [<[u8]>::to_vec, gzip, zstd] {
        let image = Served::new(&tars(), pack).open().unwrap();
        assert_eq!(
            root(&image).names().unwrap(),
            ["etc", "fifo", "lib", "sparse", "tool", "usr"]
        );
        assert_eq!(at(&image, "usr/lib").names().unwrap(), ["big", "small"]);
        assert!(at(&image, "usr/lib/big").content().unwrap() == pattern(1_500_000));
        assert_eq!(at(&image, "usr/lib/small").content().unwrap(), b"small");
        assert_eq!(at(&image, "etc/empty").content().unwrap(), b"");
        assert_eq!(at(&image, "lib").readlink().unwrap(), b"usr/lib");
        assert_eq!(at(&image, "tool").getxattr("user.mime").unwrap(), b"text");
        assert_eq!(
            at(&image, "tool").xattr_names().unwrap(),
            ["security.capability", "user.mime"]
        );
        assert_eq!(
            at(&image, "tool").getxattr("user.other"),
            Err(Errno::NODATA)
        );
        assert_eq!(image.config().run().entrypoint, ["/bin/init"]);
    }
}

#[test]
fn a_locator_leads_to_the_same_file_of_the_image_opened_anew() {
    let served = Served::new(&tars(), gzip);
    let known = {
        let image = served.open().unwrap();
        ["etc", "usr/lib/big", "lib", "fifo"].map(|path| {
            let place = at(&image, path);
            (place.identity(), wait(place.0.locator()).unwrap())
        })
    };
    let image = served.open().unwrap();
    for (identity, locator) in known {
        let found = wait(image.resolve(&locator)).unwrap();
        assert_eq!(found.identity(), identity);
    }
    for none in [0, image.tree().figures().nodes + 1, u64::MAX] {
        let found = wait(image.resolve(&Locator::of_inode(none)));
        assert_eq!(found.map(drop), Err(Errno::STALE));
    }
}

#[test]
fn holes_are_read_as_zeros_and_found() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let data = pattern(150);
    let mut expected = vec![0; 300_000];
    expected[8192..8292].copy_from_slice(&data[..100]);
    expected[200_000..200_050].copy_from_slice(&data[100..]);
    let sparse = at(&image, "sparse");
    assert!(sparse.content().unwrap() == expected);
    let file = sparse.open(OpenFlags::READ).unwrap();
    for (offset, data, hole) in [
        (0, Ok(8192), Ok(0)),
        (8200, Ok(8200), Ok(8292)),
        (8292, Ok(200_000), Ok(8292)),
        (200_049, Ok(200_049), Ok(200_050)),
        (299_999, Err(Errno::NXIO), Ok(299_999)),
        (300_000, Err(Errno::NXIO), Err(Errno::NXIO)),
    ] {
        assert_eq!(file.seek(SeekFrom::Data, offset), data, "{offset}");
        assert_eq!(file.seek(SeekFrom::Hole, offset), hole, "{offset}");
    }
}

#[test]
fn reads_anywhere_give_what_is_there() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let expected = pattern(1_500_000);
    let file = at(&image, "usr/lib/big").open(OpenFlags::READ).unwrap();
    for (offset, length) in [
        (1_499_990, 100),
        (0, 1),
        (1_048_570, 20),
        (4095, 70_000),
        (1_500_000, 5),
        (9_000_000, 5),
    ] {
        let start = expected.len().min(offset);
        let end = expected.len().min(offset + length);
        let read = file.read(offset as u64, length).unwrap();
        assert_eq!(read, expected[start..end], "{offset}");
    }
}

#[test]
fn all_but_content_is_answered_at_once_and_forever() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    assert_eq!(
        image.capabilities(),
        Capabilities::IMMUTABLE | Capabilities::REOPEN | Capabilities::XATTR
    );
    let top = image.root();
    let Some(Ok(Lookup::Found(usr))) = at_once(top.lookup(Name::new(b"usr").unwrap())) else {
        panic!("found at once");
    };
    assert_eq!(
        (usr.entry_ttl, usr.attribute_ttl),
        (Ttl::Forever, Ttl::Forever)
    );
    let missing = at_once(top.lookup(Name::new(b"none").unwrap()));
    assert!(matches!(
        missing,
        Some(Ok(Lookup::Missing { ttl: Ttl::Forever }))
    ));
    assert!(matches!(at_once(usr.node.getattr()), Some(Ok(_))));
    assert!(matches!(at_once(usr.node.opendir()), Some(Ok(_))));
    assert!(matches!(at_once(usr.node.listxattr()), Some(Ok(_))));
    let file = at(&image, "usr/lib/big");
    let read = OpenRequest {
        flags: OpenFlags::READ,
        kill_privileges: false,
    };
    let opened = at_once(file.0.open(read)).unwrap().unwrap();
    assert_eq!(opened.caching, FileCaching::Keep);
    let figures = at_once(top.statfs()).unwrap().unwrap();
    assert_eq!(
        (figures.files, figures.blocks_free, figures.name_max),
        (11, 0, 255)
    );
    assert_eq!(
        figures.blocks,
        367 + 1 + 1 + 1,
        "each file's data in blocks of 4096 bytes"
    );
}

#[test]
fn content_is_waited_for_once_and_then_there_at_once() {
    let served = Served::new(&tars(), gzip);
    let image = served.open().unwrap();
    let file = at(&image, "usr/lib/small").open(OpenFlags::READ).unwrap();
    let request = ReadRequest {
        offset: 0,
        length: 5,
    };
    let mut buffer = [0; 5];
    assert!(at_once(file.0.read(request, &mut BufferSink::new(&mut buffer))).is_none());
    assert!(
        wait(file.0.extent(0, 5)).unwrap().is_none(),
        "nothing is fetched for it"
    );
    assert_eq!(file.read(0, 5).unwrap(), b"small");
    // A cache on a disk is read without waiting; one that cannot say whether it would wait is waited for.
    let again = at_once(file.0.read(request, &mut BufferSink::new(&mut buffer)));
    assert!(again.is_none_or(|read| read.unwrap() == 5));
    let extent = wait(file.0.extent(1, 100)).unwrap().unwrap();
    let mut content = [0; 4];
    assert_eq!(extent.length, 4);
    rustix::io::pread(&extent.descriptor, &mut content, extent.offset).unwrap();
    assert_eq!(&content, b"mall");
}

#[test]
fn nothing_can_be_opened_for_writing_and_nothing_but_files_at_all() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let open = |path: &str, flags| at(&image, path).open(flags).map(drop);
    assert_eq!(
        open("tool", OpenFlags::READ | OpenFlags::WRITE),
        Err(Errno::ROFS)
    );
    assert_eq!(
        open("tool", OpenFlags::READ | OpenFlags::TRUNCATE),
        Err(Errno::ROFS)
    );
    assert_eq!(open("usr", OpenFlags::READ), Err(Errno::ISDIR));
    assert_eq!(open("lib", OpenFlags::READ), Err(Errno::LOOP));
    assert_eq!(open("fifo", OpenFlags::READ), Err(Errno::BADF));
    assert_eq!(
        at(&image, "fifo").attributes().unwrap().kind,
        FileKind::Fifo
    );
    assert!(matches!(at(&image, "tool").opendir(), Err(Errno::NOTDIR)));
    assert_eq!(at(&image, "tool").lookup("x").map(drop), Err(Errno::NOTDIR));
    assert_eq!(at(&image, "tool").readlink(), Err(Errno::INVAL));
    assert!(root(&image).mkdir("new").is_err());
}

#[test]
fn a_listing_goes_on_after_any_entry_in_a_fresh_handle() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let directory = root(&image);
    let all = directory.list().unwrap();
    let names: Vec<&[u8]> = all.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(
        names,
        [
            &b"."[..],
            b"..",
            b"etc",
            b"fifo",
            b"lib",
            b"sparse",
            b"tool",
            b"usr"
        ]
    );
    for (place, entry) in all.iter().enumerate() {
        let fresh = directory.opendir().unwrap();
        assert_eq!(
            read_some(&*fresh, entry.next, 100).unwrap(),
            all[place + 1..]
        );
        let number = match entry.name.as_slice() {
            b"." | b".." => 1,
            name => {
                directory
                    .lookup(std::str::from_utf8(name).unwrap())
                    .unwrap()
                    .identity()
                    .inode
            }
        };
        assert_eq!(entry.inode, number);
    }
    let fresh = directory.opendir().unwrap();
    assert_eq!(read_some(&*fresh, u64::MAX, 100).unwrap(), []);
    let below = at(&image, "usr/lib").list().unwrap();
    assert_eq!(
        below[1].inode,
        at(&image, "usr").identity().inode,
        "the parent"
    );
}

/// Takes entries while there is room, and keeps what a lookup would have found.
struct PlusSink {
    room: usize,
    taken: Vec<(Vec<u8>, Option<u64>)>,
}

impl EntrySink for PlusSink {
    fn has_room(&mut self, _name: &[u8]) -> bool {
        self.taken.len() < self.room
    }

    fn entry(&mut self, listed: &vfsd_backend::DirEntry<'_>, found: Option<Entry>) {
        let inode = found.map(|entry| entry.attributes.inode);
        assert!(inode.is_none_or(|inode| inode == listed.inode));
        self.taken.push((listed.name.to_vec(), inode));
    }
}

#[test]
fn a_listing_with_attributes_has_them_for_all_but_the_dots() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let directory: Arc<dyn Directory> = root(&image).opendir().unwrap();
    let mut sink = PlusSink {
        room: 4,
        taken: Vec::new(),
    };
    wait(directory.read_plus(0, &mut sink)).unwrap();
    let expected = [
        (b".".to_vec(), None),
        (b"..".to_vec(), None),
        (b"etc".to_vec(), Some(2)),
        (b"fifo".to_vec(), Some(3)),
    ];
    assert_eq!(sink.taken, expected);
}

#[test]
fn layers_are_indexed_once_and_read_from_the_cache_without_their_blobs() {
    let served = Served::new(&tars(), gzip);
    let told = Arc::new(AtomicU64::new(0));
    let options = || {
        let told = told.clone();
        Options {
            progress: Box::new(move |progress| {
                assert!(progress.read <= progress.size && progress.layer < progress.layers);
                told.fetch_add(1, Ordering::Relaxed);
            }),
            ..served.options()
        }
    };
    let image = OciImage::open(&options()).unwrap();
    let first = told.load(Ordering::Relaxed);
    assert!(first >= 2, "of both layers: {first}");
    let numbers: Vec<u64> = image.tree().nodes().map(NodeId::inode).collect();
    let big = at(&image, "usr/lib/big").content().unwrap();
    drop(image);
    // What was read before is served whatever became of the layer, as long as a file is there to be opened.
    let blob = served.layout.blob_path(served.layer(0));
    let length = std::fs::metadata(&blob).unwrap().len();
    std::fs::write(&blob, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let image = OciImage::open(&options()).unwrap();
    assert_eq!(
        told.load(Ordering::Relaxed),
        first,
        "nothing is indexed again"
    );
    assert_eq!(
        image.tree().nodes().map(NodeId::inode).collect::<Vec<_>>(),
        numbers
    );
    assert!(at(&image, "usr/lib/big").content().unwrap() == big);
}

#[test]
fn content_that_is_not_what_it_was_is_an_error_and_never_data() {
    let served = Served::new(&tars(), gzip);
    drop(served.open().unwrap());
    let blob = served.layout.blob_path(served.layer(0));
    let mut changed = std::fs::read(&blob).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&blob, changed).unwrap();
    let image = served.open().unwrap();
    assert_eq!(at(&image, "usr/lib/big").content(), Err(Errno::IO));
    assert_eq!(
        at(&image, "usr/lib/small").content().unwrap(),
        b"small",
        "of the other layer"
    );
}

#[test]
fn a_layer_that_is_not_what_the_image_says_is_refused() {
    let served = Served::new(&tars(), gzip);
    let layer = served.layer(1);
    let blob = served.layout.blob_path(layer);
    let whole = std::fs::read(&blob).unwrap();
    let mut changed = whole.clone();
    // The time in the header of gzip is covered by the digest alone.
    changed[4] ^= 1;
    std::fs::write(&blob, &changed).unwrap();
    let message = served.open().unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("layer {layer} is damaged, it is sha256:")),
        "{message}"
    );
    std::fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
    let message = served.open().unwrap_err().to_string();
    assert!(
        message.ends_with("is damaged: copy the image again"),
        "{message}"
    );
    std::fs::write(&blob, &whole).unwrap();
    served.open().unwrap();
}

#[test]
fn a_layer_of_another_diff_id_is_refused() {
    let mut layout = Layout::new();
    // Decodes well, and is what its digest says, but not what the configuration says.
    let other = |_: &[u8]| gzip(&Tar::default().file("a", b"other").finish());
    let descriptor = layout.image("amd64", &tars(), other);
    layout.name(descriptor, None);
    let cache = tempfile::tempdir().unwrap();
    let name = ImageName::layout(layout.path().as_os_str());
    let error = OciImage::open(&Options::new(name, cache.path().into())).unwrap_err();
    assert!(matches!(error, OpenError::DiffId { .. }), "{error}");
}

#[test]
fn what_the_cache_holds_is_made_again_where_it_is_damaged() {
    let served = Served::new(&tars(), gzip);
    drop(served.open().unwrap());
    let damage = |folder: &Path| {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end != "content") {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    };
    damage(&served.cache.path().join("vfsd/layers"));
    damage(&served.cache.path().join("vfsd/trees"));
    let image = served.open().unwrap();
    assert_eq!(at(&image, "usr/lib/small").content().unwrap(), b"small");
    assert_eq!(root(&image).names().unwrap().len(), 6);
}

#[test]
fn a_layer_that_an_image_has_twice_is_cached_once() {
    let tar = Tar::default().file("a", b"a").finish();
    let served = Served::new(&[tar.clone(), tar], gzip);
    let image = served.open().unwrap();
    let contents: Vec<_> = image.contents().collect();
    assert!(Arc::ptr_eq(contents[0], contents[1]));
    assert_eq!(at(&image, "a").content().unwrap(), b"a");
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let served = Served::new(&tars(), gzip);
    let file = served.cache.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options = Options {
        cache: file.clone(),
        ..served.options()
    };
    let message = OciImage::open(&options).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("the cache {}: ", file.display())),
        "{message}"
    );
}
