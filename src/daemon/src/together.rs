//! Work of several storages at the same time: what one waits for holds up no other.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::Failure;

/// How many are worked on at the same time, at most: registries and stores are asked politely.
const AT_ONCE: usize = 8;

/// How long, once something failed, what was begun before is waited for: what failed first on the command line is told
/// first, and a storage that is half open gets to its end and can be closed.
const OTHERS: Duration = Duration::from_secs(10);

/// The work of one storage.
pub(crate) type Work<T> = Box<dyn FnOnce() -> Result<T, Failure> + Send>;

/// Does all of `work`, and gives what came of it in its order. After a failure nothing more is begun.
///
/// Where it succeeds its threads, which are called `name`, have ended.
///
/// # Errors
/// The first failure, in the order of `work`; what is not done within [`OTHERS`] after one goes on by itself.
pub(crate) fn together<T: Send + 'static>(
    name: &'static str,
    work: Vec<Work<T>>,
) -> Result<Vec<T>, Failure> {
    together_within(name, work, OTHERS)
}

fn together_within<T: Send + 'static>(
    name: &'static str,
    work: Vec<Work<T>>,
    others: Duration,
) -> Result<Vec<T>, Failure> {
    let count = work.len();
    if count <= 1 {
        return work.into_iter().map(|work| work()).collect();
    }
    let queue = Arc::new(Mutex::new(work.into_iter().enumerate()));
    let (sender, done) = mpsc::channel();
    let mut threads = Vec::new();
    for _ in 0..count.min(AT_ONCE) {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        let take_turns = move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some((index, work)) = next() {
                let came = work();
                if came.is_err() {
                    // What is behind a failure is not begun.
                    while next().is_some() {}
                }
                // Nobody listens any more when others were waited for in vain.
                let _ = sender.send((index, came));
            }
        };
        let named = thread::Builder::new().name(name.to_owned());
        match named.spawn(take_turns.clone()) {
            Ok(thread) => threads.push(thread),
            // The others do its work, or this one.
            Err(_) if !threads.is_empty() => break,
            Err(_) => {
                take_turns();
                break;
            }
        }
    }
    drop(sender);
    let mut came = Vec::new();
    let mut failed: Option<Instant> = None;
    loop {
        let next = match failed {
            None => done.recv().ok(),
            Some(failed) => done
                .recv_timeout(others.saturating_sub(failed.elapsed()))
                .ok(),
        };
        let Some((index, outcome)) = next else { break };
        if outcome.is_err() {
            failed.get_or_insert_with(Instant::now);
        }
        came.push((index, outcome));
    }
    came.sort_by_key(|(index, _)| *index);
    let all = came
        .into_iter()
        .map(|(_, outcome)| outcome)
        .collect::<Result<Vec<_>, _>>()?;
    if all.len() < count {
        return Err(Failure::run("a thread has panicked"));
    }
    for thread in threads {
        // It had nothing left to do.
        let _ = thread.join();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn work<T>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Work<T> {
        Box::new(work)
    }

    #[test]
    fn all_is_done_at_the_same_time_and_given_in_order() {
        let all_are_there = Arc::new(Barrier::new(AT_ONCE));
        let list = (0..AT_ONCE).map(|index| {
            let all_are_there = Arc::clone(&all_are_there);
            work(move || {
                all_are_there.wait();
                Ok(index)
            })
        });
        let expected: Vec<_> = (0..AT_ONCE).collect();
        assert_eq!(together("test", list.collect()).unwrap(), expected);
        let many = (0..100).map(|index| work(move || Ok(index)));
        let expected: Vec<_> = (0..100).collect();
        assert_eq!(together("test", many.collect()).unwrap(), expected);
        assert_eq!(together::<()>("test", Vec::new()).unwrap(), []);
    }

    #[test]
    fn the_first_failure_is_told_whichever_came_first() {
        let (second, first) = mpsc::channel::<()>();
        let list = vec![
            work(move || {
                // After the other one has failed.
                let _ = first.recv();
                Err::<(), _>(Failure::run("the first"))
            }),
            work(move || {
                drop(second);
                Err(Failure::run("the second"))
            }),
        ];
        let failure = together("test", list).unwrap_err();
        assert!(
            matches!(&failure, Failure::Run(told) if told == "the first"),
            "{failure:?}"
        );
    }

    #[test]
    fn what_hangs_does_not_keep_a_failure_back() {
        let (holds, held) = mpsc::channel::<()>();
        let list = vec![
            work(move || {
                let _ = held.recv();
                Ok(())
            }),
            work(|| Err(Failure::run("the second"))),
        ];
        let failure = together_within("test", list, Duration::from_millis(1)).unwrap_err();
        drop(holds);
        assert!(
            matches!(&failure, Failure::Run(told) if told == "the second"),
            "{failure:?}"
        );
    }
}
