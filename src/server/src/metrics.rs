//! Counters and latencies of a session, kept from its start to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use vfsd_fuse::Opcode;

/// Latency buckets: the n-th counts requests that took less than 2^n microseconds; the last one all the rest.
const BUCKETS: usize = 24;

/// The session's counters. What each request changes is kept in tallies, one for each thread that
/// takes requests in, so that threads do not wait for one another's cache lines.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Of threads that still count.
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// Of threads that have ended, and of requests that ended elsewhere.
    shared: Tally,
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

/// Requests that have ended, by opcode.
#[derive(Debug)]
struct Tally(Box<[OperationMetrics]>);

#[derive(Debug, Default)]
struct OperationMetrics {
    requests: AtomicU64,
    errors: AtomicU64,
    microseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// The only writer of a tally.
#[derive(Debug)]
pub(crate) struct Counter<'a> {
    metrics: &'a Metrics,
    tally: Arc<Tally>,
}

impl Counter<'_> {
    /// Counts a request that has ended.
    pub(crate) fn record(&mut self, opcode: Opcode, took: Duration, failed: bool) {
        // Nobody else writes, so no atomic addition is needed.
        self.tally.record(opcode, took, failed, |counter, more| {
            let sum = counter.load(Ordering::Relaxed).wrapping_add(more);
            counter.store(sum, Ordering::Relaxed);
        });
    }
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        // A snapshot sees the counts in one place or in the other, not in both.
        let mut tallies = self.metrics.tallies.lock();
        self.metrics.shared.add(&self.tally);
        tallies.retain(|tally| !Arc::ptr_eq(tally, &self.tally));
    }
}

impl Tally {
    fn new() -> Self {
        Self(
            Opcode::ALL
                .iter()
                .map(|_| OperationMetrics::default())
                .collect(),
        )
    }

    fn record(&self, opcode: Opcode, took: Duration, failed: bool, add: impl Fn(&AtomicU64, u64)) {
        let Some(operation) = self.0.get(index(opcode)) else {
            return;
        };
        let microseconds = took
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(took.subsec_micros()));
        let bits = u64::BITS.saturating_sub(microseconds.leading_zeros());
        let bucket = usize::try_from(bits)
            .unwrap_or(BUCKETS)
            .min(BUCKETS.saturating_sub(1));
        add(&operation.requests, 1);
        add(&operation.microseconds, microseconds);
        if let Some(bucket) = operation.buckets.get(bucket) {
            add(bucket, 1);
        }
        if failed {
            add(&operation.errors, 1);
        }
    }

    /// Adds what another one counted, which counts no more.
    fn add(&self, other: &Self) {
        for (to, from) in self.0.iter().zip(&other.0) {
            for (to, from) in to.all().zip(from.all()) {
                to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }
}

impl OperationMetrics {
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        [&self.requests, &self.errors, &self.microseconds]
            .into_iter()
            .chain(&self.buckets)
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            tallies: Mutex::default(),
            shared: Tally::new(),
            unknown: AtomicU64::new(0),
            unanswerable: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
        }
    }

    /// A counter for a thread.
    pub(crate) fn counter(&self) -> Counter<'_> {
        let tally = Arc::new(Tally::new());
        self.tallies.lock().push(Arc::clone(&tally));
        Counter {
            metrics: self,
            tally,
        }
    }

    /// Counts a request that has ended on no thread that takes requests in.
    pub(crate) fn record(&self, opcode: Opcode, took: Duration, failed: bool) {
        self.shared.record(opcode, took, failed, |counter, more| {
            counter.fetch_add(more, Ordering::Relaxed);
        });
    }

    pub(crate) fn snapshot(&self, gauges: Gauges) -> MetricsSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = Tally::new();
        let tallies = self.tallies.lock();
        all.add(&self.shared);
        tallies.iter().for_each(|tally| all.add(tally));
        drop(tallies);
        let operations = Opcode::ALL
            .iter()
            .zip(&all.0)
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
    /// Files that are kept open for a guest that opens none.
    pub implied_files: usize,
    /// Requests that wait for a lock.
    pub lock_waits: usize,
    /// Other requests that have not ended on the thread that took them in, and go on.
    pub deferred: usize,
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
                "vfsd_implied_files",
                "gauge",
                u64::try_from(self.gauges.implied_files).unwrap_or(u64::MAX),
            ),
            (
                "vfsd_lock_waits",
                "gauge",
                u64::try_from(self.gauges.lock_waits).unwrap_or(u64::MAX),
            ),
            (
                "vfsd_deferred_requests",
                "gauge",
                u64::try_from(self.gauges.deferred).unwrap_or(u64::MAX),
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
        let mut counter = metrics.counter();
        counter.record(Opcode::Lookup, Duration::from_micros(5), false);
        let snapshot = metrics.snapshot(Gauges {
            nodes: 3,
            ..Gauges::default()
        });
        assert_eq!(snapshot.operations.len(), Opcode::ALL.len());
        let fifth = |one: &OperationSnapshot| one.buckets[3];
        assert_eq!(snapshot.operations.iter().map(fifth).max(), Some(2));
        assert_eq!(snapshot.operations.iter().map(fifth).min(), Some(1));
        let text = snapshot.to_string();
        for line in [
            "vfsd_requests_total{opcode=\"Lookup\"} 2",
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

    #[test]
    fn what_a_thread_counted_stays_when_it_is_gone() {
        let metrics = Metrics::new();
        let count = |metrics: &Metrics| metrics.snapshot(Gauges::default()).operations;
        let mut counter = metrics.counter();
        counter.record(Opcode::Read, Duration::from_micros(5), true);
        let before = count(&metrics);
        assert_eq!((before[0].requests, before[0].errors), (1, 1));
        drop(counter);
        assert_eq!(count(&metrics), before);
        assert!(metrics.tallies.lock().is_empty());
    }
}
