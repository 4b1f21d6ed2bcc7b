//! Mode, owner and times that other tools keep in an object's metadata.

use std::time::SystemTime;

use object_store::{Attribute, Attributes};
use vfsd_backend::Timestamp;

/// What an object's metadata says of it, as far as it says anything: `mode`, `uid`, `gid` and `mtime`
/// (`x-amz-meta-mode` and so on), as s3fs and rclone write them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Posix {
    /// Permission, set-id and sticky bits.
    pub(super) permissions: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<Timestamp>,
}

impl Posix {
    pub(super) fn of(attributes: &Attributes) -> Self {
        let text = |name: &'static str| {
            attributes
                .get(&Attribute::Metadata(name.into()))
                .map(|value| value.trim().to_owned())
        };
        let id = |name| text(name)?.parse().ok().filter(|id| *id != u32::MAX);
        Self {
            permissions: text("mode").and_then(|text| mode(&text)),
            uid: id("uid"),
            gid: id("gid"),
            modified: text("mtime").and_then(|text| time(&text)),
        }
    }
}

/// The permissions of a mode: with a file type in decimal (s3fs) or octal (rclone), without one in octal.
fn mode(text: &str) -> Option<u32> {
    const TYPES: std::ops::RangeInclusive<u32> = 0o010_000..=0o177_777;
    let decimal = text.parse().ok().filter(|mode| TYPES.contains(mode));
    let octal = || u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
    let mode = decimal.or_else(|| octal().filter(|mode| *mode <= *TYPES.end()))?;
    Some(mode & 0o7777)
}

/// Seconds since 1970, with a fraction or without (rclone, s3fs).
fn time(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().ok()?,
        false => return None,
    };
    if text.starts_with('-') && nanoseconds > 0 {
        let up = 1_000_000_000_u32.checked_sub(nanoseconds)?;
        return Timestamp::new(seconds.checked_sub(1)?, up).ok();
    }
    Timestamp::new(seconds, nanoseconds).ok()
}

/// A time of the service as inodes have it.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        },
        Err(_) => Timestamp::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_s3fs_and_rclone_write_them() {
        for (text, expected) in [
            ("33188", Some(0o644)),
            ("100755", Some(0o755)),
            ("0100600", Some(0o600)),
            ("644", Some(0o644)),
            ("36829", Some(0o7735)),
            ("", None),
            ("-1", None),
            ("rw", None),
            ("99999999", None),
        ] {
            assert_eq!(mode(text), expected, "{text}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_fraction() {
        let at = |seconds, nanoseconds| {
            Some(Timestamp {
                seconds,
                nanoseconds,
            })
        };
        for (text, expected) in [
            ("1600000000", at(1_600_000_000, 0)),
            ("1600000000.5", at(1_600_000_000, 500_000_000)),
            ("1600000000.1234567891", at(1_600_000_000, 123_456_789)),
            ("-1.25", at(-2, 750_000_000)),
            ("x", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }
}
