//! Options of plugins that the daemon starts.

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
}

impl PluginArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> PluginSettings {
        PluginSettings {
            user: self.plugin_user,
            network: self.plugin_network,
        }
    }
}
