//! An open regular file of an image.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Errno, Error, Extent, File, ReadRequest, ReadSink, Result, SeekFrom, Wait,
};

use crate::backend::{LayerCache, Shared};
use crate::content::{ContentError, ContentPiece, Pinned};
use crate::counters::Found;
use crate::tree::NodeId;

/// Zeros that holes are read from.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

pub(crate) struct ImageFile {
    shared: Arc<Shared>,
    id: NodeId,
    layer: LayerCache,
    /// The number of the layer.
    number: u32,
    /// Its entry in the layer.
    entry: usize,
    size: u64,
}

impl ImageFile {
    /// Opens a regular file; none where it is not one, or its layer is not there.
    pub(crate) fn open(shared: &Arc<Shared>, id: NodeId) -> Option<Self> {
        let content = shared.tree.content(id)?;
        let layer = usize::try_from(content.layer).ok()?;
        Some(Self {
            shared: shared.clone(),
            id,
            layer: shared.layers.get(layer)?.clone(),
            number: content.layer,
            entry: usize::try_from(content.entry).ok()?,
            size: content.size,
        })
    }

    /// The part of a range that is in the file.
    fn range(&self, offset: u64, length: u64) -> Range<u64> {
        let end = offset.saturating_add(length).min(self.size);
        offset.min(end)..end
    }

    fn is_resident(&self, range: &Range<u64>) -> bool {
        self.layer.content.is_resident(self.entry, range.clone())
    }

    /// Of how many spans a range is, if all of them are there.
    fn count_resident(&self, range: &Range<u64>) -> Option<u64> {
        let content = &self.layer.content;
        content.count_resident(self.entry, range.clone())
    }

    fn pin(
        &self,
        range: &Range<u64>,
        wait: Wait,
    ) -> std::result::Result<Option<Pinned<'_>>, ContentError> {
        self.layer.content.pin(self.entry, range.clone(), wait)
    }

    fn pieces(&self, range: &Range<u64>) -> impl Iterator<Item = ContentPiece> + '_ {
        self.layer.content.locate(self.entry, range.clone())
    }

    /// Gives what is resident to the sink, and takes what was given off `range`. EAGAIN where a wait was refused.
    fn transfer(&self, range: &mut Range<u64>, sink: &mut dyn ReadSink, wait: Wait) -> Result<()> {
        for piece in self.pieces(&range.clone()) {
            let mut done: u64 = 0;
            while done < piece.length {
                let left = piece.length.saturating_sub(done);
                let length = usize::try_from(left).unwrap_or(usize::MAX);
                let count = match piece.cache_offset {
                    Some(offset) => {
                        let offset = offset.saturating_add(done);
                        let file = self.layer.descriptor.as_fd();
                        sink.put_from(file, offset, length, wait)?
                    }
                    None => sink.put(ZEROS.get(..length).unwrap_or(&ZEROS))?,
                };
                if count == 0 {
                    // The cache file is shorter than it was, or the sink than the request.
                    return Err(Errno::IO.into());
                }
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                done = done.saturating_add(count);
                range.start = range.start.saturating_add(count);
            }
        }
        match range.is_empty() {
            true => Ok(()),
            // The tree and the index of the layer contradict each other.
            false => Err(Errno::IO.into()),
        }
    }
}

/// How many bytes a range has.
fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

fn must_wait(error: &Error) -> bool {
    error.is(Errno::AGAIN) || error.is(Errno::OPNOTSUPP)
}

impl File for ImageFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        let wanted = u64::try_from(request.length).unwrap_or(u64::MAX);
        let mut range = self.range(request.offset, wanted);
        let whole = length(&range);
        if self.shared.recorder.is_recording() {
            let spans = self.layer.content.spans_of(self.entry, range.clone());
            self.shared.recorder.record(self.number, spans.flatten());
        }
        let pinned = self.pin(&range, Wait::Refused);
        if matches!(pinned, Ok(Some(_)))
            && let Some(spans) = self.count_resident(&range)
        {
            match self.transfer(&mut range, sink, Wait::Refused) {
                // What is left of it is looked for again, and counted then.
                Err(error) if must_wait(&error) => {}
                result => {
                    let counters = self.layer.content.counters();
                    counters.read(spans, Found::Cached);
                    return Answer::ready(result.map(|()| whole));
                }
            }
        }
        drop(pinned);
        Answer::blocking(move || {
            // Until all of it is with the guest.
            let _pinned = self.pin(&range, Wait::Allowed)?;
            {
                let _waiting = self.shared.demand.wait();
                self.layer.content.fill(self.entry, range.clone())?;
            }
            self.shared.is_shown()?;
            self.transfer(&mut range, sink, Wait::Allowed)?;
            Ok(whole)
        })
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        Answer::ok(self.shared.attributes(self.id))
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        Answer::now(|| {
            let content = self.shared.tree.content(self.id).ok_or(Errno::IO)?;
            if offset >= self.size {
                return Err(Errno::NXIO.into());
            }
            match from {
                SeekFrom::Data => {
                    let next = content.extent_after(offset).ok_or(Errno::NXIO)?;
                    Ok(next.file_offset.max(offset))
                }
                SeekFrom::Hole => {
                    let mut end = offset;
                    while let Some(extent) = content.extent_after(end)
                        && extent.file_offset <= end
                    {
                        end = extent.file_offset.saturating_add(extent.length);
                    }
                    Ok(end.min(self.size))
                }
            }
        })
    }

    /// Given where the content is in the cache already, and stays there: nothing is fetched for it.
    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        if self.layer.content.is_bounded() {
            return Answer::ok(None);
        }
        let range = self.range(offset, length);
        let Some(piece) = self.pieces(&range).next() else {
            return Answer::ok(None);
        };
        let piece_range = self.range(piece.file_offset, piece.length);
        let place = piece
            .cache_offset
            .filter(|_| self.is_resident(&piece_range));
        Answer::ok(place.map(|place| Extent {
            descriptor: self.layer.descriptor.clone(),
            offset: place,
            length: piece.length,
        }))
    }
}
