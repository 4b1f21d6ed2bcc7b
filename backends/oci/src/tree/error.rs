//! Why layers do not make a tree.

use thiserror::Error;

/// An entry that cannot become part of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("layer {layer}, entry {entry} (\"{path}\"): {problem}")]
pub struct TreeError {
    /// The layer's number: 0 is the lowest.
    pub layer: u32,
    /// The entry's number in its layer.
    pub entry: u32,
    /// The path as the layer spells it, escaped; a long one is cut.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// Longer than `PATH_MAX`.
    #[error("the path has {0} bytes, 4096 are allowed")]
    PathTooLong(usize),
    /// Longer than `NAME_MAX`.
    #[error("a name has {0} bytes, 255 are allowed")]
    NameTooLong(usize),
    /// A NUL in a path.
    #[error("a path has a NUL")]
    Nul,
    /// `.wh.` and nothing after it, or `.` or `..`.
    #[error("a whiteout that names no file")]
    EmptyWhiteout,
    /// Symbolic links on the way to the entry do not end.
    #[error("too many symbolic links on the way to it")]
    Loop,
    /// A component of the path is a file.
    #[error("\"{0}\" on the way to it is not a directory")]
    NotADirectory(String),
    /// The root of the image as something else than a directory.
    #[error("the root of the image must be a directory")]
    RootNotADirectory,
    /// A hard link to nothing.
    #[error("a hard link to \"{0}\", which is not there")]
    LinkToNothing(String),
    /// A hard link to a directory.
    #[error("a hard link to \"{0}\", which is a directory")]
    LinkToDirectory(String),
    /// A hard link to a file that has 2^32 - 1 names.
    #[error("too many hard links to one file")]
    TooManyLinks,
    /// A symbolic link that is empty, too long or has a NUL.
    #[error("the target of a symbolic link must have 1 to 4095 bytes without a NUL")]
    LinkTarget,
    /// An extended attribute that no file can have.
    #[error("the extended attribute \"{0}\" has a name or a value that no file can have")]
    Xattr(String),
    /// Extents that are not ascending, overlap, or end after the file.
    #[error("the places of its content contradict its size")]
    Extents,
    /// More files than a tree can have.
    #[error("the image has more than {0} files")]
    TooManyFiles(u32),
    /// More names, link targets and attributes than a tree can have.
    #[error("the image has too many names and attributes")]
    TooLarge,
}

/// Bytes of an image, fit to be printed: escaped, and cut where they are long.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 200;
    match bytes.get(..LONGEST) {
        Some(head) if bytes.len() > LONGEST => format!("{}...", head.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}
