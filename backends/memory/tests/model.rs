//! The model test finds what is wrong with a backend, and nothing where nothing is.

#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use vfsd_backend::{Backend, Errno};
use vfsd_memory::{Memory, Settings};
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::faults::{Fault, Faults, Faulty};
use vfsd_testkit::model::{self, Divergence, Plan};
use vfsd_testkit::place::Place;

fn memory() -> Fixture {
    let memory = Memory::new(Settings::default()).expect("an empty file system");
    Fixture::new(Arc::new(memory), Features::all())
}

/// A memory file system that meets `fault` after `skip` calls.
fn faulty(skip: u64, fault: Fault) -> Fixture {
    let memory = Memory::new(Settings::default()).expect("an empty file system");
    let faults = Arc::new(Faults::default());
    faults.after(skip, fault);
    let backend = Faulty::new(Arc::new(memory), faults);
    Fixture::new(Arc::new(backend), Features::all())
}

fn compare(shorter_tries: usize, subject: &dyn Fn() -> Fixture) -> Result<(), Box<Divergence>> {
    let plan = Plan {
        seed: 1,
        steps: 2000,
        shorter_tries,
    };
    model::compare(plan, &memory, subject)
}

#[test]
fn two_memory_file_systems_do_the_same() {
    model::run(4000, memory, memory);
}

#[test]
fn a_wrapper_without_faults_changes_nothing() {
    model::run(2000, memory, || faulty(u64::MAX, Fault::Panic));
}

#[test]
fn late_answers_change_nothing() {
    let faults = Arc::new(Faults::default());
    faults.after(200, Fault::Delay(Duration::from_micros(1)));
    let late = || {
        let memory = Memory::new(Settings::default()).expect("an empty file system");
        let backend = Faulty::new(Arc::new(memory), faults.clone());
        Fixture::new(Arc::new(backend), Features::all())
    };
    let plan = Plan {
        seed: 3,
        steps: 60,
        shorter_tries: 0,
    };
    assert!(model::compare(plan, &memory, &late).is_ok());
    assert!(faults.calls() > 300, "{}", faults.calls());
}

#[test]
fn a_call_that_shall_panic_panics_and_the_next_works() {
    let memory = Memory::new(Settings::default()).expect("an empty file system");
    let faults = Arc::new(Faults::default());
    let root = Place(Faulty::new(Arc::new(memory), faults.clone()).root());
    faults.once_after(1, Fault::Panic);
    assert!(root.attributes().is_ok());
    let call = std::panic::AssertUnwindSafe(|| root.attributes());
    assert!(std::panic::catch_unwind(call).is_err());
    assert!(root.attributes().is_ok());
    faults.after(0, Fault::Fail(Errno::NOSPC));
    assert_eq!(root.mkdir("dir").map(drop), Err(Errno::NOSPC));
    faults.clear();
    assert_eq!(root.mkdir("dir").map(drop), Ok(()));
}

#[test]
fn a_backend_that_begins_to_fail_is_caught() {
    for skip in [0, 100, 2000] {
        let found = compare(0, &|| faulty(skip, Fault::Fail(Errno::IO)));
        assert!(found.is_err(), "after {skip} calls");
    }
}

#[test]
fn a_backend_that_begins_to_lose_calls_is_caught() {
    for skip in [0, 100, 2000] {
        let found = compare(0, &|| faulty(skip, Fault::Lose));
        assert!(found.is_err(), "after {skip} calls");
    }
}

#[test]
fn a_divergence_is_told_with_few_steps_and_how_to_repeat_it() {
    let found = compare(200, &|| faulty(300, Fault::Lose)).expect_err("writes are lost");
    let told = found.to_string();
    assert!(
        told.contains("oracle:") && told.contains("subject:"),
        "{told}"
    );
    assert!(told.contains("repeat with VFSD_SEED=1 "), "{told}");
    let steps = told.lines().filter(|line| line.starts_with("    ")).count();
    assert!((1..100).contains(&steps), "{told}");
}
