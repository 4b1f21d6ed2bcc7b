//! `plugin:SOCKET`, `plugin:exec:PROGRAM [ARGUMENT...]`: a storage in a process of its own.
//!
//! What is outside the sandbox starts the program, or connects to the socket, and hands the connection
//! in: at the beginning, and again when the plugin has ended.

mod user;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use vfsd_plugin_host::{
    Broker, Confinement, Options, Plugin, Program, SocketPath, StartError, enter_namespaces,
    serve_broker,
};

pub(crate) use self::user::PluginUser;
use super::{Kind, Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{self, Needs};

/// What an operator decides about plugins that the daemon starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PluginSettings {
    /// Whom they run as. Without it, as nobody if the daemon is root's, else as its user.
    pub(crate) user: Option<PluginUser>,
    /// They may use the network.
    pub(crate) network: bool,
    /// The paths that they can reach; all, where there is none.
    pub(crate) paths: Vec<PathBuf>,
    /// Files that each may have open.
    pub(crate) open_files: Option<u64>,
}

/// Files that a plugin may have open, as far as the daemon may: those that a guest knows, for one that keeps them open.
const OPEN_FILES: u64 = 65_536;

impl PluginSettings {
    /// Whether anything was decided.
    pub(crate) fn is_given(&self) -> bool {
        *self != Self::default()
    }

    fn confinement(&self) -> Result<Confinement, Failure> {
        let root = rustix::process::geteuid().is_root();
        if self.user.is_some() && !root {
            return Err(Failure::usage("--plugin-user is for root: leave it out"));
        }
        let user = match root {
            true => Some(self.user.unwrap_or_else(PluginUser::nobody)),
            false => None,
        };
        for path in &self.paths {
            std::fs::metadata(path).map_err(|error| {
                let path = path.display();
                Failure::run(format!(
                    "--plugin-path {path}: {error}; name a path that exists"
                ))
            })?;
        }
        Ok(Confinement {
            user: user.map(|user| (user.uid, user.gid)),
            network: self.network,
            open_files: self.open_files.unwrap_or(OPEN_FILES),
            paths: match self.paths.as_slice() {
                [] => None,
                paths => Some(paths.to_vec()),
            },
            ..Confinement::default()
        })
    }
}

/// What the process that gets connections says first: it is in its namespaces.
const READY: [u8; 1] = *b"r";

/// How a plugin is got.
#[derive(Debug, Clone)]
enum PluginSource {
    /// It listens there.
    Socket(PathBuf),
    /// It is started.
    Program {
        path: OsString,
        arguments: Vec<OsString>,
    },
}

/// Reads what stands behind `plugin:`.
///
/// # Errors
/// When it names neither a socket nor a program.
pub(super) fn read(word: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    let Some(line) = word.as_bytes().strip_prefix(b"exec:") else {
        if word.is_empty() {
            let advice = "no plugin named: use plugin:SOCKET or plugin:exec:PROGRAM";
            return Err(SourceError::Wrong(advice.to_owned()));
        }
        return Ok(Arc::new(PluginSource::Socket(word.into())));
    };
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .map(|word| OsStr::from_bytes(word).to_owned());
    let path = words.next().ok_or_else(|| {
        let advice = "no program named: use 'plugin:exec:PROGRAM ARGUMENT...'";
        SourceError::Wrong(advice.to_owned())
    })?;
    Ok(Arc::new(PluginSource::Program {
        path,
        arguments: words.collect(),
    }))
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "plugin:{}", path.display()),
            Self::Program { path, arguments } => {
                write!(f, "plugin:exec:{}", path.display())?;
                arguments
                    .iter()
                    .try_for_each(|argument| write!(f, " {}", argument.display()))
            }
        }
    }
}

impl PluginSource {
    /// Whether the daemon starts it.
    fn is_program(&self) -> bool {
        matches!(self, Self::Program { .. })
    }

    /// Gets connections for the other end of `stream`, until that is closed. The work of a process of its own.
    fn serve(&self, mut stream: &UnixStream, confinement: Confinement) -> Result<(), Failure> {
        if self.is_program()
            && let Err(error) = enter_namespaces()
        {
            tracing::warn!("{self} can have no namespaces of its own: {error}");
        }
        let ready = stream.write_all(&READY);
        let served = ready.and_then(|()| match self {
            Self::Socket(path) => serve_broker(SocketPath(path.clone()), stream),
            Self::Program { path, arguments } => {
                let arguments = arguments.iter().cloned();
                serve_broker(Program::new(path, arguments, confinement), stream)
            }
        });
        served.map_err(|error| Failure::run(format!("{self} cannot be got any more: {error}")))
    }

    /// What to do about a plugin that cannot be had.
    fn advice(&self, error: &StartError, confinement: &Confinement) -> String {
        match (self, error, confinement.user) {
            (Self::Program { .. }, StartError::Connect(error), Some((uid, _)))
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                format!(
                    "; it runs as user {uid}, who needs to reach it: move it, or choose another \
                     --plugin-user"
                )
            }
            (Self::Program { .. }, StartError::Connect(error), _)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                "; name a program that exists".to_owned()
            }
            (Self::Program { .. }, StartError::Connect(error), _)
                if confinement.paths.is_some() && error.raw_os_error() == Some(libc::ENOSYS) =>
            {
                "; this kernel has no Landlock, or not enough of it: leave --plugin-path out"
                    .to_owned()
            }
            (Self::Program { .. }, StartError::Left, _) if confinement.paths.is_some() => {
                "; it may need more than what --plugin-path names".to_owned()
            }
            (Self::Program { .. }, StartError::Left, Some((uid, _))) => {
                format!("; it runs as user {uid}: --plugin-user chooses another")
            }
            _ => String::new(),
        }
    }
}

impl Storage for PluginSource {
    fn is(&self, kind: Kind) -> bool {
        kind == Kind::StartedPlugin && self.is_program()
    }

    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        let confinement = options.plugin.confinement()?;
        let failed =
            |error: &dyn fmt::Display| Failure::run(format!("cannot serve {self}: {error}"));
        let (inside, outside) = UnixStream::pair().map_err(|error| failed(&error))?;
        let mut inside = Some(inside);
        sandbox::spawn(|| {
            // The other process has it: its end is the end of this one.
            drop(inside.take());
            self.serve(&outside, confinement.clone())
        })
        .map_err(|error| failed(&error))?;
        drop(outside);
        // What is mounted from here on, as by `vfsd mount` itself, is not taken along.
        let waited = inside
            .as_mut()
            .map(|inside| inside.read_exact(&mut READY.clone()));
        waited.transpose().map_err(|error| failed(&error))?;
        let source = self.clone();
        Ok(Prepared {
            shares: Vec::new(),
            needs: Needs::default(),
            private: false,
            open: Box::new(move |_| {
                let failed = |error: &dyn fmt::Display| {
                    Failure::run(format!("cannot serve {source}: {error}"))
                };
                let stream = inside.ok_or_else(|| failed(&"it was not taken along"))?;
                let broker =
                    Broker::new(stream, source.to_string()).map_err(|error| failed(&error))?;
                let plugin = Plugin::new(broker, Options::default()).map_err(|error| {
                    failed(&format!("{error}{}", source.advice(&error, &confinement)))
                })?;
                Ok(Arc::new(plugin))
            }),
        })
    }
}
