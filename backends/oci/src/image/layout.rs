//! An OCI image layout: a folder with `index.json` and blobs by their digests.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::blob::{BlobSource, Sha256Digest};

use super::blobs::{Blobs, FileRange};
use super::{Image, ImageError, Platform, select};

/// Opens an image of a layout.
///
/// # Errors
/// What is no layout, and as [`select::from_layout`].
pub(super) fn open(
    path: &Path,
    tag: Option<&str>,
    platform: Option<&Platform>,
) -> Result<Image, ImageError> {
    let index = match read(&path.join("index.json"), "index.json") {
        Err(ImageError::File { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) && path.exists() =>
        {
            return Err(ImageError::NotALayout(path.to_owned()));
        }
        Err(ImageError::File { source, .. }) => return Err(ImageError::file(path, source)),
        other => other?,
    };
    check_version(&path.join("oci-layout"))?;
    let blobs = LayoutBlobs {
        folder: path.join("blobs/sha256"),
    };
    select::from_layout(&index, tag, platform, Arc::new(blobs))
}

/// A layout that says its version must have ours; old tools left the file out.
fn check_version(path: &Path) -> Result<(), ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let marker = match read(path, "oci-layout") {
        Err(ImageError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(());
        }
        other => other?,
    };
    let marker: Marker = serde_json::from_slice(&marker).map_err(|source| ImageError::Json {
        what: "oci-layout",
        source,
    })?;
    match marker.image_layout_version.starts_with("1.") {
        true => Ok(()),
        false => Err(ImageError::LayoutVersion(
            marker.image_layout_version.escape_debug().to_string(),
        )),
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, ImageError> {
    let failed = |error| ImageError::file(path, error);
    whole(path).map_err(failed)?.read(what)
}

/// All of a regular file. Anything else could block, or never end.
fn whole(path: &Path) -> io::Result<FileRange> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(path)?;
    Ok(FileRange {
        length: file.metadata()?.len(),
        file: Arc::new(file),
        offset: 0,
    })
}

#[derive(Debug)]
struct LayoutBlobs {
    folder: PathBuf,
}

impl Blobs for LayoutBlobs {
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>> {
        let file = whole(&self.folder.join(digest.hex()))?;
        if file.length != size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Arc::new(file))
    }
}
