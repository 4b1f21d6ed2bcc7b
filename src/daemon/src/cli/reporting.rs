//! Options that say what the daemon tells of itself.

use std::path::PathBuf;

use clap::Args;

use super::choices::{LogFormat, LogLevel};
use crate::logging::LogSettings;

/// What the daemon tells of itself, as an operator says it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Reporting")]
pub(crate) struct ReportingOptions {
    /// What is logged; RUST_LOG, when set, wins
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,

    /// The form of log lines
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "syslog"
    )]
    log_format: LogFormat,

    /// Log to syslog instead of standard error
    #[arg(long)]
    syslog: bool,

    /// Answer questions on this Unix socket (mode 0600): send a line, `status` or `metrics`
    /// (Prometheus text), and read the answer up to the end
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

impl ReportingOptions {
    /// Where log lines go, and which.
    pub(crate) fn log(&self) -> LogSettings {
        LogSettings {
            level: self.log_level,
            format: self.log_format,
            syslog: self.syslog,
            notices: Vec::new(),
        }
    }
}
