//! The program under test as a process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test fails instead of waiting on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `reached`.
pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// The program with arguments. No signal is ignored that the tests were started to ignore, as with `nohup` or in the background
/// of a script: the program would go on ignoring it.
pub(crate) fn vfsd<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command
        .arg("--default-signal")
        .arg(env!("CARGO_BIN_EXE_vfsd"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error of a program that ends by itself.
pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output
        .status
        .code()
        .unwrap_or_else(|| panic!("{}", output.status));
    (code, text(&output.stdout), text(&output.stderr))
}

/// A running daemon. It is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it listens at `socket`.
    pub(crate) fn listening(command: &mut Command, socket: &Path) -> Self {
        let mut daemon = Self::start(command);
        wait_until("the socket", || {
            let ended = daemon.child.try_wait().unwrap();
            assert_eq!(ended, None, "the daemon has ended: {}", daemon.errors());
            socket.exists()
        });
        daemon
    }

    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self {
            child: command.stderr(Stdio::piped()).spawn().unwrap(),
        }
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The process that serves, which is the youngest of its line.
    pub(crate) fn serving(&self) -> Pid {
        let mut pid = self.pid();
        while let Some(child) = children(pid).first() {
            pid = *child;
        }
        pid
    }

    /// Waits until the process that serves is ready: it has its signal mask and runs threads.
    pub(crate) fn wait_for_threads(&self) {
        wait_until("the daemon's threads", || {
            let status = status(self.serving(), "Threads:");
            status.parse::<u32>().is_ok_and(|threads| threads > 1)
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What it has written to standard error; it must have ended.
    pub(crate) fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Ends it by a signal, and expects that to be its success.
    pub(crate) fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{status}: {}", self.errors());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.runs() {
            self.signal(Signal::TERM);
            self.end();
        }
    }
}

/// A process of a test, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper(pub(crate) Child);

impl Helper {
    /// Ends it by a signal and says whether that is how it ended.
    pub(crate) fn ends_by(&mut self, signal: Signal) -> bool {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let mut status = None;
        wait_until("a process that was told to end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.signal()) == Some(signal.as_raw())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// The processes that `parent` has started.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| status(*pid, "PPid:").parse() == Ok(parent.as_raw_nonzero().get()))
        .collect()
}

/// A line of `/proc/PID/status` without its key; empty when there is none.
pub(crate) fn status(pid: Pid, key: &str) -> String {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.map(|value| value.trim().to_owned())
        .unwrap_or_default()
}

/// Asks on a control socket, which a daemon has a moment later than what it serves on.
pub(crate) fn ask(control: &Path, question: &str) -> String {
    let mut stream = None;
    wait_until("the control socket", || {
        stream = UnixStream::connect(control).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    writeln!(stream, "{question}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Signals that end the daemon in order.
pub(crate) const ENDING: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::ALARM,
    Signal::XCPU,
    Signal::POWER,
];

/// A path as the command line takes it.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory for a test, with a share, a mount point and places for sockets in it.
#[derive(Debug)]
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(place.share()).unwrap();
        std::fs::create_dir(place.path("mnt")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.path("share")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("socket")
    }
}

/// Why a test cannot run here that needs to be root.
pub(crate) fn not_root() -> bool {
    let missing = !rustix::process::geteuid().is_root();
    if missing {
        eprintln!("skipped: it takes root");
    }
    missing
}

/// An ordinary user.
pub(crate) const NOBODY: u32 = 65_534;

/// The program where an ordinary user can reach it, in a place that is that user's.
pub(crate) fn nobodys_program(place: &Place) -> PathBuf {
    let (point, program) = (place.path("mnt"), place.path("vfsd"));
    let nobody = rustix::process::Uid::from_raw(NOBODY);
    for path in [point.parent().unwrap(), &point] {
        rustix::fs::chown(path, Some(nobody), None).unwrap();
    }
    // By another process: one that is forked meanwhile must not have the program open to write it.
    let copied = Command::new("cp")
        .args([env!("CARGO_BIN_EXE_vfsd").as_ref(), program.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    program
}
