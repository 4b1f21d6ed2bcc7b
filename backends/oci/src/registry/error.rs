//! Why an image could not be had from its registry, in a line that says what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::blob::Sha256Digest;

/// Why a registry could not be asked, or what was wrong with its answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file of credentials that cannot be read.
    #[error("the credentials in {path}: {reason}")]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A credential program that does not do its work.
    #[error("the credential program docker-credential-{name}: {reason}")]
    Helper {
        /// Its name, as the file of credentials has it.
        name: String,
        /// What it did.
        reason: String,
    },
    /// The registry wants credentials, or others.
    #[error("{registry} {}: log in first (docker login, skopeo login)", refusal(*.known))]
    Unauthorized {
        /// The registry.
        registry: String,
        /// Whether there are credentials for it.
        known: bool,
    },
    /// There is no such thing, or none that these credentials may see.
    #[error("{0} is not there, or these credentials may not read it")]
    NotFound(String),
    /// An answer that trying again would not change.
    #[error("{what}: the registry answered {status}{detail}")]
    Status {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What the registry said of it.
        detail: String,
    },
    /// The registry is busy or broken now.
    #[error("{what}: the registry answered {status}")]
    Busy {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// The connection could not be made, or broke.
    #[error("{what}: no connection to the registry: {reason}")]
    Connection {
        /// What was asked for.
        what: String,
        /// What became of it.
        reason: String,
    },
    /// An answer that is not what was asked for.
    #[error("{what}: the registry answered wrongly, {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content that is not what its digest says.
    #[error("{0}: the registry sent other bytes than that")]
    Digest(Sha256Digest),
    /// Nothing is to be sent to the registry, and this is not in the cache.
    #[error("{0} is not in the cache, and is not asked for (--offline)")]
    Offline(String),
    /// The cache could not be written.
    #[error("the cache: {0}")]
    Cache(#[source] io::Error),
}

fn refusal(known: bool) -> &'static str {
    match known {
        true => "refuses the credentials that are there for it",
        false => "asks for credentials, and there are none for it",
    }
}

impl RegistryError {
    /// Whether the same request may be answered better later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Connection { .. } | Self::Answer { .. }
        )
    }

    /// Whether what is known of an image from before may be used instead.
    pub(super) fn is_of_registry(&self) -> bool {
        self.is_passing()
            || matches!(
                self,
                Self::Unauthorized { .. } | Self::Helper { .. } | Self::Offline(_)
            )
    }

    /// The same after so many attempts, of which there will be no more: says what to do.
    pub(super) fn given_up(self, attempts: u32) -> Self {
        match self {
            Self::Connection { what, reason } => Self::Connection {
                what,
                reason: format!(
                    "{reason}; asked {attempts} times in vain: check the registry's name and the network (--offline uses \
                     what is in the cache)"
                ),
            },
            other => other,
        }
    }

    /// How long the registry wants not to be asked.
    pub(super) fn after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }
}

impl From<RegistryError> for io::Error {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NotFound(_) => io::ErrorKind::NotFound,
            RegistryError::Unauthorized { .. } => io::ErrorKind::PermissionDenied,
            RegistryError::Digest(_) => io::ErrorKind::InvalidData,
            RegistryError::Cache(source) => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
