//! The tests on `vfsd mount`: the same server behind the host's own kernel.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::judge;
use crate::artifact::Cache;
use crate::daemon::{Daemon, Options, Program, is_mount_point};
use crate::guest::run::Outcome;
use crate::guest::tools::{FSX, PJDFSTEST, Tool};
use crate::packages;
use crate::process::run;
use crate::progress::Step;
use crate::verdict::Verdict;

/// One test on a host mount.
#[derive(Debug)]
pub(crate) struct Case {
    /// What holds when it passes, as a sentence.
    pub(crate) name: &'static str,
    source: Source,
    options: Options,
    tool: Tool,
    judge: fn(&Outcome) -> Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Folder,
    Memory,
}

const PLAIN: Options = Options {
    posix_acl: true,
    writeback: false,
    open_files: None,
    drop_in: false,
    further: &[],
};

/// Every test on a host mount.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "host mount of dir: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::Folder,
        options: PLAIN,
        tool: PJDFSTEST,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of memory: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::Memory,
        options: PLAIN,
        tool: PJDFSTEST,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of dir: fsx does 100,000 operations and finds every byte again",
        source: Source::Folder,
        options: PLAIN,
        tool: FSX,
        judge: judge::by_status,
    },
    Case {
        name: "host mount of dir, writeback: fsx does 100,000 operations and finds every byte again",
        source: Source::Folder,
        options: Options {
            writeback: true,
            ..PLAIN
        },
        tool: FSX,
        judge: judge::by_status,
    },
    Case {
        name: "host mount of memory: fsx does 100,000 operations and finds every byte again",
        source: Source::Memory,
        options: PLAIN,
        tool: FSX,
        judge: judge::by_status,
    },
];

/// How long a test program may run; a busy machine takes ten times what a
/// quiet one does.
const LIMIT: Duration = Duration::from_secs(1200);

const PJDFSTEST_CONFIGURATION: &str = include_str!("../../guest/pjdfstest.toml");
const FSX_CONFIGURATION: &str = include_str!("../../guest/fsx.toml");

/// Mounts, runs the program on the mount, unmounts.
///
/// # Errors
/// The test could not be prepared.
pub(crate) fn run_case(
    case: &Case,
    program: &Program,
    cache: &Cache,
) -> Result<(Verdict, Duration)> {
    if !packages::is_root() {
        return Ok((Verdict::Skipped("needs root".into()), Duration::ZERO));
    }
    if !Path::new("/dev/fuse").exists() {
        return Ok((
            Verdict::Skipped("this machine has no /dev/fuse".into()),
            Duration::ZERO,
        ));
    }
    let tool = case.tool.build(cache)?;
    let mut step = Step::begin(case.name);
    // A disk's file system that other users get to: the tests switch users.
    let folder = tempfile::Builder::new()
        .prefix("mount-")
        .tempdir_in("/var/tmp")
        .context("make a folder for the mount")?;
    let at = |name: &str| folder.path().join(name);
    for made in ["source", "mount", "second", "kept"] {
        std::fs::create_dir(at(made)).context("make a folder for the mount")?;
    }
    std::fs::write(at("pjdfstest.toml"), PJDFSTEST_CONFIGURATION).context("write a file")?;
    std::fs::write(at("fsx.toml"), FSX_CONFIGURATION).context("write a file")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).context("open the folder to all")?;
    let source = match case.source {
        Source::Folder => format!("dir:{}", at("source").display()),
        Source::Memory => "memory:".to_owned(),
    };
    let mount = at("mount");
    let mut daemon = Daemon::mount(program, &case.options, &source, &mount, &at("daemon.log"))?;
    let mut command = Command::new(tool);
    if case.tool == PJDFSTEST {
        command.arg("-c").arg(at("pjdfstest.toml"));
        command
            .arg("-p")
            .arg(&mount)
            .arg("-s")
            .arg(at("second"))
            .env("NO_COLOR", "1");
    } else {
        command
            .arg("-f")
            .arg(at("fsx.toml"))
            .args(["-N", "100000", "-S", "20250520", "-P"]);
        command.arg(at("kept")).arg(mount.join("file"));
    }
    let started = Instant::now();
    let finished = run(&command, LIMIT, &mut |line| step.note(line));
    let elapsed = started.elapsed();
    let unmounted = unmount(&mut daemon, &mount);
    let finished = match finished {
        Ok(finished) => finished,
        Err(error) => {
            let reason = format!("{error:#}\nThe daemon's log:\n{}", daemon.log());
            return Ok((Verdict::Failed(reason), elapsed));
        }
    };
    let outcome = Outcome {
        output: finished.output,
        status: finished.status.code(),
        elapsed,
    };
    let verdict = match ((case.judge)(&outcome), unmounted) {
        (Verdict::Passed(_), Err(error)) => {
            Verdict::Failed(format!("{error:#}\nThe daemon's log:\n{}", daemon.log()))
        }
        (verdict, _) => verdict,
    };
    Ok((verdict, elapsed))
}

fn unmount(daemon: &mut Daemon, mount: &Path) -> Result<()> {
    let status = daemon.terminate();
    if is_mount_point(mount) {
        // A mount that stays would hang whoever looks at the folder.
        let detached = Command::new("umount").arg("-l").arg(mount).status();
        bail!("still mounted after SIGTERM (detached by force: {detached:?})");
    }
    let status = status?;
    if !status.success() {
        bail!("the daemon failed: {status}");
    }
    Ok(())
}
