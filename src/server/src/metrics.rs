//! Counters and latencies of a session, kept from its start to its end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vfsd_fuse::Opcode;

/// Latency buckets: the n-th counts requests that took less than 2^n microseconds; the last one all the rest.
const BUCKETS: usize = 24;

/// The session's counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    operations: Vec<OperationMetrics>,
    /// Requests whose opcode nobody knows.
    pub(crate) unknown: AtomicU64,
    /// Requests without a whole header.
    pub(crate) unanswerable: AtomicU64,
    /// Requests that could not be decoded.
    pub(crate) rejected: AtomicU64,
    /// Requests during which the daemon panicked.
    pub(crate) panics: AtomicU64,
    /// Replies that did not reach the guest.
    pub(crate) lost: AtomicU64,
    /// Requests that did not end on the thread that took them in.
    pub(crate) deferred: AtomicU64,
}

#[derive(Debug, Default)]
struct OperationMetrics {
    requests: AtomicU64,
    errors: AtomicU64,
    microseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            operations: Opcode::ALL
                .iter()
                .map(|_| OperationMetrics::default())
                .collect(),
            unknown: AtomicU64::new(0),
            unanswerable: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
        }
    }

    /// Counts a request that has ended.
    pub(crate) fn record(&self, opcode: Opcode, took: Duration, failed: bool) {
        let Some(operation) = self.operations.get(index(opcode)) else {
            return;
        };
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bits = u64::BITS.saturating_sub(microseconds.leading_zeros());
        let bucket = usize::try_from(bits)
            .unwrap_or(BUCKETS)
            .min(BUCKETS.saturating_sub(1));
        operation.requests.fetch_add(1, Ordering::Relaxed);
        operation
            .microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
        if let Some(bucket) = operation.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if failed {
            operation.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self, gauges: Gauges) -> MetricsSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let operations = Opcode::ALL
            .iter()
            .zip(&self.operations)
            .map(|(opcode, operation)| OperationSnapshot {
                opcode: opcode.name(),
                requests: load(&operation.requests),
                errors: load(&operation.errors),
                microseconds: load(&operation.microseconds),
                buckets: operation.buckets.iter().map(load).collect(),
            })
            .filter(|operation| operation.requests != 0)
            .collect();
        MetricsSnapshot {
            operations,
            gauges,
            unknown: load(&self.unknown),
            unanswerable: load(&self.unanswerable),
            rejected: load(&self.rejected),
            panics: load(&self.panics),
            lost: load(&self.lost),
            deferred: load(&self.deferred),
        }
    }
}

/// The enum's discriminants count from 0 in the order of [`Opcode::ALL`].
#[expect(
    clippy::as_conversions,
    reason = "the discriminant of an enum without fields"
)]
fn index(opcode: Opcode) -> usize {
    opcode as usize
}

/// What a session holds right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Files that the guest knows.
    pub nodes: usize,
    /// Files and directories that the guest has open.
    pub handles: usize,
    /// Requests that wait for a lock.
    pub lock_waits: usize,
}

/// The counters of one opcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSnapshot {
    /// Its name.
    pub opcode: &'static str,
    /// Requests that have ended.
    pub requests: u64,
    /// Those that ended with an error, ENOENT of a lookup included.
    pub errors: u64,
    /// The time they took, in all.
    pub microseconds: u64,
    /// The n-th counts those that took less than 2^n microseconds, and not less than the one before.
    pub buckets: Vec<u64>,
}

/// The counters of a session at one moment. Displays as Prometheus text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Opcodes that were used.
    pub operations: Vec<OperationSnapshot>,
    /// What is held.
    pub gauges: Gauges,
    /// Requests whose opcode nobody knows.
    pub unknown: u64,
    /// Requests without a whole header.
    pub unanswerable: u64,
    /// Requests that could not be decoded.
    pub rejected: u64,
    /// Requests during which the daemon panicked.
    pub panics: u64,
    /// Replies that did not reach the guest.
    pub lost: u64,
    /// Requests that did not end on the thread that took them in.
    pub deferred: u64,
}

impl fmt::Display for MetricsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# TYPE vfsd_requests_total counter")?;
        for operation in &self.operations {
            let OperationSnapshot {
                opcode, requests, ..
            } = operation;
            writeln!(f, "vfsd_requests_total{{opcode=\"{opcode}\"}} {requests}")?;
        }
        writeln!(f, "# TYPE vfsd_request_errors_total counter")?;
        for operation in &self.operations {
            let OperationSnapshot { opcode, errors, .. } = operation;
            writeln!(
                f,
                "vfsd_request_errors_total{{opcode=\"{opcode}\"}} {errors}"
            )?;
        }
        writeln!(f, "# TYPE vfsd_request_duration_seconds histogram")?;
        for operation in &self.operations {
            write_histogram(f, operation)?;
        }
        for (name, kind, value) in [
            ("vfsd_unknown_opcodes_total", "counter", self.unknown),
            (
                "vfsd_unanswerable_requests_total",
                "counter",
                self.unanswerable,
            ),
            ("vfsd_rejected_requests_total", "counter", self.rejected),
            ("vfsd_panics_total", "counter", self.panics),
            ("vfsd_lost_replies_total", "counter", self.lost),
            ("vfsd_deferred_requests_total", "counter", self.deferred),
            (
                "vfsd_nodes",
                "gauge",
                u64::try_from(self.gauges.nodes).unwrap_or(u64::MAX),
            ),
            (
                "vfsd_handles",
                "gauge",
                u64::try_from(self.gauges.handles).unwrap_or(u64::MAX),
            ),
            (
                "vfsd_lock_waits",
                "gauge",
                u64::try_from(self.gauges.lock_waits).unwrap_or(u64::MAX),
            ),
        ] {
            writeln!(f, "# TYPE {name} {kind}\n{name} {value}")?;
        }
        Ok(())
    }
}

fn write_histogram(f: &mut fmt::Formatter<'_>, operation: &OperationSnapshot) -> fmt::Result {
    const NAME: &str = "vfsd_request_duration_seconds";
    let opcode = operation.opcode;
    let mut below = 0u64;
    let all_but_last = operation.buckets.len().saturating_sub(1);
    for (power, count) in (0u32..).zip(operation.buckets.iter().take(all_but_last)) {
        below = below.saturating_add(*count);
        let edge = Duration::from_micros(1u64.checked_shl(power).unwrap_or(u64::MAX)).as_secs_f64();
        writeln!(
            f,
            "{NAME}_bucket{{opcode=\"{opcode}\",le=\"{edge}\"}} {below}"
        )?;
    }
    let OperationSnapshot {
        requests,
        microseconds,
        ..
    } = operation;
    writeln!(
        f,
        "{NAME}_bucket{{opcode=\"{opcode}\",le=\"+Inf\"}} {requests}"
    )?;
    let seconds = Duration::from_micros(*microseconds).as_secs_f64();
    writeln!(f, "{NAME}_sum{{opcode=\"{opcode}\"}} {seconds}")?;
    writeln!(f, "{NAME}_count{{opcode=\"{opcode}\"}} {requests}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_own_name_and_in_its_bucket() {
        let metrics = Metrics::new();
        for opcode in Opcode::ALL {
            metrics.record(*opcode, Duration::from_micros(5), *opcode == Opcode::Read);
        }
        metrics.record(Opcode::Write, Duration::from_secs(1_000_000), false);
        let snapshot = metrics.snapshot(Gauges {
            nodes: 3,
            ..Gauges::default()
        });
        assert_eq!(snapshot.operations.len(), Opcode::ALL.len());
        assert!(snapshot.operations.iter().all(|one| one.buckets[3] == 1));
        let text = snapshot.to_string();
        for line in [
            "vfsd_requests_total{opcode=\"Lookup\"} 1",
            "vfsd_requests_total{opcode=\"Write\"} 2",
            "vfsd_request_errors_total{opcode=\"Read\"} 1",
            "vfsd_request_errors_total{opcode=\"Write\"} 0",
            "vfsd_request_duration_seconds_bucket{opcode=\"Write\",le=\"0.000004\"} 0",
            "vfsd_request_duration_seconds_bucket{opcode=\"Write\",le=\"0.000008\"} 1",
            "vfsd_request_duration_seconds_bucket{opcode=\"Write\",le=\"+Inf\"} 2",
            "vfsd_nodes 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
