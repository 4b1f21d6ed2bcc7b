//! `PATH`, `dir:PATH`: a directory, or a single file, of this host.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfsd_passthrough::{FileHandles, Passthrough};

use super::{Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::{Needs, Share};

/// A path of this host.
#[derive(Debug)]
pub(crate) struct Dir(pub(crate) PathBuf);

/// Reads a path.
///
/// # Errors
/// When it is empty.
pub(super) fn read(path: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    if path.is_empty() {
        let advice = "no directory named: use PATH or dir:PATH";
        return Err(SourceError::Wrong(advice.to_owned()));
    }
    Ok(Arc::new(Dir(path.into())))
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dir:{}", self.0.display())
    }
}

impl Storage for Dir {
    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure> {
        let shares = vec![share(&self.0, readonly)?];
        let needs = needs(&options.passthrough);
        let options = options.passthrough.clone();
        let shown = self.0.clone();
        Ok(Prepared {
            shares,
            needs,
            open: Box::new(move |given| {
                let failed = |error: &dyn fmt::Display| {
                    Failure::run(format!("cannot serve {}: {error}", shown.display()))
                };
                let root = given.roots.into_iter().next();
                let root = root.ok_or_else(|| failed(&"it was not taken along"))?;
                let proc_self_fd = given.proc_self_fd.try_clone();
                let options = vfsd_passthrough::Options {
                    descriptor_budget: Some(given.descriptors),
                    ..options
                };
                let share = Passthrough::from_descriptors(
                    root.descriptor,
                    proc_self_fd.map_err(|error| failed(&error))?,
                    options,
                );
                Ok(Arc::new(share.map_err(|error| failed(&error))?))
            }),
        })
    }
}

/// What serving directories of the host needs of root's power.
fn needs(options: &vfsd_passthrough::Options) -> Needs {
    Needs {
        files: true,
        device_nodes: options.device_nodes,
        // Only root of the whole host may open files by their handles.
        file_handles: options.file_handles != FileHandles::Never
            && rustix::process::geteuid().is_root(),
    }
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
