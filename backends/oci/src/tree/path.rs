//! Paths of a layer: split, cleaned, confined to the root.

use super::error::Problem;

/// The longest path that an entry or a link may have, in bytes (`PATH_MAX`).
pub(super) const PATH_MAX: usize = 4096;

/// The longest name, in bytes (`NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;

/// What the last component of a path means for the layers below.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A file of this name.
    File,
    /// `.wh..wh..opq`: what lower layers have in this directory is hidden.
    Opaque,
    /// `.wh.NAME`: what lower layers have under this name is hidden.
    Whiteout(&'a [u8]),
}

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The components of `path` as seen from the root: `.` and empty ones left out, `..` resolved by the
/// spelling alone and never above the root. That is how container runtimes read a tar.
///
/// # Errors
/// A path or a component that is too long, or that has a NUL.
pub(super) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let mut components = Vec::new();
    for component in split(path)? {
        match component {
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    Ok(components)
}

/// The components of `path` in order, `..` among them, `.` and empty ones left out.
///
/// # Errors
/// A path or a component that is too long, or that has a NUL.
pub(super) fn split(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() > PATH_MAX {
        return Err(Problem::PathTooLong(path.len()));
    }
    if path.contains(&0) {
        return Err(Problem::Nul);
    }
    let components = path.split(|&byte| byte == b'/');
    let components: Vec<&[u8]> = components
        .filter(|component| !matches!(*component, b"" | b"."))
        .collect();
    match components.iter().find(|name| name.len() > NAME_MAX) {
        Some(long) => Err(Problem::NameTooLong(long.len())),
        None => Ok(components),
    }
}

/// What an entry with this name is.
///
/// # Errors
/// A whiteout that names no file.
pub(super) fn meaning(name: &[u8]) -> Result<Meaning<'_>, Problem> {
    match name.strip_prefix(WHITEOUT) {
        _ if name == OPAQUE => Ok(Meaning::Opaque),
        Some(b"" | b"." | b"..") => Err(Problem::EmptyWhiteout),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
        None => Ok(Meaning::File),
    }
}

/// Whether a component is of AUFS's own (`.wh..wh.plnk`, `.wh..wh.aufs`, `.wh..wh.orph`): old images have
/// them at the root, and they are no files of the image.
pub(super) fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(META) && name != OPAQUE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_and_cannot_leave_the_root() {
        for (path, cleaned) in [
            ("./usr//bin/", "usr/bin"),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("a/./b/..", "a"),
            ("..", ""),
            ("./", ""),
            ("...", "..."),
        ] {
            let components = clean(path.as_bytes()).unwrap();
            assert_eq!(components.join(&b'/'), cleaned.as_bytes(), "{path}");
        }
    }

    #[test]
    fn names_of_whiteouts_are_told_from_names_of_files() {
        assert_eq!(meaning(b"a"), Ok(Meaning::File));
        assert_eq!(meaning(b".who"), Ok(Meaning::File));
        assert_eq!(meaning(b".wh.a"), Ok(Meaning::Whiteout(b"a")));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b".wh.."), Err(Problem::EmptyWhiteout));
    }
}
