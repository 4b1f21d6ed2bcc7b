//! `cargo xtask bench`: vfsd beside virtiofsd.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::bench::report::{self, Extent};
use crate::bench::row::{Board, Level};
use crate::bench::served::Served;
use crate::bench::{
    Plan, buckets, guest, images, layers, native, peer, plugins, requests, roots, scale, table,
    volumes,
};
use crate::daemon::{Profile, Program};
use crate::packages;
use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure only this level; may be repeated
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Vec<Level>,
    /// Measure only what has this in its name; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Print the names of what there is to measure
    #[arg(long)]
    list: bool,
    /// How often each figure is taken of each daemon
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// How long a sample lasts that is no fixed amount of work
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3, value_parser = seconds)]
    seconds: f64,
    /// How many small objects the buckets of the level `buckets` have
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    objects: u32,
    /// Folder in which what is served is made, to choose the file system; below target/ if not
    /// given
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Use this vfsd instead of building one
    #[arg(long, value_name = "PROGRAM")]
    vfsd: Option<PathBuf>,
    /// Use this virtiofsd instead of installing one
    #[arg(long, value_name = "PROGRAM")]
    virtiofsd: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.01 to 60".into()),
    }
}

impl Arguments {
    fn levels(&self) -> Vec<Level> {
        if self.level.is_empty() {
            return Level::ALL.to_vec();
        }
        self.level.clone()
    }
}

/// Levels whose figures are sections of their own.
const SECTIONS: [Level; 6] = [
    Level::Requests,
    Level::Volumes,
    Level::Images,
    Level::Buckets,
    Level::Plugins,
    Level::Layers,
];

/// Whether programs on mounts of this host do all the work, and virtiofsd none.
fn is_on_mounts(levels: &[Level]) -> bool {
    let on_mounts = |level| matches!(level, &Level::Volumes | &Level::Buckets);
    levels.iter().all(on_mounts)
}

/// Runs the measurements and prints their table.
///
/// # Errors
/// A daemon cannot be had, does not start, or answers wrongly.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for level in arguments.levels() {
            for name in names(level) {
                println!("{}: {name}", level.word());
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let only_counts = arguments.levels() == [Level::Requests];
    // Where another program does the work, this one may be slow.
    let waits = arguments.vfsd.is_some() && is_on_mounts(&arguments.levels());
    if cfg!(debug_assertions) && !only_counts && !waits {
        return optimized();
    }
    ensure!(
        packages::is_root(),
        "both daemons confine themselves as root does; run this as root"
    );
    let started = Instant::now();
    let workspace = Workspace::find()?;
    let vfsd = match &arguments.vfsd {
        Some(program) => std::path::absolute(program).context("make --vfsd absolute")?,
        None => match Program::build(&workspace, profile(only_counts))? {
            Program::Vfsd(program) => program,
            Program::Virtiofsd(_) => bail!("built another program"),
        },
    };
    let within = arguments
        .dir
        .clone()
        .unwrap_or_else(|| workspace.target().join("bench"));
    let served = Served::make(&within)?;
    let mut levels = arguments.levels();
    let virtiofsd = match &arguments.virtiofsd {
        Some(program) => std::path::absolute(program).context("make --virtiofsd absolute")?,
        // It takes minutes to build.
        None if is_on_mounts(&levels) => PathBuf::new(),
        None => peer::virtiofsd(&workspace)?,
    };
    let plan = Plan {
        workspace,
        vfsd,
        virtiofsd,
        pairs: arguments.pairs.into(),
        sample: Duration::from_secs_f64(arguments.seconds),
        folder: served.path().to_path_buf(),
        objects: arguments.objects,
        only: arguments.only.clone(),
    };
    let mut board = Board::default();
    // These write sections of their own.
    for level in SECTIONS {
        if levels.contains(&level) {
            measure(level, &plan, &mut board)?;
        }
        levels.retain(|other| *other != level);
    }
    if levels.is_empty() {
        served.remove()?;
        println!("All of it took {} s.", started.elapsed().as_secs());
        return Ok(ExitCode::SUCCESS);
    }
    for level in &levels {
        measure(*level, &plan, &mut board)?;
    }
    ensure!(
        !board.rows().is_empty(),
        "nothing has that name; see --list"
    );
    println!("{}", table::text(board.rows()));
    let is_whole = Level::ALL
        .iter()
        .filter(|level| !SECTIONS.contains(level))
        .all(|level| levels.contains(level));
    let extent = if is_whole && arguments.only.is_empty() {
        Extent::Whole
    } else {
        Extent::Part
    };
    report::write(&plan, extent, board.rows())?;
    served.remove()?;
    println!("All of it took {} s.", started.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

fn names(level: Level) -> Vec<String> {
    match level {
        Level::Native => native::names(),
        Level::Guest => guest::names(),
        Level::Roots => roots::names(),
        Level::Scale => scale::names(),
        Level::Requests => requests::names(),
        Level::Volumes => volumes::names(),
        Level::Buckets => buckets::names(),
        Level::Images => images::names(),
        Level::Plugins => plugins::names(),
        Level::Layers => layers::names(),
    }
}

fn measure(level: Level, plan: &Plan, board: &mut Board) -> Result<()> {
    match level {
        Level::Native => native::run(plan, board),
        Level::Guest => guest::run(plan, board),
        Level::Roots => roots::run(plan, board),
        Level::Scale => scale::run(plan, board),
        Level::Requests => requests::run(plan),
        Level::Volumes => volumes::run(plan),
        Level::Buckets => buckets::run(plan),
        Level::Images => images::run(plan),
        Level::Plugins => plugins::run(plan),
        Level::Layers => layers::run(plan),
    }
    .with_context(|| format!("{} level", level.word()))
}

/// How vfsd is built: what is only counted is the same however fast it is.
fn profile(only_counts: bool) -> Profile {
    if only_counts && cfg!(debug_assertions) {
        Profile::Debug
    } else {
        Profile::Release
    }
}

/// Runs this program once more as a release build: the driver of the native front end must cost
/// less than what it drives.
fn optimized() -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["run", "--quiet", "--release", "--package", "xtask"])
        .arg("--manifest-path")
        .arg(workspace.root().join("Cargo.toml"))
        .arg("--")
        .args(std::env::args_os().skip(1))
        .status()
        .context("start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
