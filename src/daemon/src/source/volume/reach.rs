//! How a volume's bucket is reached, and the key of an encrypted one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use vfsd_object_store::StoreUrl;
use vfsd_volume::{Bucket, VolumeKey};

use crate::exit::Failure;
use crate::source::StoreSettings;

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
pub(super) fn bucket(
    url: &StoreUrl,
    store: &StoreSettings,
    key_file: Option<&Path>,
) -> Result<Bucket, Failure> {
    let key = key_file.map(read_key).transpose()?;
    Ok(Bucket::new(store.open(url)?, key))
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
