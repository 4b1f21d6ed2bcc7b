//! One run: a daemon, a guest whose root it serves, a session in the guest.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::session::Session;
use super::{KernelFiles, Machine, initrd};
use crate::daemon::{Daemon, Options, Program, Storage};
use crate::process::{Line, Running, tail};

/// How a line for this program starts; the guest's scripts print it.
const MARK: &str = "##vfsd ";

/// Boot and shutdown together, beside the scripts' own time.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// The socket of the storage beside the root, in the run's folder.
const DATA_SOCKET: &str = "data";

/// A guest's disk, in the run's folder.
const DISK: &str = "disk";

/// How often a silent guest's daemon is looked after.
const DAEMON_WATCH: Duration = Duration::from_secs(1);

/// How long the daemon may take to notice that its guest is gone.
const DAEMON_LIMIT: Duration = Duration::from_secs(10);

/// What to run and on what.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The machine.
    pub(crate) machine: Machine,
    /// Its kernel.
    pub(crate) kernel: &'a KernelFiles,
    /// The daemon.
    pub(crate) program: &'a Program,
    /// The daemon's options.
    pub(crate) options: Options,
    /// What is served as the guest's root.
    pub(crate) root: &'a Storage,
    /// What is served by a second daemon, and mounted where the scripts work.
    pub(crate) data: Option<&'a Storage>,
    /// A disk of the guest, as a file: `/dev/ubda` (User-Mode Linux only).
    pub(crate) disk: Option<&'a Path>,
    /// What the guest does.
    pub(crate) session: &'a Session,
}

/// What a script did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// What it printed.
    pub(crate) output: String,
    /// Its exit status; `None` when the guest stopped before it ended.
    pub(crate) status: Option<i32>,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Report {
    /// One entry for each script that was started.
    pub(crate) outcomes: Vec<Outcome>,
    /// The guest's kernel log after the root was unmounted.
    pub(crate) kernel_log: Vec<String>,
    /// Why the run as a whole failed: a guest that did not boot, unmount or
    /// power off, a daemon that did not end well.
    pub(crate) troubles: Vec<String>,
    /// From the start of the kernel to its first script.
    pub(crate) boot_time: Option<Duration>,
    /// The end of the daemon's log.
    pub(crate) daemon_log: String,
}

impl Report {
    /// Checks a run of one script.
    ///
    /// # Errors
    /// The script did not end well, or the run had troubles.
    pub(crate) fn check(&self) -> Result<()> {
        let outcome = self.outcomes.first().cloned().unwrap_or_default();
        if outcome.status != Some(0) || !self.troubles.is_empty() {
            bail!(
                "{}\n{}\nThe daemon's log:\n{}",
                tail(&outcome.output, 30),
                self.troubles.join("\n"),
                self.daemon_log
            );
        }
        Ok(())
    }
}

/// What the caller is told while a run goes on.
pub(crate) trait Observer {
    /// Script `index` starts.
    fn started(&mut self, index: usize);
    /// Script `index` printed a line.
    fn printed(&mut self, index: usize, line: &str);
    /// Script `index` ended.
    fn ended(&mut self, index: usize, outcome: &Outcome);
    /// Script `index` asks the host to do something and waits for it.
    ///
    /// # Errors
    /// It cannot be done; the script is told why.
    fn asked(&mut self, index: usize, words: &[&str]) -> Result<()>;
}

/// Boots, runs the session, powers off.
///
/// # Errors
/// The run could not be started. What goes wrong later is in the report.
pub(crate) fn run(plan: &Plan<'_>, observer: &mut dyn Observer) -> Result<Report> {
    let folder = tempfile::Builder::new()
        .prefix("vfsd-guest-")
        .tempdir()
        .context("make a folder for the run")?;
    let (mut daemons, mut guest) = start(plan, folder.path())?;
    let deadline = Instant::now() + BOOT_LIMIT + plan.session.limit();
    let mut console = Console::new(Instant::now());
    let mut orphaned_since = None;
    loop {
        let now = Instant::now();
        match guest.next_line(deadline.min(now + DAEMON_WATCH))? {
            Line::Text(line) => console.take(&line, observer, &mut guest)?,
            Line::Closed => break,
            Line::TimedOut if now >= deadline => {
                console
                    .report
                    .troubles
                    .push("the guest hung and was killed".into());
                break;
            }
            Line::TimedOut => {}
        }
        // Without its daemon a guest waits for ever; a last word may still come.
        if !console.ended && daemons.one_has_ended()? {
            let since = *orphaned_since.get_or_insert(now);
            if since.elapsed() > DAEMON_LIMIT {
                console
                    .report
                    .troubles
                    .push("the daemon left its guest".into());
                break;
            }
        }
    }
    if !console.ended {
        let last = console.stray.join("\n");
        console.report.troubles.push(format!(
            "the guest stopped half-way; its last words:\n{last}"
        ));
    }
    drop(guest);
    let mut report = console.report;
    daemons.end(&mut report);
    Ok(report)
}

/// The daemons of a guest: that of its root, and that of the storage beside it.
#[derive(Debug)]
struct Daemons(Vec<Daemon>);

impl Daemons {
    fn start(plan: &Plan<'_>, folder: &Path) -> Result<Self> {
        let session = match plan.data {
            Some(_) => &plan.session.clone().with_file("data", ""),
            None => plan.session,
        };
        initrd::write(&folder.join("initrd"), &plan.kernel.modules, session)?;
        let root = (plan.root, "socket", "daemon.log");
        let data = plan.data.map(|data| (data, DATA_SOCKET, "data.log"));
        let started = [root]
            .into_iter()
            .chain(data)
            .map(|(storage, socket, log)| {
                let (socket, log) = (folder.join(socket), folder.join(log));
                Daemon::serve(plan.program, &plan.options, storage, &socket, &log)
            })
            .collect::<Result<_>>()?;
        Ok(Self(started))
    }

    fn one_has_ended(&mut self) -> Result<bool> {
        for daemon in &mut self.0 {
            if daemon.has_ended()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for them to end by themselves, and notes what went wrong.
    fn end(&mut self, report: &mut Report) {
        for daemon in &mut self.0 {
            match daemon.ended(DAEMON_LIMIT) {
                Ok(status) if status.success() => {}
                Ok(status) => report.troubles.push(format!("the daemon failed: {status}")),
                Err(error) => report.troubles.push(format!("the daemon {error:#}")),
            }
            report.daemon_log.push_str(&daemon.log());
        }
    }
}

/// Boots with the terminal as the guest's console.
///
/// # Errors
/// The guest or the daemon cannot be started, or the guest's monitor fails.
pub(crate) fn interactive(plan: &Plan<'_>) -> Result<ExitStatus> {
    let folder = tempfile::Builder::new()
        .prefix("vfsd-guest-")
        .tempdir()
        .context("make a folder for the run")?;
    let mut daemons = Daemons::start(plan, folder.path())?;
    let status = command(plan, folder.path())
        .status()
        .context("start the guest")?;
    for daemon in &mut daemons.0 {
        daemon.ended(DAEMON_LIMIT)?;
    }
    Ok(status)
}

fn start(plan: &Plan<'_>, folder: &Path) -> Result<(Daemons, Running)> {
    if plan.disk.is_some() {
        std::fs::write(folder.join(DISK), "").context("make a place for the disk")?;
    }
    let daemons = Daemons::start(plan, folder)?;
    let guest = Running::start(&command(plan, folder))?;
    Ok((daemons, guest))
}

fn command(plan: &Plan<'_>, folder: &Path) -> Command {
    let sockets: &[&str] = match plan.data {
        Some(_) => &["socket", DATA_SOCKET],
        None => &["socket"],
    };
    let mut command = plan.machine.command(plan.kernel, folder, sockets);
    if let Some(disk) = plan.disk {
        // The kernel sees the run's folder alone: the disk is mounted there.
        command.env("DISK", disk);
        command.arg(format!("ubd0=/run/vfsd/{DISK}"));
    }
    command
}

/// Reads the guest's console.
struct Console {
    report: Report,
    booted: Instant,
    script_started: Instant,
    /// The script that runs now.
    running: Option<usize>,
    in_kernel_log: bool,
    ended: bool,
    /// The latest lines outside of scripts and kernel log.
    stray: Vec<String>,
}

impl Console {
    fn new(booted: Instant) -> Self {
        Self {
            report: Report {
                outcomes: Vec::new(),
                kernel_log: Vec::new(),
                troubles: Vec::new(),
                boot_time: None,
                daemon_log: String::new(),
            },
            booted,
            script_started: booted,
            running: None,
            in_kernel_log: false,
            ended: false,
            stray: Vec::new(),
        }
    }

    fn take(&mut self, line: &str, observer: &mut dyn Observer, guest: &mut Running) -> Result<()> {
        // A script may have printed the start of a line of its own before.
        let Some((before, marked)) = line.split_once(MARK) else {
            self.plain(line, observer);
            return Ok(());
        };
        if !before.is_empty() {
            self.plain(before, observer);
        }
        let words: Vec<&str> = marked.split(' ').collect();
        match words.as_slice() {
            ["case", index] => {
                let index = index.parse().context("a case line has a number")?;
                self.begin(index, observer)?;
            }
            ["status", _, status] => self.end(status.parse().unwrap_or(-1), observer),
            ["host", request @ ..] => {
                let Some(index) = self.running else {
                    bail!("no script runs, yet it asks")
                };
                let answer = match observer.asked(index, request) {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => format!("{error:#}").replace('\n', " "),
                };
                guest.say(&answer)?;
            }
            ["kernel-log"] => self.in_kernel_log = true,
            ["end"] => {
                self.in_kernel_log = false;
                self.ended = true;
            }
            ["trouble", what @ ..] => self.report.troubles.push(what.join(" ")),
            _ => self.plain(line, observer),
        }
        Ok(())
    }

    fn plain(&mut self, line: &str, observer: &mut dyn Observer) {
        if self.in_kernel_log {
            self.report.kernel_log.push(line.to_owned());
        } else if let Some(index) = self.running {
            observer.printed(index, line);
            if let Some(outcome) = self.report.outcomes.last_mut() {
                outcome.output.push_str(line);
                outcome.output.push('\n');
            }
        } else {
            self.stray.push(line.to_owned());
            if self.stray.len() > 30 {
                self.stray.remove(0);
            }
        }
    }

    fn begin(&mut self, index: usize, observer: &mut dyn Observer) -> Result<()> {
        if index != self.report.outcomes.len() {
            bail!("the guest starts script {index} out of order");
        }
        self.report.boot_time.get_or_insert(self.booted.elapsed());
        self.script_started = Instant::now();
        self.running = Some(index);
        self.report.outcomes.push(Outcome::default());
        observer.started(index);
        Ok(())
    }

    fn end(&mut self, status: i32, observer: &mut dyn Observer) {
        if let (Some(index), Some(outcome)) = (self.running.take(), self.report.outcomes.last_mut())
        {
            outcome.status = Some(status);
            outcome.elapsed = self.script_started.elapsed();
            observer.ended(index, outcome);
        }
    }
}
