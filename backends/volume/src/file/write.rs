//! Writes: also over blocks that are in a bucket alone.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vfsd_backend::{Errno, OpenFlags, Result, Wait, WriteRequest, WriteSource};

use super::OpenFile;
use crate::live::ranges::up;
use crate::meta::Purpose;

impl OpenFile {
    pub(crate) fn write_from(
        &self,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        self.check_open_for(OpenFlags::WRITE)?;
        self.check_mutable()?;
        if source.remaining() == 0 {
            return Ok(0);
        }
        let inode = self.inode();
        if inode.live().is_some() {
            return self.write_over(request, source);
        }
        if self.flags.contains(OpenFlags::APPEND) && !request.cached {
            let slot = inode.alone(true)?;
            let offset = inode.state.read().row.size;
            let request = WriteRequest { offset, ..request };
            self.write_at(slot.as_ref(), request, source)
        } else {
            let slot = inode.shared(true)?;
            self.write_at(slot.as_ref(), request, source)
        }
    }

    /// Writes where content may be in a bucket alone.
    fn write_over(&self, request: WriteRequest, source: &mut dyn WriteSource) -> Result<usize> {
        let inode = self.inode();
        let appends = self.flags.contains(OpenFlags::APPEND) && !request.cached;
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let mut alone = appends;
        let mut pin = None;
        loop {
            let (writing, shared) = match alone {
                true => (Some(inode.alone(true)?), None),
                false => (None, Some(inode.shared(true)?)),
            };
            let file = match (&writing, &shared) {
                (Some(slot), _) => slot.as_ref(),
                (_, Some(slot)) => slot.as_ref(),
                _ => None,
            };
            let size = inode.state.read().row.size;
            let offset = if appends { size } else { request.offset };
            let range = offset..offset.saturating_add(length);
            let Some((_, map)) = inode.live() else {
                return Err(Errno::IO.into());
            };
            if !map.misses(&range) {
                let request = WriteRequest { offset, ..request };
                return self.write_at(file, request, source);
            }
            if let Some(edge) = edges(&range, size)
                .into_iter()
                .find(|edge| map.misses(edge))
            {
                drop((writing, shared));
                pin.get_or_insert_with(|| inode.content.pin());
                inode.fetch_now(&edge)?;
            } else if alone {
                let request = WriteRequest { offset, ..request };
                return self.write_missing(file, request, source);
            } else {
                // Nobody may read meanwhile: neither the old content nor the new is here.
                alone = true;
            }
        }
    }

    /// Writes over blocks that are in a bucket alone, by who has the content alone.
    fn write_missing(
        &self,
        file: Option<&Arc<OwnedFd>>,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let inode = self.inode();
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let range = request.offset..request.offset.saturating_add(length);
        let missing = inode
            .live()
            .map(|(_, map)| map.missing(&range))
            .unwrap_or_default();
        let result = self.write_at(file, request, source);
        let done = *result.as_ref().unwrap_or(&0) as u64;
        if done == length {
            return result;
        }
        // What was not written is where it was.
        let end = request.offset.saturating_add(done);
        let kept = inode.give_back(file, &missing, end)?;
        match kept.saturating_sub(request.offset).min(done) {
            0 => result.and(Err(Errno::IO.into())),
            kept => Ok(usize::try_from(kept).unwrap_or(0)),
        }
    }

    fn write_at(
        &self,
        file: Option<&Arc<OwnedFd>>,
        request: WriteRequest,
        source: &mut dyn WriteSource,
    ) -> Result<usize> {
        let file = file.ok_or(Errno::IO)?;
        let inode = self.inode();
        let passing = inode.core.pass();
        let length = u64::try_from(source.remaining()).unwrap_or(u64::MAX);
        let range = request.offset..request.offset.saturating_add(length);
        let size = || inode.state.read().row.size;
        inode.core.usage.may_reach(range.end, size)?;
        inode.mark_unsettled(Purpose::Usual)?;
        inode.about_to_change(file, &range, true)?;
        inode.settle_later();
        inode.core.failpoints.reach("write noted");
        let mut done: usize = 0;
        let mut end = request.offset;
        let result = loop {
            if source.remaining() == 0 {
                break Ok(done);
            }
            match source.take_into(file.as_fd(), end, Wait::Allowed) {
                Ok(0) => break Ok(done),
                Ok(count) => {
                    done = done.saturating_add(count);
                    end = request.offset.saturating_add(done as u64);
                }
                Err(error) if error.is(Errno::INTR) => {}
                Err(_) if done > 0 => break Ok(done),
                Err(error) => break Err(error),
            }
        };
        inode.core.failpoints.reach("written");
        if done > 0 {
            inode.content_written(&passing, end, request.kill_privileges)?;
        }
        result
    }
}

/// Blocks that a change of a range leaves a part of, in a file of so many bytes.
pub(super) fn edges(range: &Range<u64>, size: u64) -> Vec<Range<u64>> {
    let start = range.start..up(range.start);
    let end = match range.end < size {
        true => range.end..up(range.end),
        false => range.end..range.end,
    };
    [start, end]
        .into_iter()
        .filter(|edge| edge.start < edge.end)
        .collect()
}
