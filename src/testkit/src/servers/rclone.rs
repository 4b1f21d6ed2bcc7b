//! `rclone serve s3`: a directory as a store, which takes conditions and does not keep them.

use std::io::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{ACCESS_KEY, RunningStore, SECRET_KEY, StoreServer, free_ports, loopback};

pub(super) fn start(program: &Path, limit: Duration) -> Result<RunningStore> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let [port] = free_ports()?;
    let address = loopback(port);
    let mut command = Command::new(program);
    command
        .args([
            "serve",
            "s3",
            "--auth-key",
            &format!("{ACCESS_KEY},{SECRET_KEY}"),
        ])
        .args(["--addr", &address.to_string()])
        .arg(&data);
    RunningStore::start(
        StoreServer::Rclone,
        &command,
        address,
        folder,
        limit,
        |reply| reply.status < 500,
    )
}
