//! Cuts: instants whose state goes into the bucket.

use std::sync::Arc;

use vfsd_backend::Result;

use super::Live;
use super::complete::Defect;
use super::dirty::ContentMap;
use super::shipper::Failure;
use crate::core::Core;
use crate::meta::journal::Lsn;

/// What a cut found.
#[derive(Debug)]
pub(super) struct Cut {
    /// The last redo record before it.
    pub(super) last: Lsn,
    /// Files with frozen ranges.
    pub(super) files: Vec<FrozenFile>,
}

/// A file with frozen ranges.
#[derive(Debug)]
pub(super) struct FrozenFile {
    pub(super) ino: u64,
    pub(super) map: Arc<ContentMap>,
    /// How long it was.
    pub(super) size: u64,
}

impl Live {
    /// Notes the state of now: rows up to a record, and the content of all files that changed.
    ///
    /// # Errors
    /// As the journal says. Then nothing is frozen.
    pub(super) fn make_cut(&self, core: &Core) -> Result<Cut, Failure> {
        // Most of it before everybody has to wait.
        settle(core, &self.dirty.all(), || self.pass_now())?;
        let alone = self.cut.write();
        self.rounds.cut();
        let mut all = self.dirty.all();
        if let Some((ino, _)) = all.iter().find(|(_, map)| map.is_frozen()) {
            return Err(
                Defect::of_inode(*ino, "content of an earlier round was not shipped").into(),
            );
        }
        // Files that were made one after the other lie so in a segment, and mostly are read so.
        all.sort_unstable_by_key(|(ino, _)| *ino);
        settle(core, &all, || ())?;
        let mut files = Vec::with_capacity(all.len());
        for (ino, map) in all {
            let row = match core.inode_in_memory(ino) {
                Some(inode) => Some(inode.state.read().row.clone()),
                None => core.meta.node(ino)?,
            };
            match row {
                // Its content goes nowhere: nobody can give it a name any more.
                Some(row) if row.links == 0 && !row.linkable => map.stays(&self.dirty),
                Some(row) => files.push(FrozenFile {
                    ino,
                    map,
                    size: row.size,
                }),
                None => self.dirty.forget(ino),
            }
        }
        // Only what cannot fail is left.
        files.retain(|file| file.map.freeze());
        let last = core.meta.last();
        drop(alone);
        Ok(Cut { last, files })
    }
}

/// Writes sizes and times of files that were written to.
fn settle<T>(core: &Core, files: &[(u64, Arc<ContentMap>)], hold: impl Fn() -> T) -> Result<()> {
    files.iter().try_for_each(|(ino, _)| {
        let Some(inode) = core.inode_in_memory(*ino) else {
            return Ok(());
        };
        let _held = hold();
        inode.settle_within()
    })
}
