//! An image as a guest's requests meet it.

mod layers;
mod listings;

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
