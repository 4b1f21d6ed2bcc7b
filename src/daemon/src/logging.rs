//! Where log lines go.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

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
                .with_writer(io::stderr)
                .with_ansi(colours)
                .with_filter(filter)
                .boxed()
        }
        (None, LogFormat::Json) => lines
            .json()
            .flatten_event(true)
            .with_writer(io::stderr)
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
    use super::*;

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
