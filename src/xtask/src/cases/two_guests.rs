//! Two guests at the same time, each with a writable layer of its own over one lower tree.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layers::Layer;
use crate::artifact::Cache;
use crate::daemon::{Options, Program};
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::guest::run::{self, Observer, Outcome, Plan, Report};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, KernelFiles, Machine};
use crate::packages;
use crate::process::tail;
use crate::progress::Step;
use crate::verdict::Verdict;

/// What holds when it passes, as a sentence.
pub(crate) const NAME: &str = "uml, two guests: each changes one lower tree in a layer of its own, and the tree stays as it is";

const GUESTS: usize = 2;
const LIB: &str = include_str!("../../guest/lib.sh");
const SCRIPT: &str = include_str!("../../guest/cases/two_guests.sh");
/// How long a guest's script may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a guest waits for the other, which may not have booted yet.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the test.
///
/// # Errors
/// What it needs cannot be made.
pub(crate) fn run_case(program: &Program, cache: &Cache) -> Result<(Verdict, Duration)> {
    if !packages::is_root() {
        let why = "a guest's root file system needs root on the host";
        return Ok((Verdict::Skipped(why.into()), Duration::ZERO));
    }
    let step = Step::begin(NAME);
    let kernel = Kernel::Uml.fetch(cache)?;
    let tree = Tree::copy_of(&pristine(cache, Contents::Tests)?, cache)?;
    let first = Layer::over(&tree.root(), cache)?;
    let second = first.beside(cache)?;
    let started = Instant::now();
    let meeting = Meeting::default();
    let reports: Vec<Result<Report>> = std::thread::scope(|scope| {
        let guests = [(1, &first), (2, &second)].map(|(number, layer)| {
            let (kernel, meeting) = (&kernel, &meeting);
            scope.spawn(move || boot(number, layer, kernel, program, meeting))
        });
        guests
            .into_iter()
            .map(|guest| match guest.join() {
                Ok(report) => report,
                Err(_) => bail!("a guest's thread panicked"),
            })
            .collect()
    });
    step.done();
    let mut wrong = Vec::new();
    for (number, report) in (1..).zip(reports) {
        let report = report.with_context(|| format!("guest {number}"))?;
        let outcome = report.outcomes.first().cloned().unwrap_or_default();
        if outcome.status != Some(0) {
            let said = tail(&outcome.output, 20);
            wrong.push(format!("guest {number}: {:?}\n{said}", outcome.status));
        }
        if !report.troubles.is_empty() {
            let troubles = report.troubles.join("\n");
            wrong.push(format!("guest {number}: {troubles}\n{}", report.daemon_log));
        }
    }
    if let Err(error) = first.verify_lower() {
        wrong.push(format!("{error:#}"));
    }
    let verdict = match wrong.is_empty() {
        true => Verdict::Passed(String::new()),
        false => Verdict::Failed(wrong.join("\n")),
    };
    Ok((verdict, started.elapsed()))
}

/// Boots one of the guests.
fn boot(
    number: usize,
    layer: &Layer,
    kernel: &KernelFiles,
    program: &Program,
    meeting: &Meeting,
) -> Result<Report> {
    let script = Script {
        text: format!("GUEST={number}\n{LIB}\n{SCRIPT}"),
        limit: LIMIT,
    };
    let session = Session::of(vec![script]);
    let root = layer.root();
    let plan = Plan {
        machine: Machine::of(Kernel::Uml),
        kernel,
        program,
        options: Options {
            posix_acl: true,
            writeback: false,
            open_files: None,
            drop_in: false,
            further: &[],
        },
        root: &root,
        data: None,
        disk: None,
        session: &session,
    };
    run::run(&plan, &mut Attendant { meeting, met: 0 })
}

/// Where the guests wait for one another.
#[derive(Debug, Default)]
struct Meeting {
    arrived: Mutex<usize>,
    more: Condvar,
}

impl Meeting {
    /// Waits until all have come so many times.
    fn meet(&self, times: usize) -> Result<()> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        *arrived += 1;
        self.more.notify_all();
        let missing = |arrived: &mut usize| *arrived < GUESTS * times;
        let waited = self.more.wait_timeout_while(arrived, PATIENCE, missing);
        let (_arrived, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            true => bail!("the other guest did not come"),
            false => Ok(()),
        }
    }
}

/// Plays the host's part for one guest.
struct Attendant<'m> {
    meeting: &'m Meeting,
    met: usize,
}

impl Observer for Attendant<'_> {
    fn started(&mut self, _index: usize) {}

    fn printed(&mut self, _index: usize, _line: &str) {}

    fn ended(&mut self, _index: usize, _outcome: &Outcome) {}

    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        match words {
            ["meet"] => {
                self.met += 1;
                self.meeting.meet(self.met)
            }
            _ => bail!("unknown request"),
        }
    }
}
