//! Fingerprints of a directory tree.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A number that changes when anything below `root` does: names, kinds, modes, owners, lengths,
/// change times, contents.
pub(crate) fn fingerprint(root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    add(root, &mut hasher);
    hasher.finish()
}

fn add(path: &Path, hasher: &mut DefaultHasher) {
    let meta = fs::symlink_metadata(path).unwrap();
    (
        path,
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.rdev(),
        meta.nlink(),
    )
        .hash(hasher);
    (
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    )
        .hash(hasher);
    if meta.is_symlink() {
        fs::read_link(path).unwrap().hash(hasher);
    } else if meta.is_file() {
        fs::read(path).unwrap().hash(hasher);
    } else if meta.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            add(&entry, hasher);
        }
    }
}
