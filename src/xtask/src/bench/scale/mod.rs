//! What many guests, many files and no work cost.
//!
//! - [`guests`]: one daemon for each guest, all of them busy
//! - [`million`]: a folder with a million files, and a million nodes that the guest knows
//! - [`idle`]: a daemon with nothing to do

mod guests;
mod idle;
mod million;

use anyhow::{Context, Result};

use super::Plan;
use super::native::folder::Folder;
use super::progress::Progress;
use super::row::{Board, Level, Measure, Side};

/// The daemons, in the order they take turns.
const DAEMONS: [Side; 2] = [Side::Vfsd, Side::Virtiofsd];

/// Requests in flight, where nothing else is said.
const DEPTH: usize = 8;

/// The parts of this level: names of rows, what measures them, and how many samples that takes for
/// one pair.
type Part = (&'static [&'static str], Measurement, u64);

/// Measures one part, whole.
type Measurement = fn(&Plan, &Folder, &mut Board, &mut Progress) -> Result<()>;

const PARTS: [Part; 3] = [
    (&idle::NAMES, idle::run, idle::SAMPLES),
    (&guests::NAMES, guests::run, guests::SAMPLES),
    (&million::NAMES, million::run, million::SAMPLES),
];

/// The names of the rows.
pub(crate) fn names() -> Vec<String> {
    let names = PARTS.iter().flat_map(|(names, ..)| names.iter());
    names.map(|name| (*name).to_owned()).collect()
}

/// Measures what `plan` wants. Rows that come from one run of a daemon come together.
///
/// # Errors
/// A daemon does not start or answers wrongly; which, and at what.
pub(crate) fn run(plan: &Plan, board: &mut Board) -> Result<()> {
    let wanted: Vec<&Part> = PARTS
        .iter()
        .filter(|(names, ..)| names.iter().any(|name| plan.wants(name)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let folder = Folder::fill(plan.folder.join("scale"))?;
    let each: u64 = wanted.iter().map(|(.., samples)| samples).sum();
    let mut progress = Progress::begin("cost at scale", each * plan.pairs as u64);
    for (names, measure, _) in wanted {
        measure(plan, &folder, board, &mut progress)
            .with_context(|| names.first().copied().unwrap_or_default())?;
    }
    Ok(())
}

/// Adds a figure that is neither a rate nor processor time of a request.
fn record(
    board: &mut Board,
    (name, setting): (&str, &str),
    measure: Measure,
    side: Side,
    figure: f64,
) {
    board
        .row(Level::Scale, name, setting, measure)
        .push(side, figure);
}
