//! A directory of the host as a plugin, as the user that it runs as: `vfsd mount "plugin:exec:target/debug/examples/directory_plugin
//! DIRECTORY" PATH`.

use std::error::Error;

use vfsd_passthrough::{Options, Passthrough};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("name a directory")?;
    let storage = Passthrough::open(directory, Options::default())?;
    Ok(vfsd_plugin::serve(storage)?)
}
