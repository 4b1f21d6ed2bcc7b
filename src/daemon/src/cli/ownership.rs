//! Whose the root of a new volume is, and who may do what there.

use clap::Args;
use rustix::process::{getegid, geteuid};

/// The root of a new volume.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OwnershipArguments {
    /// Whom its root belongs to, as the guest, or the mount, has the ids; a group is the user's number unless it is named
    /// [default: root for root, the caller's own ids for others]
    #[arg(long, value_name = "UID[:GID]", value_parser = Owner::parse)]
    owner: Option<Owner>,

    /// The permissions of its root, in octal digits
    #[arg(long, value_name = "MODE", default_value = "0755", value_parser = parse_mode)]
    mode: u32,
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl OwnershipArguments {
    /// User, group, and permission bits.
    pub(super) fn settings(self) -> (u32, u32, u32) {
        let Owner { uid, gid } = self.owner.unwrap_or_else(|| Owner {
            uid: geteuid().as_raw(),
            gid: match geteuid().is_root() {
                true => 0,
                false => getegid().as_raw(),
            },
        });
        (uid, gid, self.mode)
    }
}

impl Owner {
    fn parse(word: &str) -> Result<Self, String> {
        let id = |digits: &str| match digits.parse() {
            // The kernel takes it for no id.
            Err(_) | Ok(u32::MAX) => Err("not UID or UID:GID, in digits".to_owned()),
            Ok(id) => Ok(id),
        };
        let (uid, gid) = word.split_once(':').unwrap_or((word, word));
        Ok(Self {
            uid: id(uid)?,
            gid: id(gid)?,
        })
    }
}

fn parse_mode(word: &str) -> Result<u32, String> {
    let digits = word.bytes().all(|digit| digit.is_ascii_digit());
    match u32::from_str_radix(word, 8) {
        Ok(mode @ 0..=0o7777) if digits => Ok(mode),
        _ => Err("no permissions: 0 to 7777, in octal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_and_perhaps_a_group() {
        let owner = |uid, gid| Ok(Owner { uid, gid });
        assert_eq!(Owner::parse("1000"), owner(1000, 1000));
        assert_eq!(Owner::parse("1000:0"), owner(1000, 0));
        for word in ["", ":", "1000:", ":5", "me", "-1", "1:2:3", "4294967295"] {
            assert!(Owner::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(parse_mode("0755"), Ok(0o755));
        assert_eq!(parse_mode("1777"), Ok(0o1777));
        for word in ["", "+755", "788", "17777", "rwx"] {
            assert!(parse_mode(word).is_err(), "{word}");
        }
    }
}
