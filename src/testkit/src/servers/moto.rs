//! moto, a simulation of AWS for tests.

use std::io::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{RunningStore, StoreServer, free_ports, loopback};

pub(super) fn start(program: &Path, limit: Duration) -> Result<RunningStore> {
    let folder = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    RunningStore::start(
        StoreServer::Moto,
        &command,
        loopback(port),
        folder,
        limit,
        |reply| reply.status < 500,
    )
}
