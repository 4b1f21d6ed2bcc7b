//! The daemon behind the benchmark's front end: every operation, for a moment, as the benchmark
//! makes it and with every answer judged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::native::folder::Folder;
use crate::bench::native::operation::Operation;
use crate::bench::native::session::{Purpose, Session};
use crate::daemon::Program;
use crate::progress::Step;
use crate::verdict::Verdict;

/// What holds when it passes, as a sentence.
pub(crate) const NAME: &str = "native front end: every operation of the benchmark is answered";

const DEPTH: usize = 4;
const QUEUES: u16 = 2;

/// Long enough for some operations, and no measurement.
const MOMENT: Duration = Duration::from_millis(10);

/// Runs the test.
///
/// # Errors
/// What it needs cannot be made.
pub(crate) fn run_case(program: &Program) -> Result<(Verdict, Duration)> {
    let mut step = Step::begin(NAME);
    let served = tempfile::tempdir().context("make a folder to serve")?;
    let folder = Folder::fill(served.path().join("root"))?;
    let started = Instant::now();
    let mut wrong = Vec::new();
    for operation in Operation::all() {
        step.note(&operation.name());
        if let Err(error) = once(program, &folder, operation) {
            wrong.push(format!("{}: {error:#}", operation.name()));
        }
    }
    let verdict = if wrong.is_empty() {
        Verdict::Passed(String::new())
    } else {
        Verdict::Failed(wrong.join("\n"))
    };
    Ok((verdict, started.elapsed()))
}

fn once(program: &Program, folder: &Folder, operation: Operation) -> Result<()> {
    let place = tempfile::tempdir().context("make a folder for the socket")?;
    let purpose = Purpose {
        operation,
        queues: QUEUES,
        alone: true,
    };
    let mut session = Session::start(program, folder, place.path(), purpose)?;
    let mut lanes = session.lanes(operation, DEPTH)?;
    session.sample(&mut lanes, MOMENT)?;
    drop(lanes);
    session.end()
}
