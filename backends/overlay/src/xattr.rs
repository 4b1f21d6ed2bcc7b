//! The overlay's own extended attributes: what they are called, and what programs see instead.
//!
//! A name of a program that looks like one of the overlay's is stored with another `overlay.` in it
//! (`trusted.overlay.x` as `trusted.overlay.overlay.x`), as Linux does since 6.7: an overlay's upper can
//! then lie on an overlay.

use std::borrow::Cow;
use std::sync::Arc;

use vfsd_backend::{Errno, Error, Name, Node, Result, XattrFlags, XattrName};

use crate::nested::DEVICES;

/// Where the overlay keeps its own extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Namespace {
    /// `trusted.overlay.*`: any file can carry them. Writing them takes `CAP_SYS_ADMIN` in the
    /// initial user namespace.
    #[default]
    Trusted,
    /// `user.overlay.*`, as the kernel's mount option `userxattr` has it. Only regular files and
    /// directories can carry them.
    User,
}

const ESCAPE: &[u8] = b"overlay.";

impl Namespace {
    /// What the names of all of the overlay's attributes begin with.
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// The full name of one of the overlay's attributes.
    pub(crate) fn own(self, mark: &str) -> Vec<u8> {
        [self.prefix(), mark.as_bytes()].concat()
    }

    /// Under which name an attribute of a program is stored.
    ///
    /// # Errors
    /// EOPNOTSUPP when that name would be too long.
    pub(crate) fn stored(self, shown: &[u8]) -> Result<Cow<'_, [u8]>> {
        match shown.strip_prefix(self.prefix()) {
            None => Ok(Cow::Borrowed(shown)),
            Some(rest) => {
                let stored = [self.prefix(), ESCAPE, rest].concat();
                match stored.len() {
                    ..=XattrName::MAX => Ok(Cow::Owned(stored)),
                    _ => Err(Errno::OPNOTSUPP.into()),
                }
            }
        }
    }

    /// What a program sees of a stored name; `None` of the overlay's own.
    pub(crate) fn shown(self, stored: &[u8]) -> Option<Cow<'_, [u8]>> {
        match stored.strip_prefix(self.prefix()) {
            None => Some(Cow::Borrowed(stored)),
            Some(rest) => rest
                .strip_prefix(ESCAPE)
                .map(|rest| Cow::Owned([self.prefix(), rest].concat())),
        }
    }

    /// Those names of a stored list, each ended by a NUL, that programs see and `wanted` takes.
    pub(crate) fn shown_list(self, stored: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut list = Vec::with_capacity(stored.len());
        for name in names(stored) {
            if let Some(shown) = self.shown(name).filter(|shown| wanted(shown)) {
                list.extend_from_slice(&shown);
                list.push(0);
            }
        }
        list
    }

    /// The value of one of the overlay's own attributes, if the file has it.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn get(self, node: &dyn Node, mark: &str) -> Result<Option<Vec<u8>>> {
        let name = self.own(mark);
        match node.getxattr(XattrName::new(&name)?).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets one of the overlay's own attributes.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn set(self, node: &dyn Node, mark: &str, value: &[u8]) -> Result<()> {
        let name = self.own(mark);
        node.setxattr(XattrName::new(&name)?, value, XattrFlags::empty())
            .await
    }
}

/// The names in a list of extended attributes.
pub(crate) fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
}

/// The file has no such attribute, or no attributes at all.
pub(crate) fn is_absent(error: &Error) -> bool {
    error.is(Errno::NODATA) || is_unsupported(error)
}

/// The storage, or this kind of file, has no such attributes.
pub(crate) fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::NotSupported) || error.is(Errno::OPNOTSUPP)
}

/// What a directory of a layer says about what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Opacity {
    /// It is merged with the directories of that name below.
    #[default]
    Merged,
    /// As `Merged`, and among its files are whiteouts that are marked by an extended attribute.
    XattrWhiteouts,
    /// It hides what is below.
    Opaque,
}

/// What the overlay's own attributes say of a directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) opacity: Opacity,
    /// The name, or the absolute path, of the directory below that it is merged with, if not its own.
    pub(crate) redirect: Option<Box<[u8]>>,
    /// Names in it may be of files that show another inode number than their own.
    pub(crate) impure: bool,
    /// Files in it may be shown as character devices 0/0.
    pub(crate) devices: bool,
}

pub(crate) const OPAQUE: &str = "opaque";
pub(crate) const REDIRECT: &str = "redirect";
pub(crate) const IMPURE: &str = "impure";
pub(crate) const WHITEOUT: &str = "whiteout";
pub(crate) const METACOPY: &str = "metacopy";
/// The file handle of the lower file that a file was copied from.
pub(crate) const ORIGIN: &str = "origin";
pub(crate) const NLINK: &str = "nlink";
/// The inode number of a copy, as [`Number::stored`](crate::numbers::Number::stored). The kernel does not know it.
pub(crate) const INODE: &str = "vfsd.inode";
/// On the upper's root: its work directory has copies of files with several names. The kernel does not know it.
pub(crate) const INDEXED: &str = "vfsd.indexed";
/// On the upper's root: which lower layers it belongs to. The kernel does not know it.
pub(crate) const LOWERS: &str = "vfsd.lowers";

impl Marks {
    /// Those of a directory.
    ///
    /// # Errors
    /// Those of the storage; EIO for a redirect that is no path.
    pub(crate) async fn of(namespace: Namespace, node: &Arc<dyn Node>) -> Result<Self> {
        let list = match node.listxattr().await {
            Ok(list) => list,
            Err(error) if is_absent(&error) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut marks = Self::default();
        for name in names(&list) {
            let Some(mark) = name.strip_prefix(namespace.prefix()) else {
                continue;
            };
            if mark == OPAQUE.as_bytes() {
                let value = namespace.get(node.as_ref(), OPAQUE).await?;
                marks.opacity = match value.as_deref() {
                    Some(b"y") => Opacity::Opaque,
                    Some(b"x") => Opacity::XattrWhiteouts,
                    _ => Opacity::Merged,
                };
            } else if mark == REDIRECT.as_bytes() {
                let value = namespace.get(node.as_ref(), REDIRECT).await?;
                marks.redirect = value.map(checked_redirect).transpose()?;
            } else if mark == IMPURE.as_bytes() {
                marks.impure = true;
            } else if mark == DEVICES.as_bytes() {
                marks.devices = true;
            }
        }
        Ok(marks)
    }
}

/// A redirect is one name, or an absolute path of names. EIO for anything else.
fn checked_redirect(value: Vec<u8>) -> Result<Box<[u8]>> {
    let path = value.strip_prefix(b"/").unwrap_or(&value);
    let absolute = value.starts_with(b"/");
    let mut components = path.split(|&byte| byte == b'/');
    let valid = components.clone().all(|name| Name::new(name).is_ok());
    if valid && (absolute || components.nth(1).is_none()) {
        return Ok(value.into());
    }
    tracing::warn!(redirect = %value.escape_ascii(), "a directory's redirect is no path");
    Err(Errno::IO.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_hidden_and_those_of_programs_escaped() {
        let trusted = Namespace::Trusted;
        assert_eq!(trusted.shown(b"trusted.overlay.opaque"), None);
        assert_eq!(
            trusted.shown(b"trusted.overlay.overlay.opaque").unwrap(),
            &b"trusted.overlay.opaque"[..]
        );
        assert_eq!(
            trusted.stored(b"trusted.overlay.opaque").unwrap(),
            &b"trusted.overlay.overlay.opaque"[..]
        );
        for name in [&b"user.overlay.opaque"[..], b"trusted.overlay", b"user.x"] {
            assert_eq!(trusted.stored(name).unwrap(), name);
            assert_eq!(trusted.shown(name).unwrap(), name);
        }
        let list = b"user.a\0trusted.overlay.origin\0trusted.overlay.overlay.b\0";
        assert_eq!(
            trusted.shown_list(list, |_| true),
            b"user.a\0trusted.overlay.b\0"
        );
        assert_eq!(
            trusted.shown_list(list, |name| name != b"user.a"),
            b"trusted.overlay.b\0"
        );
    }

    #[test]
    fn an_escaped_name_that_is_too_long_is_refused() {
        let mut name = b"user.overlay.".to_vec();
        name.resize(XattrName::MAX - ESCAPE.len(), b'n');
        assert!(Namespace::User.stored(&name).is_ok());
        name.push(b'n');
        let refused = Namespace::User.stored(&name).unwrap_err();
        assert!(refused.is(Errno::OPNOTSUPP));
    }

    #[test]
    fn a_redirect_is_a_name_or_an_absolute_path() {
        for good in [&b"name"[..], b"/name", b"/one/two"] {
            assert_eq!(*checked_redirect(good.to_vec()).unwrap(), *good);
        }
        for bad in [
            &b""[..],
            b"/",
            b"one/two",
            b"/one//two",
            b"/..",
            b"..",
            b"/one/",
        ] {
            assert!(
                checked_redirect(bad.to_vec()).is_err(),
                "{}",
                bad.escape_ascii()
            );
        }
    }
}
