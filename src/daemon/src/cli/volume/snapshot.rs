//! `vfsd volume snapshot`.

use clap::Subcommand;
use vfsd_volume::Snapshot;

use super::{VolumeReachArguments, parse, utc};
use crate::exit::Failure;
use crate::source::VolumeSource;

/// What is done with snapshots.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum SnapshotVerb {
    /// Keep what is in the bucket now, which is all that was synced: the volume may be in use. It takes no room but for
    /// what is written over later
    Create {
        /// Which: volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// What to call it: letters, digits, '-', '_' and '.'
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Say which there are, when they were made, and which are there only while somebody reads what they hold
    List {
        /// Which: volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
    /// Give one up: what it alone held is removed by the daemon, or by `vfsd volume gc`
    Delete {
        /// Which: volume:s3://BUCKET/PREFIX
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        reach: VolumeReachArguments,
    },
}

impl SnapshotVerb {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(super) fn run(self) -> Result<String, Failure> {
        match self {
            Self::Create {
                volume,
                name,
                reach,
            } => {
                let made = volume.snapshot(&name, &reach.settings())?;
                Ok(format!("made snapshot {} of {volume}\n", made.name))
            }
            Self::List { volume, reach } => {
                let listed = volume.snapshots(&reach.settings())?;
                let line = |one: &Snapshot| {
                    let term = if one.temporary { " temporary" } else { "" };
                    format!("{} {}{term}\n", one.name, utc(one.made))
                };
                Ok(listed.iter().map(line).collect())
            }
            Self::Delete {
                volume,
                name,
                reach,
            } => {
                volume.delete_snapshot(&name, &reach.settings())?;
                Ok(format!("deleted snapshot {name} of {volume}\n"))
            }
        }
    }
}
