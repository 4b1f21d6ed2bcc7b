//! A plugin that the daemon starts itself, confined.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::confine::{Confinement, confine_child, confine_thread};
use crate::connector::Connector;
use crate::filter::Filter;
use crate::reach::Reach;

/// Variables that a program gets of the daemon's environment, beside those that begin with `VFSD_PLUGIN_`. Others may be secrets
/// of other storages.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// A program that is started for each connection, with the socket as its standard input and no other descriptor
/// but its standard output (nowhere) and error (the daemon's). What else it has and has not is its [`Confinement`].
///
/// It is killed when a new connection is asked for, when this is dropped, and when the process that has this is killed; and all that
/// it has started with it, where it has a process namespace of its own, or else what is in its process group.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    confinement: Confinement,
    running: Option<Running>,
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
            running: None,
        }
    }

    fn command(&self, socket: UnixStream) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| passed_on(name)))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null());
        command
    }
}

fn passed_on(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("VFSD_PLUGIN_"))
}

impl Connector for Program {
    fn connect(&mut self) -> io::Result<UnixStream> {
        self.running = None;
        let (ours, theirs) = UnixStream::pair()?;
        let command = self.command(theirs);
        self.running = Some(Running::start(command, self.confinement.clone())?);
        Ok(ours)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// A process, and the thread that has started it. It is killed when this is dropped.
///
/// The thread has given up what the process shall not have, since a process inherits that of a thread and the daemon's other threads
/// keep it; and it stays, since the kernel takes the end of the thread that has started a process for the end of its parent.
#[derive(Debug)]
struct Running {
    keeper: Option<JoinHandle<()>>,
    /// Nothing is sent: closing it ends the process.
    kept: Option<Sender<()>>,
}

impl Running {
    fn start(mut command: Command, confinement: Confinement) -> io::Result<Self> {
        let (started, outcome) = channel();
        let (kept, ended) = channel::<()>();
        let keep = move || {
            let spawned = confine_thread(&confinement).and_then(|namespaces| {
                let filter = Filter::new(confinement.network)?;
                let own = Some(Path::new(command.get_program()));
                let reach = confinement.paths.as_ref().map(|paths| {
                    let own = own.filter(|own| own.components().count() > 1);
                    Reach::to(paths, own, confinement.network)
                });
                let reach = reach.transpose()?;
                confine_child(&mut command, &confinement, namespaces, filter, reach);
                command.spawn()
            });
            // The socket's other end is the process's alone.
            drop(command);
            let (child, result) = match spawned {
                Ok(child) => (Some(child), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = started.send(result);
            let Some(child) = child else { return };
            let _ = ended.recv();
            stop(child);
        };
        let keeper = std::thread::Builder::new()
            .name("plugin-keep".to_owned())
            .spawn(keep)?;
        let running = Self {
            keeper: Some(keeper),
            kept: Some(kept),
        };
        outcome
            .recv()
            .map_err(|_| io::Error::other("the starter panicked"))??;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kept = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn stop(mut child: Child) {
    // Not waited for yet, so the number is still its own.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}
