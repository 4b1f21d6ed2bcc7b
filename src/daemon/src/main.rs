//! The binary `vfsd`: command line, configuration, sandbox, logging. Wiring, no logic.

mod allocator;
mod cli;
mod closing;
mod config;
mod control;
mod exit;
mod figures;
mod inherited;
mod limits;
mod listener;
mod logging;
mod mount;
mod notify;
mod runtime;
mod sandbox;
mod serve;
mod settings;
mod signals;
mod source;
mod startup;
mod status;
mod storage;
mod together;
mod waiting;

use std::io::Write;
use std::process::ExitCode;

use rustix::fs::Mode;

use crate::cli::Task;
use crate::exit::Failure;

fn main() -> ExitCode {
    // What is kept on this host (caches, volumes, staged files) is this user's alone. Who makes files for a guest, or for
    // others, says which permissions they have.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let task = cli::parse(std::env::args_os().collect());
    let outcome = task.and_then(|task| match task {
        Task::Serve(settings) => serve::run(*settings),
        Task::Mount(settings) => mount::run(*settings),
        Task::Image(arguments) => print(&arguments.run()?),
        Task::Volume(arguments) => print(&arguments.run()?),
        Task::Print(text) => print(&text),
    });
    outcome.unwrap_or_else(Failure::report)
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| Failure::run(format!("cannot write to standard output: {error}")))
}
