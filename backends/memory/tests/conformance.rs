//! The behaviour that every backend shows.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;

use vfsd_memory::{Memory, Settings};
use vfsd_testkit::conformance::{self, Features, Fixture};

fn main() -> ExitCode {
    conformance::main(|| {
        let memory = Memory::new(Settings::default()).expect("an empty file system");
        Fixture::new(Arc::new(memory), Features::all())
    })
}
