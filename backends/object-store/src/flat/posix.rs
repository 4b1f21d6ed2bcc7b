//! Mode, owner and times that other tools keep in an object's metadata.

use std::time::SystemTime;

use object_store::{Attribute, Attributes};
use vfsd_backend::{FileKind, Timestamp};

use super::extended;

/// What an object's metadata says of it, as far as it says anything: `mode`, `uid`, `gid` and `mtime`
/// (`x-amz-meta-mode` and so on), as s3fs and rclone write them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Posix {
    /// The object's content is the target of a symbolic link.
    pub(super) symlink: bool,
    /// Permission, set-id and sticky bits.
    pub(super) permissions: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<Timestamp>,
    /// There are extended attributes.
    pub(super) extended: bool,
}

impl Posix {
    pub(super) fn of(attributes: &Attributes) -> Self {
        let text = |name: &'static str| {
            attributes
                .get(&Attribute::Metadata(name.into()))
                .map(|value| value.trim().to_owned())
        };
        let mode = text("mode").and_then(|text| mode(&text));
        let id = |name| text(name)?.parse().ok().filter(|id| *id != u32::MAX);
        Self {
            symlink: mode.is_some_and(|mode| mode & TYPE == SYMLINK),
            permissions: mode.map(|mode| mode & 0o7777),
            uid: id("uid"),
            gid: id("gid"),
            modified: text("mtime").and_then(|text| time(&text)),
            extended: extended::has_any(attributes),
        }
    }
}

/// The bits of a mode that tell the type, and those of a link.
const TYPE: u32 = 0o170_000;
const SYMLINK: u32 = 0o120_000;

/// A mode: with a file type in decimal (s3fs) or octal (rclone), without one in octal.
fn mode(text: &str) -> Option<u32> {
    const TYPES: std::ops::RangeInclusive<u32> = 0o010_000..=0o177_777;
    let decimal = text.parse().ok().filter(|mode| TYPES.contains(mode));
    let octal = || u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
    decimal.or_else(|| octal().filter(|mode| *mode <= *TYPES.end()))
}

impl Posix {
    /// The metadata that says so, beside what `kept` says of other things.
    pub(super) fn metadata(
        &self,
        kind: FileKind,
        changed: Timestamp,
        kept: &Attributes,
    ) -> Attributes {
        let mut attributes = kept.clone();
        let mut set = |name: &'static str, value: Option<String>| {
            if let Some(value) = value {
                attributes.insert(Attribute::Metadata(name.into()), value.into());
            }
        };
        let mode = |permissions: u32| (kind.mode_bits() | (permissions & 0o7777)).to_string();
        set("mode", self.permissions.map(mode));
        set("uid", self.uid.map(|uid| uid.to_string()));
        set("gid", self.gid.map(|gid| gid.to_string()));
        set("mtime", self.modified.map(text_of));
        set("ctime", Some(text_of(changed)));
        attributes
    }
}

/// A time as s3fs and rclone read it.
fn text_of(time: Timestamp) -> String {
    // A fraction counts away from zero.
    match (time.seconds, time.nanoseconds) {
        (seconds @ ..0, nanoseconds @ 1..) => {
            let fraction = 1_000_000_000_u32.saturating_sub(nanoseconds);
            let whole = seconds.saturating_add(1);
            let sign = if whole == 0 { "-" } else { "" };
            format!("{sign}{whole}.{fraction:09}")
        }
        (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
    }
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
            ("33188", Some(0o100_644)),
            ("100755", Some(0o100_755)),
            ("0100600", Some(0o100_600)),
            ("644", Some(0o644)),
            ("41471", Some(0o120_777)),
            ("36829", Some(0o107_735)),
            ("", None),
            ("-1", None),
            ("rw", None),
            ("99999999", None),
        ] {
            assert_eq!(mode(text), expected, "{text}");
        }
    }

    #[test]
    fn a_time_that_was_written_is_read_back() {
        for (seconds, nanoseconds) in [
            (0, 0),
            (1_600_000_000, 5),
            (-1, 250_000_000),
            (-2, 1),
            (-7, 0),
        ] {
            let at = Timestamp {
                seconds,
                nanoseconds,
            };
            assert_eq!(time(&text_of(at)), Some(at), "{}", text_of(at));
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
