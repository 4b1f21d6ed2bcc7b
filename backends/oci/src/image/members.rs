//! Where the members of a tar file are in it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tar_core::parse::{Limits, ParseEvent, Parser};

use super::blobs::FileRange;

/// The most members that are taken: an archive has a few for each layer.
const MEMBERS_MAX: usize = 1 << 16;

/// The most bytes that a member's headers may take.
const HEADERS_MAX: usize = 1 << 16;

/// The block of a tar.
const BLOCK: u64 = 512;

/// The members of a tar file.
#[derive(Debug)]
pub(super) struct Members {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, length: u64 },
    Link(Vec<u8>),
}

impl Members {
    /// Reads the headers of all members, and nothing else.
    ///
    /// # Errors
    /// What is no tar, as text.
    pub(super) fn scan(file: File) -> Result<Self, String> {
        let read_error = |error: io::Error| error.to_string();
        let size = file.metadata().map_err(read_error)?.len();
        let mut parser = Parser::new(Limits {
            max_metadata_size: 1 << 14,
            max_path_len: Some(4096),
            ..Limits::default()
        });
        let mut members = HashMap::new();
        let mut headers = Vec::new();
        let mut offset: u64 = 0;
        let mut wanted = 512;
        loop {
            if wanted > HEADERS_MAX {
                return Err("a member's headers are too large".to_owned());
            }
            headers.resize(wanted, 0);
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let there = left.min(wanted);
            let target = headers.get_mut(..there).unwrap_or_default();
            file.read_exact_at(target, offset).map_err(read_error)?;
            let input = headers.get(..there).unwrap_or_default();
            if input.is_empty() {
                break;
            }
            match parser.parse(input).map_err(|error| error.to_string())? {
                ParseEvent::NeedData { min_bytes } => {
                    if min_bytes <= there || there < wanted {
                        return Err("it ends in the middle of a header".to_owned());
                    }
                    wanted = min_bytes;
                }
                ParseEvent::Entry { consumed, entry } => {
                    let begin = after(offset, consumed)?;
                    let end = begin.checked_add(entry.size);
                    let end = end.and_then(|end| end.checked_next_multiple_of(BLOCK));
                    let end = end.ok_or("a member has no end")?;
                    let member = match entry.link_target {
                        Some(target) if entry.entry_type.is_symlink() => {
                            Some(Member::Link(beside(&entry.path, &target)))
                        }
                        Some(target) if entry.entry_type.is_hard_link() => {
                            Some(Member::Link(normal(&target)))
                        }
                        _ => entry.entry_type.is_file().then_some(Member::File {
                            offset: begin,
                            length: entry.size,
                        }),
                    };
                    if let Some(member) = member {
                        members.insert(normal(&entry.path), member);
                    }
                    if members.len() > MEMBERS_MAX {
                        return Err("it has too many members".to_owned());
                    }
                    offset = end;
                    wanted = 512;
                }
                ParseEvent::SparseEntry { .. } => {
                    return Err("it has a sparse member".to_owned());
                }
                ParseEvent::GlobalExtensions { consumed, .. } => {
                    offset = after(offset, consumed)?;
                    wanted = 512;
                }
                ParseEvent::End { .. } => break,
            }
        }
        let file = Arc::new(file);
        Ok(Self { file, members })
    }

    /// The bytes of a member. Links between members are followed.
    ///
    /// # Errors
    /// `NotFound` without such a member, `UnexpectedEof` for one that the file does not hold wholly.
    pub(super) fn open(&self, path: &[u8]) -> io::Result<FileRange> {
        let mut path = normal(path);
        for _ in 0..8 {
            match self.members.get(&path) {
                Some(Member::Link(target)) => path.clone_from(target),
                Some(&Member::File { offset, length }) => {
                    let end = offset.saturating_add(length);
                    if end > self.file.metadata()?.len() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    return Ok(FileRange {
                        file: Arc::clone(&self.file),
                        offset,
                        length,
                    });
                }
                None => break,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn after(offset: u64, consumed: usize) -> Result<u64, String> {
    let consumed = u64::try_from(consumed).map_err(|error| error.to_string())?;
    offset
        .checked_add(consumed)
        .ok_or_else(|| "a member has no end".to_owned())
}

/// The target of a symbolic link, seen from the archive's root.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    let folder = path.iter().rposition(|&byte| byte == b'/');
    let folder = folder.and_then(|end| path.get(..end)).unwrap_or_default();
    normal(&[folder, target].join(&b'/'))
}

/// A member's path, without `.` and with `..` resolved.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components.join(&b'/')
}
