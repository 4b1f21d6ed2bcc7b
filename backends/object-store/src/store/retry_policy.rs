//! How long a request is repeated, and how often all of them together.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use object_store::{Error, Result};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::is_transient;
use super::outage::Outage;

/// The limits of repeated requests.
///
/// A request is repeated while its failure may pass and `give_up` is not over, with growing pauses. All requests of a
/// store share a budget of repetitions, so that a service that is down or overloaded is not sent many times what
/// was asked of it: who finds the budget used up waits for its turn.
#[derive(Debug)]
pub struct RetryPolicy {
    /// After this time without success a request fails.
    pub give_up: Duration,
    /// A single attempt that gives no sign of life for so long has failed.
    pub attempt: Duration,
    budget: Mutex<Budget>,
    outage: Arc<Outage>,
}

/// Repetitions that may be sent at once, when none was sent for a while.
const BURST: f64 = 64.0;
/// Repetitions a second that may be sent for ever.
const RATE: f64 = 32.0;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// What is sent may take longer by this much for each MiB: a line of 2 Mbit/s.
const PER_MIB: Duration = Duration::from_secs(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Budget {
    /// Negative when repetitions are waiting for their turn.
    left: f64,
    counted: Option<Instant>,
    random: u64,
}

impl Default for RetryPolicy {
    /// A minute in all, ten seconds for an attempt.
    fn default() -> Self {
        Self::new(Duration::from_secs(60), Duration::from_secs(10))
    }
}

impl RetryPolicy {
    /// Fails after `give_up`, and takes an attempt as failed that shows no sign of life for `attempt`.
    pub fn new(give_up: Duration, attempt: Duration) -> Self {
        let random = super::nonce::Nonce::new().half() | 1;
        Self {
            give_up,
            attempt: attempt.min(give_up),
            budget: Mutex::new(Budget {
                left: BURST,
                counted: None,
                random,
            }),
            outage: Arc::new(Outage::of("the store")),
        }
    }

    /// The same for a store that is called `name` in the log.
    pub(super) fn of(self, name: &str) -> Self {
        Self {
            outage: Arc::new(Outage::of(name)),
            ..self
        }
    }

    /// The same that gives up earlier.
    pub(super) fn shortened(&self, give_up: Duration) -> Self {
        Self {
            outage: Arc::clone(&self.outage),
            ..Self::new(self.give_up.min(give_up), self.attempt)
        }
    }

    /// Does something until it works, fails for good, or time runs out.
    pub(super) async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        self.run_for(self.attempt, attempt).await
    }

    /// As [`run`](Self::run), with another limit for one attempt.
    pub(super) async fn run_for<T, F: Future<Output = Result<T>>>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut pauses = self.pauses();
        loop {
            let error = match timeout(limit, attempt()).await {
                Ok(Ok(value)) => {
                    self.outage.answered();
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) => silent(),
            };
            pauses.after(error).await?;
        }
    }

    /// Waits until a request may be repeated that failed so often, the first time so long ago. False when it is given up.
    pub(super) async fn again(&self, failures: u32, elapsed: Duration) -> bool {
        let double = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(double).min(LONGEST_PAUSE);
        let now = Instant::now();
        let turn = self.turn(now, pause);
        let waits = turn.saturating_duration_since(now);
        if elapsed.saturating_add(waits) >= self.give_up {
            return false;
        }
        sleep_until(turn).await;
        true
    }

    pub(super) fn pauses(&self) -> Pauses<'_> {
        Pauses {
            policy: self,
            begun: Instant::now(),
            failures: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// When a repetition may be sent that waited for `pause`: later when many are sent.
    fn turn(&self, now: Instant, pause: Duration) -> Instant {
        let mut budget = self.budget.lock();
        let idle = budget.counted.map_or(Duration::ZERO, |counted| {
            now.saturating_duration_since(counted)
        });
        budget.counted = Some(now);
        budget.left = (budget.left + idle.as_secs_f64() * RATE).min(BURST) - 1.0;
        let queued = Duration::from_secs_f64((-budget.left).max(0.0) / RATE);
        // xorshift64: which client waits how long only has to differ.
        budget.random ^= budget.random << 13;
        budget.random ^= budget.random >> 7;
        budget.random ^= budget.random << 17;
        let half = pause.checked_div(2).unwrap_or_default();
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        let pause = half.saturating_add(Duration::from_nanos(
            budget.random.checked_rem(spread).unwrap_or(0),
        ));
        now.checked_add(pause.max(queued)).unwrap_or(now)
    }
}

/// How long a request with a body of this length may take, whose other requests may be silent for `attempt`.
pub(super) fn to_send(attempt: Duration, length: usize) -> Duration {
    let mib = u32::try_from(length >> 20).unwrap_or(u32::MAX);
    attempt.saturating_add(PER_MIB.saturating_mul(mib))
}

/// An attempt that gave no sign of life.
pub(super) fn silent() -> Error {
    Error::Generic {
        store: "request",
        source: "no reply in time".into(),
    }
}

/// The pauses of one request.
pub(super) struct Pauses<'a> {
    policy: &'a RetryPolicy,
    begun: Instant,
    failures: u32,
    pause: Duration,
}

impl Pauses<'_> {
    /// Waits until the request may be repeated.
    ///
    /// # Errors
    /// `error`, if a repetition would not help or comes too late.
    pub(super) async fn after(&mut self, error: Error) -> Result<()> {
        if !is_transient(&error) {
            return Err(error);
        }
        let now = Instant::now();
        let turn = self.policy.turn(now, self.pause);
        if self.is_over(turn) {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        let elapsed = now.saturating_duration_since(self.begun);
        let left = self.policy.give_up.saturating_sub(elapsed);
        self.policy
            .outage
            .failed(self.failures, elapsed, left, &error);
        tracing::debug!(error = %vfsd_backend::one_line(&error), "a request is repeated");
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        sleep_until(turn).await;
        Ok(())
    }

    /// Whether it is too late at a time.
    fn is_over(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.begun) >= self.policy.give_up
    }

    /// Waits a moment, whatever happened. For what the service calls a passing conflict.
    pub(super) async fn conflict(&mut self, error: Error) -> Result<()> {
        if self.is_over(Instant::now()) {
            return Err(error);
        }
        sleep(self.pause).await;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn passing() -> Error {
        Error::Generic {
            store: "test",
            source: "503".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_repeated_until_it_works() {
        let policy = RetryPolicy::default();
        let sent = Cell::new(0);
        let got = policy
            .run(|| {
                sent.set(sent.get() + 1);
                let ready = sent.get() == 4;
                async move { if ready { Ok(7) } else { Err(passing()) } }
            })
            .await;
        assert_eq!((got.unwrap(), sent.get()), (7, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_and_a_blip_is_not() {
        let policy = RetryPolicy::default();
        let fails = |times: u32, why: &'static str| {
            let (sent, policy) = (Cell::new(0), &policy);
            async move {
                let attempt = || {
                    sent.set(sent.get() + 1);
                    let fails = sent.get() <= times;
                    async move {
                        let source = why.into();
                        let error = Error::Generic {
                            store: "test",
                            source,
                        };
                        if fails {
                            Err(error)
                        } else {
                            Ok(policy.outage.is_told())
                        }
                    }
                };
                policy.run(attempt).await.unwrap()
            }
        };
        assert!(!fails(1, "503").await, "a blip");
        assert!(fails(1, "tcp connect error").await);
        assert!(!policy.outage.is_told(), "it is over");
        assert!(!fails(3, "503").await, "one was just told");
        sleep(Duration::from_secs(61)).await;
        assert!(fails(3, "503").await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_works_is_given_up_in_time() {
        let policy = RetryPolicy::default();
        let begun = Instant::now();
        let got: Result<()> = policy.run(|| async { Err(passing()) }).await;
        assert!(got.is_err());
        assert!(begun.elapsed() <= policy.give_up);
        let got: Result<()> = policy.run(std::future::pending).await;
        assert!(got.unwrap_err().to_string().contains("no reply in time"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let sent = Cell::new(0);
        let got: Result<()> = RetryPolicy::default()
            .run(|| {
                sent.set(sent.get() + 1);
                async {
                    Err(Error::NotFound {
                        path: "a".into(),
                        source: "404".into(),
                    })
                }
            })
            .await;
        assert!(got.is_err());
        assert_eq!(sent.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_of_a_store_share_the_budget_of_repetitions() {
        let policy = RetryPolicy::default();
        let sent = Cell::new(0_u32);
        let requests = (0..400).map(|_| {
            policy.run(|| {
                sent.set(sent.get() + 1);
                async { Err::<(), _>(passing()) }
            })
        });
        futures_util::future::join_all(requests).await;
        // 400 first attempts, the burst, and a minute of the rate.
        assert!(sent.get() < 400 + 64 + 60 * 32 + 400, "{}", sent.get());
        assert!(sent.get() > 800, "{}", sent.get());
    }
}
