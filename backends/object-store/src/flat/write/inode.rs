//! What is known of a file that is written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::{Attributes as Metadata, GetOptions};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, RwLock};
use tokio::time::Instant;
use vfsd_backend::{AttributeChanges, Attributes, Errno, Result, SetTime, Timestamp};

use super::Writer;
use super::staging::Staged;
use crate::flat::body::{Body, FileBody};
use crate::flat::bucket::failed;
use crate::flat::content::Failure;
use crate::flat::node::FlatNode;
use crate::flat::posix::Posix;

/// How long a file that nobody has open is left alone after a change: more of them follow one another.
const SETTLED: Duration = Duration::from_secs(1);
/// The longest pause between two tries to upload a file in the background.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The state of a file besides its last version in the bucket.
#[derive(Debug, Default)]
pub(in crate::flat) struct Writing {
    /// Shared by those who write, held alone while content is read that has to be of one moment.
    pub(super) gate: RwLock<()>,
    /// Held by who uploads, removes or moves it.
    pub(super) turn: Turn<()>,
    /// Held by who stages it.
    filling: Turn<()>,
    state: Mutex<State>,
    opens: AtomicUsize,
    writers: AtomicUsize,
    /// Uploads that failed while nobody waited.
    failures: AtomicU64,
}

/// What changes together.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) staged: Option<Arc<Staged>>,
    /// Counts changes.
    pub(super) changes: u64,
    /// How many of them are in the bucket.
    pub(super) committed: u64,
    /// How many there were when the content changed the last time.
    written: u64,
    /// It never was in the bucket.
    pub(super) new: bool,
    /// It has no name any more.
    pub(super) gone: bool,
    /// Its name is another client's file by now: what is written to it goes nowhere.
    lost: bool,
    /// When it was changed.
    pub(super) changed: Option<Timestamp>,
    /// What the nonces of tries to upload it have in common since one succeeded: what one of them has made of the object, whose
    /// reply never came, is told from another client's write by it.
    pub(super) tries: Option<u64>,
    /// What the object's metadata says besides what we know of it, once that was asked.
    pub(super) metadata: Option<Metadata>,
    touched: Option<Instant>,
    retry: Option<(Instant, Duration)>,
}

impl State {
    pub(super) fn is_dirty(&self) -> bool {
        self.changes != self.committed && !self.gone
    }

    fn is_written(&self) -> bool {
        self.new || self.written > self.committed
    }

    /// What marks the next try to upload it.
    pub(super) fn tries(&mut self) -> u64 {
        *self.tries.get_or_insert_with(crate::store::random)
    }

    /// What the bucket has is enough from now on.
    pub(super) fn forget(&mut self) {
        self.staged = None;
        self.metadata = None;
    }
}

impl Writing {
    /// A file that is not in the bucket yet.
    pub(super) fn new_file(staged: Staged) -> Self {
        let writing = Self::default();
        let mut state = writing.state.lock();
        state.staged = Some(Arc::new(staged));
        state.new = true;
        state.metadata = Some(Metadata::new());
        drop(state);
        writing
    }

    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(in crate::flat) fn staged(&self) -> Option<Arc<Staged>> {
        self.state.lock().staged.clone()
    }

    pub(in crate::flat) fn changed(&self) -> Option<Timestamp> {
        self.state.lock().changed
    }

    /// Whether this is the file, whatever the bucket says.
    pub(in crate::flat) fn is_dirty(&self) -> bool {
        self.state.lock().is_dirty()
    }

    /// Whether the bucket has another content, or none.
    pub(super) fn is_written(&self) -> bool {
        self.state.lock().is_written()
    }

    pub(in crate::flat) fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// Whether its name is another client's file by now.
    pub(in crate::flat) fn is_lost(&self) -> bool {
        self.state.lock().lost
    }

    /// Its name is another client's file by now.
    pub(super) fn lose(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.lost = true;
    }

    /// As [`lose`](Self::lose), unless there is content that is nowhere else.
    pub(super) fn lose_unless_written(&self) -> bool {
        let mut state = self.state.lock();
        let written = state.is_written();
        state.gone |= !written;
        state.lost |= !written;
        !written
    }

    /// Keeps what is staged of it, as an open file does.
    pub(super) fn hold(&self) -> Held<'_> {
        self.opened(false);
        Held(self)
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Acquire) > 0
    }

    pub(in crate::flat) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    pub(in crate::flat) fn opened(&self, writes: bool) {
        self.opens.fetch_add(1, Ordering::AcqRel);
        self.writers
            .fetch_add(usize::from(writes), Ordering::AcqRel);
    }

    /// What is staged of a file goes with its last user.
    pub(in crate::flat) fn closed(&self, writes: bool) {
        self.writers
            .fetch_sub(usize::from(writes), Ordering::AcqRel);
        if self.opens.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.state.lock();
            if !state.is_dirty() {
                state.forget();
            }
        }
    }
}

/// As an open file that only reads.
pub(super) struct Held<'a>(&'a Writing);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.closed(false);
    }
}

impl FlatNode {
    /// Its body, and what all written files have in common. EROFS where nothing is written.
    pub(super) fn to_write(&self) -> Result<(&FileBody, &Writer), Errno> {
        let writer = self.bucket.writer.as_ref().ok_or(Errno::ROFS)?;
        match &self.body {
            Body::File(file) => Ok((file, writer)),
            Body::Directory(_) => Err(Errno::ISDIR),
        }
    }

    /// It was changed: it is pending. ESTALE when its name is another client's file.
    pub(super) fn touch(self: &Arc<Self>, change: impl FnOnce(&mut Posix)) -> Result<(), Errno> {
        self.changed(false, change)
    }

    /// Its content was changed: it is pending.
    pub(super) fn touch_content(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Posix),
    ) -> Result<(), Errno> {
        self.changed(true, change)
    }

    fn changed(
        self: &Arc<Self>,
        written: bool,
        change: impl FnOnce(&mut Posix),
    ) -> Result<(), Errno> {
        let (file, writer) = self.to_write()?;
        let mut state = file.writing.state();
        if state.lost {
            return Err(Errno::STALE);
        }
        if state.gone {
            return Ok(());
        }
        state.changes = state.changes.wrapping_add(1);
        if written {
            state.written = state.changes;
        }
        state.changed = Some(Timestamp::now());
        state.touched = Some(Instant::now());
        file.change_posix(change);
        // Who counts these changes as uploaded has the state first, too.
        writer.insert(self);
        Ok(())
    }

    /// Whether it shall be uploaded although nobody waits for that.
    pub(super) fn is_due(&self) -> bool {
        let Body::File(file) = &self.body else {
            return false;
        };
        let writing = &file.writing;
        let state = writing.state.lock();
        let settled = state.touched.is_none_or(|at| at.elapsed() >= SETTLED);
        let now = state.retry.is_none_or(|(at, _)| Instant::now() >= at);
        writing.writers.load(Ordering::Acquire) == 0 && settled && now && state.is_dirty()
    }

    /// An upload failed that nobody waited for: whoever has it open is told at the next fsync.
    pub(super) fn failed_in_background(&self) {
        if let Body::File(file) = &self.body {
            file.writing.failures.fetch_add(1, Ordering::AcqRel);
            let mut state = file.writing.state.lock();
            let pause = state
                .retry
                .map_or(SETTLED, |(_, pause)| pause.saturating_mul(2));
            let pause = pause.min(LONGEST_PAUSE);
            state.retry = Instant::now().checked_add(pause).map(|at| (at, pause));
        }
    }

    /// The staged file, with the first `most` bytes of the object in it.
    pub(in crate::flat) async fn stage(self: &Arc<Self>, most: u64) -> Result<Arc<Staged>> {
        let (file, writer) = self.to_write()?;
        let _one = file.writing.filling.lock().await;
        if let Some(staged) = file.writing.staged() {
            return Ok(staged);
        }
        let staged = writer.options.staging.file()?;
        let (object, content) = file.version();
        let most = most.min(object.size);
        let options = GetOptions {
            head: most == 0,
            range: content.request(0, most).range.filter(|_| most > 0),
            ..content.request(0, most)
        };
        let objects = self.bucket.store.objects();
        let reply = objects
            .get_opts(&content.path, options)
            .await
            .map_err(Failure::from)?;
        if !content.is(&reply.meta) {
            content.replace();
            return Err(Errno::STALE.into());
        }
        let metadata = reply.attributes.clone();
        if most > 0 {
            let mut body = reply.into_stream();
            while let Some(chunk) = body.next().await {
                staged.append(&chunk.map_err(failed)?)?;
            }
            if staged.size() != most {
                return Err(Failure::Failed("a reply has another length".to_owned()).into());
            }
        }
        let staged = Arc::new(staged);
        let mut state = file.writing.state();
        state.staged = Some(staged.clone());
        state.metadata.get_or_insert(metadata);
        Ok(staged)
    }

    /// Changes attributes; those of a file are uploaded with its content.
    pub(in crate::flat) async fn change(
        self: &Arc<Self>,
        changes: AttributeChanges,
    ) -> Result<Attributes> {
        let time = |time: SetTime| match time {
            SetTime::Now => Timestamp::now(),
            SetTime::At(at) => at,
        };
        let change = |posix: &mut Posix| {
            posix.permissions = changes.permissions.or(posix.permissions);
            posix.uid = changes.uid.or(posix.uid);
            posix.gid = changes.gid.or(posix.gid);
            posix.modified = changes.modified.map(time).or(posix.modified);
        };
        let file = match &self.body {
            Body::Directory(directory) => {
                if changes.size.is_some() {
                    return Err(Errno::ISDIR.into());
                }
                let kept = self.marker().await?;
                let posix = directory.change(change);
                self.mark(posix, &kept).await?;
                return Ok(self.attributes());
            }
            Body::File(file) => file,
        };
        if changes.is_empty() {
            return Ok(self.attributes());
        }
        self.know_posix(file).await?;
        if let Some(size) = changes.size {
            // An upload that ends meanwhile would let go of it, and the change with it.
            let _held = file.writing.hold();
            let staged = self.stage(size).await?;
            let _shared = file.writing.gate.read().await;
            staged.resize(size)?;
            self.touch_content(|posix| {
                posix.modified = Some(Timestamp::now());
                change(posix);
            })?;
        } else {
            self.touch(change)?;
        }
        Ok(self.attributes())
    }

    /// Finds out what the object's metadata says, which a listing does not tell.
    pub(super) async fn know_posix(&self, file: &FileBody) -> Result<()> {
        if file.posix().is_none() && !file.writing.state().new {
            let at = Instant::now();
            let looked = self.bucket.look(&self.key()).await?;
            let looked = looked.as_ref();
            file.confirm(looked.map(|(object, posix)| (object, *posix)), at);
        }
        Ok(())
    }
}
