//! Keys of encrypted volumes, and buckets with them.

use std::fmt;

use vfsd_object_store::Store;

/// The key of an encrypted volume: 256 bits that nobody can guess.
#[derive(Clone)]
pub struct VolumeKey([u8; 32]);

impl VolumeKey {
    /// Reads what a file holds: 32 bytes, or 64 hexadecimal digits, with or without a line's end. `None`: it is neither.
    pub fn read(file: &[u8]) -> Option<Self> {
        if let Ok(bytes) = file.try_into() {
            return Some(Self(bytes));
        }
        let digits = file.strip_suffix(b"\n").unwrap_or(file);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for VolumeKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey")
    }
}

/// A bucket, and the key of encrypted volumes in it.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(crate) store: Store,
    pub(crate) key: Option<VolumeKey>,
}

impl Bucket {
    /// With the key, if there is one: volumes that are made are encrypted with it then, and those that are not are
    /// refused.
    pub fn new(store: Store, key: Option<VolumeKey>) -> Self {
        Self { store, key }
    }

    /// The bucket.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is below a prefix, for messages.
    pub(crate) fn place(&self, prefix: &str) -> String {
        let place = format!("{}/{}", self.store.name(), prefix.trim_matches('/'));
        place.trim_end_matches('/').to_owned()
    }
}

impl From<&Store> for Bucket {
    fn from(store: &Store) -> Self {
        Self::new(store.clone(), None)
    }
}

impl From<&Self> for Bucket {
    fn from(bucket: &Self) -> Self {
        bucket.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_or_64_digits() {
        let read = |file: &[u8]| VolumeKey::read(file).map(|key| *key.bytes());
        assert_eq!(read(&[7; 32]), Some([7; 32]));
        let digits = "0a".repeat(32);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(read(format!("{digits}{end}").as_bytes()), Some([10; 32]));
        }
        assert_eq!(read("AB".repeat(32).as_bytes()), Some([0xab; 32]));
        for wrong in [
            &b""[..],
            &[7; 31],
            &[7; 33],
            &[7; 64],
            "+1".repeat(32).as_bytes(),
            format!("{digits}\n\n").as_bytes(),
        ] {
            assert_eq!(read(wrong), None);
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", VolumeKey::from([0xab; 32]));
        assert_eq!(shown, "VolumeKey");
    }
}
