//! Opening what is to be served.

use std::path::Path;
use std::sync::Arc;

use vfsd_backend::{Backend, Capabilities, Node};
use vfsd_memory::Memory;
use vfsd_passthrough::{Options, Passthrough, XattrMap};
use vfsd_server::{Export, Exports};

use crate::cli::Source;
use crate::cli::choices::{FileHandles, Negotiation};
use crate::exit::Failure;
use crate::sandbox::{Inside, Needs, Share};
use crate::settings::{ExportSettings, Features};

/// The storages of a daemon, as far as they are known before the sandbox is entered.
#[derive(Debug)]
pub(crate) struct Storages {
    exports: Vec<ExportSettings>,
    options: Options,
    /// What the guest is not offered, whatever a storage can do.
    withheld: Capabilities,
    memory: vfsd_memory::Settings,
    /// The host's directories among the exports, in their order.
    pub(crate) shares: Vec<Share>,
    /// What they need of root's power.
    pub(crate) needs: Needs,
}

impl Storages {
    /// Looks at the exports from outside the sandbox. `writeback` and `direct_io` are the guest's
    /// ways of caching, `descriptors` are for all exports together.
    ///
    /// # Errors
    /// When a directory is missing, or an option does not go with an export.
    pub(crate) fn new(
        exports: Vec<ExportSettings>,
        features: &Features,
        writeback: bool,
        direct_io: bool,
        descriptors: usize,
    ) -> Result<Self, Failure> {
        let mut shares = Vec::new();
        for export in &exports {
            match &export.source {
                Source::Path(path) => shares.push(share(path, export.readonly)?),
                Source::Memory => check_memory(features)?,
            }
        }
        let options = Options {
            xattr: features.xattr,
            xattr_map: features
                .xattr_map
                .as_deref()
                .map(parse_xattr_map)
                .transpose()?,
            posix_acl: features.posix_acl != Negotiation::Never,
            security_labels: features.security_label != Negotiation::Never,
            file_handles: match features.file_handles {
                FileHandles::Never => vfsd_passthrough::FileHandles::Never,
                FileHandles::Prefer => vfsd_passthrough::FileHandles::Prefer,
                FileHandles::Mandatory => vfsd_passthrough::FileHandles::Mandatory,
            },
            device_nodes: features.device_nodes,
            announce_submounts: features.announce_submounts,
            allow_direct_io: direct_io,
            preserve_noatime: features.preserve_noatime,
            writeback,
            kill_privileges: features.kill_privileges,
            descriptor_budget: Some(descriptors.checked_div(shares.len()).unwrap_or(descriptors)),
            cached_descriptors: None,
        };
        let needs = Needs {
            files: !shares.is_empty(),
            device_nodes: features.device_nodes,
            // Only root of the whole host may open files by their handles.
            file_handles: !shares.is_empty()
                && features.file_handles != FileHandles::Never
                && rustix::process::geteuid().is_root(),
        };
        Ok(Self {
            exports,
            memory: vfsd_memory::Settings::default(),
            options,
            withheld: withheld(features),
            shares,
            needs,
        })
    }

    /// Gives trees in memory to this process's user, instead of root.
    pub(crate) fn give_memory_to_caller(&mut self) {
        self.memory.uid = rustix::process::geteuid().as_raw();
        self.memory.gid = rustix::process::getegid().as_raw();
    }

    /// Opens them, from inside the sandbox.
    ///
    /// # Errors
    /// When a storage cannot be opened.
    pub(crate) fn open(self, inside: Inside) -> Result<Exports, Failure> {
        let mut roots = inside.roots.into_iter();
        let mut opened = Vec::new();
        for export in self.exports {
            let backend: Arc<dyn Backend> = match &export.source {
                Source::Memory => {
                    let memory = Memory::new(self.memory).map_err(|errno| {
                        Failure::run(format!("cannot make a file system in memory: {errno}"))
                    })?;
                    Arc::new(memory)
                }
                Source::Path(path) => {
                    let failed = |error: &dyn std::fmt::Display| {
                        Failure::run(format!("cannot serve {}: {error}", path.display()))
                    };
                    let root = roots
                        .next()
                        .ok_or_else(|| failed(&"it was not taken along"))?;
                    let proc_self_fd = inside
                        .proc_self_fd
                        .try_clone()
                        .map_err(|error| failed(&error))?;
                    let options = self.options.clone();
                    let share = Passthrough::from_descriptors(root, proc_self_fd, options)
                        .map_err(|error| failed(&error))?;
                    Arc::new(share)
                }
            };
            let backend: Arc<dyn Backend> = Arc::new(Withholding {
                backend,
                withheld: self.withheld,
            });
            opened.push((export.name, backend, export.readonly));
        }
        join(opened)
    }
}

type Opened = (Option<String>, Arc<dyn Backend>, bool);

fn join(mut opened: Vec<Opened>) -> Result<Exports, Failure> {
    if let [(None, ..)] = opened.as_slice()
        && let Some((_, backend, readonly)) = opened.pop()
    {
        return Ok(Exports::single(backend, readonly));
    }
    let named = opened
        .into_iter()
        .map(|(name, backend, readonly)| Export::new(name.unwrap_or_default(), backend, readonly))
        .collect();
    Exports::named(named).map_err(Failure::usage)
}

fn share(path: &Path, readonly: bool) -> Result<Share, Failure> {
    let failed = |error: std::io::Error| {
        Failure::run(format!(
            "cannot serve {}: {error}; name a directory, or a regular file, that exists",
            path.display()
        ))
    };
    let absolute = path.canonicalize().map_err(failed)?;
    let kind = std::fs::metadata(&absolute).map_err(failed)?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(failed(std::io::Error::other(
            "it is neither a directory nor a regular file",
        )));
    }
    Ok(Share {
        path: absolute,
        readonly,
    })
}

/// Options that change what a host directory does have no meaning for a tree in memory.
fn check_memory(features: &Features) -> Result<(), Failure> {
    let refuse = |option: &str| {
        Err(Failure::usage(format!(
            "{option} is for directories of the host, not for memory:"
        )))
    };
    if features.xattr_map.is_some() {
        return refuse("--xattr-map");
    }
    if !features.device_nodes {
        return refuse("--no-device-nodes");
    }
    Ok(())
}

fn parse_xattr_map(rules: &str) -> Result<XattrMap, Failure> {
    rules
        .parse()
        .map_err(|error| Failure::usage(format!("--xattr-map: {error}")))
}

fn withheld(features: &Features) -> Capabilities {
    let mut withheld = Capabilities::empty();
    withheld.set(
        Capabilities::XATTR | Capabilities::POSIX_ACL,
        !features.xattr,
    );
    withheld.set(Capabilities::FLOCK, features.local_locks.flock);
    withheld.set(Capabilities::POSIX_LOCKS, features.local_locks.posix);
    withheld
}

/// A storage of which the guest is not offered everything.
struct Withholding {
    backend: Arc<dyn Backend>,
    withheld: Capabilities,
}

impl Backend for Withholding {
    fn root(&self) -> Arc<dyn Node> {
        self.backend.root()
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities() - self.withheld
    }
}
