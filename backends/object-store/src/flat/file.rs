//! An open file: one version of an object.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use vfsd_backend::{
    Answer, Attributes, Errno, FallocateRequest, File, LockOwner, OpenFlags, ReadRequest, ReadSink,
    WriteRequest, WriteSource,
};

use super::blocks::{BLOCK, Wanted};
use super::body::{Body, FileBody};
use super::content::Content;
use super::node::FlatNode;
use super::readahead::Readahead;
use super::reading::Reading;

pub(super) struct OpenFile {
    pub(super) node: Arc<FlatNode>,
    content: Arc<Content>,
    attributes: Attributes,
    readahead: Mutex<Readahead>,
    pub(super) flags: OpenFlags,
    /// Failures of uploads that fsync told of.
    pub(super) told: AtomicU64,
}

impl OpenFile {
    pub(super) fn new(node: Arc<FlatNode>, file: &FileBody, flags: OpenFlags) -> Self {
        file.writing.opened(flags.contains(OpenFlags::WRITE));
        Self {
            content: file.version().1,
            attributes: node.attributes(),
            readahead: Mutex::default(),
            flags,
            told: AtomicU64::new(file.writing.failures()),
            node,
        }
    }

    fn body(&self) -> Option<&FileBody> {
        match &self.node.body {
            Body::File(file) => Some(file),
            Body::Directory(_) => None,
        }
    }

    fn writes(&self) -> bool {
        self.node.bucket.writer.is_some()
    }

    /// What is read: where we write ourselves, what that came to.
    fn content(&self) -> Arc<Content> {
        match self.body() {
            Some(file) if self.writes() => file.version().1,
            _ => self.content.clone(),
        }
    }

    /// The content that took the place of this one by our own doing, with the same bytes.
    fn content_after(&self, used: &Arc<Content>) -> Option<Arc<Content>> {
        let (_, now) = self.body()?.version();
        let other = !Arc::ptr_eq(&now, used) && !now.is_replaced() && now.size == used.size;
        other.then_some(now)
    }

    /// What a read asks for; at most a quarter of the memory in advance.
    fn wanted(&self, from: u64, to: u64, size: u64) -> Wanted {
        let bucket = &self.node.bucket;
        let share = bucket.blocks.most().saturating_mul(BLOCK) / 4;
        let most = bucket.options.readahead.min(share);
        self.readahead.lock().read(from..to, size, most)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(file) = self.body() {
            file.writing.closed(self.flags.contains(OpenFlags::WRITE));
        }
    }
}

impl File for OpenFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        if let Some(staged) = self.body().and_then(|file| file.writing.staged()) {
            return Self::read_staged(staged, request, sink);
        }
        let (bucket, content) = (&self.node.bucket, self.content());
        let from = request.offset;
        let length = u64::try_from(request.length.min(sink.room())).unwrap_or(u64::MAX);
        let to = from.saturating_add(length).min(content.size);
        if from >= to {
            return Answer::ok(0);
        }
        let expected = self.readahead.lock().was_asked(from);
        let wanted = self.wanted(from, to, content.size);
        let mut read = Reading::new(from..to);
        if let Some(pieces) = bucket.blocks.at_once(&content, &wanted, &(from..to)) {
            match read.put(&pieces, sink) {
                Ok(()) if !read.is_done() => {}
                done => return Answer::ready(done.map(|()| read.length())),
            }
        } else if expected && !bucket.blocks.was_kept(&content, wanted.now.start) {
            self.readahead.lock().too_much();
        }
        Answer::later(async move {
            if wanted.jumps {
                bucket.blocks.read_kept(&content, &mut read, sink).await?;
                if read.is_done() {
                    return Ok(read.length());
                }
            }
            match bucket
                .blocks
                .read_into(&content, wanted.clone(), &mut read, sink)
                .await
            {
                // A change of attributes by ourselves may give the same content another version.
                Err(error) if self.writes() && error.is(Errno::STALE) => {
                    self.node.settle().await;
                    let done = read.length();
                    if let Some(staged) = self.body().and_then(|file| file.writing.staged()) {
                        let rest = read.rest();
                        return Self::read_staged(staged, rest, sink)
                            .await
                            .map(|more| done.saturating_add(more));
                    }
                    let content = self.content_after(&content).ok_or(error)?;
                    bucket
                        .blocks
                        .read_into(&content, wanted, &mut read, sink)
                        .await?;
                }
                done => done?,
            }
            Ok(read.length())
        })
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        self.write_staged(request, source)
    }

    /// Of the version that is open, whatever became of the object.
    fn getattr(&self) -> Answer<'_, Attributes> {
        match self.writes() {
            true => Answer::ok(self.node.attributes()),
            false => Answer::ok(self.attributes),
        }
    }

    fn flush(&self, _: LockOwner) -> Answer<'_, ()> {
        let writes = self.flags.contains(OpenFlags::WRITE);
        let waits = |file: &FileBody| file.writing.is_dirty() || (writes && file.writing.is_lost());
        match self.body().is_some_and(waits) {
            true => Answer::later(self.commit()),
            false => Answer::ok(()),
        }
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        match self.writes() {
            true => Answer::later(self.commit_and_tell()),
            false => Answer::ok(()),
        }
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        let end = request.offset.saturating_add(request.length);
        self.allocate(request.mode, end)
    }
}
