//! Compares what is there: whole trees, and files that have no name any more.

use std::collections::HashMap;

use vfsd_backend::{Errno, FileKind, SeekFrom};

use super::side::{Seen, Side};
use crate::conformance::Features;
use crate::place::{Handle, Place};

/// The first difference between two sides.
pub(super) type Compared = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, oracle: &T, subject: &T) -> Compared {
    if oracle == subject {
        Ok(())
    } else {
        Err(format!(
            "{what} differs\n   oracle: {oracle:?}\n  subject: {subject:?}"
        ))
    }
}

/// Compares the attributes of all files that are known, and which of them are the same file.
pub(super) fn compare_nodes(oracle: &Side, subject: &Side) -> Compared {
    let pairs: Vec<_> = oracle.nodes.iter().zip(&subject.nodes).collect();
    for (index, (left, right)) in pairs.iter().enumerate() {
        let seen = |place: &Place| {
            let attributes = place.attributes();
            attributes.map(|attributes| Seen::of(&attributes, oracle.features))
        };
        same(&format!("known file {index}"), &seen(left), &seen(right))?;
        for (other, (left_other, right_other)) in pairs.iter().enumerate().take(index) {
            same(
                &format!("whether known files {index} and {other} are the same file"),
                &(left.identity() == left_other.identity()),
                &(right.identity() == right_other.identity()),
            )?;
        }
    }
    Ok(())
}

/// Compares all that can be reached from the roots and the open files.
pub(super) fn compare_all(oracle: &Side, subject: &Side) -> Compared {
    let mut walk = Walk {
        features: oracle.features,
        numbers: HashMap::new(),
    };
    walk.compare("", &oracle.nodes[0], &subject.nodes[0])?;
    for (index, (left, right)) in oracle.handles.iter().zip(&subject.handles).enumerate() {
        let what = format!("content of open file {index}");
        same(&what, &left.content(), &right.content())?;
    }
    compare_nodes(oracle, subject)
}

struct Walk {
    features: Features,
    /// Inode numbers of the oracle, and what they are on the other side.
    numbers: HashMap<u64, u64>,
}

impl Walk {
    fn compare(&mut self, path: &str, oracle: &Place, subject: &Place) -> Compared {
        let fail = |errno: Errno| format!("{path}: {errno}");
        let left = oracle.attributes().map_err(fail)?;
        let right = subject.attributes().map_err(fail)?;
        same(
            &format!("attributes of {path}/"),
            &Seen::of(&left, self.features),
            &Seen::of(&right, self.features),
        )?;
        let known = self.numbers.insert(left.inode, right.inode);
        if let Some(known) = known {
            // Another name of a file that was compared already.
            return same(&format!("file that {path} names"), &known, &right.inode);
        }
        if self.features.contains(Features::XATTR) {
            let what = format!("extended attributes of {path}");
            for prefix in ["user.", "trusted.", "system."] {
                same(&what, &oracle.xattrs(prefix), &subject.xattrs(prefix))?;
            }
        }
        match left.kind {
            FileKind::Directory => self.compare_entries(path, oracle, subject),
            FileKind::Regular => self.compare_content(path, oracle, subject),
            FileKind::Symlink => same(
                &format!("target of {path}"),
                &oracle.readlink(),
                &subject.readlink(),
            ),
            _ => Ok(()),
        }
    }

    fn compare_entries(&mut self, path: &str, oracle: &Place, subject: &Place) -> Compared {
        let names = oracle.names().map_err(|errno| format!("{path}: {errno}"))?;
        same(
            &format!("entries of {path}/"),
            &Ok(names.clone()),
            &subject.names(),
        )?;
        for name in names {
            let path = format!("{path}/{name}");
            let fail = |errno: Errno| format!("{path} is listed, but lookup says {errno}");
            let left = oracle.lookup(&name).map_err(fail)?;
            let right = subject.lookup(&name).map_err(fail)?;
            self.compare(&path, &left, &right)?;
        }
        Ok(())
    }

    fn compare_content(&self, path: &str, oracle: &Place, subject: &Place) -> Compared {
        let read = |place: &Place| -> Result<(Vec<u8>, Handle), String> {
            let fail = |errno: Errno| format!("content of {path}: {errno}");
            let handle = place.open(vfsd_backend::OpenFlags::READ).map_err(fail)?;
            Ok((handle.content().map_err(fail)?, handle))
        };
        let (left, left_handle) = read(oracle)?;
        let (right, right_handle) = read(subject)?;
        let differ = left
            .iter()
            .zip(&right)
            .position(|(one, other)| one != other);
        same(
            &format!("content of {path} (length, first difference)"),
            &(left.len(), None),
            &(right.len(), differ),
        )?;
        if self.features.contains(Features::HOLES) {
            check_holes(path, &left_handle, &left)?;
            check_holes(path, &right_handle, &right)?;
        }
        Ok(())
    }
}

/// Where holes are is the storage's own affair, but they read as zeros, and data and holes take turns
/// up to the end of the file.
fn check_holes(path: &str, handle: &Handle, content: &[u8]) -> Compared {
    let end = content.len() as u64;
    let mut at = 0;
    while at < end {
        let data = match handle.seek(SeekFrom::Data, at) {
            Ok(data) => data,
            Err(Errno::NXIO) => end,
            Err(errno) => return Err(format!("data of {path} at {at}: {errno}")),
        };
        let hole = usize::try_from(at).ok().zip(usize::try_from(data).ok());
        let zeros = hole.and_then(|(at, data)| content.get(at..data));
        if zeros.is_none_or(|zeros| zeros.iter().any(|&byte| byte != 0)) {
            return Err(format!("{path} has data in the hole {at}..{data}"));
        }
        if data == end {
            break;
        }
        at = match handle.seek(SeekFrom::Hole, data) {
            Ok(next) if next > data => next,
            other => return Err(format!("hole of {path} after {data}: {other:?}")),
        };
    }
    Ok(())
}
