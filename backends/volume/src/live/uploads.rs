//! Segments on their way into the bucket, while the next ones are packed.

use tokio::task::JoinSet;

use super::Live;
use super::shipper::Failure;
use crate::bucket::{ObjectId, Segment, ShipError};

/// Segments that are stored at a time.
pub(super) const PARALLEL: usize = 4;

/// Segments of a round.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Those that are not known to be stored.
    segments: Vec<Segment>,
    /// Those that are.
    stored: Vec<Segment>,
    /// Those of them that are on their way.
    running: JoinSet<(ObjectId, Result<(), ShipError>)>,
}

impl Uploads {
    /// Begins to store a segment. Waits for others first if as many as may be are on their way.
    ///
    /// # Errors
    /// One of the others is not stored. All are stored again by [`resume`](Self::resume), this one too.
    pub(super) fn begin(&mut self, live: &Live, segment: Segment) -> Result<(), Failure> {
        self.segments.push(segment.clone());
        self.wait_for(live, PARALLEL.saturating_sub(1))?;
        self.store(live, segment);
        Ok(())
    }

    /// Begins again with what failed.
    pub(super) fn resume(&mut self, live: &Live) {
        if self.running.is_empty() {
            for segment in self.segments.clone() {
                self.store(live, segment);
            }
        }
    }

    /// Segments that were stored since this was asked last.
    pub(super) fn stored(&mut self) -> impl Iterator<Item = Segment> + '_ {
        self.stored.drain(..)
    }

    /// Waits until all are stored.
    ///
    /// # Errors
    /// One is not, and none is on its way any more.
    pub(super) fn wait(&mut self, live: &Live) -> Result<(), Failure> {
        self.wait_for(live, 0)
    }

    fn wait_for(&mut self, live: &Live, most: usize) -> Result<(), Failure> {
        let mut failure: Option<Failure> = None;
        // After a failure all have to end: then it is known which are to be stored again.
        while self.running.len() > most || failure.is_some() {
            match live.runtime.block_on(self.running.join_next()) {
                Some(Ok((stored, Ok(())))) => {
                    let is_it = |segment: &mut Segment| segment.id() == stored;
                    self.stored.extend(self.segments.extract_if(.., is_it));
                }
                Some(Ok((_, Err(error)))) => failure = Some(error.into()),
                Some(Err(error)) => failure = Some(std::io::Error::other(error).into()),
                None => break,
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn store(&mut self, live: &Live, segment: Segment) {
        let remote = live.remote.clone();
        let put = async move {
            let stored = remote.put_segment(&segment).await;
            (segment.id(), stored)
        };
        self.running.spawn_on(put, &live.runtime);
    }
}
