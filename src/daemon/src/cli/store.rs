//! Options of storages in an object store.

use std::time::Duration;

use clap::Args;

use super::choices::FlatOverwrite;
use crate::source::StoreSettings;

/// How a bucket is reached, as an operator says it. Credentials come from the usual environment and
/// files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct ReachArguments {
    /// A setting of the object store, before what the environment says, such as region=eu-west-1,
    /// endpoint=URL, allow_http=true or skip_signature=true; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    store_option: Vec<String>,

    /// Seconds for which a request is repeated that fails; then the guest sees EIO
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    store_timeout: u32,
}

impl ReachArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> StoreSettings {
        StoreSettings {
            options: self.store_option.clone(),
            timeout: Duration::from_secs(self.store_timeout.into()),
            write: None,
        }
    }
}

/// How a bucket is reached, and whether its objects are written to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArguments {
    #[command(flatten)]
    reach: ReachArguments,

    /// Let the guest write to the objects of s3://, gs:// and az://. A file is staged in the cache and uploaded
    /// as a whole by close and fsync, unless another client has written it meanwhile
    #[arg(long)]
    flat_write: bool,

    /// What happens when another client has written the object: the guest gets EIO and its version another
    /// name, or the last one wins
    #[arg(
        long,
        value_enum,
        value_name = "refuse|last-wins",
        hide_possible_values = true,
        default_value = "refuse",
        requires = "flat_write"
    )]
    flat_overwrite: FlatOverwrite,
}

impl StoreArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> StoreSettings {
        StoreSettings {
            write: self.flat_write.then_some(self.flat_overwrite.into()),
            ..self.reach.settings()
        }
    }
}
