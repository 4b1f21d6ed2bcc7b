//! fake-gcs-server, an emulator of Google Cloud Storage. Of the interface that speaks XML it has what reads.

use std::io::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{RunningStore, StoreServer, free_ports, loopback};

pub(super) fn start(program: &Path, limit: Duration) -> Result<RunningStore> {
    let folder = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let address = loopback(port);
    let mut command = Command::new(program);
    command
        .args(["-scheme", "http", "-backend", "memory"])
        .args(["-host", "127.0.0.1", "-port", &port.to_string()])
        // What is asked for by another name is not looked for in a bucket of the path.
        .args(["-public-host", &address.to_string()]);
    RunningStore::start(
        StoreServer::FakeGcs,
        &command,
        address,
        folder,
        limit,
        |reply| reply.status < 500,
    )
}

pub(super) fn environment(store: &RunningStore) -> Vec<(&'static str, String)> {
    vec![
        ("GOOGLE_BASE_URL", store.endpoint()),
        ("GOOGLE_SKIP_SIGNATURE", "true".to_owned()),
        ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
    ]
}

pub(super) fn creation(bucket: &str) -> (&'static str, String, String) {
    let target = "/storage/v1/b?project=test".to_owned();
    ("POST", target, format!(r#"{{"name":"{bucket}"}}"#))
}
