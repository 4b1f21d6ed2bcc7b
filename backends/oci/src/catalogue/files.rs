//! The files of a cache, by what they belong to.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::blob::Sha256Digest;
use crate::index::LayerIndex;

/// What a file of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// A document or a layer as it was fetched.
    Blob,
    /// The beginning of one.
    Part,
    /// What of a layer was decoded.
    Content,
    /// The index of a layer.
    Index,
    /// The merged tree of an image.
    Tree,
    /// What was read of an image after its last start.
    Trace,
    /// What a tag meant.
    Name,
    /// Somebody died while he wrote it, or is writing it.
    Temporary,
}

/// A file of the cache.
#[derive(Debug)]
pub(super) struct CachedFile {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// What its name begins with. Of a [`Kind::Name`] it says nothing.
    pub(super) digest: Option<Sha256Digest>,
    /// Bytes that it takes on the disk.
    pub(super) disk: u64,
    pub(super) modified: SystemTime,
}

/// The folders, with what their files are by the ends of their names.
const FOLDERS: [(&str, &[(&str, Kind)]); 5] = [
    ("blobs/sha256", &[(".part", Kind::Part), ("", Kind::Blob)]),
    (
        "layers",
        &[(".content", Kind::Content), (".index", Kind::Index)],
    ),
    ("trees", &[(".tree", Kind::Tree)]),
    ("traces", &[(".trace", Kind::Trace)]),
    ("names", &[("", Kind::Name)]),
];

/// All files that a cache has. What has no place in one is left out, and so left alone.
pub(super) fn files(cache: &Path) -> io::Result<Vec<CachedFile>> {
    let mut found = Vec::new();
    for (folder, kinds) in FOLDERS {
        let entries = match std::fs::read_dir(cache.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                // Gone meanwhile, or none of ours.
                _ => continue,
            };
            if let Some((kind, digest)) = what(name, kinds) {
                found.push(file(entry.path(), kind, digest, &metadata));
            }
        }
    }
    Ok(found)
}

/// The index that says what stands where in a content file: that of the same table of contents, or of the whole layer.
pub(super) fn index_of(content: &Path) -> Option<LayerIndex> {
    let by_contents = content.with_extension("index");
    if by_contents.exists() {
        return LayerIndex::load(&by_contents).ok();
    }
    let (digits, _) = content.file_name()?.to_str()?.split_once('-')?;
    LayerIndex::load(&content.with_file_name(format!("{digits}.index"))).ok()
}

fn what(name: &str, kinds: &[(&str, Kind)]) -> Option<(Kind, Option<Sha256Digest>)> {
    if name.starts_with(".tmp") {
        return Some((Kind::Temporary, None));
    }
    let of_kind = |(end, kind): &(&str, Kind)| {
        let stem = name.strip_suffix(end)?;
        let digits = match (kind, stem.split_once('-')) {
            (Kind::Content | Kind::Index | Kind::Tree, Some((digits, _))) => digits,
            (Kind::Content, None) => return None,
            _ => stem,
        };
        Some((*kind, Some(Sha256Digest::from_hex(digits)?)))
    };
    kinds.iter().find_map(of_kind)
}

fn file(
    path: PathBuf,
    kind: Kind,
    digest: Option<Sha256Digest>,
    metadata: &Metadata,
) -> CachedFile {
    CachedFile {
        path,
        kind,
        digest,
        disk: metadata.blocks().saturating_mul(512),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}
