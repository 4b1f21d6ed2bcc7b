//! What makes a node a directory, or a file of one version.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

/// What a directory's marker says, where that is known, and since when.
#[derive(Debug, Default)]
pub(super) struct DirectoryBody(Mutex<Option<(Posix, Instant)>>);

impl DirectoryBody {
    /// Changes it, and answers what it is then.
    pub(super) fn change(&self, change: impl FnOnce(&mut Posix)) -> Posix {
        let mut known = self.0.lock();
        let mut posix = known.map(|(posix, _)| posix).unwrap_or_default();
        change(&mut posix);
        *known = Some((posix, Instant::now()));
        posix
    }

    pub(super) fn posix(&self) -> Option<Posix> {
        self.0.lock().map(|(posix, _)| posix)
    }

    /// Whether it is believed without another question, where names are for a `lifetime`.
    pub(super) fn is_believed(&self, lifetime: Duration) -> bool {
        let belief = lifetime.saturating_mul(MARKERS);
        self.0.lock().is_some_and(|(_, at)| at.elapsed() < belief)
    }
}

/// How many times longer than a name a marker is believed: no listing tells of it.
const MARKERS: u32 = 10;

/// How the metadata of an object has come to be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Source {
    #[default]
    Nothing,
    /// It was asked then, by the clock of this host.
    Asked(SystemTime),
    /// We wrote it. The time of the object is by the clock of this host.
    Written,
    /// We wrote it, and know the time that the object has since.
    Dated,
}

/// The times that the service and this host have for the same write differ by no more.
const APART: Duration = Duration::from_secs(10);

/// One version of an object, or what became of it by our own writes.
pub(super) struct FileBody {
    version: Mutex<(ListedObject, Arc<Content>)>,
    /// Its content is the target of a symbolic link.
    pub(super) symlink: bool,
    /// No other node ever has it.
    pub(super) generation: u64,
    /// Once somebody looked at the object: a listing does not tell.
    posix: Mutex<Option<Posix>>,
    source: Mutex<Source>,
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
            source: Mutex::default(),
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

    /// The object was this version `at` this time, as somebody saw who looked at it, or as a listing or a write of ours has it.
    pub(super) fn confirm(&self, seen: Option<(&ListedObject, Posix)>, at: Instant) {
        if let Some((object, posix)) = seen
            && !self.writing.is_dirty()
        {
            self.version.lock().0.modified = object.modified;
            let now = SystemTime::now();
            *self.source.lock() = Source::Asked(now.checked_sub(at.elapsed()).unwrap_or(now));
            *self.posix.lock() = Some(posix);
        }
        let mut confirmed = self.confirmed.lock();
        *confirmed = (*confirmed).max(at);
    }

    /// The object is what we have written.
    pub(super) fn written(&self) {
        *self.source.lock() = Source::Written;
    }

    /// Whether the metadata is as it was, now that a listing has told of this version: who changes it changes the time of the object.
    /// That has seconds, so it counts if the metadata was asked so long `after` it.
    pub(super) fn is_told(&self, listed: &ListedObject, after: Duration) -> bool {
        if self.writing.is_dirty() {
            return true;
        }
        if self.posix().is_none() {
            return false;
        }
        let mut version = self.version.lock();
        let own = &mut version.0.modified;
        let mut source = self.source.lock();
        let apart = |one: SystemTime, other| one.duration_since(other).is_ok_and(|by| by > APART);
        if *source == Source::Written
            && *own != listed.modified
            && !apart(*own, listed.modified)
            && !apart(listed.modified, *own)
        {
            *own = listed.modified;
            *source = Source::Dated;
        }
        *own == listed.modified
            && match *source {
                Source::Nothing => false,
                Source::Asked(at) => at.duration_since(*own).is_ok_and(|since| since >= after),
                Source::Written | Source::Dated => true,
            }
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
