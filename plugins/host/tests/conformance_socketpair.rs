//! The behaviour that every backend shows, of a memory file system that is served as a plugin by threads of this process.

#![allow(clippy::expect_used, reason = "a test")]

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use vfsd_memory::{Memory, Settings};
use vfsd_plugin_host::{Connector, Options, Plugin};
use vfsd_testkit::conformance::{self, Features, Fixture};

/// A plugin in this process.
struct Inside;

impl Connector for Inside {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let memory = Arc::new(Memory::new(Settings::default())?);
        let runtime = vfsd_testkit::runtime().handle().clone();
        std::thread::spawn(move || vfsd_plugin::serve_connection(theirs, memory, &runtime));
        Ok(ours)
    }

    fn name(&self) -> String {
        "memory, in this process".to_owned()
    }
}

fn main() -> ExitCode {
    conformance::main(|| {
        let plugin = Plugin::new(Inside, Options::default()).expect("a plugin");
        Fixture::new(
            Arc::new(plugin),
            Features::all() - Features::BIRTH_TIME_IN_ENTRIES,
        )
    })
}
