//! Why an image could not be used, in a line that says what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::blob::Sha256Digest;

use super::Platform;
use crate::registry::RegistryError;

/// Why an image could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file could not be read.
    #[error("cannot read the image at {path}: {source}{}", advice(.source))]
    File {
        /// The file.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// Something else could not be read.
    #[error("the image could not be read: {0}")]
    Io(#[from] io::Error),
    /// A registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A folder that is no layout.
    #[error("{0} is no OCI image layout (it has no index.json): give the folder that has one")]
    NotALayout(PathBuf),
    /// A layout of a version that is not known.
    #[error("the image layout has version {0}; 1.0.0 is supported")]
    LayoutVersion(String),
    /// A file that is no archive of images.
    #[error("{path} is no archive that `docker save` made: {reason}")]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image has several names, and none was asked for, or none of those was.
    #[error("{problem}: {}", names(.there))]
    Choose {
        /// What was asked for.
        problem: String,
        /// What there is.
        there: Vec<String>,
    },
    /// There is no image for the platform.
    #[error("no image for {wanted}: {}", platforms(.there))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        there: Vec<String>,
    },
    /// What JSON should be there is not.
    #[error("the image's {what} is malformed: {source}")]
    Json {
        /// What it should be.
        what: &'static str,
        /// Where it is malformed.
        source: serde_json::Error,
    },
    /// What is there is no image, or one that cannot be served.
    #[error("{0}")]
    Unsupported(String),
    /// Larger than anything that is useful.
    #[error("the image's {what} has {size} bytes; 4 MiB are allowed")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size: u64,
    },
    /// A blob that is not there.
    #[error("the image's {what} {digest} is missing: copy the image again, with all its layers")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Its name.
        digest: Sha256Digest,
    },
    /// A blob that is not what its name says.
    #[error("the image's {what} {digest} is damaged: copy the image again")]
    Mismatch {
        /// What it is.
        what: &'static str,
        /// Its name.
        digest: Sha256Digest,
    },
}

impl ImageError {
    /// What became of the attempt to open a blob.
    pub(super) fn blob(what: &'static str, digest: Sha256Digest, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { what, digest },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Mismatch { what, digest }
            }
            _ => Self::Io(error),
        }
    }

    pub(super) fn file(path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { path, source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; name the folder of an OCI layout (oci:), or what `docker save` wrote (docker-archive:)"
        }
        _ => "",
    }
}

/// The most names that a message lists.
const LISTED: usize = 20;

fn names(there: &[String]) -> String {
    match there {
        [] => "it has no names at all".to_owned(),
        _ => format!("there is {}", list(there)),
    }
}

fn platforms(there: &[String]) -> String {
    match there {
        [] => "it names no platform".to_owned(),
        _ => format!("there is {}; choose one with --platform", list(there)),
    }
}

fn list(there: &[String]) -> String {
    let listed: Vec<&str> = there.iter().take(LISTED).map(String::as_str).collect();
    let listed = listed.join(", ");
    match there.len().checked_sub(LISTED) {
        Some(more @ 1..) => format!("{listed} and {more} more"),
        _ => listed,
    }
}
