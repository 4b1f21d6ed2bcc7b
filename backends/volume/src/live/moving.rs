//! Moving what is left of objects that are mostly dead, or small, into new segments: then they can go.
//!
//! Who ships does it, between two rounds and a part at a time: segments first, then a log object that says where the content
//! lies now, as with content that is new. Whatever happens in between, one of the two is named.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::extents::{Extent, ranges_in};
use super::packing::Packing;
use super::shipped::{Refused, Shipped, Shipping, Step};
use crate::bucket::{Frame, ObjectId, Piece, Remote, Sealed, Segment, ShipError};
use crate::failpoint::Failpoints;

/// Content that is moved after one clean-up. The next one goes on.
const MOST_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };
/// Content that is in memory, and moved with one log object.
const PART_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 8 << 20 };
/// In one frame.
const FRAME_BYTES: usize = 256 << 10;

/// Content that is to be moved.
#[derive(Debug)]
pub(super) struct Moving {
    from: HashSet<ObjectId>,
    /// Where it was when this was made.
    ranges: VecDeque<(u64, Range<u64>)>,
}

/// Content that was moved, and the log object that says so.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) sealed: Sealed,
    pub(super) pieces: Vec<Piece>,
    pub(super) step: Step,
}

/// Why content is not moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmoved {
    #[error("{0}")]
    Ship(#[from] ShipError),
    #[error("{0}")]
    Local(#[from] vfsd_backend::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Refused> for Unmoved {
    fn from(refused: Refused) -> Self {
        Self::Local(refused.into())
    }
}

impl Unmoved {
    /// Whether that part of the content can never be moved.
    pub(super) fn is_damage(&self) -> bool {
        use crate::bucket::BucketError::Damaged;
        matches!(self, Self::Ship(ShipError::Store(Damaged { .. })))
    }
}

/// Segments that are being filled.
struct Filling<'a> {
    remote: &'a Remote,
    packing: Packing,
    full: Vec<Segment>,
    pieces: Vec<Piece>,
}

impl Moving {
    /// What lies in some objects.
    pub(super) fn out_of(
        objects: Vec<ObjectId>,
        shipping: &Shipping,
    ) -> vfsd_backend::Result<Self> {
        let from: HashSet<ObjectId> = objects.into_iter().collect();
        let ranges = shipping.look(|db| ranges_in(db, &from, MOST_BYTES))?;
        Ok(Self {
            from,
            ranges: ranges.into(),
        })
    }

    /// Moves the next part, up to the log object that is to be appended. `None`: nothing is left. Whoever calls is the
    /// only one who appends. After a failure nothing has happened.
    ///
    /// # Errors
    /// The store failed, or content is damaged.
    pub(super) fn part(
        &mut self,
        remote: &Remote,
        (shipped, shipping): (&Shipped, &Shipping),
        runtime: &Handle,
        failpoints: &Failpoints,
    ) -> Result<Option<Moved>, Unmoved> {
        let extents = self.next_extents(shipped)?;
        if extents.is_empty() {
            return Ok(None);
        }
        let contents = runtime.block_on(read(remote, &extents))?;
        failpoints.reach("content to move read");
        let mut filling = Filling {
            remote,
            packing: Packing::default(),
            full: Vec::new(),
            pieces: Vec::new(),
        };
        filling.fill(&extents, &contents)?;
        let Filling { full, pieces, .. } = filling;
        let stored = runtime.block_on(async {
            for segment in &full {
                remote.put_segment(segment).await?;
            }
            Ok::<_, ShipError>(())
        });
        failpoints.reach("moved content in the bucket");
        let seal = || -> Result<Moved, Unmoved> {
            stored?;
            let sealed = remote.seal_moved(pieces.clone());
            let sealed = sealed.map_err(ShipError::from)?;
            Ok(Moved {
                step: shipping.prepare(&[], &pieces, sealed.point())?,
                sealed,
                pieces,
            })
        };
        let moved = seal();
        if moved.is_err() {
            for segment in &full {
                remote.forget_segment(segment.id());
            }
        }
        moved.map(Some)
    }

    /// What is still there of the next ranges.
    fn next_extents(&mut self, shipped: &Shipped) -> vfsd_backend::Result<Vec<(u64, Extent)>> {
        let mut extents: Vec<(u64, Extent)> = Vec::new();
        let mut bytes: u64 = 0;
        while bytes < PART_BYTES
            && let Some((ino, range)) = self.ranges.pop_front()
        {
            let mut found = shipped.extents(ino, &range)?.into_iter();
            for extent in found.by_ref() {
                if bytes >= PART_BYTES {
                    self.ranges.push_front((ino, extent.offset..range.end));
                    break;
                }
                if self.from.contains(&extent.frame.object) {
                    bytes = bytes.saturating_add(extent.frame.length.into());
                    extents.push((ino, extent));
                }
            }
        }
        Ok(extents)
    }
}

/// The content of all frames of some extents.
async fn read(
    remote: &Remote,
    extents: &[(u64, Extent)],
) -> Result<HashMap<Frame, Bytes>, ShipError> {
    let mut frames: Vec<Frame> = extents.iter().map(|(_, extent)| extent.frame).collect();
    frames.sort_unstable();
    frames.dedup();
    let contents = remote.read_frames(&frames).await?;
    Ok(frames.into_iter().zip(contents).collect())
}

impl Filling<'_> {
    /// Puts the content of extents into segments. What goes on in the same file is one frame.
    fn fill(
        &mut self,
        extents: &[(u64, Extent)],
        contents: &HashMap<Frame, Bytes>,
    ) -> io::Result<()> {
        let mut run: Option<(u64, u64, Vec<u8>)> = None;
        for (ino, extent) in extents {
            let content = contents.get(&extent.frame).and_then(|content| {
                let start = usize::try_from(extent.skip).ok()?;
                let length = usize::try_from(extent.length).ok()?;
                content.get(start..start.checked_add(length)?)
            });
            let content = content.ok_or(io::ErrorKind::InvalidData)?;
            let goes_on = run.as_ref().is_some_and(|(file, offset, bytes)| {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let together = bytes.len().saturating_add(content.len());
                let follows = offset.saturating_add(length) == extent.offset;
                file == ino && follows && together <= FRAME_BYTES
            });
            match &mut run {
                Some((_, _, bytes)) if goes_on => bytes.extend_from_slice(content),
                _ => {
                    let next = (*ino, extent.offset, content.to_vec());
                    if let Some((ino, offset, bytes)) = run.replace(next) {
                        self.append(ino, offset, &bytes)?;
                    }
                }
            }
        }
        if let Some((ino, offset, bytes)) = run {
            self.append(ino, offset, &bytes)?;
        }
        self.full.extend(self.packing.finish()?);
        Ok(())
    }

    fn append(&mut self, ino: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let piece = self.packing.append(self.remote, ino, offset, bytes)?;
        self.pieces.push(piece);
        self.full.extend(self.packing.full()?);
        Ok(())
    }
}
