//! The behaviour that every backend shows, in memory over an empty memory.

#![allow(clippy::expect_used, reason = "a test")]

mod stack;

use std::process::ExitCode;

use stack::{Store, fixture};
use vfsd_overlay::Namespace;
use vfsd_testkit::conformance;

fn main() -> ExitCode {
    conformance::main(|| {
        let store = Store::memory(Namespace::Trusted);
        fixture(store.writable(&[&|_, _| {}]))
    })
}
