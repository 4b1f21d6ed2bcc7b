//! How an image is named.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::registry::Reference;

/// An image on this machine or in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// In an OCI image layout.
    Layout {
        /// The folder that has `index.json`.
        path: PathBuf,
        /// The name that an annotation gives it, or its digest. Needed where there are several.
        tag: Option<String>,
    },
    /// In an archive that `docker save` made.
    Archive {
        /// The file.
        path: PathBuf,
        /// A name that the image has there, like `alpine:3.20`. Needed where there are several.
        tag: Option<String>,
    },
    /// In a registry.
    Registry(Reference),
}

impl ImageName {
    /// Reads `DIR[:TAG]` or `DIR@sha256:...`. The first colon ends the path, as for other tools.
    pub fn layout(word: &OsStr) -> Self {
        let (path, tag) = split(word);
        Self::Layout { path, tag }
    }

    /// Reads `FILE[:NAME[:TAG]]`. The first colon ends the path, as for other tools.
    pub fn archive(word: &OsStr) -> Self {
        let (path, tag) = split(word);
        Self::Archive { path, tag }
    }
}

/// As a command line has it: `docker://...`, `oci:...`, `docker-archive:...`.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, tag) = match self {
            Self::Layout { path, tag } => ("oci", path, tag),
            Self::Archive { path, tag } => ("docker-archive", path, tag),
            Self::Registry(reference) => return write!(f, "docker://{reference}"),
        };
        write!(f, "{kind}:{}", path.display())?;
        match tag {
            Some(tag) if tag.starts_with("sha256:") => write!(f, "@{tag}"),
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

fn split(word: &OsStr) -> (PathBuf, Option<String>) {
    let bytes = word.as_bytes();
    let digest = bytes.windows(8).position(|window| window == b"@sha256:");
    let colon = bytes.iter().position(|&byte| byte == b':');
    // A digest has a colon too, which comes later than its `@`.
    let at = match (digest, colon) {
        (Some(digest), Some(colon)) => Some(digest.min(colon)),
        (_, colon) => colon,
    };
    let path = at.and_then(|at| bytes.get(..at)).unwrap_or(bytes);
    let tag = at
        .and_then(|at| bytes.get(at.saturating_add(1)..))
        .filter(|tag| !tag.is_empty());
    (
        OsString::from_vec(path.to_vec()).into(),
        tag.map(|tag| String::from_utf8_lossy(tag).into_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_and_what_follows_the_first_colon() {
        for (word, path, tag) in [
            ("img", "img", None),
            ("/a/img:latest", "/a/img", Some("latest")),
            ("img:", "img", None),
            ("f.tar:docker.io/a:1", "f.tar", Some("docker.io/a:1")),
            ("img@sha256:00", "img", Some("sha256:00")),
            ("a@b", "a@b", None),
        ] {
            let (path, tag) = (path.into(), tag.map(str::to_owned));
            let expected = ImageName::Layout { path, tag };
            assert_eq!(ImageName::layout(word.as_ref()), expected);
        }
    }
}
