//! Work that is done once, however many wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::ContentError;
use crate::counters::Found;

/// What whoever fills a span tells those who wait for it.
pub(super) type Outcome = Result<(), ContentError>;

/// Fills that are going on, by span.
#[derive(Debug, Default)]
pub(super) struct Flights {
    going_on: Mutex<HashMap<usize, Arc<Flight>>>,
}

#[derive(Debug, Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    over: Condvar,
}

impl Flights {
    /// Does `work` for a span, or waits for who does it already and shares the outcome.
    pub(super) fn join(
        &self,
        span: usize,
        work: impl FnOnce() -> Result<Found, ContentError>,
    ) -> Result<Found, ContentError> {
        match self.enter(span) {
            Ok(mut landing) => {
                let done = work();
                landing.outcome = done.clone().map(drop);
                done
            }
            Err(flight) => flight.wait().map(|()| Found::Waited),
        }
    }

    /// Makes a span the caller's to fill; none if somebody fills it already. Waits for nothing.
    pub(super) fn begin(&self, span: usize) -> Option<Landing<'_>> {
        self.enter(span).ok()
    }

    fn enter(&self, span: usize) -> Result<Landing<'_>, Arc<Flight>> {
        let mut going_on = self.going_on.lock();
        if let Some(flight) = going_on.get(&span) {
            return Err(Arc::clone(flight));
        }
        let flight = Arc::new(Flight::default());
        going_on.insert(span, Arc::clone(&flight));
        Ok(Landing {
            flights: self,
            span,
            flight,
            outcome: Err(ContentError::GivenUp),
        })
    }
}

impl Flight {
    fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            self.over.wait(&mut outcome);
        }
    }
}

/// A span that is the holder's to fill. Tells those who wait, also after a panic.
pub(super) struct Landing<'a> {
    flights: &'a Flights,
    pub(super) span: usize,
    flight: Arc<Flight>,
    pub(super) outcome: Outcome,
}

impl Landing<'_> {
    /// The span, and what is told of it.
    pub(super) fn told(&self) -> (usize, Outcome) {
        (self.span, self.outcome.clone())
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.going_on.lock().remove(&self.span);
        *self.flight.outcome.lock() = Some(self.outcome.clone());
        self.flight.over.notify_all();
    }
}
