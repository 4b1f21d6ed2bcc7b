//! copy_file_range(2) within a volume.

use std::sync::Arc;

use rustix::fs::copy_file_range;
use vfsd_backend::{CopyRange, Errno, OpenFlags, Result};

use super::OpenFile;
use crate::meta::Purpose;

/// In a volume in a bucket a copy goes no further at a time: all of it has to be here.
const LARGE_COPY: u64 = 64 << 20;

impl OpenFile {
    pub(super) fn copy_to(&self, target: &Self, copy: &CopyRange<'_>) -> Result<u64> {
        self.check_open_for(OpenFlags::READ)?;
        target.check_open_for(OpenFlags::WRITE)?;
        if target.flags.contains(OpenFlags::APPEND) {
            return Err(Errno::BADF.into());
        }
        let (from, to) = (self.inode(), target.inode());
        if !Arc::ptr_eq(&from.core, &to.core) {
            return Err(Errno::XDEV.into());
        }
        target.check_mutable()?;
        let size = from.state.read().row.size;
        let mut length = copy.length.min(size.saturating_sub(copy.offset));
        if from.live().is_some() {
            length = length.min(LARGE_COPY);
        }
        let distance = copy.offset.abs_diff(copy.target_offset);
        if from.ino == to.ino && length > 0 && distance < length {
            return Err(Errno::INVAL.into());
        }
        if length == 0 {
            return Ok(0);
        }
        let range = copy.target_offset..copy.target_offset.saturating_add(length);
        to.before_order()?;
        let _pins = (from.content.pin(), to.content.pin());
        if from.live().is_some() {
            from.fetch_now(&(copy.offset..copy.offset.saturating_add(length)))?;
            drop(to.shared(true)?);
            to.fetch_now(&range)?;
        }
        let source = from.shared(false)?;
        let sink = to.shared_beside(true)?;
        let (Some(source), Some(sink)) = (source.as_ref(), sink.as_ref()) else {
            return Ok(0);
        };
        self.was_read();
        let usage = &to.core.usage;
        usage.may_reach(range.end, || to.state.read().row.size)?;
        let passing = to.core.pass();
        to.mark_unsettled(Purpose::Usual)?;
        to.settle_later();
        // Holes may be copied as such.
        to.note_holes(&range, &[], Purpose::Usual)?;
        to.ready_for_holes(&range, &[], || {
            to.keep_order(|| Ok(()))?;
            Ok(to.about_to_change(sink, &range, true)?)
        })?;
        let mut done: u64 = 0;
        let (mut read_at, mut write_at) = (copy.offset, copy.target_offset);
        let result = loop {
            let left = usize::try_from(length.saturating_sub(done)).unwrap_or(usize::MAX);
            if left == 0 {
                break Ok(done);
            }
            let (read, write) = (Some(&mut read_at), Some(&mut write_at));
            match copy_file_range(source, read, sink, write, left) {
                Ok(0) => break Ok(done),
                Ok(count) => done = done.saturating_add(count as u64),
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break Ok(done),
                Err(errno) => break Err(errno.into()),
            }
        };
        to.core.failpoints.reach("copied");
        if done > 0 {
            to.content_written(
                &passing,
                copy.target_offset.saturating_add(done),
                copy.kill_privileges,
            )?;
        }
        result
    }
}
