//! Dumps: what is in a volume is found in another one that was made of its dump, wherever that is.

use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use vfsd_backend::posix::{ACL_ACCESS, Acl};
use vfsd_backend::{
    AttributeChanges, Attributes, Device, FileKind, LinkTarget, Name, OpenFlags, SeekFrom, SetTime,
    Timestamp, XattrFlags, XattrName,
};
use vfsd_object_store::Store;
use vfsd_testkit::place::{Place, superuser, wait, with_permissions};
use vfsd_volume::{
    Bucket, DumpOptions, DumpSummary, Quota, Volume, VolumeError, VolumeKey, VolumeOptions,
};

use crate::bench::{Hosts, PREFIX, check, make_volume, open, options, root, store, sync};
use crate::care::{noise, scratch};

const ALL: DumpOptions = DumpOptions { content: true };

fn dump_bucket(
    bucket: impl Into<Bucket>,
    prefix: &str,
    hosts: &mut Hosts,
) -> Result<Vec<u8>, VolumeError> {
    let runtime = vfsd_testkit::runtime().handle();
    let mut to = Vec::new();
    let from = (bucket, prefix);
    Volume::dump_remote(from, None, ALL, &mut to, &scratch(hosts), runtime)?;
    Ok(to)
}

fn load_bucket(
    bucket: impl Into<Bucket>,
    prefix: &str,
    dump: &[u8],
    hosts: &mut Hosts,
) -> Result<DumpSummary, VolumeError> {
    let runtime = vfsd_testkit::runtime().handle();
    Volume::load_remote(bucket, prefix, &mut &dump[..], &scratch(hosts), runtime)
}

fn dump_directory(directory: &Path) -> Vec<u8> {
    let mut to = Vec::new();
    Volume::dump(directory, ALL, &mut to).unwrap();
    to
}

/// The lines of a dump, but for the first, and with what content there is without how it is cut into lines.
fn lines(dump: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(dump).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().skip(1) {
        let (kind, next) = ("{\"kind\":\"content\"", line.to_owned());
        match lines.last() {
            Some(last) if last.starts_with(kind) && next.starts_with(kind) => {}
            _ if next.starts_with(kind) => lines.push(kind.to_owned()),
            _ => lines.push(next),
        }
    }
    lines
}

type Found = (Vec<u8>, Attributes, Vec<(Vec<u8>, Vec<u8>)>, Content);

#[derive(Debug, PartialEq)]
enum Content {
    None,
    Target(Vec<u8>),
    /// Bytes, and where there are some.
    Bytes(Vec<u8>, Vec<(u64, u64)>),
}

/// Everything in a tree, but for access times, which reading changes, and blocks.
fn everything(place: &Place, path: &[u8], found: &mut Vec<Found>) {
    let attributes = Attributes {
        accessed: Timestamp::default(),
        blocks: 0,
        ..place.attributes().unwrap()
    };
    let names = wait(place.0.listxattr()).unwrap();
    let mut xattrs = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let value = wait(place.0.getxattr(XattrName::new(name).unwrap())).unwrap();
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort();
    let content = match attributes.kind {
        FileKind::Regular => {
            let file = place.open(OpenFlags::READ).unwrap();
            let (mut at, mut data) = (0, Vec::new());
            while let Ok(start) = file.seek(SeekFrom::Data, at) {
                at = file.seek(SeekFrom::Hole, start).unwrap();
                data.push((start, at));
            }
            // Most of the largest one is a hole.
            let content = match attributes.size < 100 << 20 {
                true => file.content().unwrap(),
                false => Vec::new(),
            };
            Content::Bytes(content, data)
        }
        FileKind::Symlink => Content::Target(place.readlink().unwrap()),
        _ => Content::None,
    };
    let kind = attributes.kind;
    found.push((path.to_vec(), attributes, xattrs, content));
    if kind == FileKind::Directory {
        for entry in place.list().unwrap() {
            let name = entry.name;
            if !matches!(&name[..], b"." | b"..") {
                let there = wait(place.0.lookup(Name::new(&name).unwrap())).unwrap();
                let vfsd_backend::Lookup::Found(there) = there else {
                    panic!("{} is not there", name.escape_ascii());
                };
                let path = [path, b"/", &name].concat();
                everything(&Place(there.node), &path, found);
            }
        }
    }
}

fn tree(volume: &Volume) -> Vec<Found> {
    let mut found = Vec::new();
    everything(&root(volume), b"", &mut found);
    found
}

/// One of everything that a volume can have.
fn make_everything(top: &Place) {
    let xattr = |place: &Place, name: &[u8], value: &[u8]| {
        let name = XattrName::new(name).unwrap();
        wait(place.0.setxattr(name, value, XattrFlags::empty())).unwrap();
    };
    let file = top.put("file", &noise(1, 700_000)).unwrap();
    top.mkdir("folder").unwrap();
    let folder = top.lookup("folder").unwrap();
    folder.link(&file, "hard link").unwrap();
    top.put("empty", b"").unwrap();
    let sparse = top.put("sparse", b"").unwrap();
    let handle = sparse.open_both().unwrap();
    for at in [8192, 3 << 20, (9 << 20) + 5] {
        handle.write_all(at, &noise(at, 10_000)).unwrap();
    }
    handle.truncate(50 << 20).unwrap();
    top.put("hole", b"").unwrap().truncate(1 << 40).unwrap();
    // Names, targets and values that are no text.
    let name = Name::new(b"\xff\n\"\\\x01").unwrap();
    wait(top.0.mkdir(superuser(), name, with_permissions(0o1777))).unwrap();
    let target = LinkTarget::new(b"../\xfe/\xc3\xa4").unwrap();
    let made = Name::new(b"link\x80").unwrap();
    wait(
        top.0
            .symlink(superuser(), made, target, with_permissions(0o777)),
    )
    .unwrap();
    top.put(&"n".repeat(255), b"long").unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    xattr(&file, b"user.bytes", &bytes);
    xattr(&file, b"user.\xff", b"");
    xattr(&folder, b"trusted.large", &noise(2, 60_000));
    let acl = |user: u32| {
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 6, user),
            (4, 4, u32::MAX),
            (16, 6, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        assert!(Acl::decode(&acl).is_ok());
        acl
    };
    xattr(&file, ACL_ACCESS, &acl(77));
    // What a write would take away.
    let program = top.put("program", &noise(3, 5000)).unwrap();
    program.chown(5, 6).unwrap();
    program.chmod(0o6755).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr(&program, b"security.capability", &capability);
    for (name, kind, device) in [
        ("fifo", FileKind::Fifo, Device::default()),
        ("socket", FileKind::Socket, Device::default()),
        ("null", FileKind::CharDevice, Device { major: 1, minor: 3 }),
        (
            "disk",
            FileKind::BlockDevice,
            Device {
                major: 259,
                minor: 1 << 19,
            },
        ),
    ] {
        top.mknod(name, kind, device).unwrap();
    }
    let old = |seconds, nanoseconds| SetTime::At(Timestamp::new(seconds, nanoseconds).unwrap());
    file.set(AttributeChanges {
        accessed: Some(old(5, 999_999_999)),
        modified: Some(old(-7, 1)),
        ..AttributeChanges::default()
    })
    .unwrap();
    let many = top.mkdir("many").unwrap();
    for number in 0..250 {
        many.put(&format!("file{number}"), format!("{number}").as_bytes())
            .unwrap();
    }
    many.unlink("file7").unwrap();
    let frozen = top.put("frozen", b"nobody changes it").unwrap();
    wait(frozen.0.setflags(0x10)).unwrap();
}

#[test]
fn a_volume_is_the_same_after_it_was_dumped_and_loaded_elsewhere() {
    let mut hosts = Hosts::new();
    let (first, last) = (hosts.fresh(), hosts.fresh());
    let quota = Quota {
        bytes: None,
        files: Some(9999),
    };
    let made = VolumeOptions {
        quota,
        root_permissions: 0o2711,
        ..VolumeOptions::default()
    };
    Volume::create(&first, &made).unwrap();
    let volume = Volume::open(&first, &made).unwrap();
    make_everything(&root(&volume));
    let times = |volume: &Volume| root(volume).lookup("file").unwrap().attributes().unwrap();
    let before = times(&volume);
    drop(volume);
    // Into a bucket, from there into another one that is encrypted, and back into a directory.
    let bucket = store(Arc::new(InMemory::new()));
    let dumped = dump_directory(&first);
    let summary = load_bucket(&bucket, "plain", &dumped, &mut hosts).unwrap();
    let inodes = 1 + 15 + 249;
    assert_eq!(
        (summary.inodes, summary.entries),
        (inodes, inodes),
        "{summary:?}"
    );
    let from_plain = dump_bucket(&bucket, "plain", &mut hosts).unwrap();
    let sealed = Bucket::new(bucket.clone(), Some(VolumeKey::from([7; 32])));
    load_bucket(&sealed, "sealed", &from_plain, &mut hosts).unwrap();
    let from_sealed = dump_bucket(&sealed, "sealed", &mut hosts).unwrap();
    Volume::load(&last, &mut &from_sealed[..]).unwrap();
    for other in [&from_plain, &from_sealed, &dump_directory(&last)] {
        assert_eq!(lines(other), lines(&dumped));
    }
    assert!(Volume::check(&last).unwrap().is_clean());
    let (first, last) = (
        Volume::open(&first, &made).unwrap(),
        Volume::open(&last, &made).unwrap(),
    );
    assert_eq!(
        times(&last),
        Attributes {
            blocks: times(&last).blocks,
            ..before
        }
    );
    let loaded = Volume::open_remote(&sealed, "sealed", &hosts.fresh(), &options()).unwrap();
    let expected = tree(&first);
    for other in [&last, &loaded] {
        for (found, wanted) in tree(other).into_iter().zip(&expected) {
            assert!(found == *wanted, "{}", found.0.escape_ascii());
        }
        assert_eq!(tree(other).len(), expected.len());
    }
    // It goes on as any other.
    root(&last).put("new", b"new").unwrap();
    let number = root(&last)
        .lookup("new")
        .unwrap()
        .attributes()
        .unwrap()
        .inode;
    assert!(expected.iter().all(|found| found.1.inode != number));
    drop(last);
    let refused = Volume::load(&hosts.fresh(), &mut &b"{\"kind\":\"end\"}\n"[..]).unwrap_err();
    assert!(refused.to_string().contains("no dump"), "{refused}");
}

#[test]
fn a_volume_in_use_is_dumped_as_it_was_synced_and_its_quota_goes_along() {
    let bucket: Store = store(Arc::new(InMemory::new()));
    let mut hosts = Hosts::new();
    make_volume(&bucket);
    let limit = |quota: &mut Quota| quota.bytes = Some(5_000_000);
    let limited = Volume::change_remote_quota(&bucket, PREFIX, limit);
    vfsd_testkit::block_on(limited).unwrap();
    let volume = open(&bucket, &hosts.fresh());
    let file = root(&volume).put("file", &noise(1, 100_000)).unwrap();
    let unnamed = root(&volume)
        .put("unnamed", b"u")
        .unwrap()
        .open_both()
        .unwrap();
    root(&volume).unlink("unnamed").unwrap();
    sync(&volume);
    let dumped = dump_bucket(&bucket, PREFIX, &mut hosts).unwrap();
    drop((file, unnamed));
    let snapshots = vfsd_testkit::block_on(Volume::snapshots_remote(&bucket, PREFIX));
    assert_eq!(snapshots.unwrap(), [], "nothing is held any more");
    let summary = load_bucket(&bucket, "loaded", &dumped, &mut hosts).unwrap();
    assert_eq!((summary.inodes, summary.bytes), (2, 100_000));
    let status = vfsd_testkit::block_on(Volume::stat_remote(&bucket, "loaded")).unwrap();
    assert_eq!(status.quota.bytes, Some(5_000_000));
    assert_eq!(status.owner, None);
    check(&bucket, &hosts.fresh());
    let again = load_bucket(&bucket, "loaded", &dumped, &mut hosts).unwrap_err();
    assert!(again.to_string().contains("there is a volume"), "{again}");
}

#[test]
fn what_is_no_whole_dump_makes_no_volume() {
    let mut hosts = Hosts::new();
    let made = hosts.fresh();
    let options = VolumeOptions::default();
    Volume::create(&made, &options).unwrap();
    let volume = Volume::open(&made, &options).unwrap();
    root(&volume).put("file", b"content").unwrap();
    root(&volume)
        .mkdir("folder")
        .unwrap()
        .symlink("link", "target")
        .unwrap();
    drop(volume);
    let whole = String::from_utf8(dump_directory(&made)).unwrap();
    let mut load = |text: &str| {
        let directory = hosts.fresh();
        let error = Volume::load(&directory, &mut text.as_bytes()).unwrap_err();
        assert!(Volume::open(&directory, &options).is_err(), "{error}");
        error.to_string()
    };
    // Cut off behind a line, and in the middle of one.
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at).collect();
    for end in [ends[4], ends[ends.len() - 2]] {
        let error = load(&whole[..=end]);
        assert!(error.contains("not whole"), "{error}");
    }
    let error = load(&whole[..whole.len() - 1]);
    assert!(error.contains("in the middle"), "{error}");
    for (from, to, told) in [
        ("\"format\":1", "\"format\":2", "newer vfsd"),
        ("\"content\":true", "\"content\":false", "without content"),
        ("\"links\":1", "\"links\":2", "names"),
        ("\"name\":\"file\"", "\"name\":\"a/b\"", "no name"),
        ("\"name\":\"folder\"", "\"name\":\"file\"", "entries"),
        ("\"size\":7", "\"size\":6", "within its file"),
        ("\"size\":7", "\"size\":9223372036854775808", "size"),
        (",\"target\":\"target\"", "", "target"),
        (
            "\"inode\":2,\"type\":\"file\",\"mode\"",
            "\"inode\":1,\"type\":\"file\",\"mode\"",
            "order",
        ),
        ("\"mode\":\"0644\"", "\"mode\":\"9\"", "octal"),
        ("\"directory\":1", "\"directory\":2", "follow its inode"),
        ("\"entries\":3", "\"entries\":4", "other lines"),
        ("\"parent\":1}", "\"parent\":3}", "root"),
    ] {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole, "{from}");
        let error = load(&changed);
        assert!(error.contains(told), "{to}: {error}");
    }
    let mut names = Vec::new();
    let told = Volume::dump(&made, DumpOptions { content: false }, &mut names).unwrap();
    assert_eq!(
        told,
        DumpSummary {
            inodes: 4,
            entries: 3,
            bytes: 0
        }
    );
    assert!(load(&String::from_utf8(names).unwrap()).contains("without content"));
    let endless = format!("{}\n", "x".repeat(3 << 20));
    assert!(load(&endless).contains("no dump"));
}
