//! `vfsd volume`.

use std::ffi::OsStr;

use clap::{Args, Subcommand};
use vfsd_volume::VolumeOptions;

use crate::exit::Failure;
use crate::source::VolumeSource;

/// Make volumes
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct VolumeArguments {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Clone, Subcommand)]
enum VolumeVerb {
    /// Make an empty volume, whose root belongs to root of the guest
    Create {
        /// Where: volume:file:DIR, a directory that is made, or is empty
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
    },
}

fn parse(word: &str) -> Result<VolumeSource, String> {
    VolumeSource::named(OsStr::new(word)).map_err(|error| error.to_string())
}

impl VolumeArguments {
    /// Does it, and says what was done.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(crate) fn run(self) -> Result<String, Failure> {
        match self.verb {
            VolumeVerb::Create { volume } => {
                volume.create(&VolumeOptions::default())?;
                Ok(format!("made {volume}\n"))
            }
        }
    }
}
