//! Many requests in flight over many queues.

use std::time::{Duration, Instant};

use super::Result;
use super::channel::{Channel, Request, Returned};

/// How much work to give the device.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests in total, over all queues.
    pub requests: u64,
    /// Requests kept in flight on each queue.
    pub depth: usize,
}

/// What the device did with it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests that came back, checked.
    pub completed: u64,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// Time of each request from submission to return, in ascending order.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// Completed requests per second.
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `part` (0 to 1) of all requests did not exceed.
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (part.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Drives one thread for each channel until all requests came back. `make` gives the request with
/// a running number that is unique over all channels; `check` judges what came back for it.
///
/// # Errors
/// The first error of any channel; the others finish their share before.
pub fn run<M, C>(channels: &mut [Channel], load: Load, make: M, check: C) -> Result<Outcome>
where
    M: Fn(u64) -> Request + Sync,
    C: Fn(u64, &Returned) -> Result<()> + Sync,
{
    let queues = channels.len().max(1) as u64;
    let started = Instant::now();
    let parts: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0_u64..)
            .zip(channels.iter_mut())
            .map(|(queue, channel)| {
                let numbers = (queue..load.requests).step_by(queues as usize);
                let (make, check) = (&make, &check);
                scope.spawn(move || drive(channel, numbers, load.depth, make, check))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let elapsed = started.elapsed();
    let mut latencies = Vec::new();
    for part in parts {
        latencies.extend(part?);
    }
    latencies.sort_unstable();
    Ok(Outcome {
        completed: latencies.len() as u64,
        elapsed,
        latencies,
    })
}

fn drive(
    channel: &mut Channel,
    mut numbers: impl Iterator<Item = u64>,
    depth: usize,
    make: &impl Fn(u64) -> Request,
    check: &impl Fn(u64, &Returned) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut in_flight: Vec<(u64, u64, Instant)> = Vec::with_capacity(depth);
    let mut latencies = Vec::new();
    loop {
        while in_flight.len() < depth.max(1) {
            let Some(number) = numbers.next() else { break };
            let unique = channel.submit(&make(number))?;
            in_flight.push((unique, number, Instant::now()));
        }
        if in_flight.is_empty() {
            return Ok(latencies);
        }
        let returned = channel.wait_any()?;
        // `wait_any` only returns what is in flight, and only this loop submits.
        if let Some(at) = in_flight
            .iter()
            .position(|(unique, ..)| *unique == returned.unique)
        {
            let (_, number, submitted) = in_flight.swap_remove(at);
            latencies.push(submitted.elapsed());
            check(number, &returned)?;
        }
    }
}
