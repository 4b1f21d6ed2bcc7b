//! Child processes with a time limit.
//!
//! Every child started here dies with this program: it carries a parent-death
//! signal (`setpriv --pdeathsig`), and its process group is killed when its
//! handle is dropped. A guest or a daemon whose other end never came waits for
//! ever, so nothing is waited for without a deadline.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a child gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// How long output may trail a child that has exited, when a grandchild still
/// holds the pipe.
const TRAILING_OUTPUT: Duration = Duration::from_secs(1);

/// A finished command.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output and standard error, in the order they were written.
    pub(crate) output: String,
}

/// What [`Running::next_line`] saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line of output, without its line end.
    Text(String),
    /// The child has exited and said all it had to say.
    Closed,
    /// The deadline passed first.
    TimedOut,
}

/// A child with its output read line by line.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    exited_since: Option<Instant>,
}

impl Running {
    /// Starts `command` in a process group of its own, standard output and
    /// standard error joined, standard input a pipe ([`Running::say`]).
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(command: &Command) -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        // The wrapper owns the pipe's write end: it goes away with it, and
        // the reader sees the end of file when the child exits.
        let mut wrapped = dying_with_parent(command);
        wrapped
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().context("duplicate a pipe")?)
            .stderr(writer)
            .process_group(0);
        let mut child = spawn(&mut wrapped, command)?;
        drop(wrapped);
        let (sender, lines) = channel();
        let stdin = child.stdin.take();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut bytes = Vec::new();
            while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
                let text = String::from_utf8_lossy(&bytes);
                if sender
                    .send(text.trim_end_matches(['\r', '\n']).to_owned())
                    .is_err()
                {
                    return;
                }
                bytes.clear();
            }
        });
        Ok(Self {
            child,
            stdin,
            lines,
            exited_since: None,
        })
    }

    /// The next line of output, waited for until `deadline`.
    ///
    /// # Errors
    /// The child cannot be waited for.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<Line> {
        loop {
            let tick = Instant::now() + Duration::from_millis(200);
            let wait = tick.min(deadline).saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(wait) {
                Ok(text) => return Ok(Line::Text(text)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Line::Closed),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.child.try_wait().context("wait for a child")?.is_some() {
                let since = *self.exited_since.get_or_insert_with(Instant::now);
                if since.elapsed() > TRAILING_OUTPUT {
                    return Ok(Line::Closed);
                }
            }
            if Instant::now() >= deadline {
                return Ok(Line::TimedOut);
            }
        }
    }

    /// Writes one line to the child's standard input.
    ///
    /// # Errors
    /// The child has closed it.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        writeln!(stdin, "{line}").context("write to a child")?;
        stdin.flush().context("write to a child")
    }

    /// Waits for the exit until `deadline`, then kills.
    ///
    /// # Errors
    /// The child was still there at the deadline, or cannot be waited for.
    pub(crate) fn finish(&mut self, deadline: Instant) -> Result<ExitStatus> {
        self.stdin = None;
        match wait_until(&mut self.child, deadline)? {
            Some(status) => Ok(status),
            None => {
                self.kill();
                bail!("still running at its time limit; killed")
            }
        }
    }

    fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = pid_of(&self.child) {
                // The group may be gone already: nothing is left to do then.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child in the background whose output goes to a file.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
}

impl Background {
    /// Starts `command` with standard input empty and all output in `log`.
    ///
    /// # Errors
    /// The log cannot be written or the program cannot be started.
    pub(crate) fn start(command: &Command, log: &File) -> Result<Self> {
        let mut wrapped = dying_with_parent(command);
        wrapped
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("duplicate the log")?)
            .stderr(log.try_clone().context("duplicate the log")?)
            .process_group(0);
        Ok(Self {
            child: spawn(&mut wrapped, command)?,
        })
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, when there is one already.
    ///
    /// # Errors
    /// The child cannot be waited for.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for a child")
    }

    /// Waits for the exit until `deadline`; `None` when it has not come.
    ///
    /// # Errors
    /// The child cannot be waited for.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        wait_until(&mut self.child, deadline)
    }

    /// Asks the child to stop (SIGTERM) and waits for it; kills it when it
    /// does not within five seconds.
    ///
    /// # Errors
    /// It had to be killed, or cannot be waited for.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        if let (None, Some(pid)) = (self.exited()?, pid_of(&self.child)) {
            kill_process(pid, Signal::TERM).context("send SIGTERM")?;
        }
        match self.wait_until(Instant::now() + GRACE)? {
            Some(status) => Ok(status),
            None => {
                self.kill();
                bail!(
                    "did not stop within {} s of SIGTERM; killed",
                    GRACE.as_secs()
                )
            }
        }
    }

    fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = pid_of(&self.child) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` to its end, calling `on_line` for each line of output.
///
/// # Errors
/// The program cannot be started, or was still running after `limit` (it and
/// its process group are killed).
pub(crate) fn run(
    command: &Command,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<Finished> {
    let deadline = Instant::now() + limit;
    let mut running = Running::start(command)?;
    running.stdin = None;
    let mut output = String::new();
    loop {
        match running.next_line(deadline)? {
            Line::Text(line) => {
                on_line(&line);
                output.push_str(&line);
                output.push('\n');
            }
            Line::Closed => break,
            Line::TimedOut => {
                running.kill();
                bail!(
                    "`{}` was still running after {} s; killed\n{}",
                    shown(command),
                    limit.as_secs(),
                    tail(&output, 20)
                );
            }
        }
    }
    let status = running
        .finish(deadline.max(Instant::now() + GRACE))
        .with_context(|| format!("`{}`", shown(command)))?;
    Ok(Finished { status, output })
}

/// Like [`run`], and a failing exit status is an error that shows the end of
/// the output.
///
/// # Errors
/// As [`run`], and when the command fails.
pub(crate) fn run_ok(
    command: &Command,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<String> {
    let finished = run(command, limit, on_line)?;
    if !finished.status.success() {
        bail!(
            "`{}` failed ({})\n{}",
            shown(command),
            finished.status,
            tail(&finished.output, 30)
        );
    }
    Ok(finished.output)
}

/// Standard output of a short command that must succeed.
///
/// # Errors
/// The program cannot be started or fails.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is in the search path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.to_string_lossy());
    }
    text
}

/// The last `count` lines of `text`.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default()
        .join("\n")
}

/// The last `count` lines of a file, or why they cannot be read.
pub(crate) fn tail_of_file(path: &std::path::Path, count: usize) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => tail(&String::from_utf8_lossy(&bytes), count),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn dying_with_parent(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

fn spawn(wrapped: &mut Command, command: &Command) -> Result<Child> {
    let program: &OsStr = command.get_program();
    wrapped
        .spawn()
        .with_context(|| format!("start {}", program.to_string_lossy()))
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_error_output_arrive_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let finished = run(&command, Duration::from_secs(10), &mut |_| {}).unwrap();
        assert_eq!(finished.output, "one\ntwo\nthree\n");
        assert_eq!(finished.status.code(), Some(3));
    }

    #[test]
    fn a_command_past_its_limit_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let error = run(&command, Duration::from_millis(500), &mut |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("still running"), "{text}");
        let sleeper: i32 = text.lines().last().unwrap().parse().unwrap();
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let stat = std::fs::read_to_string(format!("/proc/{sleeper}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone, "{sleeper} outlived its group");
    }

    #[test]
    fn a_child_answers_what_it_is_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "read word; echo got $word"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut running = Running::start(&command).unwrap();
        running.say("hello").unwrap();
        assert_eq!(
            running.next_line(deadline).unwrap(),
            Line::Text("got hello".into())
        );
        assert!(running.finish(deadline).unwrap().success());
    }

    #[test]
    fn the_tail_of_a_short_text_is_the_text() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
