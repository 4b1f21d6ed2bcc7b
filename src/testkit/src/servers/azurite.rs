//! Azurite, the emulator of Azure's blobs.

use std::io::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{RunningStore, StoreServer, free_ports, loopback};

/// The account that each Azurite has, and its key, which is no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Allows to make containers until 2099, signed with the key.
const MAY_CREATE: &str = "sv=2021-08-06&ss=b&srt=c&sp=c&se=2099-12-31T00%3A00%3A00Z\
    &sig=I4uh3o%2Fr97iNQjUvUmMcAJn3ihXynnziHUuzmWMDeHI%3D";

pub(super) fn start(program: &Path, limit: Duration) -> Result<RunningStore> {
    let folder = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let mut command = Command::new(program);
    command
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .args(["--inMemoryPersistence", "--disableTelemetry", "--silent"])
        // A client may be newer than it.
        .arg("--skipApiVersionCheck");
    RunningStore::start(
        StoreServer::Azurite,
        &command,
        loopback(port),
        folder,
        limit,
        |reply| reply.status < 500,
    )
}

pub(super) fn environment(store: &RunningStore) -> Vec<(&'static str, String)> {
    vec![
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
        (
            "AZURE_STORAGE_ENDPOINT",
            format!("{}/{ACCOUNT}", store.endpoint()),
        ),
        ("AZURE_ALLOW_HTTP", "true".to_owned()),
    ]
}

pub(super) fn creation(container: &str) -> (&'static str, String, String) {
    let target = format!("/{ACCOUNT}/{container}?restype=container&{MAY_CREATE}");
    ("PUT", target, String::new())
}
