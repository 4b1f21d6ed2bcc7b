//! A served image beside an unpacked one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use vfsd_backend::{Attributes, Backend as _, FileKind};
use vfsd_oci::OciImage;
use vfsd_testkit::place::Place;

/// Everything of an entry that must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: Option<(i64, u32)>,
    device: (u32, u32),
    /// The first path of the file, which tells what it is linked with; its number of names.
    links: (Vec<u8>, u64),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
}

type Paths = BTreeMap<Vec<u8>, Seen>;

/// What differs, a line for each path; nothing when all is the same.
///
/// The times of some directories are not compared: of those that no layer describes, which have the image's here and
/// that of unpacking there, and of those in which umoci worked, after `begun`, without setting the time back: it
/// does that for the parent of an entry alone, not for a directory that a whiteout empties or in which it makes
/// parents.
pub(crate) fn differences(image: &OciImage, unpacked: &Path, begun: i64) -> Vec<String> {
    let mut served = served(image);
    let mut unpacked = walk(unpacked);
    for (path, theirs) in &mut unpacked {
        let Some(ours) = served.get_mut(path) else {
            continue;
        };
        let directory = FileKind::from_mode(theirs.mode) == Some(FileKind::Directory);
        let touched = directory && theirs.modified.is_some_and(|(seconds, _)| seconds >= begun);
        if touched || ours.modified.is_none() {
            (ours.modified, theirs.modified) = (None, None);
        }
    }
    let paths: std::collections::BTreeSet<_> = served.keys().chain(unpacked.keys()).collect();
    let differing = paths.into_iter().filter_map(|path| {
        let (ours, theirs) = (served.get(path), unpacked.get(path));
        (ours != theirs).then(|| {
            let path = path.escape_ascii();
            format!("{path}:\n  served:   {ours:?}\n  unpacked: {theirs:?}")
        })
    });
    differing.collect()
}

fn served(image: &OciImage) -> Paths {
    let mut first = BTreeMap::new();
    let mut paths = Paths::new();
    let mut directories = vec![(Vec::new(), Place(image.root()))];
    paths.insert(
        Vec::new(),
        look(image, b"", &Place(image.root()), &mut first),
    );
    while let Some((folder, place)) = directories.pop() {
        for listed in place.list().unwrap() {
            if matches!(listed.name.as_slice(), b"." | b"..") {
                continue;
            }
            let mut path: Vec<u8> = folder.clone();
            path.extend_from_slice(&listed.name);
            let name = vfsd_backend::Name::new(&listed.name).unwrap();
            let found = vfsd_testkit::block_on(place.0.lookup(name)).unwrap();
            let vfsd_backend::Lookup::Found(entry) = found else {
                panic!("{} is listed and not found", path.escape_ascii());
            };
            assert_eq!(entry.attributes.inode, listed.inode);
            let child = Place(entry.node);
            paths.insert(path.clone(), look(image, &path, &child, &mut first));
            if listed.kind == Some(FileKind::Directory) {
                path.push(b'/');
                directories.push((path, child));
            }
        }
    }
    name_links(&mut paths, &first);
    paths
}

/// For each inode number, its paths.
type Names = BTreeMap<u64, Vec<Vec<u8>>>;

fn name_links(paths: &mut Paths, names: &Names) {
    for group in names.values() {
        let first = group.iter().min().cloned().unwrap_or_default();
        for path in group {
            if let Some(seen) = paths.get_mut(path) {
                seen.links.0.clone_from(&first);
            }
        }
    }
}

fn look(image: &OciImage, path: &[u8], place: &Place, names: &mut Names) -> Seen {
    let attributes: Attributes = place.attributes().unwrap();
    let directory = attributes.kind == FileKind::Directory;
    if !directory {
        names
            .entry(attributes.inode)
            .or_default()
            .push(path.to_vec());
    }
    let xattrs = place.xattr_names().unwrap().into_iter().map(|name| {
        let value = place.getxattr(&name).unwrap();
        (name.into_bytes(), value)
    });
    let described = attributes.modified != image.config().created_at();
    Seen {
        mode: attributes.mode(),
        owner: (attributes.uid, attributes.gid),
        size: attributes.size,
        modified: described
            .then_some((attributes.modified.seconds, attributes.modified.nanoseconds)),
        device: (attributes.device.major, attributes.device.minor),
        links: (
            Vec::new(),
            if directory {
                0
            } else {
                attributes.links.into()
            },
        ),
        xattrs: xattrs.collect(),
        content: match attributes.kind {
            FileKind::Regular => place.content().unwrap(),
            FileKind::Symlink => place.readlink().unwrap(),
            _ => Vec::new(),
        },
    }
}

fn walk(root: &Path) -> Paths {
    let mut names = Names::new();
    let mut paths = Paths::new();
    let mut left = vec![root.to_owned()];
    while let Some(at) = left.pop() {
        let path = at
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        let stat = fs::symlink_metadata(&at).unwrap();
        let directory = stat.is_dir();
        if directory {
            left.extend(
                fs::read_dir(&at)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            names.entry(stat.ino()).or_default().push(path.clone());
        }
        let device = match stat.mode() & 0o170_000 {
            0o020_000 | 0o060_000 => stat.rdev(),
            _ => 0,
        };
        let seen = Seen {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            size: if directory { 0 } else { stat.size() },
            modified: Some((stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap())),
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            links: (Vec::new(), if directory { 0 } else { stat.nlink() }),
            xattrs: xattrs(&at),
            content: match () {
                () if stat.is_file() => fs::read(&at).unwrap(),
                () if stat.is_symlink() => {
                    fs::read_link(&at).unwrap().as_os_str().as_bytes().to_vec()
                }
                () => Vec::new(),
            },
        };
        paths.insert(path, seen);
    }
    name_links(&mut paths, &names);
    paths
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 1 << 16];
    let length = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    names
        // What the host gives to every file of its own accord.
        .filter(|name| *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}
