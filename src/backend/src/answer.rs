//! A result that is there at once, or that has to be waited for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::{Error, Result};

/// What a backend's method returns: a result now, a future, or work that blocks its thread.
///
/// The thread that serves a queue polls an answer once. One that is ready costs no allocation and
/// no change of thread. One that is not moves to the runtime, and the queue goes on with the next
/// request: no request that waits for a disk or a network ever holds a queue.
///
/// An answer that is dropped before it is ready must leave the storage as if the operation had
/// not begun, or as if it had ended; only waits for a lock are dropped while the guest still waits
/// for the reply.
#[must_use = "an answer does nothing until it is awaited"]
pub struct Answer<'a, T> {
    state: State<'a, T>,
}

enum State<'a, T> {
    Ready(Result<T>),
    Later(Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>),
    Blocking {
        work: Box<dyn FnOnce() -> Result<T> + Send + 'a>,
        handed_over: bool,
    },
    Taken,
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is already there.
    pub fn ready(result: Result<T>) -> Self {
        Self {
            state: State::Ready(result),
        }
    }

    /// A successful answer that is already there.
    pub fn ok(value: T) -> Self {
        Self::ready(Ok(value))
    }

    /// A refusal.
    pub fn error(error: impl Into<Error>) -> Self {
        Self::ready(Err(error.into()))
    }

    /// The answer of a backend that does not implement the operation.
    pub fn not_supported() -> Self {
        Self::ready(Err(Error::NotSupported))
    }

    /// Runs `work` right here, on the thread that serves the queue: for what does not wait for a
    /// disk or a network. It exists so that `work` can use `?`.
    pub fn now(work: impl FnOnce() -> Result<T>) -> Self {
        Self::ready(work())
    }

    /// An answer that a future gives. Not polled again after it is ready.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Self {
            state: State::Later(Box::pin(future)),
        }
    }

    /// An answer that blocks the thread which computes it, for instance on a disk. It is never
    /// computed by the thread that polls first, which serves a queue.
    pub fn blocking(work: impl FnOnce() -> Result<T> + Send + 'a) -> Self {
        Self {
            state: State::Blocking {
                work: Box::new(work),
                handed_over: false,
            },
        }
    }
}

impl<T> From<Result<T>> for Answer<'_, T> {
    fn from(result: Result<T>) -> Self {
        Self::ready(result)
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ready(_) => "Ready",
            State::Later(_) => "Later",
            State::Blocking { .. } => "Blocking",
            State::Taken => "Taken",
        };
        f.debug_tuple("Answer").field(&state).finish()
    }
}

// No field is pinned in place: the future of `Later` is behind its own box.
impl<T> Unpin for Answer<'_, T> {}

impl<T> Future for Answer<'_, T> {
    type Output = Result<T>;

    /// A second poll after the result was taken gives EIO.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Later(future) => {
                let result = std::task::ready!(future.as_mut().poll(context));
                self.state = State::Taken;
                return Poll::Ready(result);
            }
            State::Blocking {
                handed_over: handed_over @ false,
                ..
            } => {
                *handed_over = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::Ready(_) | State::Blocking { .. } | State::Taken => {}
        }
        Poll::Ready(match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(result) => result,
            State::Blocking { work, .. } => tokio::task::block_in_place(work),
            State::Later(_) | State::Taken => Err(Error::Errno(crate::Errno::IO)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    fn poll_once<T>(answer: &mut Answer<'_, T>) -> Poll<Result<T>> {
        pin!(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_ready_answer_is_there_at_the_first_poll() {
        let mut answer = Answer::ok(7);
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(7))));
    }

    #[test]
    fn blocking_work_is_not_done_by_the_first_poll() {
        let mut done = false;
        let mut answer = Answer::blocking(|| {
            done = true;
            Ok(())
        });
        assert!(poll_once(&mut answer).is_pending());
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(()))));
        drop(answer);
        assert!(done);
    }

    #[test]
    fn a_future_is_polled_until_it_is_ready() {
        let mut answer = Answer::later(async { Ok("done") });
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok("done"))));
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Err(_))));
    }
}
