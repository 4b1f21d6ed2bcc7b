//! The native front end: requests as a Linux guest's driver lays them out, from a thread that has
//! nothing else to do.
//!
//! - [`operation`]: what is measured
//! - [`folder`]: what both daemons serve
//! - [`session`]: a daemon with a front end on it
//! - [`work`]: the requests
//! - [`driver`]: how the driver waits, and where
//! - [`processors`]: which processors both sides have
//! - [`bare`]: the same system calls without a daemon
//!
//! For each operation every daemon is started afresh and stays; the samples alternate. A daemon
//! that is not being measured has nothing to do.

pub(crate) mod bare;
pub(crate) mod driver;
pub(crate) mod folder;
pub(crate) mod operation;
pub(crate) mod processors;
pub(crate) mod session;
pub(crate) mod work;

use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::progress::Progress;
use super::row::{Board, Level, Side};
use driver::Driver;
use folder::Folder;
use operation::Operation;
pub(crate) use session::OPTIONS;
use session::{Lanes, Purpose, Sample, Session};
use work::Job;

/// Requests in flight on each queue.
const DEPTHS: [usize; 3] = [1, 8, 64];

/// Who is measured, over how many request queues. virtiofsd has one.
const SEATS: [(Side, u16); 4] = [
    (Side::Vfsd, 1),
    (Side::Virtiofsd, 1),
    (Side::Vfsd, 2),
    (Side::Vfsd, 4),
];

/// How long a daemon works before its first sample.
const WARM_UP: Duration = Duration::from_millis(50);

/// The names of the rows.
pub(crate) fn names() -> Vec<String> {
    Operation::all().into_iter().map(Operation::name).collect()
}

/// Measures what `plan` wants.
///
/// # Errors
/// A daemon does not start or answers wrongly; which, and at what.
pub(crate) fn run(plan: &Plan, board: &mut Board) -> Result<()> {
    let wanted: Vec<Operation> = Operation::all()
        .into_iter()
        .filter(|operation| plan.wants(&operation.name()))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let folder = Folder::fill(plan.folder.join("native"))?;
    let seats: usize = Driver::ALL
        .into_iter()
        .map(|driver| seats_of(driver).count())
        .sum();
    let samples = wanted.len() * DEPTHS.len() * plan.pairs * (seats + 1);
    let mut progress = Progress::begin("native front end", samples as u64);
    for operation in wanted {
        measure(plan, operation, &folder, board, &mut progress)
            .with_context(|| operation.name())?;
    }
    Ok(())
}

/// One daemon of an operation.
struct Seat {
    side: Side,
    queues: u16,
    session: Session,
}

impl Seat {
    fn who(&self, depth: usize, driver: Driver) -> String {
        let setting = setting(depth, self.queues, driver);
        format!("{}, {setting}", self.side.name())
    }
}

fn measure(
    plan: &Plan,
    operation: Operation,
    folder: &Folder,
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    let place = tempfile::tempdir().context("make a folder for sockets")?;
    let mut seats = Vec::new();
    for (index, (side, queues)) in SEATS.into_iter().enumerate() {
        let Some(program) = plan.program(side) else {
            continue;
        };
        let place = place.path().join(index.to_string());
        let purpose = Purpose {
            operation,
            queues,
            alone: true,
        };
        let session =
            Session::start(&program, folder, &place, purpose).with_context(|| side.name())?;
        seats.push(Seat {
            side,
            queues,
            session,
        });
    }
    for depth in DEPTHS {
        for driver in Driver::ALL {
            at_depth(
                plan,
                operation,
                (depth, driver),
                &mut seats,
                board,
                progress,
            )?;
        }
        for _ in 0..plan.pairs {
            let floor = bare::run(operation, depth, folder, plan.sample)?;
            // One thread is the floor of any number of queues, whatever the driver does.
            for driver in Driver::ALL {
                for (_, queues) in seats_of(driver).filter(|(side, _)| *side == Side::Vfsd) {
                    let setting = setting(depth, queues, driver);
                    record(board, operation, &setting, Side::Bare, floor);
                }
            }
            progress.advance();
        }
    }
    for seat in seats {
        let who = seat.side.name();
        seat.session.end().context(who)?;
    }
    Ok(())
}

/// All samples with one driver at one depth: in turn, one of each seat.
fn at_depth(
    plan: &Plan,
    operation: Operation,
    (depth, driver): (usize, Driver),
    seats: &mut [Seat],
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    let mut ready: Vec<(&mut Seat, Lanes<Job>)> = Vec::new();
    for seat in seats {
        if !seats_of(driver).any(|(side, queues)| (side, queues) == (seat.side, seat.queues))
            || !seat.session.take_driver(driver)?
        {
            continue;
        }
        progress.note(&format!(
            "{}, {}",
            operation.name(),
            seat.who(depth, driver)
        ));
        let mut lanes = seat.session.lanes(operation, depth)?;
        seat.session
            .sample(&mut lanes, WARM_UP)
            .with_context(|| seat.who(depth, driver))?;
        ready.push((seat, lanes));
    }
    for _ in 0..plan.pairs {
        for (seat, lanes) in &mut ready {
            let who = seat.who(depth, driver);
            progress.note(&format!("{}, {who}", operation.name()));
            let sample = seat.session.sample(lanes, plan.sample).context(who)?;
            let setting = setting(depth, seat.queues, driver);
            record(board, operation, &setting, seat.side, sample);
            progress.advance();
        }
    }
    Ok(())
}

/// Who is measured with such a driver. One that sleeps drives one queue.
fn seats_of(driver: Driver) -> impl Iterator<Item = (Side, u16)> {
    SEATS
        .into_iter()
        .filter(move |(_, queues)| driver == Driver::Looks || *queues == 1)
}

fn record(board: &mut Board, operation: Operation, setting: &str, side: Side, sample: Sample) {
    sample.record(board, (Level::Native, &operation.name(), setting), side);
}

fn setting(depth: usize, queues: u16, driver: Driver) -> String {
    let s = if queues == 1 { "" } else { "s" };
    format!("depth {depth}, {queues} queue{s}{}", driver.note())
}
