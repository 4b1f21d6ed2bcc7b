//! An open file: one version of an object.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use vfsd_backend::{Answer, Attributes, Errno, File, ReadRequest, ReadSink, Result};

use super::blocks::{BLOCK, Wanted};
use super::bucket::Bucket;
use super::content::Content;
use super::readahead::Readahead;

pub(super) struct OpenFile {
    bucket: Arc<Bucket>,
    content: Arc<Content>,
    attributes: Attributes,
    readahead: Mutex<Readahead>,
}

impl OpenFile {
    pub(super) fn new(bucket: Arc<Bucket>, content: Arc<Content>, attributes: Attributes) -> Self {
        Self {
            bucket,
            content,
            attributes,
            readahead: Mutex::default(),
        }
    }

    /// What a read asks for; at most a quarter of the memory in advance.
    fn wanted(&self, from: u64, to: u64) -> Wanted {
        let share = self.bucket.blocks.most().saturating_mul(BLOCK) / 4;
        let most = self.bucket.options.readahead.min(share);
        self.readahead
            .lock()
            .read(from..to, self.content.size, most)
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
        let from = request.offset;
        let length = u64::try_from(request.length.min(sink.room())).unwrap_or(u64::MAX);
        let to = from.saturating_add(length).min(self.content.size);
        if from >= to {
            return Answer::ok(0);
        }
        let expected = self.readahead.lock().was_asked(from);
        let wanted = self.wanted(from, to);
        if let Some(blocks) = self.bucket.blocks.at_once(&self.content, &wanted) {
            return Answer::ready(put(&blocks, from, to, sink));
        }
        if expected
            && !self
                .bucket
                .blocks
                .is_coming(&self.content, wanted.now.start)
        {
            self.readahead.lock().too_much();
        }
        Answer::later(async move {
            let (bucket, content) = (self.bucket.clone(), self.content.clone());
            let read = async move { Ok(bucket.blocks.read(&content, &wanted).await?) };
            let blocks = self.bucket.run(read).await?;
            put(&blocks, from, to, sink)
        })
    }

    /// Of the version that is open, whatever became of the object.
    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.attributes)
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
