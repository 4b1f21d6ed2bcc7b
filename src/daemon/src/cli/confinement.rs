//! Options that say what the daemon itself may do.

use clap::Args;

use super::choices::{SandboxMode, SeccompAction};
use crate::exit::Failure;
use crate::sandbox::{CapabilityChanges, IdRange};
use crate::settings::Confinement;

/// What the daemon may do, as an operator says it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Confinement")]
pub(crate) struct ConfinementOptions {
    /// How the daemon is kept away from the rest of the host
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        value_name = "MODE",
        default_value = "namespace"
    )]
    pub(crate) sandbox: SandboxMode,

    /// What happens when the daemon makes a system call that it has no use for
    #[arg(long, value_enum, value_name = "ACTION", default_value = "kill")]
    pub(crate) seccomp: SeccompAction,

    /// Add and remove capabilities, for instance +sys_admin:-chown
    #[arg(
        long, value_name = "CHANGES", allow_hyphen_values = true,
        value_parser = CapabilityChanges::parse
    )]
    pub(crate) modcaps: Option<CapabilityChanges>,

    /// Map users into the sandbox's user namespace, :INSIDE:OUTSIDE:COUNT:, with newuidmap; may be
    /// repeated; not as root
    #[arg(long, value_name = "RANGE", value_parser = IdRange::parse)]
    pub(crate) uid_map: Vec<IdRange>,

    /// Map groups into the sandbox's user namespace, :INSIDE:OUTSIDE:COUNT:, with newgidmap; may
    /// be repeated; not as root
    #[arg(long, value_name = "RANGE", value_parser = IdRange::parse)]
    pub(crate) gid_map: Vec<IdRange>,

    /// Open files that the daemon may have; 0 leaves the limit as it is [default: 1000000, or what
    /// the system allows]
    #[arg(long, value_name = "N")]
    pub(crate) rlimit_nofile: Option<u64>,

    /// Threads that may wait for the storage of each export at the same time; 0 for as many as
    /// serve well
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) thread_pool_size: usize,
}

impl ConfinementOptions {
    /// What the options come to.
    ///
    /// # Errors
    /// When they contradict each other.
    pub(crate) fn confinement(self) -> Result<Confinement, Failure> {
        let maps = !self.uid_map.is_empty() || !self.gid_map.is_empty();
        if maps && self.sandbox != SandboxMode::Namespace {
            return Err(Failure::usage(
                "--uid-map and --gid-map describe the sandbox's user namespace: use them with \
                 --sandbox=namespace",
            ));
        }
        Ok(Confinement {
            sandbox: self.sandbox,
            seccomp: self.seccomp,
            modcaps: self.modcaps,
            uid_map: self.uid_map,
            gid_map: self.gid_map,
            rlimit_nofile: self.rlimit_nofile,
            thread_pool_size: self.thread_pool_size,
        })
    }
}
