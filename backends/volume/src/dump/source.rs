//! Where the content comes from that is dumped.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::io::{pread, retry_on_intr};
use tokio::runtime::Handle;
use vfsd_backend::{Errno, Result};

use crate::bucket::{Frame, Remote};
use crate::data::DataFolder;
use crate::live::extents::Extent;
use crate::live::holes::all_data;
use crate::live::shipped::Shipped;

/// So much is read from a bucket at a time.
const WINDOW: u64 = 8 << 20;
/// So much is read from a file, and handed out, at a time.
const PART: usize = 256 << 10;

/// The content of all files of a volume.
pub(super) enum Source {
    /// In a directory.
    Directory(DataFolder),
    /// In a bucket.
    Bucket {
        remote: Box<Remote>,
        shipped: Shipped,
        runtime: Handle,
    },
}

impl Source {
    /// Hands out the content of a file, which has so many bytes, in order: where each part begins, and what it is. Holes are
    /// left out.
    ///
    /// # Errors
    /// It cannot be read, or the parts not be taken.
    pub(super) fn each_part<E: From<vfsd_backend::Error>>(
        &self,
        ino: u64,
        size: u64,
        mut take: impl FnMut(u64, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match self {
            Self::Directory(folder) => {
                let file = folder.open_file(ino, false);
                let file = file.map_err(vfsd_backend::Error::from)?;
                let mut buffer = vec![0; PART];
                for range in all_data(&file, size).map_err(vfsd_backend::Error::from)? {
                    let mut at = range.start;
                    while at < range.end {
                        let most = range.end.saturating_sub(at);
                        let read = read_part(&file, &mut buffer, at, most)?;
                        take(at, read)?;
                        at = at.saturating_add(read.len() as u64);
                    }
                }
                Ok(())
            }
            Self::Bucket {
                remote,
                shipped,
                runtime,
            } => {
                for window in windows(shipped.ranges(ino, size)?) {
                    let extents = shipped.extents(ino, &window)?;
                    let contents = read_frames(remote, &extents, runtime)?;
                    for extent in &extents {
                        let from = extent.offset.max(window.start);
                        let to = extent.range().end.min(window.end);
                        let mut at = from;
                        for part in part_of(extent, &contents, from, to)?.chunks(PART) {
                            take(at, part)?;
                            at = at.saturating_add(part.len() as u64);
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

/// What is read together of ranges that are in order.
fn windows(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.end.saturating_sub(last.start) <= WINDOW => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// Up to `most` bytes of a file, at least one.
fn read_part<'a>(file: &OwnedFd, buffer: &'a mut [u8], at: u64, most: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    let room = buffer.get_mut(..length).unwrap_or_default();
    match retry_on_intr(|| pread(file, &mut *room, at))? {
        0 => Err(Errno::IO.into()),
        read => Ok(buffer.get(..read).unwrap_or_default()),
    }
}

fn read_frames(
    remote: &Remote,
    extents: &[Extent],
    runtime: &Handle,
) -> Result<HashMap<Frame, Bytes>> {
    let mut frames: Vec<Frame> = extents.iter().map(|extent| extent.frame).collect();
    frames.sort_unstable();
    frames.dedup();
    let read = runtime.block_on(remote.read_frames(&frames));
    let read = read.map_err(|error| vfsd_backend::Error::Storage(Box::new(error)))?;
    Ok(frames.into_iter().zip(read).collect())
}

/// What an extent has between two offsets of its file.
fn part_of<'a>(
    extent: &Extent,
    contents: &'a HashMap<Frame, Bytes>,
    from: u64,
    to: u64,
) -> Result<&'a [u8]> {
    let skip = from
        .saturating_sub(extent.offset)
        .saturating_add(extent.skip.into());
    let end = skip.saturating_add(to.saturating_sub(from));
    let within = usize::try_from(skip).ok().zip(usize::try_from(end).ok());
    let content = contents.get(&extent.frame).zip(within);
    let bytes = content.and_then(|(content, (skip, end))| content.get(skip..end));
    Ok(bytes.ok_or(Errno::IO)?)
}
