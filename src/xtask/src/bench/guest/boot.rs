//! One boot: a daemon, a guest, every wanted workload in sequence.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::workloads::{Workload, clock};
use crate::bench::progress::Progress;
use crate::daemon::{Options, Program, Storage};
use crate::guest::run::{self, Observer, Outcome, Plan, Report};
use crate::guest::session::Session;
use crate::guest::{Kernel, KernelFiles, Machine, kernel_log};
use crate::process::tail;

const TIMED: &str = include_str!("../../../guest/bench/timed.py");

/// The daemon's options: both daemons get the same command line.
pub(crate) const OPTIONS: Options = Options {
    posix_acl: false,
    writeback: false,
    open_files: None,
    drop_in: true,
    // virtiofsd knows no locks but the guest's own, so that is what both have.
    further: &["--cache", "auto", "-o", "no_posix_lock,no_flock"],
};

/// The machine.
pub(crate) const MACHINE: Machine = Machine::of(Kernel::Uml);

/// How far the guest's clock may be from the host's over one boot, as a share
/// of it. A guest whose time does not pass like the host's measures nothing.
const CLOCK_TOLERANCE: f64 = 0.01;

/// What the console adds to a clock's reading, at most.
const CONSOLE_DELAY: Duration = Duration::from_millis(200);

/// Figures by their keys.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Boots a guest whose root is `root`, served by `program`, and runs
/// `workloads`.
///
/// # Errors
/// The guest does not boot and end well, a script fails, a figure is missing,
/// or the guest's clock does not pass as the host's.
pub(crate) fn run(
    program: &Program,
    kernel: &KernelFiles,
    root: &Path,
    workloads: &[Workload],
    progress: &mut Progress,
) -> Result<Figures> {
    let scripts = workloads.iter().map(|workload| workload.script.clone());
    let scripts: Vec<_> = [clock()]
        .into_iter()
        .chain(scripts)
        .chain([clock()])
        .collect();
    let last = scripts.len() - 1;
    let session = Session::of(scripts).with_file("timed.py", TIMED);
    let plan = Plan {
        machine: MACHINE,
        kernel,
        program,
        options: OPTIONS,
        root: &Storage::folder(root),
        data: None,
        disk: None,
        session: &session,
    };
    let mut reader = Reader {
        workloads,
        progress,
        clocks: Vec::new(),
        figures: Figures::new(),
        unreadable: Vec::new(),
    };
    let report = run::run(&plan, &mut reader)?;
    let Reader {
        clocks,
        figures,
        unreadable,
        ..
    } = reader;
    check(&report, program, workloads, last)?;
    ensure!(unreadable.is_empty(), "the guest printed {unreadable:?}");
    check_clocks(&clocks)?;
    for figure in workloads.iter().flat_map(|workload| &workload.figures) {
        ensure!(
            figures.contains_key(&figure.key),
            "the guest printed no figure for {}",
            figure.key
        );
    }
    Ok(figures)
}

fn check(report: &Report, program: &Program, workloads: &[Workload], last: usize) -> Result<()> {
    for (index, outcome) in report.outcomes.iter().enumerate() {
        if outcome.status != Some(0) {
            let name = index
                .checked_sub(1)
                .and_then(|index| workloads.get(index)?.figures.first())
                .map_or("the clock", |figure| &figure.name);
            let how = match outcome.status {
                Some(124) => "took too long".to_owned(),
                Some(status) => format!("failed with status {status}"),
                None => "did not end".to_owned(),
            };
            bail!(
                "{name} {how} in the guest\n{}\n{}\nThe daemon's log:\n{}",
                tail(&outcome.output, 30),
                report.troubles.join("\n"),
                report.daemon_log
            );
        }
    }
    let mut troubles = report.troubles.clone();
    // virtiofsd 1.14 sends replies that a new kernel complains about; its figures count all the same.
    if matches!(program, Program::Vfsd(_)) {
        troubles.extend(
            kernel_log::complaints(&report.kernel_log)
                .into_iter()
                .map(|line| format!("guest kernel: {line}")),
        );
    }
    if !troubles.is_empty() || report.outcomes.len() != last + 1 {
        bail!(
            "the guest ran {} of {} scripts\n{}\nThe daemon's log:\n{}",
            report.outcomes.len(),
            last + 1,
            troubles.join("\n"),
            report.daemon_log
        );
    }
    Ok(())
}

/// Compares how long the boot took by either clock.
fn check_clocks(clocks: &[(Instant, f64)]) -> Result<()> {
    let [(host_first, guest_first), (host_last, guest_last)] = clocks else {
        bail!("the guest told its clock {} times, not twice", clocks.len())
    };
    let by_host = host_last.duration_since(*host_first).as_secs_f64();
    let by_guest = guest_last - guest_first;
    ensure!(
        (by_host - by_guest).abs() <= by_host * CLOCK_TOLERANCE + CONSOLE_DELAY.as_secs_f64(),
        "{by_guest:.2} s passed in the guest and {by_host:.2} s on the host: its clock cannot be used"
    );
    Ok(())
}

/// Takes the figures from what the guest prints.
struct Reader<'a> {
    workloads: &'a [Workload],
    progress: &'a mut Progress,
    clocks: Vec<(Instant, f64)>,
    figures: Figures,
    /// Lines that begin like a figure and are none.
    unreadable: Vec<String>,
}

impl Observer for Reader<'_> {
    fn started(&mut self, index: usize) {
        let workload = index
            .checked_sub(1)
            .and_then(|index| self.workloads.get(index));
        if let Some(figure) = workload.and_then(|workload| workload.figures.first()) {
            self.progress
                .note(&format!("{}, {}", figure.name, figure.setting));
        }
    }

    fn printed(&mut self, _index: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = words.last().and_then(|word| word.parse::<f64>().ok());
        match (words.as_slice(), number) {
            (["clock", _], Some(seconds)) => self.clocks.push((Instant::now(), seconds)),
            (["figure", key, _], Some(value)) if value > 0.0 => {
                self.figures.insert((*key).to_owned(), value);
            }
            (["clock" | "figure", ..], _) => self.unreadable.push(line.to_owned()),
            _ => {}
        }
    }

    fn ended(&mut self, index: usize, _outcome: &Outcome) {
        // The clock's two scripts are nobody's sample.
        if (1..=self.workloads.len()).contains(&index) {
            self.progress.advance();
        }
    }

    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        bail!("this host does nothing when asked: {}", words.join(" "))
    }
}
