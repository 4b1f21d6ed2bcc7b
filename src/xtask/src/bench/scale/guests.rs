//! Many guests, each with a daemon of its own.

use anyhow::{Context, Result};

use super::{DAEMONS, DEPTH, record};
use crate::bench::Plan;
use crate::bench::native::folder::Folder;
use crate::bench::native::operation::Operation;
use crate::bench::native::session::{Purpose, Sample, Session};
use crate::bench::progress::Progress;
use crate::bench::row::{Board, Level, Measure, Side};

pub(super) const NAMES: [&str; 2] = ["LOOKUP hit, all guests", "memory of a guest's daemon"];

/// How many guests there are at the same time.
const GUESTS: [usize; 3] = [1, 4, 16];

pub(super) const SAMPLES: u64 = (GUESTS.len() * DAEMONS.len()) as u64;

const OPERATION: Operation = Operation::LookupHit;

/// LOOKUP by all guests at the same time, all operations together, and the memory that a daemon has
/// afterwards.
pub(super) fn run(
    plan: &Plan,
    folder: &Folder,
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    for guests in GUESTS {
        let setting = match guests {
            1 => "1 guest".to_owned(),
            _ => format!("{guests} guests"),
        };
        for _ in 0..plan.pairs {
            for side in DAEMONS {
                progress.note(&format!("{}, {setting}, {}", NAMES[0], side.name()));
                let (sample, resident) = together(plan, folder, side, guests)
                    .with_context(|| format!("{}, {setting}, {}", NAMES[0], side.name()))?;
                sample.record(board, (Level::Scale, NAMES[0], &setting), side);
                record(board, (NAMES[1], &setting), Measure::Bytes, side, resident);
                progress.advance();
            }
        }
    }
    Ok(())
}

/// What `guests` guests do together, and the mean resident size of their daemons.
fn together(plan: &Plan, folder: &Folder, side: Side, guests: usize) -> Result<(Sample, f64)> {
    let program = plan.program(side).context("no program")?;
    let place = tempfile::tempdir().context("make a folder for sockets")?;
    let purpose = Purpose {
        operation: OPERATION,
        queues: 1,
        alone: false,
    };
    let mut sessions = (0..guests)
        .map(|guest| {
            let place = place.path().join(guest.to_string());
            Session::start(&program, folder, &place, purpose)
        })
        .collect::<Result<Vec<_>>>()?;
    let samples = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| {
                scope.spawn(move || {
                    let mut lanes = session.lanes(OPERATION, DEPTH)?;
                    session.sample(&mut lanes, plan.sample)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<Vec<Sample>>>()
    })?;
    let rate = samples.iter().map(|sample| sample.rate).sum::<f64>();
    // Each request of each guest counts the same.
    let cpu = samples
        .iter()
        .map(|sample| sample.cpu * sample.rate)
        .sum::<f64>()
        / rate;
    let mut resident = 0.0;
    for session in &sessions {
        resident += session.family().resident()? as f64;
    }
    for session in sessions {
        session.end()?;
    }
    Ok((Sample { rate, cpu }, resident / guests as f64))
}
