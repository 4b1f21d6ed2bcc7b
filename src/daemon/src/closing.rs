//! Storages that are open, and are closed together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vfsd_backend::{Backend, one_line};

use crate::exit::Failure;
use crate::storage::in_log;
use crate::together::{Work, together};

/// Storages that are open, to be closed when nobody uses them any more.
#[derive(Clone, Default)]
pub(crate) struct Closing(Arc<Mutex<Opened>>);

#[derive(Default)]
struct Opened {
    /// Each with its place on the command line and its name.
    storages: Vec<(usize, String, Arc<dyn Backend>)>,
    /// Those that are being opened, each with its place.
    opening: Vec<(usize, String)>,
    /// What is opened from now on is too late.
    closed: bool,
}

impl Closing {
    pub(crate) fn begin(&self, place: usize, source: String) {
        self.lock().opening.push((place, source));
    }

    pub(crate) fn fail(&self, place: usize) {
        self.lock().opening.retain(|(other, _)| *other != place);
    }

    /// One is open. If the others were closed already, nobody is going to use it: then so is this one.
    pub(crate) fn add(&self, place: usize, name: &str, backend: &Arc<dyn Backend>) {
        let mut opened = self.lock();
        opened.opening.retain(|(other, _)| *other != place);
        if !opened.closed {
            let open = (place, name.to_owned(), Arc::clone(backend));
            opened.storages.push(open);
            return;
        }
        drop(opened);
        if let Err(error) = backend.close() {
            tracing::error!("it was not closed: {}", one_line(&error));
        }
    }

    /// The sources that are being opened, in the order of the command line.
    pub(crate) fn opening(&self) -> Vec<String> {
        let mut opening = self.lock().opening.clone();
        opening.sort();
        opening.into_iter().map(|(_, source)| source).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all of them at the same time, whatever becomes of the others, and those that are opened later. Done twice it
    /// does nothing.
    ///
    /// # Errors
    /// The first that failed.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let mut opened = {
            let mut opened = self.lock();
            opened.closed = true;
            std::mem::take(&mut opened.storages)
        };
        opened.sort_by_key(|(place, ..)| *place);
        let work = opened.into_iter().map(|(_, name, backend)| {
            let close: Work<Result<(), Failure>> = Box::new(move || Ok(close(&name, &*backend)));
            close
        });
        let closed = together("close", work.collect())?;
        closed.into_iter().fold(Ok(()), Result::and)
    }
}

fn close(name: &str, backend: &dyn Backend) -> Result<(), Failure> {
    let _in = in_log((!name.is_empty()).then_some(name)).entered();
    backend.close().map_err(|error| {
        let which = match name {
            "" => "the storage".to_owned(),
            name => format!("the storage of {name}"),
        };
        Failure::run(format!("{which} was not closed: {}", one_line(&error)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::time::Duration;

    use vfsd_backend::{Capabilities, Errno, Node};

    use super::*;

    /// How many are being closed, of so many that are all waited for.
    struct Gathering(Mutex<usize>, Condvar, usize);

    impl Gathering {
        /// Waits until all are there. False when they do not come.
        fn wait(&self) -> bool {
            let mut there = self.0.lock().unwrap();
            *there += 1;
            self.1.notify_all();
            let limit = Duration::from_secs(60);
            let waited = self
                .1
                .wait_timeout_while(there, limit, |there| *there < self.2);
            !waited.unwrap().1.timed_out()
        }
    }

    struct Slow(Arc<Gathering>, Option<Errno>);

    impl Backend for Slow {
        fn root(&self) -> Arc<dyn Node> {
            unreachable!()
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::empty()
        }

        fn close(&self) -> vfsd_backend::Result<()> {
            assert!(self.0.wait(), "they are closed one after another");
            self.1.map_or(Ok(()), |errno| Err(errno.into()))
        }
    }

    #[test]
    fn storages_are_closed_at_the_same_time_and_the_first_failure_is_told() {
        let all = Arc::new(Gathering(Mutex::default(), Condvar::new(), 8));
        let closing = Closing::default();
        for place in (0..8).rev() {
            let fails = (place > 4).then_some(Errno::IO);
            let backend: Arc<dyn Backend> = Arc::new(Slow(Arc::clone(&all), fails));
            closing.add(place, &format!("export{place}"), &backend);
        }
        let failure = closing.close().unwrap_err();
        assert!(
            matches!(&failure, Failure::Run(told) if told.starts_with("the storage of export5 was not closed")),
            "{failure:?}"
        );
        assert!(closing.close().is_ok(), "once is enough");
    }
}
