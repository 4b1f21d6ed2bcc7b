//! mitmproxy before a store, where requests and replies get lost.

use std::io::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{RunningStore, flag, free_ports, loopback};

/// What it does, for mitmdump.
const SCRIPT: &str = include_str!("mishaps.py");

/// Where the script notes what it did, in the folder that it runs in.
const TOLD: &str = "mishaps";

impl RunningStore {
    /// The same store by way of a proxy, mitmproxy's program `mitmdump`, which in every ten requests refuses one with 503, closes
    /// the connection of one before the store has it and of one after the store has done it, and holds the reply to one back.
    /// Which, a seed says. The store has to outlive it.
    ///
    /// # Errors
    /// The program isn't there, or does not come up.
    pub fn behind_mishaps(
        &self,
        mitmdump: &Path,
        seed: u64,
        limit: Duration,
    ) -> Result<RunningStore> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("mishaps.py");
        std::fs::write(&script, SCRIPT)?;
        let [port] = free_ports()?;
        let mut command = Command::new(mitmdump);
        command
            .arg("--quiet")
            .args(["--listen-host", "127.0.0.1"])
            .args(["--listen-port", &port.to_string()])
            .args(["--mode", &format!("reverse:{}", self.endpoint())])
            // The store checks signatures, which have it.
            .args(["--set", "keep_host_header=true"])
            .arg(flag("--scripts", &script))
            .env("MISHAPS_SEED", seed.to_string());
        RunningStore::start(
            self.kind(),
            &command,
            loopback(port),
            folder,
            limit,
            |reply| reply.status > 0,
        )
    }

    /// What befell requests on their way so far: `refused`, `cut`, `late` or `lost`, the method, and the path. Of a store that is
    /// not behind a proxy, nothing.
    pub fn mishaps(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.folder().join(TOLD)).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }
}
