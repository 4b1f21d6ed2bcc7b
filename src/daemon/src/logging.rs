//! Where log lines go.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::cli::choices::{LogFormat, LogLevel};
use crate::exit::Failure;

/// What is logged, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogSettings {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
    /// To syslog; to standard error when there is none.
    pub(crate) syslog: bool,
    /// What an operator should know about the command line.
    pub(crate) notices: Vec<&'static str>,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Starts logging, for the whole process and its children. Called once, before the sandbox is
/// entered: syslog's socket is out of reach inside.
///
/// # Errors
/// When `RUST_LOG` cannot be read.
pub(crate) fn start(settings: &LogSettings) -> Result<(), Failure> {
    let filter = filter(settings.level)?;
    let (syslog, no_syslog) = match settings.syslog.then(Syslog::connect).transpose() {
        Ok(syslog) => (syslog, None),
        Err(error) => (None, Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match (syslog, settings.format) {
        (Some(syslog), _) => lines
            .with_writer(syslog)
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_filter(filter)
            .boxed(),
        (None, LogFormat::Text) => {
            let colours = rustix::termios::isatty(io::stderr());
            lines
                .with_writer(|| Unhurried(io::stderr()))
                .with_ansi(colours)
                .with_filter(filter)
                .boxed()
        }
        (None, LogFormat::Json) => lines
            .json()
            .flatten_event(true)
            .with_writer(|| Unhurried(io::stderr()))
            .with_filter(filter)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .map_err(|error| Failure::run(format!("cannot start logging: {error}")))?;
    if let Some(error) = no_syslog {
        tracing::warn!("cannot reach syslog at {SYSLOG}: {error}; logging to standard error");
    }
    for notice in &settings.notices {
        tracing::warn!("{notice}");
    }
    Ok(())
}

fn filter(level: LogLevel) -> Result<Targets, Failure> {
    match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => directives.parse().map_err(|error| {
            Failure::usage(format!("RUST_LOG={directives} cannot be read: {error}"))
        }),
        _ => Ok(Targets::new().with_default(LevelFilter::from(level))),
    }
}

/// Bytes that something which can be written to takes without a wait (PIPE_BUF, pipe(7)).
const AT_ONCE: usize = 4096;

/// One writes at a time, so that there is still room when it does.
static WRITING: Mutex<()> = Mutex::new(());

/// Lines that were lost since that was last told.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Where lines go as long as they are taken. Whoever reads them may have stopped, and what a guest
/// waits for must not wait for that: then lines are lost, and counted.
#[derive(Debug)]
struct Unhurried<W>(W);

impl<W: AsFd + Write> Unhurried<W> {
    fn takes(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| !fd.revents().is_empty())
    }

    /// Writes a whole line. False if not all of it was taken.
    fn put(&mut self, line: &[u8]) -> bool {
        line.chunks(AT_ONCE)
            .all(|piece| self.takes() && self.0.write_all(piece).is_ok())
    }
}

impl<W: AsFd + Write> Write for Unhurried<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = LOST.swap(0, Ordering::Relaxed);
        // One line that everybody can read, whatever the format of the others.
        let notice = format!("{{\"level\":\"WARN\",\"message\":\"{lost} log lines were lost\"}}\n");
        let told = lost == 0 || self.put(notice.as_bytes());
        let kept = told && self.put(line);
        let untold = if told { 0 } else { lost };
        LOST.fetch_add(untold.saturating_add(u64::from(!kept)), Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SYSLOG: &str = "/dev/log";

/// Facility `user` (RFC 3164, section 4.1.1).
const FACILITY: u8 = 1;

/// A connection to the local syslog daemon. When that restarts, lines are lost: a sandboxed
/// daemon cannot connect again.
#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    /// The id that others know the daemon by, not its id inside the sandbox.
    pid: u32,
}

impl Syslog {
    fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            pid: std::process::id(),
        })
    }

    fn line(&self, severity: u8) -> SyslogLine<'_> {
        let priority = FACILITY << 3 | severity;
        let text = format!("<{priority}>vfsd[{}]: ", self.pid).into_bytes();
        SyslogLine {
            socket: &self.socket,
            text,
        }
    }
}

/// Severity of a level (RFC 3164, section 4.1.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        self.line(severity(Level::INFO))
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        self.line(severity(*metadata.level()))
    }
}

/// One line on its way to syslog: sent as one datagram when it is complete.
#[derive(Debug)]
struct SyslogLine<'a> {
    socket: &'a UnixDatagram,
    text: Vec<u8>,
}

impl Write for SyslogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SyslogLine<'_> {
    fn drop(&mut self) {
        // There is nowhere to report that a log line was lost.
        let _ = self.socket.send(self.text.trim_ascii_end());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_lost_and_wait_for_nobody() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = Unhurried(writer);
        // More than a pipe holds.
        for _ in 0..100 {
            log.write_all(&[b'x'; AT_ONCE]).unwrap();
        }
        let mut held = vec![0; 8 * AT_ONCE];
        reader.read_exact(&mut held).unwrap();
        log.write_all(b"again\n").unwrap();
        drop(log);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let (notice, again) = rest
            .trim_start_matches('x')
            .split_once('\n')
            .expect("two lines");
        assert!(notice.contains(" log lines were lost"), "{notice}");
        assert_eq!(again, "again\n");
    }

    #[test]
    fn a_syslog_line_is_one_datagram_with_its_priority() {
        let (socket, peer) = UnixDatagram::pair().unwrap();
        let syslog = Syslog { socket, pid: 42 };
        let mut line = syslog.line(severity(Level::WARN));
        line.write_all(b"part one, ").unwrap();
        line.write_all(b"part two\n").unwrap();
        drop(line);
        let mut received = [0; 128];
        let length = peer.recv(&mut received).unwrap();
        assert_eq!(&received[..length], b"<12>vfsd[42]: part one, part two");
    }
}
