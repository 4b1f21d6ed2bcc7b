//! Options of what is kept on this host's disk for the next time.

use std::path::PathBuf;

use clap::Args;

use crate::source::CacheSettings;

/// Where storages keep what they fetched, as an operator says it. One place for all of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cache on disk")]
pub(crate) struct CacheArguments {
    /// Keep what was fetched here, for the next time; several daemons may share it. Images always have
    /// a cache, buckets have one when this or --cache-size is given [default: /var/cache/vfsd for root,
    /// $XDG_CACHE_HOME/vfsd for others]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,

    /// Keep at most about this much of buckets, of images, and of each volume in a bucket, such as 500M or
    /// 20G; what was used the longest time ago goes first, what is in use stays [default: 10G of buckets,
    /// all of images and volumes]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    cache_size: Option<u64>,
}

impl CacheArguments {
    /// What the storages are told.
    pub(super) fn settings(&self) -> CacheSettings {
        CacheSettings {
            dir: self.cache_dir.clone(),
            size: self.cache_size,
        }
    }
}

/// The smallest cache that is of any use.
const LEAST: u64 = 16 << 20;

/// A size with the suffixes of coreutils: `K`, `M`, `G` and `T` (or `KiB` and so on) are powers of 1024, `KB`
/// and so on of 1000.
fn parse_size(word: &str) -> Result<u64, String> {
    let bytes = parse_bytes(word)?;
    if bytes < LEAST {
        return Err("less than 16M is no cache".to_owned());
    }
    Ok(bytes)
}

/// A size as [`parse_size`] reads it, but of any number of bytes.
pub(super) fn parse_bytes(word: &str) -> Result<u64, String> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = word.get(digits.len()..).unwrap_or_default();
    digits
        .parse::<u64>()
        .ok()
        .zip(unit(&suffix.to_ascii_lowercase()))
        .and_then(|(count, unit)| count.checked_mul(unit))
        .ok_or_else(|| "not a size such as 500M, 20G or 1T".to_owned())
}

/// What a suffix in lower case stands for.
fn unit(suffix: &str) -> Option<u64> {
    let (letter, base) = match suffix.strip_suffix('b') {
        Some("") => return Some(1),
        Some(rest) => match rest.strip_suffix('i') {
            Some(letter) => (letter, 1024_u64),
            None => (rest, 1000),
        },
        None => (suffix, 1024),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    base.checked_pow(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_users_write_it() {
        for (word, bytes) in [
            ("20971520", 20 << 20),
            ("20971520B", 20 << 20),
            ("500M", 500 << 20),
            ("500m", 500 << 20),
            ("20480K", 20 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10GB", 10_000_000_000),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(word), Ok(bytes), "{word}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for word in [
            "",
            "G",
            "-1G",
            "1.5G",
            "10 G",
            "10X",
            "10iG",
            "10i",
            "0",
            "1",
            "15M",
            "99999999T",
        ] {
            assert!(parse_size(word).is_err(), "{word}");
        }
    }
}
