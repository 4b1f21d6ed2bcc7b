//! What an operation costs that a plugin answers: beside the same storage compiled in, and beside a FUSE file system that virtiofsd
//! exports.
//!
//! - [`sides`]: who answers
//! - [`section`]: what becomes of the figures

mod section;
mod sides;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::native::driver::Driver;
use super::native::folder::Folder;
use super::native::operation::Operation;
use super::native::session::{Lanes, Purpose, Session};
use super::native::work::Job;
use super::progress::Progress;
use super::row::Level;
use super::section::Section;
use sides::{SIDES, Side, Standing};

/// What is measured.
const OPERATIONS: [Operation; 9] = [
    Operation::LookupHit,
    Operation::Getattr,
    Operation::CreateUnlink,
    Operation::Read(4 << 10),
    Operation::Read(128 << 10),
    Operation::Read(1 << 20),
    Operation::Write(4 << 10),
    Operation::Write(128 << 10),
    Operation::Write(1 << 20),
];

/// All that takes part has one processor: where one thread wakes another on a processor that is idle, most of the time is
/// that processor's, and how often that happens is for the scheduler to choose, of each side in another way.
const DRIVER: Driver = Driver::SleepsBeside;

/// How long a daemon works before its first sample.
const WARM_UP: Duration = Duration::from_millis(50);

/// Microseconds for an operation, one at a time: samples of each side.
type Samples = [Vec<f64>; SIDES.len()];

/// The names of the rows.
pub(crate) fn names() -> Vec<String> {
    OPERATIONS.into_iter().map(Operation::name).collect()
}

/// Has each side do each operation, prints the table, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// A side cannot be had, or answers wrongly.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let wanted: Vec<Operation> = OPERATIONS
        .into_iter()
        .filter(|operation| plan.wants(&operation.name()))
        .collect();
    let folder = Folder::fill(plan.folder.join("plugins"))?;
    let standing = Standing::make(plan, &folder)?;
    let steps = wanted.len() * SIDES.len() * plan.pairs;
    let mut progress = Progress::begin("plugins", steps as u64);
    let mut taken: Vec<(Operation, Samples)> = Vec::new();
    for operation in wanted {
        let samples =
            measure(plan, operation, &standing, &mut progress).with_context(|| operation.name())?;
        taken.push((operation, samples));
    }
    drop(progress);
    standing.end()?;
    let text = section::text(&taken);
    println!("{text}");
    if !plan.only.is_empty() {
        return Ok(());
    }
    Section(Level::Plugins).write(&plan.workspace, &text)
}

/// All samples of one operation: in turn, one of each side.
fn measure(
    plan: &Plan,
    operation: Operation,
    standing: &Standing,
    progress: &mut Progress,
) -> Result<Samples> {
    let place = tempfile::tempdir().context("make a folder for sockets")?;
    let mut ready: Vec<(Session, Lanes<Job>)> = Vec::new();
    for side in SIDES {
        let begun = begin(side, operation, standing, place.path());
        ready.push(begun.with_context(|| side.name())?);
    }
    let mut samples = Samples::default();
    for _ in 0..plan.pairs {
        for ((side, (session, lanes)), samples) in SIDES.iter().zip(&mut ready).zip(&mut samples) {
            progress.note(&format!("{}, {}", operation.name(), side.name()));
            let sample = session.sample(lanes, plan.sample);
            samples.push(1e6 / sample.with_context(|| side.name())?.rate);
            progress.advance();
        }
    }
    for (side, (session, _)) in SIDES.iter().zip(ready) {
        session.end().with_context(|| side.name())?;
    }
    Ok(samples)
}

/// A daemon of a side that has done the operation for a while.
fn begin(
    side: Side,
    operation: Operation,
    standing: &Standing,
    place: &Path,
) -> Result<(Session, Lanes<Job>)> {
    let purpose = Purpose {
        operation,
        queues: 1,
        alone: true,
    };
    let place = place.join(format!("{side:?}"));
    let mut session = Session::start_on(&standing.offered(side), &place, purpose)?;
    session.take_driver(DRIVER)?;
    let mut lanes = session.lanes(operation, 1)?;
    session.sample(&mut lanes, WARM_UP)?;
    Ok((session, lanes))
}
