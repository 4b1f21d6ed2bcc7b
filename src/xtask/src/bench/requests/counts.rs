//! Requests by opcode, as a daemon counts them or logs them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// How many requests of each opcode there were.
pub(super) type Counts = BTreeMap<String, u64>;

/// What nobody waits for.
const UNANSWERED: [&str; 2] = ["forget", "batchforget"];

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a daemon's counts are read.
#[derive(Debug)]
pub(super) enum Counter {
    /// Its control socket.
    Control(PathBuf),
    /// Its log, in which virtiofsd writes a line for each request at `--log-level debug`.
    Log(PathBuf),
}

impl Counter {
    /// All requests since the daemon has started.
    ///
    /// # Errors
    /// The daemon does not answer, or its log cannot be read.
    pub(super) fn read(&self) -> Result<Counts> {
        match self {
            Self::Control(socket) => {
                let mut stream = UnixStream::connect(socket)
                    .with_context(|| format!("ask at {}", socket.display()))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"metrics\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text).context("read metrics")?;
                Ok(of_metrics(&text))
            }
            Self::Log(file) => {
                let bytes = fs::read(file).context("read virtiofsd's log")?;
                Ok(of_log(&String::from_utf8_lossy(&bytes)))
            }
        }
    }
}

/// What came between two readings, of requests that somebody waits for.
pub(super) fn between(before: &Counts, after: &Counts) -> Counts {
    let more = |(opcode, count): (&String, &u64)| {
        let count = count.saturating_sub(before.get(opcode).copied().unwrap_or(0));
        (count > 0 && !UNANSWERED.contains(&opcode.as_str())).then(|| (opcode.clone(), count))
    };
    after.iter().filter_map(more).collect()
}

fn of_metrics(text: &str) -> Counts {
    let counted = |line: &str| {
        let rest = line.strip_prefix("vfsd_requests_total{opcode=\"")?;
        let (opcode, count) = rest.split_once("\"} ")?;
        Some((opcode.to_lowercase(), count.parse().ok()?))
    };
    text.lines().filter_map(counted).collect()
}

fn of_log(text: &str) -> Counts {
    let mut counts = Counts::new();
    for line in text.lines() {
        let opcode = line
            .split_once("Received request: opcode=")
            .and_then(|(_, rest)| rest.split(' ').next());
        if let Some(opcode) = opcode {
            *counts.entry(opcode.to_lowercase()).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_daemons_are_understood() {
        let metrics = "# TYPE vfsd_requests_total counter\n\
                       vfsd_requests_total{opcode=\"Lookup\"} 7\n\
                       vfsd_requests_total{opcode=\"BatchForget\"} 3\n\
                       vfsd_request_errors_total{opcode=\"Lookup\"} 1\n";
        let log = "[2026-01-01T00:00:00Z DEBUG virtiofsd::server] Received request: opcode=Lookup (1), inode=1, unique=2, pid=3\n\
                   [2026-01-01T00:00:00Z DEBUG virtiofsd::server] Replying OK, header: OutHeader { len: 40 }\n\
                   [2026-01-01T00:00:00Z DEBUG virtiofsd::server] Received request: opcode=Lookup (1), inode=1, unique=4, pid=3\n";
        let (ours, theirs) = (of_metrics(metrics), of_log(log));
        assert_eq!((ours["lookup"], theirs["lookup"]), (7, 2));
        assert_eq!((ours.len(), theirs.len()), (2, 1));
    }

    #[test]
    fn only_what_came_since_and_is_waited_for_counts() {
        let counts = |all: &[(&str, u64)]| -> Counts {
            all.iter()
                .map(|(opcode, count)| ((*opcode).to_owned(), *count))
                .collect()
        };
        let before = counts(&[("lookup", 2), ("read", 5)]);
        let after = counts(&[("lookup", 9), ("read", 5), ("forget", 80), ("getattr", 1)]);
        let expected = counts(&[("lookup", 7), ("getattr", 1)]);
        assert_eq!(between(&before, &after), expected);
    }
}
