//! Options and verbs that the command line reserves for what this version does not have.
//!
//! They are refused by name, with the reason, so that nobody believes that they had an effect.

use clap::Args;

use super::spelling::refuse_shared_dir;

/// Options of virtiofsd that `serve` and `mount` have no use for.
#[derive(Debug, Clone, Args)]
pub(crate) struct ForeignOptions {
    #[arg(long, hide = true, value_parser = refuse_shared_dir)]
    shared_dir: Option<String>,
}
