//! From a path to a place in the tree: symbolic links are followed inside the root.

use super::arena::{Arena, Body, Index, ROOT};
use super::error::{Problem, shown};
use super::path;

/// How many symbolic links a path may lead through (`MAXSYMLINKS` of Linux).
const LINKS_MAX: u32 = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// Directories that are there, from the root down.
    pub(super) there: Vec<Step>,
    /// Names below them that are not.
    pub(super) missing: Vec<Box<[u8]>>,
}

/// A directory on the way.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: Box<[u8]>,
    pub(super) node: Index,
}

impl Place {
    /// The directory itself, if it is there.
    pub(super) fn node(&self) -> Option<Index> {
        match self.missing.is_empty() {
            true => Some(self.last()),
            false => None,
        }
    }

    fn last(&self) -> Index {
        self.there.last().map_or(ROOT, |step| step.node)
    }
}

/// Follows `components` from the root. Absolute targets of symbolic links begin at the root again, and `..` ends
/// there; names that are missing are taken for directories to be made.
///
/// # Errors
/// Links without an end, and files where a directory is needed.
pub(super) fn walk(arena: &Arena, components: &[&[u8]]) -> Result<Place, Problem> {
    let mut pending: Vec<&[u8]> = components.iter().rev().copied().collect();
    let mut followed: u32 = 0;
    let mut place = Place {
        there: Vec::new(),
        missing: Vec::new(),
    };
    while let Some(name) = pending.pop() {
        if name == b".." {
            if place.missing.pop().is_none() {
                place.there.pop();
            }
            continue;
        }
        let child = match place.missing.is_empty() {
            true => arena.child(place.last(), name),
            false => None,
        };
        let Some(child) = child else {
            place.missing.push(name.into());
            continue;
        };
        match arena.node(child.node).map(|node| &node.body) {
            Some(Body::Directory(_)) => place.there.push(Step {
                name: name.into(),
                node: child.node,
            }),
            Some(Body::Symlink(target)) => {
                followed = followed.saturating_add(1);
                if followed > LINKS_MAX {
                    return Err(Problem::Loop);
                }
                if target.first() == Some(&b'/') {
                    place.there.clear();
                }
                pending.extend(path::split(target)?.into_iter().rev());
            }
            _ => return Err(Problem::NotADirectory(shown(name))),
        }
    }
    Ok(place)
}
