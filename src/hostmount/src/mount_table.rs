//! The mounts that this process sees.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The number that `/proc/self/mountinfo` knows a mount by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountId(u64);

/// The mount on top at `path`, which must be absolute and free of links.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub(crate) fn topmost_at(path: &Path) -> io::Result<Option<MountId>> {
    Ok(find(&read()?, |mount| mount.point == path))
}

/// Whether the mount is still there.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub(crate) fn contains(id: MountId) -> io::Result<bool> {
    Ok(find(&read()?, |mount| mount.id == id).is_some())
}

fn read() -> io::Result<Vec<u8>> {
    std::fs::read("/proc/self/mountinfo")
}

#[derive(Debug)]
struct Mount {
    id: MountId,
    point: PathBuf,
}

/// The last mount that matches: later ones cover earlier ones.
fn find(table: &[u8], matches: impl Fn(&Mount) -> bool) -> Option<MountId> {
    let mut mounts = table.split(|byte| *byte == b'\n').filter_map(parse);
    mounts.rfind(matches).map(|mount| mount.id)
}

/// Reads a line of proc_pid_mountinfo(5): the id is field 1, the mount point field 5.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescape(fields.nth(3)?);
    Some(Mount {
        id: MountId(id),
        point: OsString::from_vec(point).into(),
    })
}

/// Space, tab, line feed and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *byte == b'\\');
        let decoded = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        40 22 0:35 / /mnt/a\\040b rw,nosuid - fuse.vfsd vfsd rw\n\
        41 22 0:36 / /mnt/x rw - tmpfs none rw\n\
        42 41 0:37 / /mnt/x rw - fuse.vfsd vfsd rw\n";

    fn at(path: &str) -> Option<MountId> {
        find(TABLE, |mount| mount.point == Path::new(path))
    }

    #[test]
    fn the_mount_on_top_is_found() {
        assert_eq!(at("/mnt/x"), Some(MountId(42)));
        assert_eq!(at("/mnt"), None);
    }

    #[test]
    fn escaped_characters_of_a_mount_point_are_read() {
        assert_eq!(at("/mnt/a b"), Some(MountId(40)));
        assert_eq!(unescape(b"a\\134b\\9"), b"a\\b\\9");
    }
}
