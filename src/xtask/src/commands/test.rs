//! `cargo xtask test`: every test there is, in order, on this machine.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::DaemonArguments;
use crate::artifact::Cache;
use crate::cases::boots::{BOOTS, Boot, Case};
use crate::cases::guest::{full_name, run_boot};
use crate::cases::{host_mount, libvirt, native_front_end, registry, run_image, two_guests};
use crate::checks::{CARGO_TEST, CHECKS, cargo_test};
use crate::daemon::Program;
use crate::emulators;
use crate::packages::{self, FUSE3, S3FS, SKOPEO, UMOCI};
use crate::stores::{self, StorePrograms};
use crate::verdict::{Tally, Verdict};
use crate::workspace::Workspace;

/// A test that has a scene of its own: what holds when it passes, and what runs it.
type Alone = (
    &'static str,
    fn(&Program, &Workspace, &Cache) -> Result<(Verdict, Duration)>,
);

/// Those, in their order.
const ALONE: [Alone; 4] = [
    (run_image::NAME, run_image::run_case),
    (libvirt::NAME, libvirt::run_case),
    (two_guests::NAME, |program, _, cache| {
        two_guests::run_case(program, cache)
    }),
    (registry::NAME, |program, _, cache| {
        registry::run_case(program, cache)
    }),
];

/// Arguments of the task.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run only the tests whose name contains this; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Print the names of the tests and run none
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|part| name.contains(&part.to_lowercase()))
    }
}

/// Runs the tests; the last line printed counts them.
///
/// # Errors
/// The workspace is not found or the cache cannot be made. Failing tests are
/// in the exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        return match list(arguments, &mut std::io::stdout().lock()) {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let started = Instant::now();
    let workspace = Workspace::find()?;
    let mut results = Results::default();
    source_checks(arguments, &workspace, &mut results);
    with_a_front_end(arguments, &workspace, &mut results)?;
    Ok(results.close(started.elapsed()))
}

fn list(arguments: &Arguments, to: &mut impl Write) -> io::Result<()> {
    let checks = CHECKS
        .iter()
        .map(|check| check.name.to_owned())
        .chain([CARGO_TEST.to_owned()]);
    let guests = BOOTS.iter().flat_map(|boot| {
        let names = boot
            .cases
            .iter()
            .map(|case| case.name)
            .chain([Boot::AS_A_WHOLE]);
        names.map(|name| full_name(boot, name)).collect::<Vec<_>>()
    });
    let mounts = host_mount::CASES.iter().map(|case| case.name.to_owned());
    for name in checks
        .chain([native_front_end::NAME.to_owned()])
        .chain(ALONE.map(|(name, _)| name.to_owned()))
        .chain(guests)
        .chain(mounts)
        .filter(|name| arguments.wants(name))
    {
        writeln!(to, "{name}")?;
    }
    Ok(())
}

fn source_checks(arguments: &Arguments, workspace: &Workspace, results: &mut Results) {
    for check in CHECKS.iter().filter(|check| arguments.wants(check.name)) {
        let started = Instant::now();
        let verdict = check.run(workspace).unwrap_or_else(failed);
        results.tell(check.name, &verdict, started.elapsed());
    }
    if !arguments.wants(CARGO_TEST) {
        return;
    }
    let started = Instant::now();
    match cargo_test(workspace, programs_of_others(workspace)) {
        Ok(tests) => {
            results.tally += tests.tally;
            println!(
                "     {CARGO_TEST}: {} ({})",
                tests.tally,
                seconds(started.elapsed())
            );
            for name in tests.failed {
                println!("FAIL {name}");
                results.failed.push(name);
            }
            println!("{}", indented(&tests.detail));
            results.skipped.extend(tests.skipped);
        }
        Err(error) => results.tell(CARGO_TEST, &failed(error), started.elapsed()),
    }
}

/// Installs what cargo's tests compare with, and says where it is. What cannot be installed is
/// missing in the tests that need it, which say so.
fn programs_of_others(workspace: &Workspace) -> Vec<(String, String)> {
    let install = || -> Result<Vec<(String, String)>> {
        packages::install(&[UMOCI, SKOPEO])?;
        if let Err(error) = packages::install(&[S3FS, FUSE3]) {
            println!("     cargo's tests do without mounts of other clients: {error:#}");
        }
        let cache = Cache::open(workspace.guest_cache())?;
        let mut environment = StorePrograms::fetch(&cache)?.environment();
        environment.push(stores::path_with_registry(&cache)?);
        match emulators::fetch(&cache) {
            Ok(programs) => environment.extend(programs),
            Err(error) => println!("     cargo's tests do without Azure and Google: {error:#}"),
        }
        Ok(environment)
    };
    install().unwrap_or_else(|error| {
        println!("     cargo's tests do without other programs: {error:#}");
        Vec::new()
    })
}

fn with_a_front_end(
    arguments: &Arguments,
    workspace: &Workspace,
    results: &mut Results,
) -> Result<()> {
    let boots: Vec<(&Boot, Vec<&'static Case>)> = BOOTS
        .iter()
        .map(|boot| (boot, wanted_cases(arguments, boot)))
        .filter(|(boot, cases)| {
            !cases.is_empty() || arguments.wants(&full_name(boot, Boot::AS_A_WHOLE))
        })
        .collect();
    let mounts: Vec<&host_mount::Case> = host_mount::CASES
        .iter()
        .filter(|case| arguments.wants(case.name))
        .collect();
    let front_end = arguments.wants(native_front_end::NAME);
    let alone: Vec<Alone> = ALONE
        .into_iter()
        .filter(|(name, _)| arguments.wants(name))
        .collect();
    if boots.is_empty() && mounts.is_empty() && alone.is_empty() && !front_end {
        return Ok(());
    }
    let cache = Cache::open(workspace.guest_cache())?;
    let program = match arguments.daemon.program(workspace) {
        Ok(program) => program,
        Err(error) => {
            results.tell("vfsd builds", &failed(error), Duration::ZERO);
            return Ok(());
        }
    };
    if front_end {
        native_front_end_case(&program, results);
    }
    for (name, run_case) in alone {
        let (verdict, elapsed) = run_case(&program, workspace, &cache)
            .unwrap_or_else(|error| (failed(error), Duration::ZERO));
        results.tell(name, &verdict, elapsed);
    }
    for (boot, cases) in boots {
        guest_cases(boot, &cases, &program, &cache, results);
    }
    for case in mounts {
        let (verdict, elapsed) = host_mount::run_case(case, &program, &cache)
            .unwrap_or_else(|error| (failed(error), Duration::ZERO));
        results.tell(case.name, &verdict, elapsed);
    }
    Ok(())
}

fn native_front_end_case(program: &Program, results: &mut Results) {
    if !packages::is_root() {
        let verdict = Verdict::Skipped("the daemon confines itself as root does".into());
        results.tell(native_front_end::NAME, &verdict, Duration::ZERO);
        return;
    }
    let (verdict, elapsed) =
        native_front_end::run_case(program).unwrap_or_else(|error| (failed(error), Duration::ZERO));
    results.tell(native_front_end::NAME, &verdict, elapsed);
}

fn wanted_cases(arguments: &Arguments, boot: &Boot) -> Vec<&'static Case> {
    boot.cases
        .iter()
        .filter(|case| arguments.wants(&full_name(boot, case.name)))
        .collect()
}

fn guest_cases(
    boot: &Boot,
    cases: &[&'static Case],
    program: &Program,
    cache: &Cache,
    results: &mut Results,
) {
    if !packages::is_root() {
        let verdict = Verdict::Skipped("a guest's root file system needs root on the host".into());
        for case in cases {
            results.tell(&full_name(boot, case.name), &verdict, Duration::ZERO);
        }
        return;
    }
    let mut told = |name: &str, verdict: &Verdict, elapsed| results.tell(name, verdict, elapsed);
    if let Err(error) = run_boot(boot, cases, program, cache, &mut told) {
        results.tell(
            &full_name(boot, Boot::AS_A_WHOLE),
            &failed(error),
            Duration::ZERO,
        );
    }
}

fn failed(error: anyhow::Error) -> Verdict {
    Verdict::Failed(format!("{error:#}"))
}

/// Results so far.
#[derive(Debug, Default)]
struct Results {
    tally: Tally,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Results {
    fn tell(&mut self, name: &str, verdict: &Verdict, elapsed: Duration) {
        self.tally.count(verdict);
        let time = seconds(elapsed);
        match verdict {
            Verdict::Passed(remark) => {
                println!("ok   {name} ({time})");
                if !remark.is_empty() {
                    println!("{}", indented(remark));
                }
            }
            Verdict::Failed(reason) => {
                println!("FAIL {name} ({time})\n{}", indented(reason));
                self.failed.push(name.to_owned());
            }
            Verdict::Skipped(reason) => {
                println!("skip {name}: {reason}");
                self.skipped.push(format!("{name}: {reason}"));
            }
        }
    }

    fn close(self, elapsed: Duration) -> ExitCode {
        println!("\nAll of it took {}.", seconds(elapsed));
        for name in &self.failed {
            println!("failed: {name}");
        }
        for name in &self.skipped {
            println!("skipped: {name}");
        }
        println!("{}", self.tally);
        if self.tally.failed > 0 || self.tally.passed == 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("     {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
