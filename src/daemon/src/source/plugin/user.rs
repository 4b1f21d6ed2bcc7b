//! The user that plugins run as.

// UNSAFETY: users are looked up with the C library, which knows of directories and files alike.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::str::FromStr;

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PluginUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl PluginUser {
    /// Who owns nothing. Where the host does not name it, the kernel's ids of whom it cannot name.
    pub(crate) fn nobody() -> Self {
        const OVERFLOW: u32 = 65_534;
        find("nobody").unwrap_or(Self {
            uid: OVERFLOW,
            gid: OVERFLOW,
        })
    }
}

impl FromStr for PluginUser {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if let Some((uid, gid)) = word.split_once(':')
            && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            // The kernel takes this one for "unchanged".
            && uid != u32::MAX
            && gid != u32::MAX
        {
            return Ok(Self { uid, gid });
        }
        find(word).ok_or_else(|| "no such user: use a name, or UID:GID".to_owned())
    }
}

fn find(name: &str) -> Option<PluginUser> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a NUL. The result points to storage of the C library that no
    // other thread changes meanwhile, because there is none yet.
    let (uid, gid) = unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        if entry.is_null() {
            return None;
        }
        ((*entry).pw_uid, (*entry).pw_gid)
    };
    Some(PluginUser { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        let root = PluginUser { uid: 0, gid: 0 };
        assert_eq!("root".parse(), Ok(root));
        assert_eq!("7:8".parse(), Ok(PluginUser { uid: 7, gid: 8 }));
        for word in [
            "",
            "7",
            "7:",
            ":8",
            "7:8:9",
            "-1:8",
            "4294967295:8",
            "no such user",
        ] {
            let parsed: Result<PluginUser, _> = word.parse();
            assert!(parsed.is_err(), "{word}");
        }
    }

    #[test]
    fn nobody_is_not_root() {
        let nobody = PluginUser::nobody();
        assert!(nobody.uid != 0 && nobody.gid != 0);
    }
}
