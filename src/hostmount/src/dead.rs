//! A mount whose server has ended without unmounting it, as when it and who looks after it were killed.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fd::AsRawFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::attach::SUBTYPE;
use crate::mount::{Helper, MountError};

/// Mounts that may lie on one another at a place.
const MOST: usize = 16;

/// What a mount table says of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Such as `fuse.vfsd`.
    kind: String,
    source: OsString,
    /// Who has mounted it, of FUSE mounts.
    user: Option<u32>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, self.source.display())
    }
}

/// Takes away what is mounted at `point` if it is a mount of this program and this user whose server has ended; root does
/// so for every user. Says what it was.
///
/// # Errors
/// [`MountError::Dead`] when the server of another's has ended, or it cannot be unmounted.
pub fn remove_dead(point: &Path) -> Result<Vec<String>, MountError> {
    let mut removed = Vec::new();
    while removed.len() < MOST && is_dead(point) {
        let place = real(point);
        let entry = place.as_deref().and_then(topmost);
        let (Some(place), Some(entry)) = (&place, &entry) else {
            return Err(told(point));
        };
        let us = rustix::process::getuid();
        let is_ours = us.is_root() || entry.user == Some(us.as_raw());
        if entry.kind != format!("fuse.{SUBTYPE}") || !is_ours {
            return Err(error(place, Some(entry), ""));
        }
        if let Err(why) = Helper::of_this_process().detach(place, UnmountFlags::DETACH) {
            return Err(error(place, Some(entry), &format!(", which failed: {why}")));
        }
        removed.push(entry.to_string());
    }
    Ok(removed)
}

/// What is to be done about `point`, at or above which there is a mount whose server has ended.
pub(crate) fn told(point: &Path) -> MountError {
    let place = real(point);
    let entry = place.as_deref().and_then(topmost);
    error(place.as_deref().unwrap_or(point), entry.as_ref(), "")
}

fn error(place: &Path, entry: Option<&Entry>, why: &str) -> MountError {
    MountError::Dead {
        point: place.to_owned(),
        what: entry.map_or_else(String::new, |entry| format!(", {entry},")),
        why: why.to_owned(),
        command: match Helper::of_this_process() {
            Helper::Kernel => "umount -l",
            Helper::Fusermount => "fusermount3 -uz",
        },
    }
}

/// Whether the server behind a place has ended. Attributes may be remembered for longer than it lives, so it is asked what
/// nobody remembers.
fn is_dead(point: &Path) -> bool {
    let asked = rustix::fs::stat(point).and_then(|_| rustix::fs::statfs(point));
    asked.err() == Some(Errno::NOTCONN)
}

/// Where a path leads, which is a mount whose server answers nothing: only the kernel is asked.
fn real(point: &Path) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, point, flags, Mode::empty()).ok()?;
    std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()
}

/// The mount on top at `place`.
fn topmost(place: &Path) -> Option<Entry> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(read_line)
        .filter(|(point, _)| point == place)
        .map(|(_, entry)| entry)
        .next_back()
}

/// A line of `/proc/self/mountinfo`: where it is mounted, and what it is (proc_pid_mountinfo(5)).
fn read_line(line: &[u8]) -> Option<(PathBuf, Entry)> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = unescaped(words.nth(4)?);
    let mut behind = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8_lossy(behind.next()?).into_owned();
    let source = unescaped(behind.next()?);
    let options = behind.next()?.split(|byte| *byte == b',');
    let user = options
        .filter_map(|option| option.strip_prefix(b"user_id="))
        .next();
    let user = user.and_then(|user| std::str::from_utf8(user).ok()?.parse().ok());
    Some((point.into(), Entry { kind, source, user }))
}

/// A word of a mount table, in which blanks, line ends and backslashes are `\` and three octal digits.
fn unescaped(word: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *byte == b'\\');
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = match escaped {
            Some(_) => behind.get(3..).unwrap_or_default(),
            None => behind,
        };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_says_where_what_and_whose() {
        let line = b"36 35 0:52 / /mnt/a\\040b\\134c rw,nosuid shared:2 master:1 - fuse.vfsd memory: rw,user_id=1000,group_id=0";
        let (point, entry) = read_line(line).unwrap();
        assert_eq!(point, Path::new("/mnt/a b\\c"));
        let expected = Entry {
            kind: "fuse.vfsd".to_owned(),
            source: "memory:".into(),
            user: Some(1000),
        };
        assert_eq!(entry, expected);
        assert_eq!(read_line(b""), None);
        assert_eq!(unescaped(b"a\\9b\\"), "a\\9b\\");
    }

    #[test]
    fn what_is_no_dead_mount_is_left_alone() {
        for place in ["/", "/proc", "/no/such/place"] {
            assert_eq!(remove_dead(Path::new(place)).unwrap(), Vec::<String>::new());
        }
    }
}
