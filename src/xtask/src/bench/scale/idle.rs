//! A daemon with nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{DAEMONS, record};
use crate::bench::Plan;
use crate::bench::native::folder::Folder;
use crate::bench::native::operation::Operation;
use crate::bench::native::session::{Purpose, Session};
use crate::bench::progress::Progress;
use crate::bench::row::{Board, Measure};

pub(super) const NAMES: [&str; 1] = ["idle daemon"];
pub(super) const SAMPLES: u64 = DAEMONS.len() as u64;

/// What a guest has done before, and how long it is quiet.
const SETTING: &str = "1 guest, 1,000 nodes";

/// How long a daemon may take to come to rest.
const SETTLE: Duration = Duration::from_secs(1);

/// How long wake-ups are counted.
const QUIET: Duration = Duration::from_secs(3);

/// Memory and wake-ups of a daemon whose guest looked up a thousand files and then does nothing.
pub(super) fn run(
    plan: &Plan,
    folder: &Folder,
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    let place = tempfile::tempdir().context("make a folder for sockets")?;
    for _ in 0..plan.pairs {
        for side in DAEMONS {
            let Some(program) = plan.program(side) else {
                continue;
            };
            progress.note(&format!("{}, {}", NAMES[0], side.name()));
            let purpose = Purpose {
                operation: Operation::LookupHit,
                queues: 1,
                alone: false,
            };
            let place = place.path().join(side.name());
            let session =
                Session::start(&program, folder, &place, purpose).with_context(|| side.name())?;
            std::thread::sleep(SETTLE);
            let family = session.family();
            let before = family.sleeps()?;
            let started = Instant::now();
            std::thread::sleep(QUIET);
            let sleeps = family.sleeps()?.saturating_sub(before);
            let rate = sleeps as f64 / started.elapsed().as_secs_f64();
            let row = (NAMES[0], SETTING);
            record(board, row, Measure::WakeUpsPerSecond, side, rate);
            let resident = family.resident()? as f64;
            record(board, row, Measure::Bytes, side, resident);
            session.end().with_context(|| side.name())?;
            progress.advance();
        }
    }
    Ok(())
}
