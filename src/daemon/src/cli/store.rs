//! Options of storages in an object store.

use std::time::Duration;

use clap::Args;

use crate::source::StoreSettings;

/// How a bucket is reached, as an operator says it. Credentials come from the usual environment and
/// files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArguments {
    /// A setting of the object store, before what the environment says, such as region=eu-west-1,
    /// endpoint=URL, allow_http=true or skip_signature=true; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    store_option: Vec<String>,

    /// Seconds for which a request is repeated that fails; then the guest sees EIO
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    store_timeout: u32,
}

impl StoreArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> StoreSettings {
        StoreSettings {
            options: self.store_option.clone(),
            timeout: Duration::from_secs(self.store_timeout.into()),
        }
    }
}
