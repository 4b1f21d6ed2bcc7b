//! What a writable layer costs: metadata of a tree of 100,000 files beside the same tree in one directory, and the copy of a
//! large file that is written to.
//!
//! - [`tree`]: the files, whole and in two layers
//! - [`sides`]: who serves them
//! - [`requests`]: what the front end asks
//! - [`section`]: what becomes of the figures

mod requests;
mod section;
mod sides;
mod tree;

use std::time::Duration;

use anyhow::{Context, Result};
use vfsd_testkit::frontend::pump::{Form, Work};

use super::Plan;
use super::figures::Samples;
use super::native::operation::Operation;
use super::native::session::{Purpose, Sample, Session};
use super::progress::Progress;
use super::row::Level;
use super::section::Section;
use requests::{Change, Nodes, Once, Walk, locked};
use sides::{COPIES, Layers, SIDES, Side, Standing};
use tree::{BIG, DIRECTORIES, IN_EACH, directory, file};

/// Requests in flight.
const DEPTH: usize = 8;

/// Longer than anything here takes: the work ends by itself.
const TO_THE_END: Duration = Duration::from_secs(3600);

/// Metadata: processor time of the daemon for one, and wall time with [`DEPTH`] in flight.
const METADATA: [(&str, &str); 5] = [
    ("lookup", "LOOKUP, each file once"),
    ("known", "LOOKUP, each once more"),
    ("getattr", "GETATTR, each once"),
    ("walk", "READDIRPLUS entry, each directory once"),
    ("rewalk", "READDIRPLUS entry, each once more"),
];

const COPY: &str = "first write to a file of 1 GiB";

/// The names of the rows.
pub(crate) fn names() -> Vec<String> {
    let metadata = METADATA.iter().map(|(_, name)| *name);
    metadata.chain([COPY]).map(str::to_owned).collect()
}

/// Has each side do everything, prints the tables, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// A side cannot be had, or answers wrongly.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let standing = Standing::make(plan)?;
    let steps = plan.pairs * (SIDES.len() + COPIES.len() + 1);
    let mut progress = Progress::begin("layers", steps as u64);
    let mut metadata: [Samples; SIDES.len()] = Default::default();
    let mut copies: [Vec<f64>; COPIES.len() + 1] = Default::default();
    for _ in 0..plan.pairs {
        for (side, samples) in SIDES.into_iter().zip(&mut metadata) {
            progress.note(side.name());
            look(side, &standing, samples).with_context(|| side.name())?;
            progress.advance();
        }
        for (side, samples) in COPIES.into_iter().zip(&mut copies) {
            progress.note(&format!("{COPY}, {}", side.name()));
            samples.push(copy(side, &standing).with_context(|| side.name())?);
            progress.advance();
        }
        progress.note("cp");
        if let Some(samples) = copies.last_mut() {
            samples.push(standing.copied()?);
        }
        progress.advance();
    }
    drop(progress);
    let text = section::text(&metadata, &copies);
    println!("{text}");
    if !plan.only.is_empty() {
        return Ok(());
    }
    Section(Level::Layers).write(&plan.workspace, &text)
}

/// All metadata once, by one daemon that knows nothing yet and by another that lists.
fn look(side: Side, standing: &Standing, samples: &mut Samples) -> Result<()> {
    let offered = standing.tree(side)?;
    let mut session = begin(&offered, "lookups")?;
    let directories = directories(&mut session)?;
    let parents: Vec<u64> = directories
        .iter()
        .flat_map(|node| [*node; IN_EACH])
        .collect();
    let names = || (0..parents.len()).map(|index| file(index % IN_EACH));
    let (work, nodes) = Once::lookups(parents.clone(), names());
    record(&mut session, samples, "lookup", work)?;
    let (work, _) = Once::lookups(parents.clone(), names());
    record(&mut session, samples, "known", work)?;
    record(
        &mut session,
        samples,
        "getattr",
        Once::getattr(taken(&nodes)),
    )?;
    session.end()?;
    let mut session = begin(&offered, "listings")?;
    let directories = self::directories(&mut session)?;
    for key in ["walk", "rewalk"] {
        record(
            &mut session,
            samples,
            key,
            Walk::of(directories.clone(), DEPTH),
        )?;
    }
    session.end()
}

/// Seconds from the first request for the large file to the end of a small write to it.
fn copy(side: Side, standing: &Standing) -> Result<f64> {
    let offered = standing.untouched(side)?;
    let mut session = begin(&offered, "copy")?;
    let sample = run_once(&mut session, 1, Change::of(BIG))?;
    session.end()?;
    Ok(1.0 / sample.rate)
}

fn begin(offered: &Layers<'_>, name: &str) -> Result<Session> {
    let purpose = Purpose {
        operation: Operation::Getattr,
        queues: 1,
        alone: true,
    };
    Session::start_on(&offered.offered, &offered.place().join(name), purpose)
}

/// The nodes of the directories.
fn directories(session: &mut Session) -> Result<Vec<u64>> {
    let parents = vec![session.scene().many; DIRECTORIES];
    let (work, nodes) = Once::lookups(parents, (0..DIRECTORIES).map(directory));
    run_once(session, DEPTH, work)?;
    Ok(taken(&nodes))
}

fn taken(nodes: &Nodes) -> Vec<u64> {
    std::mem::take(&mut locked(nodes))
}

fn record<W: Work + Send>(
    session: &mut Session,
    samples: &mut Samples,
    key: &str,
    work: (Vec<Form>, W),
) -> Result<()> {
    let sample = run_once(session, DEPTH, work)?;
    samples.add(key, 1e6 / sample.rate);
    samples.add(&of_processor(key), sample.cpu);
    Ok(())
}

/// The key of the processor time beside a wall time.
fn of_processor(key: &str) -> String {
    format!("{key}-cpu")
}

/// Work that ends by itself.
fn run_once<W: Work + Send>(
    session: &mut Session,
    depth: usize,
    work: (Vec<Form>, W),
) -> Result<Sample> {
    let mut work = Some(work);
    let mut lanes = session.lanes_of(1, depth, |_| {
        let Some(work) = work.take() else {
            unreachable!("a session here has one queue");
        };
        work
    })?;
    session.sample(&mut lanes, TO_THE_END)
}
