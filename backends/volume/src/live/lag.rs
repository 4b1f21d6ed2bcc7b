//! How far the bucket is behind the volume.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::Volume;
use crate::core::Core;

/// How far the bucket is behind, and what was done about it since the volume was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Bytes of content that the bucket does not have. Holes, names and attributes count nothing.
    pub bytes: u64,
    /// How long ago the oldest change was made that the bucket does not have; zero where it has all.
    pub age: Duration,
    /// How often everything that had changed was brought there.
    pub rounds: u64,
    /// Attempts at it that failed, and were made again.
    pub failures: u64,
    /// Another daemon took the volume over: nothing gets into the bucket any more.
    pub fenced: bool,
}

/// Looks at a volume, and does not keep it open.
#[derive(Debug, Clone)]
pub struct LagWatch(Weak<Core>);

impl LagWatch {
    /// How far the bucket is behind now. `None` for a volume in a directory, and for one that is closed.
    pub fn look(&self) -> Option<Lag> {
        let core = self.0.upgrade()?;
        let live = core.live.as_deref()?;
        Some(Lag {
            bytes: live.dirty.bytes(),
            ..live.rounds.lag()
        })
    }
}

impl Volume {
    /// Something that tells how far the bucket is behind.
    pub fn watch_lag(&self) -> LagWatch {
        LagWatch(Arc::downgrade(self.core()))
    }
}
