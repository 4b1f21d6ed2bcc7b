//! The behaviour that every backend shows, in directories of the host over an empty one.

#![allow(clippy::expect_used, reason = "a test")]

mod stack;

use std::process::ExitCode;

use stack::{Store, fixture, host_namespace};
use vfsd_testkit::conformance;

fn main() -> ExitCode {
    conformance::main(|| {
        let store = Store::host(host_namespace());
        fixture(store.writable(&[&|_, _| {}]))
    })
}
