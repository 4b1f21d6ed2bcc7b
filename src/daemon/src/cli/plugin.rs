//! Options of plugins that the daemon starts.

use std::path::PathBuf;

use clap::Args;

use crate::source::{PluginSettings, PluginUser};

/// What a plugin may do, as an operator says it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plugins")]
pub(crate) struct PluginArguments {
    /// Run plugins as this user and its group, or as UID:GID; only root can. root gives them all files of the host
    /// [default for root: nobody]
    #[arg(long, value_name = "USER")]
    plugin_user: Option<PluginUser>,

    /// Let plugins use the network
    #[arg(long)]
    plugin_network: bool,

    /// Let plugins reach this file or directory, and beside those that are named nothing of the host but programs and
    /// libraries, to read; may be repeated [default: all that their user can]
    #[arg(long, value_name = "PATH")]
    plugin_path: Vec<PathBuf>,

    /// Let a plugin have so many files open, as far as the daemon itself may [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(16..))]
    plugin_fds: Option<u64>,
}

impl PluginArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> PluginSettings {
        PluginSettings {
            user: self.plugin_user,
            network: self.plugin_network,
            paths: self.plugin_path.clone(),
            open_files: self.plugin_fds,
        }
    }
}
