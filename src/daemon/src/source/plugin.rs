//! `plugin:SOCKET`, `plugin:exec:PROGRAM [ARGUMENT...]`: a storage in a process of its own.
//!
//! What is outside the sandbox starts the program, or connects to the socket, and hands the connection
//! in: at the beginning, and again when the plugin has ended.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use vfsd_plugin_host::{Broker, Confinement, Options, Plugin, Program, SocketPath, serve_broker};

use super::{Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{self, Needs};

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
    /// Gets connections for the other end of `stream`, until that is closed.
    fn serve(&self, stream: &UnixStream) -> Result<(), Failure> {
        let served = match self {
            Self::Socket(path) => serve_broker(SocketPath(path.clone()), stream),
            Self::Program { path, arguments } => {
                let arguments = arguments.iter().cloned();
                serve_broker(
                    Program::new(path, arguments, Confinement::default()),
                    stream,
                )
            }
        };
        served.map_err(|error| Failure::run(format!("{self} cannot be got any more: {error}")))
    }
}

impl Storage for PluginSource {
    fn prepare(&self, _: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        let failed =
            |error: &dyn fmt::Display| Failure::run(format!("cannot serve {self}: {error}"));
        let (inside, outside) = UnixStream::pair().map_err(|error| failed(&error))?;
        let mut inside = Some(inside);
        sandbox::spawn(|| {
            // The other process has it: its end is the end of this one.
            drop(inside.take());
            self.serve(&outside)
        })
        .map_err(|error| failed(&error))?;
        let shown = self.to_string();
        Ok(Prepared {
            shares: Vec::new(),
            needs: Needs::default(),
            private: false,
            open: Box::new(move |_| {
                let failed = |error: &dyn fmt::Display| {
                    Failure::run(format!("cannot serve {shown}: {error}"))
                };
                let stream = inside.ok_or_else(|| failed(&"it was not taken along"))?;
                let broker = Broker::new(stream, shown.as_str()).map_err(|error| failed(&error))?;
                let plugin = Plugin::new(broker, Options::default());
                Ok(Arc::new(plugin.map_err(|error| failed(&error))?))
            }),
        })
    }
}
