//! `vfsd volume`.

use std::ffi::OsStr;

use clap::{Args, Subcommand};
use vfsd_volume::VolumeOptions;

use crate::exit::Failure;
use crate::source::VolumeSource;

/// Make volumes and look after them
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
    /// Look whether a volume's names, counts and content fit together; nobody may use it meanwhile
    Check {
        /// Which: volume:file:DIR
        #[arg(value_name = "VOLUME", value_parser = parse)]
        volume: VolumeSource,
    },
    /// Say what a volume is and how much is in it
    Stat {
        /// Which: volume:file:DIR
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
            VolumeVerb::Check { volume } => {
                let report = volume.check()?;
                let found = format!(
                    "{} inodes, {} names, {} bytes of content",
                    report.inodes, report.names, report.bytes
                );
                if report.is_clean() {
                    return Ok(format!("{volume} is whole: {found}\n"));
                }
                for problem in &report.problems {
                    eprintln!("{problem}");
                }
                Err(Failure::run(format!(
                    "{volume} has {} problems ({found}): copy what can be read to a new volume",
                    report.problem_count
                )))
            }
            VolumeVerb::Stat { volume } => {
                let status = volume.stat()?;
                let user = match status.used_by {
                    Some(pid) => format!("process {pid}"),
                    None => "nobody".to_owned(),
                };
                Ok(format!(
                    "volume {volume}\nuuid {}\nformat {}\nused_by {user}\ninodes {}\nbytes \
                     {}\nallocated {}\njournal {}\n",
                    status.uuid,
                    status.format,
                    status.inodes,
                    status.bytes,
                    status.allocated,
                    status.journal
                ))
            }
        }
    }
}
