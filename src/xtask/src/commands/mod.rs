//! The tasks, one module each.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod guest;
pub(crate) mod test;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::daemon::{Profile, Program};
use crate::workspace::Workspace;

/// Which daemon a task runs.
#[derive(Debug, Args)]
pub(crate) struct DaemonArguments {
    /// Use this vfsd instead of building one
    #[arg(long, value_name = "PROGRAM")]
    vfsd: Option<PathBuf>,
    /// Use this virtiofsd instead of vfsd, to compare
    #[arg(long, value_name = "PROGRAM", conflicts_with = "vfsd")]
    virtiofsd: Option<PathBuf>,
    /// Build vfsd with optimizations
    #[arg(long)]
    release: bool,
}

impl DaemonArguments {
    fn profile(&self) -> Profile {
        if self.release {
            Profile::Release
        } else {
            Profile::Debug
        }
    }

    /// The daemon to run, built when it must be.
    ///
    /// # Errors
    /// The build fails.
    pub(crate) fn program(&self, workspace: &Workspace) -> Result<Program> {
        match (&self.vfsd, &self.virtiofsd) {
            (Some(path), _) => Ok(Program::Vfsd(path.clone())),
            (None, Some(path)) => Ok(Program::Virtiofsd(path.clone())),
            (None, None) => Program::build(workspace, self.profile()),
        }
    }
}
