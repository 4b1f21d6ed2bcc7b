//! What a volume is and how much is in it.

use std::path::Path;

use vfsd_backend::Result;

use crate::error::{Process, VolumeError};
use crate::layout::Layout;
use crate::meta;
use crate::quota::Quota;

/// What a volume is and how much is in it. While it is in use the figures are some milliseconds old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Tells volumes apart: 32 hexadecimal digits.
    pub uuid: String,
    /// Version of the format.
    pub format: u32,
    /// How much the volume may hold.
    pub quota: Quota,
    /// How many inodes there are.
    pub inodes: u64,
    /// Bytes of content of all files, holes included.
    pub bytes: u64,
    /// Bytes that the content takes on the host's disk.
    pub allocated: u64,
    /// Bytes of the journal on the host's disk.
    pub journal: u64,
    /// Who has the volume open, if anybody has.
    pub used_by: Option<Process>,
}

impl crate::Volume {
    /// What the volume in `directory` is and how much is in it. It may be in use.
    ///
    /// # Errors
    /// When there is no volume, when it is of a newer format, or when its files cannot be read.
    pub fn stat(directory: &Path) -> Result<VolumeStatus, VolumeError> {
        let layout = Layout::new(directory);
        let header = layout.read_header()?;
        let used_by = match layout.lock() {
            Ok(_) => None,
            Err(VolumeError::Locked { user, .. }) => Some(user),
            Err(error) => return Err(error),
        };
        let read = || -> Result<VolumeStatus> {
            let figures = meta::figures(&layout.database())?;
            let mut journal: u64 = 0;
            for file in std::fs::read_dir(layout.journal())? {
                journal = journal.saturating_add(file?.metadata()?.len());
            }
            Ok(VolumeStatus {
                uuid: header.uuid,
                format: header.format,
                quota: header.quota,
                inodes: figures.inodes,
                bytes: figures.bytes,
                allocated: figures.blocks.saturating_mul(512),
                journal,
                used_by,
            })
        };
        read().map_err(VolumeError::storage(directory, "cannot look at it"))
    }
}
