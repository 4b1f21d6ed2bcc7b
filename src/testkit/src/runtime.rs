//! Waits for answers in tests.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Waits for an answer of a backend, or for any future.
///
/// All callers share one runtime with two worker threads, so that
/// [`Answer::blocking`](vfsd_backend::Answer::blocking) works and timers run.
///
/// # Panics
/// When the runtime cannot be started, or when it is called by a worker thread of a runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// The runtime of [`block_on`], to spawn on.
///
/// # Panics
/// When it cannot be started.
#[expect(clippy::expect_used, reason = "a test without a runtime has failed")]
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .expect("start a runtime for tests")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_backend::Answer;

    #[test]
    fn answers_of_all_three_kinds_are_waited_for() {
        assert_eq!(block_on(Answer::ok(1)).unwrap(), 1);
        assert_eq!(block_on(Answer::later(async { Ok(2) })).unwrap(), 2);
        assert_eq!(block_on(Answer::blocking(|| Ok(3))).unwrap(), 3);
    }
}
