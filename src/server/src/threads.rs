//! How many threads the requests of one export may hold at a time.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Unless the operator chooses: as many as keep one disk busy, and few enough for their stacks not to count.
const USUAL: usize = 64;

/// The threads of the runtime that an export's requests may hold. Each storage may wait for a disk or a
/// server of its own: one that does not answer holds its share, and the others go on.
pub(crate) struct Threads {
    free: Semaphore,
}

impl Threads {
    /// As many as serve well.
    pub(crate) fn usual() -> Arc<Self> {
        Self::at_most(USUAL)
    }

    /// So many, but one at least.
    pub(crate) fn at_most(count: usize) -> Arc<Self> {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Semaphore::new(count),
        })
    }

    /// As many as there are: for what never blocks.
    pub(crate) fn all() -> Arc<Self> {
        Self::at_most(Semaphore::MAX_PERMITS)
    }

    /// Does some work, each part of which has a thread to block.
    pub(crate) async fn run<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        // What waits for a thread, if it has to.
        let mut turn = None;
        std::future::poll_fn(|context| {
            let permit = match &mut turn {
                None => self.free.try_acquire().ok(),
                Some(_) => None,
            };
            let _permit = match permit {
                Some(permit) => Some(permit),
                None => {
                    let turn = turn.get_or_insert_with(|| Box::pin(self.free.acquire()));
                    ready!(poll_turn(turn.as_mut(), context))
                }
            };
            turn = None;
            work.as_mut().poll(context)
        })
        .await
    }
}

/// A permit. None of a semaphore that was closed, which none is.
fn poll_turn<'a, F, E>(
    turn: Pin<&mut F>,
    context: &mut Context<'_>,
) -> Poll<Option<SemaphorePermit<'a>>>
where
    F: Future<Output = Result<SemaphorePermit<'a>, E>>,
{
    turn.poll(context).map(Result::ok)
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("free", &self.free.available_permits())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_work_is_done_at_a_time_than_there_are_threads() {
        let threads = Threads::at_most(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (threads, now, most) = (threads.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let mut polls = 0;
                    let work = std::future::poll_fn(|context| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        polls += 1;
                        context.waker().wake_by_ref();
                        match polls {
                            5 => Poll::Ready(()),
                            _ => Poll::Pending,
                        }
                    });
                    threads.run(work).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(threads.free.available_permits(), 2);
    }
}
