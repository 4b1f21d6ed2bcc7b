//! Project tasks, run as `cargo xtask TASK`.

mod artifact;
mod bench;
mod cases;
mod checks;
mod commands;
mod daemon;
mod emulators;
mod guest;
mod packages;
mod process;
mod progress;
mod python;
mod registry;
mod stores;
mod suite;
mod verdict;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the vfsd project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure vfsd beside virtiofsd and bare system calls
    Bench(commands::bench::Arguments),
    /// Show vfsd: build it, boot a real guest whose root it serves, stop
    Demo(commands::demo::Arguments),
    /// Boot a guest whose root is served by vfsd and run a command in it
    Guest(commands::guest::Arguments),
    /// Run every test on this machine, real guests included
    Test(commands::test::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.task {
        Task::Bench(arguments) => commands::bench::run(arguments),
        Task::Demo(arguments) => commands::demo::run(arguments),
        Task::Guest(arguments) => commands::guest::run(arguments),
        Task::Test(arguments) => commands::test::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
