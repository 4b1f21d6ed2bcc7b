//! What makes a node a directory, or a file of one version.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::content::{Content, same_content};
use super::posix::Posix;
use super::write::Writing;
use crate::store::ListedObject;

pub(super) enum Body {
    Directory(DirectoryBody),
    File(Box<FileBody>),
}

/// What a directory's marker says, where that is known.
#[derive(Debug, Default)]
pub(super) struct DirectoryBody(Mutex<Option<Posix>>);

impl DirectoryBody {
    /// Changes it, and answers what it is then.
    pub(super) fn change(&self, change: impl FnOnce(&mut Posix)) -> Posix {
        let mut posix = self.0.lock();
        change(posix.get_or_insert_default());
        posix.unwrap_or_default()
    }

    pub(super) fn posix(&self) -> Option<Posix> {
        *self.0.lock()
    }
}

/// One version of an object, or what became of it by our own writes.
pub(super) struct FileBody {
    version: Mutex<(ListedObject, Arc<Content>)>,
    /// Its content is the target of a symbolic link.
    pub(super) symlink: bool,
    /// No other node ever has it.
    pub(super) generation: u64,
    /// Once somebody looked at the object: a listing does not tell.
    posix: Mutex<Option<Posix>>,
    /// When the object was last known to be this version.
    pub(super) confirmed: Mutex<Instant>,
    pub(super) writing: Writing,
}

impl FileBody {
    pub(super) fn new(
        object: ListedObject,
        content: Arc<Content>,
        generation: u64,
        symlink: bool,
        writing: Writing,
        at: Instant,
    ) -> Self {
        Self {
            version: Mutex::new((object, content)),
            symlink,
            generation,
            posix: Mutex::default(),
            confirmed: Mutex::new(at),
            writing,
        }
    }

    /// The object, and its content.
    pub(super) fn version(&self) -> (ListedObject, Arc<Content>) {
        self.version.lock().clone()
    }

    pub(super) fn set_version(&self, object: ListedObject, content: Arc<Content>) {
        *self.version.lock() = (object, content);
    }

    /// The object has other attributes, and the content that it had.
    pub(super) fn set_object(&self, object: ListedObject) {
        self.version.lock().0 = object;
    }

    pub(super) fn posix(&self) -> Option<Posix> {
        *self.posix.lock()
    }

    pub(super) fn change_posix(&self, change: impl FnOnce(&mut Posix)) {
        change(self.posix.lock().get_or_insert_default());
    }

    /// Whether it is this version of the object, or goes before whatever the bucket has.
    pub(super) fn is(&self, object: &ListedObject, posix: Option<Posix>) -> bool {
        if self.writing.is_gone() {
            return false;
        }
        if self.writing.is_dirty() {
            return true;
        }
        let version = self.version.lock();
        let kind = posix.is_none_or(|posix| posix.symlink == self.symlink);
        kind && same_content(&version.0, object) && !version.1.is_replaced()
    }

    /// The object was this version `at` this time.
    pub(super) fn confirm(&self, posix: Option<Posix>, at: Instant) {
        if let Some(posix) = posix
            && !self.writing.is_dirty()
        {
            *self.posix.lock() = Some(posix);
        }
        let mut confirmed = self.confirmed.lock();
        *confirmed = (*confirmed).max(at);
    }

    /// Nobody knows whether the object is this version, after a `lifetime` of belief.
    pub(super) fn doubt(&self, lifetime: Duration) {
        let mut confirmed = self.confirmed.lock();
        *confirmed = confirmed.checked_sub(lifetime).unwrap_or(*confirmed);
    }
}

/// Whether an object may be a symbolic link, which a listing does not tell.
pub(super) fn may_be_link(object: &ListedObject) -> bool {
    (1..=LONGEST_TARGET).contains(&object.size)
}

/// The longest target of a symbolic link.
pub(super) const LONGEST_TARGET: u64 = 4095;
