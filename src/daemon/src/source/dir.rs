//! `PATH`, `dir:PATH`: a directory, or a single file, of this host.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfsd_passthrough::{FileHandles, Passthrough};

use super::{Given, Prepared, Root, SOURCES, SourceError, Storage, StorageOptions};
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
    fn is_host_directory(&self) -> bool {
        true
    }

    fn lasting_name(&self) -> String {
        Self(super::lasting(&self.0)).to_string()
    }

    fn check(&self) -> Result<(), Failure> {
        share(&self.0, true).map(drop)
    }

    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure> {
        let shares = vec![share(&self.0, readonly)?];
        let needs = needs(&options.passthrough);
        let options = options.passthrough.clone();
        let shown = self.0.clone();
        Ok(Prepared {
            shares,
            needs,
            private: false,
            open: Box::new(move |given| {
                let failed = |error: &dyn fmt::Display| {
                    Failure::run(format!("cannot serve {}: {error}", shown.display()))
                };
                let mut roots = given.roots;
                let root = roots
                    .pop()
                    .ok_or_else(|| failed(&"it was not taken along"))?;
                let given = Given { roots, ..given };
                let share = open(root, &given, options).map_err(|error| failed(&error))?;
                Ok(Arc::new(share))
            }),
        })
    }
}

/// Opens a directory inside the sandbox.
///
/// # Errors
/// When it cannot be served.
pub(super) fn open(
    root: Root,
    given: &Given,
    options: vfsd_passthrough::Options,
) -> io::Result<Passthrough> {
    let options = vfsd_passthrough::Options {
        descriptor_budget: Some(given.descriptors),
        ..options
    };
    let proc_self_fd = given.proc_self_fd.try_clone()?;
    Passthrough::from_descriptors(root.descriptor, proc_self_fd, options).map_err(io::Error::other)
}

/// What serving directories of the host needs of root's power.
pub(super) fn needs(options: &vfsd_passthrough::Options) -> Needs {
    Needs {
        files: true,
        device_nodes: options.device_nodes,
        // Only root of the whole host may open files by their handles.
        file_handles: options.file_handles != FileHandles::Never
            && rustix::process::geteuid().is_root(),
        ..Needs::default()
    }
}

fn share(path: &Path, readonly: bool) -> Result<Share, Failure> {
    let failed = |error: std::io::Error| {
        Failure::run(format!(
            "cannot serve {}: {error}; {}",
            path.display(),
            advice(path, error.kind())
        ))
    };
    let absolute = path.canonicalize().map_err(failed)?;
    let kind = std::fs::metadata(&absolute).map_err(failed)?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Err(failed(std::io::Error::other("it is not a directory")));
    }
    // A share that cannot be read would start, and answer EACCES to everything.
    if kind.is_dir() {
        std::fs::read_dir(&absolute).map(drop).map_err(failed)?;
    }
    Ok(Share::at(absolute, readonly))
}

/// What to do about a path at which there is no directory, or none for this user. It may have been meant as a kind of
/// storage.
fn advice(path: &Path, why: ErrorKind) -> String {
    if why == ErrorKind::PermissionDenied {
        return "name a directory that this user may read, or start vfsd as one who may".to_owned();
    }
    let word = path.as_os_str().as_bytes();
    let kind = word.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_kind = kind.len() < word.len()
        && kind.len() > 1
        && kind
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'));
    match is_kind {
        true => {
            let kind = String::from_utf8_lossy(kind);
            format!("vfsd knows no storage of the kind '{kind}:'; it knows {SOURCES}")
        }
        false => "name a directory that exists".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_storage_that_is_not_known_is_told_from_a_path() {
        for (word, kind) in [
            ("nfs://host/share", "'nfs:'"),
            ("oci-archive:file.tar", "'oci-archive:'"),
            ("S3://bucket", "'S3:'"),
        ] {
            let advice = advice(Path::new(word), ErrorKind::NotFound);
            assert!(
                advice.contains(kind) && advice.contains("plugin:"),
                "{advice}"
            );
        }
        for word in ["/srv/a:b", "./nfs:x", "c:", "share", ":x", ""] {
            let advice = advice(Path::new(word), ErrorKind::NotFound);
            assert_eq!(advice, "name a directory that exists");
        }
    }

    #[test]
    fn who_may_not_read_a_directory_is_not_told_that_it_does_not_exist() {
        let advice = advice(Path::new("/root"), ErrorKind::PermissionDenied);
        assert!(advice.contains("may read"), "{advice}");
    }
}
