//! A plugin that the daemon starts itself, confined.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{UnshareFlags, remove_capability_from_bounding_set, set_no_new_privs};

use crate::connector::Connector;

/// What a program may do beyond its arguments' promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// User and group to run as; without it, those of the daemon. Only root can choose.
    pub user: Option<(u32, u32)>,
    /// It may use the network. Otherwise it has none, if the daemon is privileged enough to take it away.
    pub network: bool,
    /// Descriptors that it may have open.
    pub open_files: u64,
    /// Bytes of address space that it may have; no limit without it.
    pub address_space: Option<u64>,
}

impl Default for Confinement {
    /// The daemon's user, no network, 1024 descriptors.
    fn default() -> Self {
        Self {
            user: None,
            network: false,
            open_files: 1024,
            address_space: None,
        }
    }
}

/// Variables that a program gets of the daemon's environment, beside those that begin with `VFSD_PLUGIN_`. Others may be secrets
/// of other storages.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// A program that is started for each connection, with the socket as its standard input and no other descriptor
/// but its standard output (nowhere) and error (the daemon's). It can gain no privilege by execve(2), and has no capabilities. Where the
/// daemon may make namespaces it has its own for processes, System V IPC and, unless it may use it, the network.
///
/// It is killed when a new connection is asked for, and when this is dropped; with its process namespace, all that it has started.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    confinement: Confinement,
    child: Option<Child>,
}

impl Program {
    /// A program that is not started yet. A path without a `/` is looked for in `PATH`.
    pub fn new(
        path: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = OsString>,
        confinement: Confinement,
    ) -> Self {
        Self {
            path: path.into(),
            arguments: arguments.into_iter().collect(),
            confinement,
            child: None,
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn command(&self, socket: UnixStream) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| passed_on(name)))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .process_group(0);
        if let Some((uid, gid)) = self.confinement.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn passed_on(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("VFSD_PLUGIN_"))
}

/// Starts a process from a thread that has given up what the process shall not have: a process inherits
/// that of the thread, and the daemon's other threads keep it.
fn start(mut command: Command, confinement: Confinement) -> io::Result<Child> {
    let give_up = move || {
        set_no_new_privs(true)?;
        let mut namespaces = UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
        if !confinement.network {
            namespaces |= UnshareFlags::NEWNET;
        }
        // All of them or, for an ordinary user, none.
        #[allow(
            deprecated,
            reason = "its danger is CLONE_FILES, which is not among the flags"
        )]
        let _ = rustix::thread::unshare(namespaces);
        // Needs a capability of its own; who does not have it has little to give up. The number
        // behind the last one is EINVAL.
        for bit in 0..64 {
            let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << bit);
            if remove_capability_from_bounding_set(capability).is_err() {
                break;
            }
        }
        let child = command.spawn()?;
        limit(&child, &confinement)?;
        Ok(child)
    };
    std::thread::Builder::new()
        .name("plugin-start".to_owned())
        .spawn(give_up)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the starter panicked")))
}

fn limit(child: &Child, confinement: &Confinement) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let limits = [
        (Resource::Core, Some(0)),
        (Resource::Nofile, Some(confinement.open_files)),
        (Resource::As, confinement.address_space),
    ];
    for (resource, most) in limits {
        let Some(most) = most else { continue };
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        match prlimit(pid, resource, limit) {
            // Gone already: the connection tells.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

impl Connector for Program {
    fn connect(&mut self) -> io::Result<UnixStream> {
        self.stop();
        let (ours, theirs) = UnixStream::pair()?;
        self.child = Some(start(self.command(theirs), self.confinement.clone())?);
        Ok(ours)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}
