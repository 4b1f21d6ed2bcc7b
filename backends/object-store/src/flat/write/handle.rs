//! What an open file does besides reading an object.

use std::sync::atomic::Ordering;

use vfsd_backend::{
    Answer, Errno, FallocateMode, OpenFlags, ReadRequest, ReadSink, Result, WriteRequest,
    WriteSource,
};

use super::staging::Staged;
use crate::flat::body::FileBody;
use crate::flat::file::OpenFile;

impl OpenFile {
    /// Reads what is staged.
    pub(in crate::flat) fn read_staged<'a>(
        staged: std::sync::Arc<Staged>,
        request: ReadRequest,
        sink: &'a mut dyn ReadSink,
    ) -> Answer<'a, usize> {
        let length = request.length.min(sink.room());
        Answer::brief(move || staged.read(request.offset, sink, length))
    }

    pub(in crate::flat) fn write_staged<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        if !self.flags.contains(OpenFlags::WRITE) {
            return Answer::error(Errno::BADF);
        }
        let file = match self.node.to_write() {
            Ok((file, _)) => file,
            Err(errno) => return Answer::error(errno),
        };
        let durable = self.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC);
        if !durable
            && let Some(staged) = file.writing.staged()
            && let Ok(shared) = file.writing.gate.try_read()
        {
            return Answer::brief(move || {
                let written = self.put(&staged, request, source);
                drop(shared);
                written
            });
        }
        Answer::later(async move {
            let staged = self.staged(file).await?;
            let shared = file.writing.gate.read().await;
            let written = self.put(&staged, request, source)?;
            drop(shared);
            if durable {
                self.commit().await?;
            }
            Ok(written)
        })
    }

    fn put(
        &self,
        staged: &Staged,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let appends = self.flags.contains(OpenFlags::APPEND) && !request.cached;
        let offset = (!appends).then_some(request.offset);
        let written = staged.write(offset, source)?;
        self.was_written()?;
        Ok(written)
    }

    /// Its content was changed now. EIO when its name is another client's file.
    fn was_written(&self) -> Result<()> {
        let now = vfsd_backend::Timestamp::now();
        let touched = self.node.touch_content(|posix| posix.modified = Some(now));
        Ok(touched.map_err(|_| Errno::IO)?)
    }

    /// The staged file, with the whole object in it.
    async fn staged(&self, file: &FileBody) -> Result<std::sync::Arc<Staged>> {
        if let Some(staged) = file.writing.staged() {
            return Ok(staged);
        }
        let node = self.node.clone();
        self.node
            .bucket
            .run(async move {
                if let Ok((file, _)) = node.to_write() {
                    node.know_posix(file).await?;
                }
                node.stage(u64::MAX).await
            })
            .await
    }

    /// Uploads what changed.
    pub(in crate::flat) async fn commit(&self) -> Result<()> {
        let node = self.node.clone();
        self.node
            .bucket
            .run(async move { node.commit().await })
            .await
    }

    /// As [`commit`](Self::commit), and tells of uploads that failed since this was told the last time.
    pub(in crate::flat) async fn commit_and_tell(&self) -> Result<()> {
        self.commit().await?;
        let Ok((file, _)) = self.node.to_write() else {
            return Ok(());
        };
        let failures = file.writing.failures();
        match self.told.swap(failures, Ordering::AcqRel) == failures {
            true => Ok(()),
            false => Err(Errno::IO.into()),
        }
    }

    /// Space is only taken: a staged file has no holes that anybody could see.
    pub(in crate::flat) fn allocate(&self, mode: FallocateMode, end: u64) -> Answer<'_, ()> {
        if !self.flags.contains(OpenFlags::WRITE) {
            return Answer::error(Errno::BADF);
        }
        if !FallocateMode::KEEP_SIZE.contains(mode) {
            return Answer::error(Errno::OPNOTSUPP);
        }
        let file = match self.node.to_write() {
            Ok((file, _)) => file,
            Err(errno) => return Answer::error(errno),
        };
        Answer::later(async move {
            let staged = self.staged(file).await?;
            let _shared = file.writing.gate.read().await;
            if mode.is_empty() && end > staged.size() {
                staged.resize(end)?;
                self.was_written()?;
            }
            Ok(())
        })
    }
}
