//! Work that is done to its end once it has begun.

use std::future::{Future, poll_fn};
use std::task::Poll;

use tokio::runtime::Handle;
use vfsd_backend::{Answer, Errno, Result};

/// An answer whose work goes on to its end when the answer is dropped after it was polled: a change of
/// several steps is then made whole, although the guest is gone. What is over at the first poll costs no
/// task.
pub(crate) fn settled<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Answer<'static, T> {
    Answer::later(async move {
        let mut work = Box::pin(work);
        // A queue's thread polls once, and is not on the runtime. What then goes on is.
        let mut polled = false;
        let early = poll_fn(|context| {
            if polled && Handle::try_current().is_ok() {
                return Poll::Ready(None);
            }
            polled = true;
            work.as_mut().poll(context).map(Some)
        })
        .await;
        match early {
            Some(result) => result,
            None => match tokio::spawn(work).await {
                Ok(result) => result,
                Err(failed) => {
                    tracing::error!(%failed, "a change was not finished");
                    Err(Errno::IO.into())
                }
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use vfsd_testkit::{block_on, runtime};

    #[test]
    fn what_has_begun_ends_although_nobody_waits() {
        let done = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let noted = done.clone();
        let answer = settled(async move {
            assert!(started.send(()).is_ok());
            drop(receiver.await);
            noted.store(true, Ordering::SeqCst);
            Ok(())
        });
        let waiting = runtime().spawn(answer);
        block_on(has_started).unwrap();
        // Lets it get to its second poll, whichever of the two runs.
        block_on(tokio::task::yield_now());
        assert!(sender.send(()).is_ok());
        block_on(waiting).unwrap().unwrap();
        assert!(done.load(Ordering::SeqCst));
    }

    #[test]
    fn what_is_ready_is_there_at_once() {
        assert_eq!(block_on(settled(async { Ok(3) })).unwrap(), 3);
    }
}
