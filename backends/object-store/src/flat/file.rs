//! An open file: one version of an object.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::Mutex;
use vfsd_backend::{
    Answer, Attributes, Errno, FallocateRequest, File, LockOwner, OpenFlags, ReadRequest, ReadSink,
    Result, WriteRequest, WriteSource,
};

use super::blocks::{BLOCK, Wanted};
use super::body::{Body, FileBody};
use super::content::Content;
use super::node::FlatNode;
use super::readahead::Readahead;

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

/// Puts `from..to` of the file, which lies in these blocks, into the sink.
fn put(blocks: &[Bytes], from: u64, to: u64, sink: &mut dyn ReadSink) -> Result<usize> {
    let usize_of = |value: u64| usize::try_from(value).map_err(|_| Errno::OVERFLOW);
    let mut skip = usize_of(from % BLOCK)?;
    let mut left = usize_of(to.saturating_sub(from))?;
    let mut done = 0_usize;
    for block in blocks {
        let end = skip.saturating_add(left).min(block.len());
        let part = block.get(skip..end).ok_or(Errno::IO)?;
        let taken = sink.put(part)?;
        done = done.saturating_add(taken);
        left = left.saturating_sub(taken);
        skip = 0;
        if taken < part.len() {
            break;
        }
    }
    Ok(done)
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
        if let Some(blocks) = bucket.blocks.at_once(&content, &wanted) {
            return Answer::ready(put(&blocks, from, to, sink));
        }
        if expected && !bucket.blocks.is_coming(&content, wanted.now.start) {
            self.readahead.lock().too_much();
        }
        Answer::later(async move {
            let (own, used, wanted_now) = (bucket.clone(), content.clone(), wanted.clone());
            let read = async move { Ok(own.blocks.read(&content, &wanted_now).await?) };
            let blocks = match bucket.run(read).await {
                // A change of attributes by ourselves may give the same content another version.
                Err(error) if self.writes() && error.is(Errno::STALE) => {
                    self.node.settle().await;
                    if let Some(staged) = self.body().and_then(|file| file.writing.staged()) {
                        return Self::read_staged(staged, request, sink).await;
                    }
                    let content = self.content_after(&used).ok_or(error)?;
                    let own = bucket.clone();
                    let read = async move { Ok(own.blocks.read(&content, &wanted).await?) };
                    bucket.run(read).await?
                }
                blocks => blocks?,
            };
            put(&blocks, from, to, sink)
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
        match self.body().is_some_and(|file| file.writing.is_dirty()) {
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
