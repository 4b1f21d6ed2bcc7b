//! The behaviour that every backend shows, of a memory file system that is served as a plugin by a child process: this
//! program once more.

#![allow(clippy::expect_used, reason = "a test")]

use std::process::ExitCode;
use std::sync::Arc;

use vfsd_memory::{Memory, Settings};
use vfsd_plugin_host::{Confinement, Options, Plugin, Program};
use vfsd_testkit::conformance::{self, Features, Fixture};

const AS_PLUGIN: &str = "--as-plugin";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(AS_PLUGIN) {
        let memory = Memory::new(Settings::default()).expect("an empty file system");
        vfsd_plugin::serve(memory).expect("served until the host leaves");
        return ExitCode::SUCCESS;
    }
    conformance::main(|| {
        let this = std::env::current_exe().expect("the path of this program");
        let program = Program::new(this, [AS_PLUGIN.into()], Confinement::default());
        let plugin = Plugin::new(program, Options::default()).expect("a plugin");
        Fixture::new(
            Arc::new(plugin),
            Features::all() - Features::BIRTH_TIME_IN_ENTRIES,
        )
    })
}
