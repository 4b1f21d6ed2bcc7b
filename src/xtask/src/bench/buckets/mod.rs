//! Programs in the objects of a bucket, on this host: vfsd beside rclone and s3fs, and beside a client without a file
//! system, on the same kind of server.
//!
//! - [`sides`]: the mounts
//! - [`section`]: what becomes of the figures

mod section;
mod sides;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::figures::{Rows, Samples};
use super::row::{Level, Measure};
use super::section::Section;
use super::usage::Family;
use crate::artifact::Cache;
use crate::packages::{self, CURL, FUSE3, S3FS};
use crate::process::run_ok;
use crate::progress::Step;
use crate::stores::StorePrograms;
use sides::{Bucket, Mode, SIDES, Side, Tools};

/// What is done: the program `guest/bench/buckets.py`.
const PROGRAM: &str = concat!(
    include_str!("../../../guest/bench/cold.py"),
    include_str!("../../../guest/bench/bare_bucket.py"),
    include_str!("../../../guest/bench/buckets.py")
);
/// How long one part of it may take with `objects` small objects: each of them is written, or looked at twice, and the
/// slowest of the sides asks for each once more.
fn limit(objects: u32) -> Duration {
    Duration::from_secs(600).saturating_add(Duration::from_millis(20).saturating_mul(objects))
}

const ROWS: Rows = &[
    ("walk", "look at all small objects", Measure::Seconds),
    ("walk-requests", "requests of that", Measure::Count),
    ("walk-again", "the same once more", Measure::Seconds),
    (
        "random-4",
        "1,000 random reads of 4 KiB in 256 MiB",
        Measure::Seconds,
    ),
    ("random-4-requests", "requests of that", Measure::Count),
    (
        "random-4-again",
        "the same reads once more",
        Measure::Seconds,
    ),
    (
        "random-128",
        "500 random reads of 128 KiB in 256 MiB",
        Measure::Seconds,
    ),
    ("random-128-requests", "requests of that", Measure::Count),
    (
        "random-128-again",
        "the same reads once more",
        Measure::Seconds,
    ),
    ("sequential", "read 1 GiB", Measure::Seconds),
    ("sequential-requests", "requests of that", Measure::Count),
    ("sequential-again", "the same once more", Measure::Seconds),
    ("memory", "memory after that", Measure::Bytes),
    ("write", "write 1 GiB, fsync, close", Measure::Seconds),
    ("write-there", "until the bucket has it", Measure::Seconds),
    ("write-requests", "requests of that", Measure::Count),
    ("small", "write 1,000 files of 4 KiB", Measure::Seconds),
    ("small-there", "until the bucket has them", Measure::Seconds),
    ("small-requests", "requests of that", Measure::Count),
    ("memory-written", "memory after that", Measure::Bytes),
];

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    ROWS.iter().map(|(_, name, _)| (*name).to_owned()).collect()
}

/// Works in a bucket with each side in turn, prints the table, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// A bucket cannot be filled, mounted or used.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let cache = Cache::open(plan.workspace.guest_cache())?;
    packages::install(&[S3FS, FUSE3, CURL])?;
    let tools = Tools {
        vfsd: plan.vfsd.clone(),
        stores: StorePrograms::fetch(&cache)?,
        source: plan.folder.join("objects"),
        limit: limit(plan.objects),
        objects: plan.objects,
    };
    let step = Step::begin(format!(
        "make {} small objects and large ones",
        plan.objects
    ));
    let script = plan.folder.join("buckets.py");
    let make = program("make", &tools, &script, &tools.source)?;
    run_ok(&make, tools.limit, &mut |_| {}).context("make objects")?;
    step.done();
    let mut taken: [Samples; SIDES.len()] = Default::default();
    for pair in 0..plan.pairs {
        for (side, samples) in SIDES.into_iter().zip(&mut taken) {
            let step = Step::begin(format!("{} of {}: {}", pair + 1, plan.pairs, side.name()));
            let folder = plan.folder.join("bucket");
            sample(side, &tools, folder.clone(), samples)
                .with_context(|| format!("a bucket with {}", side.name()))?;
            fs::remove_dir_all(folder).context("remove a bucket's folder")?;
            step.done();
        }
    }
    fs::remove_dir_all(&tools.source).context("remove the objects")?;
    let text = section::text(&taken, plan.objects);
    println!("{text}");
    Section(Level::Buckets).write(&plan.workspace, &text)
}

fn sample(side: Side, tools: &Tools, folder: PathBuf, samples: &mut Samples) -> Result<()> {
    let bucket = Bucket::fill(side, tools, folder)?;
    let work = |part, place: &Path| {
        let mut work = program(part, tools, &bucket.folder().join("buckets.py"), place)?;
        work.envs(bucket.environment());
        run_ok(&work, tools.limit, &mut |_| {})
    };
    if side == Side::Bare {
        let printed = work("bare", &bucket.folder().join("bare"))?;
        return samples.take(&printed, ROWS);
    }
    for (mode, part, memory) in [
        (Mode::Read, "read", "memory"),
        (Mode::Write, "write", "memory-written"),
    ] {
        let mounted = bucket.mount(mode)?;
        samples.take(&work(part, bucket.point())?, ROWS)?;
        let resident = Family::of(mounted.pid())?.resident()?;
        samples.add(memory, resident as f64);
        bucket.unmount(mounted)?;
    }
    Ok(())
}

/// The program, for one of its parts, which is done in `place`. It lies at `script`.
fn program(part: &str, tools: &Tools, script: &Path, place: &Path) -> Result<Command> {
    fs::write(script, PROGRAM).context("write the program")?;
    let mut command = Command::new(tools.stores.program("python3"));
    command.arg(script).arg(part).arg(place);
    command.arg(tools.objects.to_string());
    Ok(command)
}
