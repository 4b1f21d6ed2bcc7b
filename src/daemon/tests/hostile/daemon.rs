//! The daemon under test as a process, and what /proc says of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use vfsd_testkit::frontend::LIMIT;

/// A running `vfsd serve`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

/// How to start it beyond `serve --socket-path S --tag t SOURCE`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
    /// Supplementary groups the daemon starts with, as setpriv(1) takes them.
    pub(crate) groups: Option<String>,
    /// Soft and hard limit of open descriptors.
    pub(crate) descriptors: Option<u64>,
}

impl Launch {
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }
}

/// What a daemon holds at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    /// What each descriptor points to, and how many do.
    pub(crate) descriptors: BTreeMap<String, usize>,
    /// Anonymous memory in KiB. Guest memory is shared memory and not counted.
    pub(crate) memory: u64,
}

impl Census {
    pub(crate) fn descriptor_count(&self) -> usize {
        self.descriptors.values().sum()
    }

    /// Descriptors that are here and not in `earlier`.
    pub(crate) fn new_since(&self, earlier: &Self) -> Vec<String> {
        self.descriptors
            .iter()
            .filter(|(target, count)| earlier.descriptors.get(*target).unwrap_or(&0) < count)
            .map(|(target, count)| format!("{count} x {target}"))
            .take(20)
            .collect()
    }
}

impl Daemon {
    /// Starts it; its socket is `NAME.sock` and its standard error `NAME.log` in `dir`.
    pub(crate) fn start(launch: &Launch, share: &Path, dir: &Path, name: &str) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let log = dir.join(format!("{name}.log"));
        // The daemon dies with the thread that runs the test, also when the test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(groups) = &launch.groups {
            command.args(["--groups", groups]);
        }
        command.arg("--");
        if let Some(limit) = launch.descriptors {
            command.args(["prlimit", &format!("--nofile={limit}:{limit}"), "--"]);
        }
        let child = command
            .arg(env!("CARGO_BIN_EXE_vfsd"))
            .args(["serve", "--tag", "hostile", "--socket-path"])
            .arg(&socket)
            .args(&launch.arguments)
            .arg(share)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("setpriv(1) of util-linux starts the daemon");
        Self { child, socket, log }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon wrote to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process that serves: the daemon itself, or the child it made for a pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        let mut pid = self.child.id();
        while let Some(child) = only_child(pid) {
            pid = child;
        }
        pid
    }

    pub(crate) fn census(&self) -> Census {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(proc.join("fd")).expect("the daemon lives") {
            // A descriptor may be closed while the directory is read.
            if let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) {
                *descriptors
                    .entry(target.to_string_lossy().into_owned())
                    .or_insert(0) += 1;
            }
        }
        let status = fs::read_to_string(proc.join("status")).expect("the daemon lives");
        let memory = field(&status, "RssAnon:").and_then(|kib| kib.parse().ok());
        Census {
            descriptors,
            memory: memory.expect("status has RssAnon"),
        }
    }

    /// The `Groups:` line of each thread.
    pub(crate) fn groups_of_threads(&self) -> Vec<String> {
        fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("the daemon lives")
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|status| field(&status, "Groups:").unwrap_or_default())
            .collect()
    }

    /// Asserts that the daemon and the process that serves are still the ones of `pid`.
    pub(crate) fn assert_alive(&mut self, pid: u32, row: &str) {
        let ended = self.child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "{row}: the daemon ended: {ended:?}\n{}",
            self.log()
        );
        assert_eq!(
            self.pid(),
            pid,
            "{row}: another process serves\n{}",
            self.log()
        );
    }

    pub(crate) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([format!("-{signal}"), pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the daemon has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the daemon does not end\n{}",
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what the daemon said ---\n{}", self.log());
        }
    }
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The first word after a label of /proc/PID/status, or the rest of the line for `Groups:`.
fn field(status: &str, label: &str) -> Option<String> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(label))?
        .trim();
    match label {
        "Groups:" => Some(line.to_owned()),
        _ => line.split_whitespace().next().map(str::to_owned),
    }
}
