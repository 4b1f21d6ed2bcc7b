//! The example that runs an image as a virtual machine, on an image whose program says how it was started.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::artifact::Cache;
use crate::daemon::Program;
use crate::guest::Kernel;
use crate::guest::rootfs::folder_in;
use crate::packages::{self, BUSYBOX, JQ, UMOCI};
use crate::process::{run, run_ok, tail};
use crate::progress::Step;
use crate::verdict::Verdict;
use crate::workspace::Workspace;

/// What holds when it passes, as a sentence.
pub(crate) const NAME: &str = "example: an image runs as a virtual machine";

const MAKE: &str = include_str!("../../guest/program-image.sh");
/// How long the image may take to be made.
const MAKING: Duration = Duration::from_secs(60);
/// How long the guest may take, emulated.
const RUNNING: Duration = Duration::from_secs(180);

/// What the program says when nothing is given, and its exit status.
const SAID: &[&str] = &[
    "arguments: one two words",
    "ids: 1234 777",
    "home: /srv in /srv",
    "greeting: it's here",
    "written",
];
const STATUS: i32 = 7;

/// Runs the test.
///
/// # Errors
/// What it needs cannot be made.
pub(crate) fn run_case(
    program: &Program,
    workspace: &Workspace,
    cache: &Cache,
) -> Result<(Verdict, Duration)> {
    let Program::Vfsd(vfsd) = program else {
        bail!("only vfsd serves images")
    };
    if !packages::is_root() {
        let why = "an image with files of several owners is made by root";
        return Ok((Verdict::Skipped(why.into()), Duration::ZERO));
    }
    let mut step = Step::begin(NAME);
    packages::install(&[BUSYBOX, JQ, UMOCI])?;
    let kernel = Kernel::Qemu.fetch(cache)?;
    let folder = folder_in(cache.folder()).context("make a folder for the image")?;
    let mut make = Command::new("sh");
    make.args(["-c", MAKE, "image"])
        .args([folder.path(), Path::new(BUSYBOX.provides)]);
    run_ok(&make, MAKING, &mut |_| {}).context("make an image")?;
    let started = Instant::now();
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = vfsd.parent().context("vfsd lies in no folder")?;
    let mut example = Command::new(workspace.root().join("examples/run-image.sh"));
    example
        .arg(&kernel.image)
        .arg(format!(
            "oci:{}:program",
            folder.path().join("layout").display()
        ))
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("CACHE", folder.path().join("cache"))
        // As the other emulated guests: see there.
        .env("ACCELERATOR", "tcg,thread=single")
        .env("CPU", "max,-cx16");
    let finished = run(&example, RUNNING, &mut |line| step.note(line))?;
    step.done();
    let missing: Vec<&&str> = SAID
        .iter()
        .filter(|said| !finished.output.lines().any(|line| line.ends_with(**said)))
        .collect();
    let verdict = if missing.is_empty() && finished.status.code() == Some(STATUS) {
        Verdict::Passed(String::new())
    } else {
        Verdict::Failed(format!(
            "{}, not said: {missing:?}\n{}",
            finished.status,
            tail(&finished.output, 30)
        ))
    };
    Ok((verdict, started.elapsed()))
}
