//! Mounts facts about this host: `cargo run -p vfsd-examples --bin facts PATH`. A directory shows all of them, a
//! file the load alone. `umount PATH` ends it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use vfsd_backend::Backend;
use vfsd_examples::{facts::Facts, load::Load};
use vfsd_hostmount::{HostMount, MountOptions};
use vfsd_server::{Exports, Session, SessionOptions, Transport};

fn main() -> anyhow::Result<()> {
    let path: PathBuf = std::env::args_os()
        .nth(1)
        .context("name a directory")?
        .into();
    let backend: Arc<dyn Backend> = match path.is_dir() {
        true => Arc::new(Facts),
        false => Arc::new(Load),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let options = SessionOptions {
        transport: Transport::HostKernel,
        ..SessionOptions::default()
    };
    let session = Session::new(
        Exports::single(backend, true),
        options,
        runtime.handle().clone(),
    );
    let mount_options = MountOptions {
        name: "facts".into(),
        ..MountOptions::default()
    };
    let (_mount, connection) = HostMount::mount(&path, &mount_options)?;
    Ok(connection.serve(&session)?)
}
