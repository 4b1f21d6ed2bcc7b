//! Reads: at once from the page cache, else where they may wait.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use vfsd_backend::{Answer, Errno, Error, OpenFlags, ReadRequest, ReadSink, Result, Wait};

use super::OpenFile;

/// Reads stop short in the middle of a file at a multiple of this; elsewhere it is the end.
const PAGE: u64 = 4096;

/// How far a read came.
pub(super) enum Progress {
    /// To its end.
    Done(usize),
    /// To where it has to wait for a disk, or for who changes the size.
    Waits(usize),
}

impl OpenFile {
    /// Reads the rest, of which `done` bytes were read, and waits for content that is in a bucket alone.
    pub(super) async fn read_fetched(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
        done: usize,
    ) -> Result<usize> {
        let inode = self.inode();
        let mut pin = None;
        loop {
            inode.fetch(read_range(request)).await?;
            let read = Answer::blocking(|| self.read_waiting(request, &mut *sink, done));
            if let Some(done) = read.await? {
                return Ok(done);
            }
            // What comes now stays until it was read, however small the cache is.
            pin.get_or_insert_with(|| inode.content.pin());
        }
    }

    /// Reads what is in the page cache.
    pub(super) fn read_now(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
    ) -> Result<Progress> {
        self.check_open_for(OpenFlags::READ)?;
        let Some(slot) = self.inode().content.try_shared() else {
            return Ok(Progress::Waits(0));
        };
        match slot.as_ref() {
            Some(_) if self.misses(request) => Ok(Progress::Waits(0)),
            Some(file) => read_some(file, request, sink, Wait::Refused),
            None if self.inode().state.read().row.has_data => Ok(Progress::Waits(0)),
            None => Ok(Progress::Done(0)),
        }
    }

    /// Whether anything of what is to be read is in a bucket alone.
    fn misses(&self, request: ReadRequest) -> bool {
        let Some((_, map)) = self.inode().live() else {
            return false;
        };
        if map.is_whole() {
            return false;
        }
        self.ahead.read(self.inode(), request);
        map.misses(&read_range(request))
    }

    /// Reads the rest, of which `done` bytes were read. `None` where content of it is no longer here: it made room.
    pub(super) fn read_waiting(
        &self,
        request: ReadRequest,
        sink: &mut dyn ReadSink,
        done: usize,
    ) -> Result<Option<usize>> {
        let rest = ReadRequest {
            offset: request.offset.saturating_add(done as u64),
            length: request.length.saturating_sub(done),
        };
        self.inode().core.failpoints.reach("content had");
        let read = match self.inode().shared(false)?.as_ref() {
            Some(_) if self.inode().misses(&read_range(rest)) => return Ok(None),
            Some(file) => read_some(file, rest, sink, Wait::Allowed),
            None => Ok(Progress::Done(0)),
        };
        self.was_read();
        match read {
            Ok(Progress::Done(more) | Progress::Waits(more)) => Ok(Some(done.saturating_add(more))),
            Err(_) if done > 0 => Ok(Some(done)),
            Err(error) => Err(error),
        }
    }
}

/// Reads until the range, or the file, ends. EAGAIN only before anything was read.
fn read_some(
    file: &OwnedFd,
    request: ReadRequest,
    sink: &mut dyn ReadSink,
    wait: Wait,
) -> Result<Progress> {
    let mut done: usize = 0;
    while done < request.length {
        let offset = request.offset.saturating_add(done as u64);
        let left = request.length.saturating_sub(done);
        match sink.put_from(file.as_fd(), offset, left, wait) {
            Ok(0) => return Ok(Progress::Done(done)),
            Ok(count) => {
                done = done.saturating_add(count);
                let end = request.offset.saturating_add(done as u64);
                if !end.is_multiple_of(PAGE) {
                    return Ok(Progress::Done(done));
                }
            }
            Err(error) if must_wait(&error, wait) => return Ok(Progress::Waits(done)),
            Err(error) if error.is(Errno::INTR) => {}
            // What was read is answered; the error comes again when the rest is read.
            Err(_) if done > 0 => return Ok(Progress::Done(done)),
            Err(error) => return Err(error),
        }
    }
    Ok(Progress::Done(done))
}

fn must_wait(error: &Error, wait: Wait) -> bool {
    wait == Wait::Refused && (error.is(Errno::AGAIN) || error.is(Errno::OPNOTSUPP))
}

pub(super) fn read_range(request: ReadRequest) -> Range<u64> {
    let length = u64::try_from(request.length).unwrap_or(u64::MAX);
    request.offset..request.offset.saturating_add(length)
}
