//! How the program ends: exit codes, and the one line that says what to do.

use std::fmt;
use std::process::ExitCode;

/// What ended the program before its work was done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong, or asked for help: clap's own text. Exit code 2, for help 0.
    CommandLine(clap::Error),
    /// The command line, or the configuration, asks for what cannot be. Exit code 2.
    Usage(String),
    /// Anything else. Exit code 1.
    Run(String),
    /// It was told to stop, which is no failure. Exit code 0.
    Stopped,
}

impl Failure {
    /// A command line that asks for what cannot be; `advice` says so, and what to do.
    pub(crate) fn usage(advice: impl fmt::Display) -> Self {
        Self::Usage(advice.to_string())
    }

    /// Work that could not be done; `advice` says which, and what to do.
    pub(crate) fn run(advice: impl fmt::Display) -> Self {
        Self::Run(advice.to_string())
    }

    /// Says which of several exports it is about.
    pub(crate) fn of_export(self, name: Option<&str>) -> Self {
        let of = |advice| match name {
            Some(name) => format!("export {name:?}: {advice}"),
            None => advice,
        };
        match self {
            Self::Usage(advice) => Self::Usage(of(advice)),
            Self::Run(advice) => Self::Run(of(advice)),
            other => other,
        }
    }

    /// Tells the operator, and says with which code to end.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // Nothing is left to tell somebody who does not read standard output or error.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
            }
            Self::Usage(advice) => {
                eprintln!("vfsd: {}", one_line(&advice));
                ExitCode::from(USAGE)
            }
            Self::Run(advice) => {
                eprintln!("vfsd: {}", one_line(&advice));
                ExitCode::FAILURE
            }
            Self::Stopped => ExitCode::SUCCESS,
        }
    }
}

const USAGE: u8 = 2;

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// Joins the lines of a message: a log collector, and a person, see one event.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(
            one_line("TOML parse error\n  |\n1 | x\n"),
            "TOML parse error | 1 | x"
        );
    }
}
