//! Programs in a volume in a bucket, on this host: vfsd beside JuiceFS, on the same server.
//!
//! - [`sides`]: the volumes
//! - [`section`]: what becomes of the figures

mod section;
mod sides;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::figures::{Rows, Samples};
use super::row::{Level, Measure};
use super::section::Section;
use super::usage::Family;
use crate::artifact::Cache;
use crate::process::run_ok;
use crate::progress::Step;
use crate::stores::StorePrograms;
use sides::{SIDES, Side, Tools, Volume, juicefs};

/// What is done: the program `guest/bench/volumes.py`.
const PROGRAM: &str = concat!(
    include_str!("../../../guest/bench/cold.py"),
    include_str!("../../../guest/bench/volumes.py")
);
/// All of it in one volume.
const LIMIT: Duration = Duration::from_secs(600);

const ROWS: Rows = &[
    ("create", "create 1,000 files of 4 KiB", Measure::Seconds),
    ("look", "look at 1,000 files", Measure::Seconds),
    ("read", "read 1,000 files", Measure::Seconds),
    ("rename", "rename 1,000 files", Measure::Seconds),
    ("delete", "delete 1,000 files", Measure::Seconds),
    (
        "create-synced",
        "create 100 files of 4 KiB, each with fsync",
        Measure::Seconds,
    ),
    (
        "append-synced",
        "append 4 KiB 100 times, each with fsync",
        Measure::Seconds,
    ),
    ("write", "write 256 MiB, fsync", Measure::Seconds),
    ("sequential", "read 256 MiB", Measure::Seconds),
    ("random", "2,000 random reads of 4 KiB", Measure::Seconds),
    ("copy", "copy Python's library, sync", Measure::Seconds),
    ("walk", "look at Python's library", Measure::Seconds),
    (REQUESTS, "requests to the store", Measure::Count),
    (OBJECTS, "objects in the bucket", Measure::Count),
    (BYTES, "bytes in the bucket", Measure::Bytes),
    (MEMORY, "memory", Measure::Bytes),
    (
        "elsewhere-walk",
        "on another host: look at Python's library",
        Measure::Seconds,
    ),
    (
        "elsewhere-read",
        "on another host: read Python's library",
        Measure::Seconds,
    ),
    (
        "elsewhere-random",
        "on another host: 2,000 random reads of 4 KiB",
        Measure::Seconds,
    ),
    (
        "elsewhere-sequential",
        "on another host: read 256 MiB",
        Measure::Seconds,
    ),
    (
        ELSEWHERE_REQUESTS,
        "on another host: requests to the store",
        Measure::Count,
    ),
];
const REQUESTS: &str = "requests";
const ELSEWHERE_REQUESTS: &str = "elsewhere-requests";
const OBJECTS: &str = "objects";
const BYTES: &str = "bytes";
const MEMORY: &str = "memory";

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    ROWS.iter().map(|(_, name, _)| (*name).to_owned()).collect()
}

/// Works in a volume of each side in turn, prints the table, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// A volume cannot be made or used.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let cache = Cache::open(plan.workspace.guest_cache())?;
    let tools = Tools {
        vfsd: plan.vfsd.clone(),
        juicefs: juicefs(&cache)?,
        stores: StorePrograms::fetch(&cache)?,
    };
    let mut taken: [Samples; SIDES.len()] = Default::default();
    for pair in 0..plan.pairs {
        for (side, samples) in SIDES.into_iter().zip(&mut taken) {
            let step = Step::begin(format!("{} of {}: {}", pair + 1, plan.pairs, side.name()));
            let folder = plan.folder.join("volume");
            sample(side, &tools, folder.clone(), samples)
                .with_context(|| format!("a volume of {}", side.name()))?;
            fs::remove_dir_all(folder).context("remove a volume's folder")?;
            step.done();
        }
    }
    let text = section::text(&taken);
    println!("{text}");
    Section(Level::Volumes).write(&plan.workspace, &text)
}

fn sample(side: Side, tools: &Tools, folder: PathBuf, samples: &mut Samples) -> Result<()> {
    let volume = Volume::make(side, tools, folder)?;
    let before = volume.requests()?;
    let mounted = volume.mount("host")?;
    work("work", &volume, samples)?;
    let memory = Family::of(mounted.pid())?.resident()?;
    volume.unmount(mounted)?;
    samples.add(REQUESTS, volume.requests()?.saturating_sub(before) as f64);
    let (objects, bytes) = volume.stored()?;
    for (key, figure) in [(OBJECTS, objects), (BYTES, bytes), (MEMORY, memory)] {
        samples.add(key, figure as f64);
    }
    let before = volume.requests()?;
    let mounted = volume.mount("another-host")?;
    work("elsewhere", &volume, samples)?;
    volume.unmount(mounted)?;
    let requests = volume.requests()?.saturating_sub(before);
    samples.add(ELSEWHERE_REQUESTS, requests as f64);
    Ok(())
}

/// Runs a part of the program, and takes its figures.
fn work(part: &str, volume: &Volume<'_>, samples: &mut Samples) -> Result<()> {
    let program = volume.folder().join("volumes.py");
    fs::write(&program, PROGRAM).context("write the program")?;
    let mut command = Command::new("/usr/bin/python3");
    command.arg(program).arg(part).arg(volume.point());
    samples.take(&run_ok(&command, LIMIT, &mut |_| {})?, ROWS)
}
