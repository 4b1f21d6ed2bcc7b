//! Extended attributes in an object's metadata.
//!
//! Those that are set are kept as s3fs does it, together in the metadata `xattr`: JSON of names and values in base64, with
//! percent signs. Metadata of other names, as `rclone --metadata`, the AWS tools and programs write it (`x-amz-meta-team`), is
//! shown as `user.team`, and stays where it is when it is changed. Only names that begin with `user.` are shown and
//! taken; others that s3fs wrote stay as they are.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use object_store::{Attribute, Attributes as Metadata};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use vfsd_backend::{Errno, XattrFlags};

use crate::store::NONCE;

/// Where s3fs keeps them.
const XATTR: &str = "xattr";
/// What we, s3fs and rclone keep of other things.
const TAKEN: [&str; 9] = [
    "mode", "uid", "gid", "mtime", "atime", "ctime", "btime", XATTR, NONCE,
];
const USER: &str = "user.";
/// Names and values of an object's metadata together, in bytes, as S3 has it.
const MOST: usize = 2048;
/// What of that is for mode, owner, times and a nonce.
const RESERVED: usize = 192;
/// As s3fs writes it.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'*')
    .remove(b'_')
    .remove(b'~');

/// Whether metadata has any.
pub(super) fn has_any(metadata: &Metadata) -> bool {
    plain(metadata).next().is_some() || metadata.get(&named(XATTR)).is_some()
}

/// The value of one.
pub(super) fn get(metadata: &Metadata, name: &[u8]) -> Option<Vec<u8>> {
    let name = std::str::from_utf8(name).ok()?;
    let own = name.strip_prefix(USER)?;
    if let Some(value) = kept(metadata).get(name) {
        return BASE64_STANDARD.decode(value).ok();
    }
    let (_, value) = plain(metadata).find(|(there, _)| *there == own)?;
    Some(value.as_bytes().to_vec())
}

/// The names of all, each ended by a NUL.
pub(super) fn list(metadata: &Metadata) -> Vec<u8> {
    let mut names: Vec<String> = kept(metadata)
        .into_keys()
        .filter(|name| name.starts_with(USER) && name.len() > USER.len())
        .collect();
    names.extend(plain(metadata).map(|(name, _)| format!("{USER}{name}")));
    names.retain(|name| !name.contains('\0'));
    names.sort_unstable();
    names.dedup();
    let mut list = Vec::new();
    for name in names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list
}

/// Sets one, or removes it where there is no value.
///
/// # Errors
/// EOPNOTSUPP for a name that is none here, EEXIST and ENODATA as the flags say, E2BIG for a value that fits in no object,
/// ENOSPC for one that does not fit in this one.
pub(super) fn set(
    metadata: &mut Metadata,
    name: &[u8],
    value: Option<&[u8]>,
    flags: XattrFlags,
) -> Result<(), Errno> {
    let name = name_of(name)?;
    let is_there = get(metadata, name.as_bytes()).is_some();
    let must_be_there = value.is_none() || flags.contains(XattrFlags::REPLACE);
    match is_there {
        true if flags.contains(XattrFlags::CREATE) => return Err(Errno::EXIST),
        false if must_be_there => return Err(Errno::NODATA),
        _ => {}
    }
    if value.is_some_and(|value| value.len() > MOST) {
        return Err(Errno::TOOBIG);
    }
    let before = metadata.clone();
    let own = name.strip_prefix(USER).unwrap_or_default();
    let is_plain = plain(metadata).any(|(there, _)| there == own);
    let mut kept = kept(metadata);
    kept.remove(name);
    if is_plain {
        metadata.remove(&named(own));
    }
    match value {
        Some(value) if is_plain && is_text(value) => {
            let value = String::from_utf8_lossy(value).into_owned();
            metadata.insert(named(own), value.into());
        }
        Some(value) => {
            kept.insert(name.to_owned(), BASE64_STANDARD.encode(value));
        }
        None => {}
    }
    metadata.remove(&named(XATTR));
    if !kept.is_empty() {
        metadata.insert(named(XATTR), written(&kept).into());
    }
    if value.is_some() && size(metadata).saturating_add(RESERVED) > MOST {
        *metadata = before;
        return Err(Errno::NOSPC);
    }
    Ok(())
}

/// A name that s3fs reads as it is: it knows no escapes.
fn name_of(name: &[u8]) -> Result<&str, Errno> {
    let name = std::str::from_utf8(name).map_err(|_| Errno::OPNOTSUPP)?;
    let odd = |c: char| c.is_control() || matches!(c, '"' | '\\' | '{' | '}' | ',' | ':');
    let own = name.strip_prefix(USER).unwrap_or_default();
    match own.is_empty() || own.contains(odd) || TAKEN.contains(&own) {
        true => Err(Errno::OPNOTSUPP),
        false => Ok(name),
    }
}

/// Whether a header says it as it is.
fn is_text(value: &[u8]) -> bool {
    let inside = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    inside && !value.is_empty() && value.trim_ascii() == value
}

fn named(name: &str) -> Attribute {
    Attribute::Metadata(name.to_owned().into())
}

/// Metadata of others.
fn plain(metadata: &Metadata) -> impl Iterator<Item = (&str, &str)> {
    metadata.iter().filter_map(|(name, value)| match name {
        Attribute::Metadata(name) if !TAKEN.contains(&name.as_ref()) && !name.is_empty() => {
            Some((name.as_ref(), value.as_ref()))
        }
        _ => None,
    })
}

/// What s3fs keeps, with values as they are written. Nothing if it is none of s3fs's.
fn kept(metadata: &Metadata) -> BTreeMap<String, String> {
    let Some(text) = metadata.get(&named(XATTR)) else {
        return BTreeMap::new();
    };
    let text = percent_decode_str(text).decode_utf8_lossy();
    serde_json::from_str(&text).unwrap_or_default()
}

fn written(kept: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = kept
        .iter()
        .map(|(name, value)| format!("\"{name}\":\"{value}\""))
        .collect();
    let json = format!("{{{}}}", pairs.join(","));
    utf8_percent_encode(&json, ENCODED).to_string()
}

/// Bytes of all extended attributes.
fn size(metadata: &Metadata) -> usize {
    let all = metadata.get(&named(XATTR));
    let all = all.map(|value| XATTR.len().saturating_add(value.len()));
    let others = plain(metadata).map(|(name, value)| name.len().saturating_add(value.len()));
    others.chain(all).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(said: &[(&str, &str)]) -> Metadata {
        let said = said
            .iter()
            .map(|(name, value)| (named(name), value.to_string()));
        Metadata::from_iter(said)
    }

    fn put(metadata: &mut Metadata, name: &str, value: &[u8]) -> Result<(), Errno> {
        set(metadata, name.as_bytes(), Some(value), XattrFlags::empty())
    }

    fn names(metadata: &Metadata) -> Vec<String> {
        let list = String::from_utf8(list(metadata)).unwrap();
        list.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn what_s3fs_wrote_is_read_and_written_the_same() {
        let theirs = "%7B%22user.colour%22%3A%22Ymx1ZQD/%22%7D";
        let mut there = metadata(&[("xattr", theirs), ("mode", "33152"), ("mtime", "1")]);
        assert!(has_any(&there));
        assert_eq!(names(&there), ["user.colour"]);
        assert_eq!(get(&there, b"user.colour").unwrap(), b"blue\0\xff");
        put(&mut there, "user.b", b"").unwrap();
        assert_eq!(names(&there), ["user.b", "user.colour"]);
        let remove =
            |there: &mut Metadata, name: &[u8]| set(there, name, None, XattrFlags::empty());
        remove(&mut there, b"user.b").unwrap();
        assert_eq!(&**there.get(&named("xattr")).unwrap(), theirs);
        remove(&mut there, b"user.colour").unwrap();
        assert!(!has_any(&there));
        assert_eq!(remove(&mut there, b"user.colour"), Err(Errno::NODATA));
        assert_eq!(&**there.get(&named("mode")).unwrap(), "33152");
    }

    #[test]
    fn metadata_of_others_is_shown_and_stays_where_it_is() {
        let mut there = metadata(&[("team", "blue"), ("uid", "7")]);
        assert_eq!(names(&there), ["user.team"]);
        put(&mut there, "user.team", b"green and red").unwrap();
        assert_eq!(&**there.get(&named("team")).unwrap(), "green and red");
        assert!(there.get(&named("xattr")).is_none());
        // What no header can say goes where everything can be said.
        put(&mut there, "user.team", b"\0").unwrap();
        assert_eq!(get(&there, b"user.team").unwrap(), b"\0");
        assert_eq!(names(&there), ["user.team"]);
        assert!(there.get(&named("team")).is_none());
        assert_eq!(get(&there, b"user.uid"), None);
    }

    #[test]
    fn flags_names_and_sizes_are_kept() {
        let mut there = metadata(&[("a", "1")]);
        let set = |there: &mut Metadata, name: &str, value: &[u8], flags| {
            set(there, name.as_bytes(), Some(value), flags)
        };
        let (create, replace) = (XattrFlags::CREATE, XattrFlags::REPLACE);
        assert_eq!(set(&mut there, "user.a", b"2", create), Err(Errno::EXIST));
        assert_eq!(set(&mut there, "user.b", b"2", replace), Err(Errno::NODATA));
        set(&mut there, "user.b", b"2", create).unwrap();
        for bad in [
            "user.",
            "trusted.a",
            "system.posix_acl_access",
            "user.mode",
            "user.a\"b",
            "user.a:b",
        ] {
            let refused = set(&mut there, bad, b"1", XattrFlags::empty());
            assert_eq!(refused, Err(Errno::OPNOTSUPP), "{bad}");
        }
        let before = there.clone();
        let big = vec![b'x'; MOST];
        assert_eq!(put(&mut there, "user.c", &big), Err(Errno::NOSPC));
        assert_eq!(
            put(&mut there, "user.c", &[&big[..], b"x"].concat()),
            Err(Errno::TOOBIG)
        );
        assert_eq!(there, before, "what fails changes nothing");
        put(&mut there, "user.c", &big[..1200]).unwrap();
        assert_eq!(put(&mut there, "user.d", &big[..400]), Err(Errno::NOSPC));
    }

    #[test]
    fn metadata_that_is_none_of_s3fs_is_no_attribute() {
        for odd in [
            "",
            "%7B",
            "[]",
            "%zz",
            "{\"user.a\":1}",
            "{\"user.a\":\"*\"}",
            "\u{e4}",
        ] {
            let there = metadata(&[("xattr", odd)]);
            assert_eq!(get(&there, b"user.a"), None, "{odd}");
            list(&there);
        }
    }
}
