//! The file system daemon under test, and the one place that knows its
//! command line.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{Background, run_ok, tail_of_file};
use crate::progress::Step;
use crate::workspace::Workspace;

/// How long a daemon may take to offer its socket or its mount.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// How long a build of vfsd may take.
pub(crate) const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// A daemon program.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// vfsd.
    Vfsd(PathBuf),
    /// A program with virtiofsd's command line, to tell a guest's fault from
    /// the daemon's.
    Virtiofsd(PathBuf),
}

/// How vfsd is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; what cargo's tests have built already.
    Debug,
    /// What a user runs.
    Release,
}

impl Profile {
    /// The command that builds vfsd.
    pub(crate) fn build(self, workspace: &Workspace) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(["build", "-p", "vfsd", "--bin", "vfsd"])
            .current_dir(workspace.root());
        if self == Self::Release {
            cargo.arg("--release");
        }
        cargo
    }

    /// Where the built program lies.
    pub(crate) fn program(self, workspace: &Workspace) -> PathBuf {
        let folder = match self {
            Self::Debug => "debug",
            Self::Release => "release",
        };
        workspace.target().join(folder).join("vfsd")
    }
}

/// Options of a run, in the terms of vfsd's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// Extended attributes and POSIX ACLs.
    pub(crate) posix_acl: bool,
    /// The guest's kernel caches writes.
    pub(crate) writeback: bool,
    /// Limits the daemon's open files, with `prlimit`.
    pub(crate) open_files: Option<u32>,
    /// vfsd is called by virtiofsd's command line.
    pub(crate) drop_in: bool,
    /// Further options, spelled alike by vfsd and virtiofsd.
    pub(crate) further: &'static [&'static str],
}

impl Program {
    /// Builds vfsd from this workspace.
    ///
    /// # Errors
    /// The build fails.
    pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<Self> {
        let mut step = Step::begin("build vfsd");
        run_ok(&profile.build(workspace), BUILD_LIMIT, &mut |line| {
            step.note(line)
        })?;
        step.done();
        Ok(Self::Vfsd(profile.program(workspace)))
    }

    fn serve(&self, options: &Options, storage: &Storage, socket: &Path) -> Result<Command> {
        let (program, mut command) = self.limited(options);
        command.arg(program);
        let drop_in = match self {
            Self::Vfsd(_) if options.drop_in => {
                command.arg("virtiofsd");
                true
            }
            Self::Vfsd(_) => {
                command.arg("serve");
                false
            }
            Self::Virtiofsd(_) => true,
        };
        command
            .args(["--tag", &storage.tag, "--socket-path"])
            .arg(socket);
        options.append_to(&mut command);
        match &storage.kind {
            Kind::Folder(folder) if drop_in => command.arg("--shared-dir").arg(folder),
            Kind::Folder(folder) => command.arg(format!("dir:{}", folder.display())),
            Kind::Named { .. } if drop_in => bail!("virtiofsd serves folders only"),
            Kind::Named { source, arguments } => command.args(arguments).arg(source),
        };
        command.envs(storage.environment.iter().cloned());
        Ok(command)
    }

    fn limited(&self, options: &Options) -> (&Path, Command) {
        let (Self::Vfsd(program) | Self::Virtiofsd(program)) = self;
        // `env` stands where `prlimit` would: both exec the daemon in place.
        let command = match options.open_files {
            Some(count) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={count}:{count}"));
                command
            }
            None => Command::new("env"),
        };
        (program, command)
    }
}

/// What a daemon serves, and by which name the guest knows it.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    tag: String,
    kind: Kind,
    environment: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Kind {
    Folder(PathBuf),
    Named {
        source: OsString,
        arguments: Vec<OsString>,
    },
}

impl Storage {
    /// A folder of the host, as the guest's root.
    pub(crate) fn folder(folder: &Path) -> Self {
        Self::folder_as("root", folder)
    }

    /// A folder of the host, as the file system of that tag.
    pub(crate) fn folder_as(tag: &str, folder: &Path) -> Self {
        Self {
            tag: tag.to_owned(),
            kind: Kind::Folder(folder.to_path_buf()),
            environment: Vec::new(),
        }
    }

    /// A source of vfsd's command line, as the file system of that tag.
    pub(crate) fn named(tag: &str, source: impl Into<OsString>) -> Self {
        Self {
            tag: tag.to_owned(),
            kind: Kind::Named {
                source: source.into(),
                arguments: Vec::new(),
            },
            environment: Vec::new(),
        }
    }

    /// The exports of a configuration file, as the file system of that tag.
    pub(crate) fn configured(tag: &str, file: &Path) -> Self {
        Self::named(tag, format!("--config={}", file.display()))
    }

    /// The command that serves it, as a user types it.
    pub(crate) fn shown(&self) -> String {
        let mut words = vec![format!(
            "vfsd serve --tag {} --socket-path SOCKET",
            self.tag
        )];
        match &self.kind {
            Kind::Folder(folder) => words.push(format!("dir:{}", folder.display())),
            Kind::Named { source, arguments } => {
                let rest = arguments.iter().chain([source]);
                words.extend(rest.map(|word| word.to_string_lossy().into_owned()));
            }
        }
        words.join(" ")
    }

    /// Adds an argument that belongs to the source.
    pub(crate) fn argument(&mut self, argument: impl Into<OsString>) -> &mut Self {
        if let Kind::Named { arguments, .. } = &mut self.kind {
            arguments.push(argument.into());
        }
        self
    }

    /// What the daemon is told by its environment.
    pub(crate) fn environment(&mut self, variables: Vec<(String, String)>) -> &mut Self {
        self.environment.extend(variables);
        self
    }
}

impl Options {
    fn append_to(&self, command: &mut Command) {
        if self.posix_acl {
            command.args(["--xattr", "--posix-acl"]);
        }
        if self.writeback {
            command.arg("--writeback");
        }
        command.args(self.further);
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Background,
    log: PathBuf,
}

impl Daemon {
    /// Serves `storage` over vhost-user at `socket`; returns when the socket
    /// is there. The log goes to `log`.
    ///
    /// # Errors
    /// The daemon ends or offers no socket.
    pub(crate) fn serve(
        program: &Program,
        options: &Options,
        storage: &Storage,
        socket: &Path,
        log: &Path,
    ) -> Result<Self> {
        let command = program.serve(options, storage, socket)?;
        let mut this = Self::start(&command, log)?;
        this.wait_until_ready(|| socket.exists())?;
        Ok(this)
    }

    /// Mounts a storage on the host at `folder`; returns when it is mounted.
    ///
    /// # Errors
    /// The daemon ends or mounts nothing, or `program` is not vfsd.
    pub(crate) fn mount(
        program: &Program,
        options: &Options,
        storage: &Storage,
        folder: &Path,
        log: &Path,
    ) -> Result<Self> {
        let Program::Vfsd(_) = program else {
            bail!("only vfsd mounts on the host")
        };
        let (path, mut command) = program.limited(options);
        command.arg(path).arg("mount");
        options.append_to(&mut command);
        match &storage.kind {
            Kind::Folder(folder) => command.arg(folder),
            Kind::Named { source, arguments } => command.args(arguments).arg(source),
        };
        command.arg(folder);
        command.envs(storage.environment.iter().cloned());
        let mut this = Self::start(&command, log)?;
        this.wait_until_ready(|| is_mount_point(folder))?;
        Ok(this)
    }

    /// Waits for the daemon to end by itself, as it does when the front end
    /// leaves.
    ///
    /// # Errors
    /// It has not after `limit`; it is killed then.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        match self.child.wait_until(Instant::now() + limit)? {
            Some(status) => Ok(status),
            None => {
                let stopped = self.child.terminate();
                bail!(
                    "did not end by itself within {} s (stopped: {stopped:?})",
                    limit.as_secs()
                )
            }
        }
    }

    /// The process that was started; others may be below it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Whether the daemon is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.exited()?.is_some())
    }

    /// Asks the daemon to end (SIGTERM).
    ///
    /// # Errors
    /// It had to be killed.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus> {
        self.child.terminate()
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        tail_of_file(&self.log, 30)
    }

    fn start(command: &Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        Ok(Self {
            child: Background::start(command, &file)?,
            log: log.to_path_buf(),
        })
    }

    fn wait_until_ready(&mut self, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.exited()? {
                bail!("the daemon ended at once ({status})\n{}", self.log());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the daemon is not ready after {} s\n{}",
                    READY_LIMIT.as_secs(),
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether something is mounted at `folder`.
pub(crate) fn is_mount_point(folder: &Path) -> bool {
    // The kernel tells of it by its path without links; what is mounted there is not asked.
    let (parent, name) = (folder.parent(), folder.file_name());
    let parent = parent.and_then(|parent| parent.canonicalize().ok());
    let real = parent.zip(name).map(|(parent, name)| parent.join(name));
    let folder = real.as_deref().unwrap_or(folder);
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .any(|point| Path::new(point) == folder)
    })
}
