//! Listings that come from a plugin.

use vfsd_backend::{FileKind, Name};
use vfsd_fuse::wire::{Dirent, EntryOut};

use crate::reply::{Breach, Checked, Found, Named, entry_or_none, structure};

/// An entry of a listing.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u64,
    pub(crate) kind: Option<FileKind>,
    pub(crate) next: u64,
    /// What the name leads to, in a READDIRPLUS, if it is told.
    pub(crate) found: Option<Found>,
}

/// The body of READDIR, or of READDIRPLUS.
pub(crate) fn entries(mut body: &[u8], plus: bool) -> Checked<Vec<Listed<'_>>> {
    let mut listed = Vec::new();
    while !body.is_empty() {
        let (entry, rest) = entry(body, plus)?;
        listed.push(entry);
        body = rest;
    }
    Ok(listed)
}

fn entry(body: &[u8], plus: bool) -> Checked<(Listed<'_>, &[u8])> {
    let short = Breach("a listing ends in the middle of an entry");
    let (found, at) = match plus {
        true => {
            let (out, rest) = structure::<EntryOut>(body).map_err(|_| short)?;
            (Some(out), rest)
        }
        false => (None, body),
    };
    let (head, names) = structure::<Dirent>(at).map_err(|_| short)?;
    let length = usize::try_from(head.namelen).map_err(|_| short)?;
    let name = names.get(..length).ok_or(short)?;
    let used = body
        .len()
        .saturating_sub(names.len())
        .saturating_add(length);
    // The last entry may come without its padding.
    let padded = used.checked_next_multiple_of(8).ok_or(short)?;
    let rest = body.get(padded..).unwrap_or_default();
    let dots = matches!(name, b"." | b"..");
    if !dots && Name::new(name).is_err() {
        return Err(Breach("a name in a listing is none"));
    }
    if head.off == 0 {
        return Err(Breach("an entry of a listing leads back to its start"));
    }
    let found = match found.as_ref().map(entry_or_none).transpose()? {
        Some(Named::Found(found)) if !dots => Some(found),
        _ => None,
    };
    let listed = Listed {
        name,
        inode: head.ino,
        kind: kind(head.r#type)?,
        next: head.off,
        found,
    };
    Ok((listed, rest))
}

/// `DT_*` of dirent.h: the type bits of `st_mode`, shifted; 0 is unknown.
fn kind(number: u32) -> Checked<Option<FileKind>> {
    match number {
        0 => Ok(None),
        1..16 => FileKind::from_mode(number << 12)
            .map(Some)
            .ok_or(Breach("a file in a listing has a type that there is not")),
        _ => Err(Breach("a file in a listing has a type that there is not")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_fuse::DirentBuffer;
    use zerocopy::IntoBytes;

    #[test]
    fn what_is_encoded_is_read_again() {
        let mut buffer = DirentBuffer::new(4096);
        assert!(buffer.push(b".", 1, Some(FileKind::Directory), 1));
        assert!(buffer.push(b"a name", 7, None, 9));
        let listed = entries(buffer.as_bytes(), false).unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].kind, Some(FileKind::Directory));
        assert_eq!((listed[1].name, listed[1].next), (&b"a name"[..], 9));
    }

    #[test]
    fn entries_that_no_directory_has_are_refused() {
        let good = Dirent {
            ino: 1,
            off: 1,
            namelen: 1,
            r#type: 8,
        };
        let bad = |head: Dirent, name: &[u8]| {
            let body = [head.as_bytes(), name, &[0; 8]].concat();
            let end = (24 + name.len()).next_multiple_of(8).min(body.len());
            entries(&body[..end], false).is_err()
        };
        assert!(!bad(good, b"a"));
        assert!(bad(good, b"/"));
        assert!(bad(good, b"\0"));
        assert!(bad(Dirent { namelen: 0, ..good }, b""));
        assert!(bad(
            Dirent {
                namelen: 99,
                ..good
            },
            b"a"
        ));
        assert!(bad(
            Dirent {
                namelen: u32::MAX,
                ..good
            },
            b"a"
        ));
        assert!(bad(Dirent { off: 0, ..good }, b"a"));
        assert!(bad(Dirent { r#type: 3, ..good }, b"a"));
        assert!(bad(Dirent { r#type: 16, ..good }, b"a"));
        assert!(entries(&[0; 23], false).is_err());
        assert!(entries(&[0; 100], true).is_err());
    }
}
