//! The same in many orders of the threads' steps, always the same ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use shuttle::scheduler::RandomScheduler;
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::*;

/// Runs `test` in so many orders. More steps than these are taken for a loop.
fn in_orders(count: usize, test: fn()) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(10_000);
    Runner::new(RandomScheduler::new_from_seed(7, count), config).run(test);
}

/// A queue that notes how often another thread went on with it.
#[derive(Debug, Default)]
struct Queue {
    state: HandOff,
    claims: Mutex<usize>,
    claimed: Condvar,
}

impl MonitoredQueue for Queue {
    fn state(&self) -> &HandOff {
        &self.state
    }

    fn hand_off(self: Arc<Self>, section: BlockingSection) {
        if self.state.claim(section) {
            *self.claims.lock().unwrap() += 1;
            self.claimed.notify_all();
        }
    }
}

#[test]
fn a_queue_is_served_by_one_thread_whoever_claims_it() {
    shuttle::check_dfs(
        || {
            let queue = Arc::new(Queue::default());
            let serving = Arc::new(AtomicUsize::new(0));
            let claimants: Vec<_> = (0..2)
                .map(|_| {
                    let (queue, serving) = (Arc::clone(&queue), Arc::clone(&serving));
                    thread::spawn(move || {
                        if let Some(section) = queue.state.section()
                            && queue.state.claim(section)
                        {
                            serving.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let section = queue.state.enter().unwrap();
            if queue.state.exit(section) {
                serving.fetch_add(1, Ordering::Relaxed);
            }
            for claimant in claimants {
                claimant.join().unwrap();
            }
            assert_eq!(serving.load(Ordering::Relaxed), 1);
        },
        None,
    );
}

#[test]
fn a_section_that_lasts_is_seen_whether_the_monitor_looks_or_falls_asleep() {
    in_orders(1_000, || {
        let queue = Arc::new(Queue::default());
        let monitor = Monitor::new();
        let watched: Weak<Queue> = Arc::downgrade(&queue);
        monitor.include(watched);
        let worker = MonitoredWorker::new(Arc::clone(&queue), Arc::clone(&monitor));
        // Each wakes the monitor, which looks for a while and falls asleep.
        for _ in 0..4 {
            if worker.enter_blocking() {
                worker.exit_blocking();
            }
            for _ in 0..8 {
                thread::yield_now();
            }
        }
        while !worker.enter_blocking() {}
        let mut claims = queue.claims.lock().unwrap();
        while *claims == 0 {
            claims = queue.claimed.wait(claims).unwrap();
        }
        drop(claims);
        worker.exit_blocking();
        assert!(worker.is_handed_off());
        monitor.end();
    });
}

#[test]
fn a_drain_ends_when_the_last_request_does() {
    in_orders(1_000, || {
        let requests = Arc::new(InFlightCount::default());
        for _ in 0..3 {
            requests.begin();
        }
        assert!(!requests.wait_for_none(Duration::ZERO));
        for ends in [1, 2] {
            let requests = Arc::clone(&requests);
            thread::spawn(move || {
                for _ in 0..ends {
                    // What a request takes to its end.
                    requests.begin();
                    requests.end();
                    requests.end();
                }
            });
        }
        assert!(requests.wait_for_none(Duration::MAX));
        assert_eq!(requests.count(), 0);
    });
}
