//! A bucket in servers that others wrote.
//!
//! Each test runs with each server that is there; those of the others are shown as ignored, with what to install.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by a panic"
)]

mod conditions;
mod files;
mod mounts;
mod scene;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use vfsd_testkit::servers::StoreServer;

use crate::scene::Servers;

/// A test and the servers that it runs with.
#[derive(Clone, Copy)]
struct Test {
    name: &'static str,
    kinds: &'static [StoreServer],
    /// What it needs besides.
    tool: Option<Tool>,
    run: fn(&Servers, StoreServer),
}

/// A program that is there, or why not.
type Tool = fn() -> Result<PathBuf, String>;

const RCLONE: Tool = || StoreServer::Rclone.find();

const fn test(
    name: &'static str,
    kinds: &'static [StoreServer],
    run: fn(&Servers, StoreServer),
) -> Test {
    Test {
        name,
        kinds,
        tool: None,
        run,
    }
}

const GOOD: &[StoreServer] = &[StoreServer::SeaweedFs, StoreServer::Moto];
/// Those that keep all promises, whatever they speak.
const WRITABLE: &[StoreServer] = &[
    StoreServer::SeaweedFs,
    StoreServer::Moto,
    StoreServer::Azurite,
];
/// Those that can be read.
const ALL: &[StoreServer] = &[
    StoreServer::SeaweedFs,
    StoreServer::Moto,
    StoreServer::Azurite,
    StoreServer::FakeGcs,
];

fn tests() -> Vec<Test> {
    let mut tests = conditions::TESTS.to_vec();
    tests.extend(files::TESTS);
    tests.extend(write::TESTS);
    tests.extend(mounts::TESTS);
    tests
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let servers = Arc::new(Servers::default());
    let mut trials = Vec::new();
    for test in tests() {
        for &kind in test.kinds {
            let servers = servers.clone();
            let missing = kind.find().err().or_else(|| test.tool?().err());
            let name = match &missing {
                Some(reason) => format!("{}::{} ({reason})", kind.name(), test.name),
                None => format!("{}::{}", kind.name(), test.name),
            };
            let trial = Trial::test(name, move || {
                (test.run)(&servers, kind);
                Ok(())
            });
            trials.push(trial.with_ignored_flag(missing.is_some()));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    servers.stop();
    conclusion.exit_code()
}
