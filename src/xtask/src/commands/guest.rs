//! `cargo xtask guest`: a guest to look around in.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::DaemonArguments;
use crate::artifact::Cache;
use crate::daemon::{Options, Storage};
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::guest::run::{self, Observer, Outcome, Plan};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, Machine, kernel_log};
use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which guest
    #[arg(long, value_enum, default_value = "uml")]
    kernel: Kernel,
    /// Request queues of the device (QEMU only)
    #[arg(long)]
    queues: Option<u16>,
    /// Let the guest cache writes
    #[arg(long)]
    writeback: bool,
    /// Stop the command after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    limit: u64,
    #[command(flatten)]
    daemon: DaemonArguments,
    /// What to run in the guest; a shell when nothing is given
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs the task; the exit code is the command's.
///
/// # Errors
/// The guest cannot be made or started.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let cache = Cache::open(workspace.guest_cache())?;
    let program = arguments.daemon.program(&workspace)?;
    let kernel = arguments.kernel.fetch(&cache)?;
    let tree = Tree::copy_of(&pristine(&cache, Contents::Tests)?, &cache)?;
    let session = if arguments.command.is_empty() {
        Session::interactive()
    } else {
        Session::of(vec![Script {
            text: arguments.command.join(" "),
            limit: Duration::from_secs(arguments.limit),
        }])
    };
    let root = tree.root();
    let usual = Machine::of(arguments.kernel);
    let plan = Plan {
        machine: usual.with_queues(arguments.queues.unwrap_or(usual.queues)),
        kernel: &kernel,
        program: &program,
        options: Options {
            posix_acl: true,
            writeback: arguments.writeback,
            ..Options::default()
        },
        root: &Storage::folder(&root),
        data: None,
        disk: None,
        session: &session,
    };
    if arguments.command.is_empty() {
        println!("The guest's root is {}. Leave with exit.", root.display());
        run::interactive(&plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = run::run(&plan, &mut Printer)?;
    for line in kernel_log::complaints(&report.kernel_log) {
        eprintln!("guest kernel: {line}");
    }
    for trouble in &report.troubles {
        eprintln!("trouble: {trouble}\n{}", report.daemon_log);
    }
    if let Some(time) = report.boot_time {
        eprintln!("booted in {:.1} s", time.as_secs_f64());
    }
    let status = report
        .outcomes
        .first()
        .and_then(|outcome| outcome.status)
        .unwrap_or(1);
    Ok(match u8::try_from(status) {
        Ok(0) if !report.troubles.is_empty() => ExitCode::FAILURE,
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    })
}

/// Prints what the command prints.
struct Printer;

impl Observer for Printer {
    fn started(&mut self, _index: usize) {}
    fn printed(&mut self, _index: usize, line: &str) {
        println!("{line}");
    }
    fn ended(&mut self, _index: usize, _outcome: &Outcome) {}
    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        anyhow::bail!("this host does nothing when asked: {}", words.join(" "))
    }
}
