//! A result that is there at once, or that has to be waited for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use vfsd_exec::{blocking_section, while_blocked};

use crate::{Error, Result};

/// What a backend's method returns: a result now, a future, or work that blocks its thread.
///
/// The thread that serves a queue polls an answer once. One that is ready costs no allocation and
/// no change of thread. One that is not moves to the runtime, and the queue goes on with the next
/// request: no request that waits for a disk or a network ever holds a queue.
///
/// An answer that is dropped before it is ready is cancelled. It must leave the storage as if the operation had
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

    /// Runs `work`, which is over at once nearly always but may wait for a disk now and then: a
    /// write into the page cache, the making or removing of a name. It is done right here if the
    /// thread may enter a [blocking section](blocking_section), in which its queue is handed off to
    /// another when the work takes long; otherwise, or when such work took long lately, as by
    /// [`blocking`](Self::blocking).
    pub fn brief(work: impl FnOnce() -> Result<T> + Send + 'a) -> Self {
        match blocking_section(work) {
            Ok(result) => Self::ready(result),
            Err(work) => Self::blocking(work),
        }
    }

    /// An answer that blocks the thread which computes it, for instance on a disk. It is never
    /// computed by the thread that polls first, which serves a queue. [Brief](Self::brief) work that is part of it is
    /// done at once.
    pub fn blocking(work: impl FnOnce() -> Result<T> + Send + 'a) -> Self {
        Self {
            state: State::Blocking {
                work: Box::new(work),
                handed_over: false,
            },
        }
    }
}

/// An answer over another's: a backend above a backend costs nothing where the lower one is ready.
impl<'a, T: Send + 'a> Answer<'a, T> {
    /// The answer with its value changed. A ready one stays ready, and one that blocks blocks no
    /// longer than before.
    pub fn map<U: Send + 'a>(self, change: impl FnOnce(T) -> U + Send + 'a) -> Answer<'a, U> {
        self.and_then(|value| Ok(change(value)))
    }

    /// As [`map`](Self::map), with a change that can fail and does not wait.
    pub fn and_then<U: Send + 'a>(
        self,
        change: impl FnOnce(T) -> Result<U> + Send + 'a,
    ) -> Answer<'a, U> {
        match self.state {
            State::Ready(result) => Answer::ready(result.and_then(change)),
            State::Later(future) => Answer::later(async move { change(future.await?) }),
            State::Blocking { work, handed_over } => Answer {
                state: State::Blocking {
                    work: Box::new(move || work().and_then(change)),
                    handed_over,
                },
            },
            State::Taken => Answer::error(crate::Errno::IO),
        }
    }

    /// Goes on with what `next` answers to the result, a failure included. Both ready: ready.
    pub fn then<U: Send + 'a>(
        self,
        next: impl FnOnce(Result<T>) -> Answer<'a, U> + Send + 'a,
    ) -> Answer<'a, U> {
        match self.state {
            State::Ready(result) => next(result),
            state => Answer::later(async move { next(Answer { state }.await).await }),
        }
    }

    /// The result, if it is there already; otherwise the answer that has to be awaited.
    ///
    /// # Errors
    /// The answer itself, when it is not ready.
    pub fn into_ready(self) -> std::result::Result<Result<T>, Self> {
        match self.state {
            State::Ready(result) => Ok(result),
            state => Err(Answer { state }),
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
            State::Blocking { work, .. } => tokio::task::block_in_place(|| while_blocked(work)),
            State::Later(_) | State::Taken => Err(Error::Errno(crate::Errno::IO)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    use vfsd_exec::{Worker, register};

    /// A worker that may enter a blocking section only so often.
    struct Sparing(std::cell::Cell<u32>);

    impl Worker for Sparing {
        fn enter_blocking(&self) -> bool {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            left > 0
        }

        fn exit_blocking(&self) {}
    }

    #[test]
    fn brief_work_is_done_at_once_where_a_blocking_section_may_be_entered() {
        // A thread of its own, which is a worker until it ends.
        std::thread::spawn(|| {
            assert!(register(Rc::new(Sparing(1.into()))));
            let mut within = Answer::brief(|| Ok(Answer::brief(|| Ok(7))));
            let Poll::Ready(Ok(mut inner)) = poll_once(&mut within) else {
                panic!("done at once");
            };
            assert!(matches!(poll_once(&mut inner), Poll::Ready(Ok(7))));
            assert!(poll_once(&mut Answer::brief(|| Ok(()))).is_pending());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn brief_work_of_a_thread_that_is_no_worker_is_blocking_work() {
        let mut answer = Answer::brief(|| Ok(3));
        assert!(poll_once(&mut answer).is_pending());
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(3))));
    }

    fn poll_once<T>(answer: &mut Answer<'_, T>) -> Poll<Result<T>> {
        pin!(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn brief_work_that_is_a_part_of_blocking_work_is_done_at_once() {
        let mut answer = Answer::blocking(|| Ok(Answer::brief(|| Ok(3)).into_ready().is_ok()));
        assert!(poll_once(&mut answer).is_pending());
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(true))));
        assert!(Answer::brief(|| Ok(3)).into_ready().is_err());
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
    fn what_is_made_of_a_ready_answer_is_ready() {
        let mut answer = Answer::ok(3)
            .map(|value| value + 1)
            .and_then(|value| Ok(value * 2))
            .then(|result| Answer::ready(result.map(|value| value + 1)));
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(9))));
        let mut refused = Answer::<u8>::error(crate::Errno::NOENT).map(|_| panic!("no value"));
        let Poll::Ready(Err(error)) = poll_once::<u8>(&mut refused) else {
            panic!("a refusal is ready, too");
        };
        assert!(error.is(crate::Errno::NOENT));
        assert!(matches!(Answer::ok(1).into_ready(), Ok(Ok(1))));
    }

    #[test]
    fn what_is_made_of_blocking_work_is_not_done_by_the_first_poll() {
        let mut answer = Answer::blocking(|| Ok(3)).map(|value| value + 1);
        assert!(poll_once(&mut answer).is_pending());
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(4))));
        let mut answer = Answer::blocking(|| Ok(3)).then(Answer::ready);
        assert!(poll_once(&mut answer).is_pending());
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(3))));
        assert!(Answer::blocking(|| Ok(3)).into_ready().is_err());
    }

    #[test]
    fn what_is_made_of_a_future_comes_when_it_is_ready() {
        let mut answer = Answer::later(async { Ok(3) })
            .and_then(|value| Ok(value + 1))
            .then(|result| Answer::later(async move { result.map(|value| value * 2) }));
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok(8))));
    }

    #[test]
    fn a_future_is_polled_until_it_is_ready() {
        let mut answer = Answer::later(async { Ok("done") });
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Ok("done"))));
        assert!(matches!(poll_once(&mut answer), Poll::Ready(Err(_))));
    }
}
