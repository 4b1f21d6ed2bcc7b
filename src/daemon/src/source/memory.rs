//! `memory:`, `memory:?size=SIZE`: an empty tree in memory, gone when the daemon ends.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use vfsd_memory::{Limits, Memory, Settings};

use super::{Prepared, SourceError, Storage, StorageOptions};
use crate::exit::Failure;
use crate::sandbox::Needs;

/// An empty tree in memory.
#[derive(Debug)]
struct InMemory {
    /// How large it may grow; none for an equal share of what all such trees have together.
    size: Option<Size>,
}

/// What tmpfs(5) takes for `size=`, but for 0, which is no limit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Bytes(u64),
    /// Of the memory that this process may use.
    Percent(u64),
}

impl Size {
    /// Reads a number with `k`, `m`, `g` or `t` behind it, or `%`, or nothing.
    fn parse(word: &str) -> Option<Self> {
        let digits = word.trim_end_matches(|last: char| !last.is_ascii_digit());
        let unit = word.strip_prefix(digits)?;
        let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "%" => return Some(Self::Percent(number)),
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self::Bytes)
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (Limits::memory() / 100).saturating_mul(percent),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Reads what stands behind `memory:`.
///
/// # Errors
/// When that is anything but a size.
pub(super) fn read(rest: &OsStr) -> Result<Arc<dyn Storage>, SourceError> {
    let rest = rest.to_string_lossy();
    let size = match rest.strip_prefix("?size=") {
        None if rest.is_empty() => None,
        word => Some(word.and_then(Size::parse).ok_or_else(|| {
            SourceError::Wrong(format!(
                "memory: takes a size behind it, as memory:?size=512M, ?size=4G or ?size=25%, and \
                 not {rest:?}"
            ))
        })?),
    };
    Ok(Arc::new(InMemory { size }))
}

impl fmt::Display for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            None => f.write_str("memory:"),
            Some(size) => write!(f, "memory:?size={size}"),
        }
    }
}

impl Storage for InMemory {
    fn memory_shares(&self) -> u64 {
        u64::from(self.size.is_none())
    }

    fn prepare(&self, options: &StorageOptions, _: bool) -> Result<Prepared, Failure> {
        check(&options.passthrough)?;
        let (uid, gid) = options.owner;
        let bytes = self.size.map_or_else(
            || Limits::half_of_memory().bytes / options.memory_shares.max(1),
            Size::bytes,
        );
        Ok(Prepared {
            shares: Vec::new(),
            needs: Needs::default(),
            private: true,
            open: Box::new(move |_| {
                let settings = Settings {
                    uid,
                    gid,
                    limits: Limits::of_size(bytes),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_tmpfs_reads_it() {
        for (word, expected) in [
            ("4096", Some(Size::Bytes(4096))),
            ("512k", Some(Size::Bytes(512 << 10))),
            ("512M", Some(Size::Bytes(512 << 20))),
            ("1G", Some(Size::Bytes(1 << 30))),
            ("2t", Some(Size::Bytes(2 << 40))),
            ("25%", Some(Size::Percent(25))),
            ("", None),
            ("0", None),
            ("0%", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("1GB", None),
            ("99999999999999999999", None),
            ("99999999999t", None),
        ] {
            assert_eq!(Size::parse(word), expected, "{word}");
        }
    }

    #[test]
    fn a_percentage_is_of_the_memory_there_is() {
        let (half, all) = (Size::Percent(50).bytes(), Limits::memory());
        assert!(half <= all / 2 && half > all / 3, "{half} of {all}");
    }
}
