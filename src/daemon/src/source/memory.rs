//! `memory:`: an empty tree in memory, gone when the daemon ends.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use vfsd_memory::{Memory, Settings};

use super::{Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::Needs;

/// An empty tree in memory.
#[derive(Debug)]
struct InMemory;

/// Reads what stands behind `memory:`.
///
/// # Errors
/// When that is anything.
pub(super) fn read(rest: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    if !rest.is_empty() {
        let rest = rest.to_string_lossy();
        let advice = format!("memory: takes nothing behind it, remove {rest:?}");
        return Err(SourceError::Wrong(advice));
    }
    Ok(Arc::new(InMemory))
}

impl fmt::Display for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory:")
    }
}

impl Storage for InMemory {
    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        check(&options.passthrough)?;
        let (uid, gid) = options.owner;
        Ok(Prepared {
            shares: Vec::new(),
            needs: Needs::default(),
            private: false,
            open: Box::new(move |_| {
                let settings = Settings {
                    uid,
                    gid,
                    ..Settings::default()
                };
                let memory = Memory::new(settings).map_err(|errno| {
                    Failure::run(format!("cannot make a file system in memory: {errno}"))
                })?;
                Ok(Arc::new(memory))
            }),
        })
    }
}

/// Options that change what a host directory does have no meaning for a tree in memory.
fn check(options: &vfsd_passthrough::Options) -> Result<(), Failure> {
    let refuse = |option: &str| {
        Err(Failure::usage(format!(
            "{option} is for directories of the host, not for memory:"
        )))
    };
    if options.xattr_map.is_some() {
        return refuse("--xattr-map");
    }
    if !options.device_nodes {
        return refuse("--no-device-nodes");
    }
    Ok(())
}
