//! A file system in memory as a plugin, empty when it starts: `vfsd mount plugin:exec:target/debug/examples/memory_plugin PATH`.

use std::error::Error;

use vfsd_memory::{Memory, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Memory::new(Settings::default())?;
    Ok(vfsd_plugin::serve(memory)?)
}
