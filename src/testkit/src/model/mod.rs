//! Random operations on two backends at a time, with results and trees compared.
//!
//! One of them is the oracle, for instance the memory backend. A sequence of operations follows from its
//! seed; when the two diverge, the shortest sequence found that still shows it is printed, with
//! the seed that repeats it.
//!
//! `VFSD_SEED` chooses the first seed (default: another one each time), `VFSD_MODEL_STEPS` how many
//! operations there are in all.

#![allow(
    clippy::indexing_slicing,
    reason = "a model that indexes wrongly fails its test"
)]

mod random;
mod side;
mod step;
mod tree;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::conformance::{Features, Fixture};
pub use random::Random;
use side::Side;
use step::{Step, Steps};

/// Steps on one pair of file systems; then a fresh pair begins.
const STEPS_PER_TREE: usize = 400;
/// Trees are compared after so many steps.
const STEPS_PER_COMPARISON: usize = 20;

/// How much to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The seed of the first pair of file systems; the others follow.
    pub seed: u64,
    /// Operations in all.
    pub steps: usize,
    /// How often a sequence that diverges is tried again with some operations left out.
    pub shorter_tries: usize,
}

impl Plan {
    /// What the environment asks for: `VFSD_SEED`, else a seed from the clock; `VFSD_MODEL_STEPS`, else
    /// `steps`.
    ///
    /// # Panics
    /// When a variable is set and is not a number.
    pub fn from_environment(steps: usize) -> Self {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::from(time.subsec_nanos()) ^ time.as_secs());
        Self {
            seed: variable("VFSD_SEED").unwrap_or(clock),
            steps: variable("VFSD_MODEL_STEPS").unwrap_or(steps),
            shorter_tries: 200,
        }
    }
}

#[expect(clippy::panic, reason = "a test told to do what it cannot do fails")]
fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name} is not a number: {text}"),
    }
}

/// The two backends did not do the same.
#[derive(Debug)]
pub struct Divergence {
    seed: u64,
    steps: usize,
    difference: String,
    shortest: Vec<Step>,
    /// The same steps did it again.
    repeatable: bool,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.difference)?;
        writeln!(f, "after these operations:")?;
        for (number, step) in self.shortest.iter().enumerate() {
            writeln!(f, "{number:5}  {step:?}")?;
        }
        if !self.repeatable {
            writeln!(
                f,
                "which did not do it again: time, or somebody else who uses the files, matters"
            )?;
        }
        write!(
            f,
            "repeat with VFSD_SEED={} VFSD_MODEL_STEPS={}",
            self.seed, self.steps
        )
    }
}

impl std::error::Error for Divergence {}

/// Compares two backends as the environment asks, by default with `steps` operations. What either
/// lacks is left out.
///
/// # Panics
/// When they diverge: the test fails with what was done and how to repeat it.
#[expect(clippy::panic, reason = "the test fails")]
pub fn run(steps: usize, oracle: impl Fn() -> Fixture, subject: impl Fn() -> Fixture) {
    if let Err(divergence) = compare(Plan::from_environment(steps), &oracle, &subject) {
        panic!("{divergence}");
    }
}

/// Compares two backends.
///
/// # Errors
/// The first divergence.
pub fn compare(
    plan: Plan,
    oracle: &dyn Fn() -> Fixture,
    subject: &dyn Fn() -> Fixture,
) -> Result<(), Box<Divergence>> {
    let mut seed = plan.seed;
    let mut left = plan.steps;
    let features = oracle().features() & subject().features();
    while left > 0 {
        let count = left.min(STEPS_PER_TREE);
        let mut source = Steps::new(seed, features);
        let steps: Vec<Step> = (0..count).map(|_| source.next()).collect();
        let trial = Trial {
            features,
            shorter_tries: plan.shorter_tries,
            oracle,
            subject,
        };
        if let Err(failed) = trial.attempt(&steps) {
            let done = failed.steps;
            let failing = &steps[..done];
            let repeatable = trial.attempt(failing).is_err();
            let (shortest, difference) = if repeatable {
                trial.shorten(failing.to_vec(), failed.difference)
            } else {
                (failing.to_vec(), failed.difference)
            };
            return Err(Box::new(Divergence {
                seed,
                steps: done,
                difference,
                shortest,
                repeatable,
            }));
        }
        left -= count;
        seed = seed.wrapping_add(1);
    }
    Ok(())
}

struct Failed {
    /// How many steps had been done.
    steps: usize,
    difference: String,
}

struct Trial<'a> {
    features: Features,
    shorter_tries: usize,
    oracle: &'a dyn Fn() -> Fixture,
    subject: &'a dyn Fn() -> Fixture,
}

impl Trial<'_> {
    /// Does the steps on a fresh pair of file systems.
    fn attempt(&self, steps: &[Step]) -> Result<(), Failed> {
        let mut oracle = Side::new((self.oracle)(), self.features);
        let mut subject = Side::new((self.subject)(), self.features);
        for (index, step) in steps.iter().enumerate() {
            let done = index + 1;
            let failed = |difference| Failed {
                steps: done,
                difference,
            };
            let left = oracle.apply(step).shown;
            let right = subject.apply(step).shown;
            if left != right {
                return Err(failed(format!(
                    "{step:?} differs\n   oracle: {left:?}\n  subject: {right:?}"
                )));
            }
            tree::compare_nodes(&oracle, &subject).map_err(failed)?;
            if done % STEPS_PER_COMPARISON == 0 || done == steps.len() {
                tree::compare_all(&oracle, &subject).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Leaves out steps as long as the rest still diverges, larger parts first.
    fn shorten(&self, steps: Vec<Step>, difference: String) -> (Vec<Step>, String) {
        let mut shortest = steps;
        let mut difference = difference;
        let mut tries = 0;
        let mut part = shortest.len() / 2;
        while part > 0 {
            let mut at = 0;
            while at < shortest.len() && tries < self.shorter_tries {
                tries += 1;
                let mut shorter = shortest.clone();
                shorter.drain(at..shortest.len().min(at + part));
                match self.attempt(&shorter) {
                    Ok(()) => at += part,
                    Err(failed) => {
                        shorter.truncate(failed.steps);
                        shortest = shorter;
                        difference = failed.difference;
                    }
                }
            }
            part /= 2;
        }
        (shortest, difference)
    }
}
