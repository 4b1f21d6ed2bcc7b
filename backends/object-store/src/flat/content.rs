//! One version of an object: what a file that is open is made of.

use std::sync::atomic::{AtomicBool, Ordering};

use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta};
use parking_lot::Mutex;
use vfsd_backend::Errno;

use super::disk::ContentName;
use super::regions::Regions;
use crate::store::ListedObject;

/// The content of an object as it was when it was found. It never changes; an object that was written again is
/// another content.
#[derive(Debug)]
pub(super) struct Content {
    /// Among all contents that this process met.
    pub(super) id: u64,
    pub(super) path: Path,
    pub(super) size: u64,
    etag: Option<String>,
    /// What names it on a disk; `None` if nothing does for certain.
    kept_as: Option<ContentName>,
    /// What reads that jump have asked for.
    pub(super) regions: Mutex<Regions>,
    replaced: AtomicBool,
}

/// Why bytes of a content could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The object was written again, or deleted.
    Replaced,
    /// The service does not allow it.
    Denied,
    /// The service failed, with its words.
    Failed(String),
}

impl From<Failure> for vfsd_backend::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Replaced => Errno::STALE.into(),
            Failure::Denied => Errno::ACCESS.into(),
            Failure::Failed(reason) => Self::Storage(reason.into()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { .. } | Error::Precondition { .. } => Self::Replaced,
            error if crate::store::is_denied(&error) => Self::Denied,
            error => Self::Failed(vfsd_backend::one_line(&error)),
        }
    }
}

impl Content {
    /// The object as it was listed or looked at, in the store of this identity.
    pub(super) fn new(id: u64, path: Path, object: &ListedObject, store: &str) -> Self {
        let strong = object
            .etag
            .as_deref()
            .filter(|etag| !etag.starts_with("W/"));
        // Neither a key nor an ETag has a line break in it.
        let kept_as = strong.map(|etag| ContentName {
            name: format!("{store}\n{path}\n{}\n{}", object.size, bare(etag)).into(),
            size: object.size,
        });
        Self {
            id,
            kept_as,
            path,
            size: object.size,
            etag: object.etag.clone(),
            regions: Mutex::default(),
            replaced: AtomicBool::new(false),
        }
    }

    /// What names it on a disk, if anything does for certain.
    pub(super) fn kept_as(&self) -> Option<&ContentName> {
        self.kept_as.as_ref()
    }

    /// The request for bytes of this content and no other.
    pub(super) fn request(&self, from: u64, to: u64) -> GetOptions {
        // A weak ETag says nothing about bytes, and is not taken as a condition.
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        GetOptions {
            range: Some(GetRange::Bounded(from..to)),
            if_match: strong.map(|etag| format!("\"{}\"", etag.trim_matches('"'))),
            ..GetOptions::default()
        }
    }

    /// Whether a reply is about this content. Not every service keeps the condition of a request.
    pub(super) fn is(&self, meta: &ObjectMeta) -> bool {
        self.size == meta.size && same_etag(self.etag.as_deref(), meta.e_tag.as_deref())
    }

    /// Notes that the object is another by now.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// Whether the object is known to be another by now.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }
}

/// Whether two objects of the same key have the same content.
pub(super) fn same_content(one: &ListedObject, other: &ListedObject) -> bool {
    let named = one.etag.is_some() && other.etag.is_some();
    one.size == other.size
        && same_etag(one.etag.as_deref(), other.etag.as_deref())
        && (named || one.modified == other.modified)
}

/// Services write the same ETag with quotes and without.
pub(super) fn same_etag(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => bare(one) == bare(other),
        _ => true,
    }
}

/// An ETag without what is written around it.
pub(super) fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}
