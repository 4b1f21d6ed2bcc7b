//! How a volume's bucket is reached, and the key of an encrypted one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;
use vfsd_object_store::{Store, StoreUrl};
use vfsd_volume::{Bucket, RemoteOptions, VolumeKey, host_boot};

use crate::exit::Failure;
use crate::source::{StorageOptions, StoreSettings};

/// No key is longer.
const MAX_KEY_BYTES: u64 = 1024;

/// What it takes to work on a volume in a bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    pub(crate) store: StoreSettings,
    /// Where the key of an encrypted volume is.
    pub(crate) key_file: Option<PathBuf>,
}

impl Reach {
    /// Opens a bucket. Nothing is sent yet; the key, certificates and credentials are read, which are files of the host.
    ///
    /// # Errors
    /// When there is no key in the file, or as [`StoreSettings::open`] says.
    pub(super) fn open(&self, url: &StoreUrl) -> Result<Bucket, Failure> {
        bucket(url, &self.store, self.key_file.as_deref())
    }
}

/// As [`Reach::open`].
///
/// # Errors
/// As those of [`Reach::open`].
fn bucket(
    url: &StoreUrl,
    store: &StoreSettings,
    key_file: Option<&Path>,
) -> Result<Bucket, Failure> {
    let key = key_file.map(read_key).transpose()?;
    Ok(Bucket::new(store.open(url)?, key))
}

/// A volume's bucket as it is taken into the sandbox, and what is said of this host that is not seen from there.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) bucket: Bucket,
    pub(super) store: Store,
    pub(super) prefix: String,
    cache_size: Option<u64>,
    boot: String,
}

impl Served {
    /// Opens it as [`bucket`] does.
    ///
    /// # Errors
    /// As those of [`bucket`]; or the kernel does not tell which boot this is.
    pub(super) fn new(url: &StoreUrl, options: &StorageOptions) -> Result<Self, Failure> {
        let bucket = bucket(url, &options.store, options.volume.key_file.as_deref())?;
        let boot = host_boot()
            .map_err(|error| Failure::run(format!("cannot tell this boot of the host: {error}")))?;
        Ok(Self {
            store: bucket.store().clone(),
            bucket,
            prefix: url.prefix().to_owned(),
            cache_size: options.cache.size,
            boot,
        })
    }

    /// Asks whether the store can be reached. Blocks the thread.
    ///
    /// # Errors
    /// What to check when it cannot.
    pub(super) fn check(&self, runtime: &Handle) -> Result<(), Failure> {
        let checked = runtime.block_on(self.store.check(&self.prefix));
        checked.map_err(Failure::run)
    }

    /// How it is opened, as far as that does not depend on who writes.
    pub(super) fn options(&self, runtime: &Handle) -> RemoteOptions {
        RemoteOptions {
            cache_size: self.cache_size,
            boot: Some(self.boot.clone()),
            ..RemoteOptions::new(runtime.clone())
        }
    }
}

fn read_key(path: &Path) -> Result<VolumeKey, Failure> {
    let failed = |error| {
        let shown = path.display();
        Failure::run(format!("cannot read the key in {shown}: {error}"))
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    VolumeKey::read(&bytes).ok_or_else(|| {
        let shown = path.display();
        Failure::usage(format!(
            "{shown} has no key: 32 bytes, or 64 hexadecimal digits; make one with `(umask 77; head -c 32 /dev/urandom >FILE)`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_a_file_that_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_key(&path)
        };
        assert!(read(&[1; 32]).is_ok());
        assert!(read("ab".repeat(32).as_bytes()).is_ok());
        for wrong in [&b""[..], &[1; 31], &[b'a'; 4096]] {
            assert!(
                matches!(read(wrong), Err(Failure::Usage(advice)) if advice.contains("urandom"))
            );
        }
        assert!(matches!(read_key(folder.path()), Err(Failure::Run(_))));
    }
}
