//! Work that is done once, however many wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::ContentError;

type Outcome = Result<(), ContentError>;

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
    pub(super) fn join(&self, span: usize, work: impl FnOnce() -> Outcome) -> Outcome {
        let flight = {
            let mut going_on = self.going_on.lock();
            if let Some(flight) = going_on.get(&span).cloned() {
                drop(going_on);
                return flight.wait();
            }
            let flight = Arc::new(Flight::default());
            going_on.insert(span, Arc::clone(&flight));
            flight
        };
        let mut landing = Landing {
            flights: self,
            span,
            flight,
            outcome: Err(ContentError::GivenUp),
        };
        landing.outcome = work();
        landing.outcome.clone()
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

/// Tells those who wait, also after a panic.
struct Landing<'a> {
    flights: &'a Flights,
    span: usize,
    flight: Arc<Flight>,
    outcome: Outcome,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.going_on.lock().remove(&self.span);
        *self.flight.outcome.lock() = Some(self.outcome.clone());
        self.flight.over.notify_all();
    }
}
