//! One of the two backends, with the files that are known and open.

use vfsd_backend::{
    AttributeChanges, Attributes, Device, Errno, FileKind, NewInode, SetTime, Timestamp,
};

use super::step::{Pick, Step};
use crate::conformance::{Features, Fixture};
use crate::place::{Handle, Listed, Outcome, Place, superuser, with_permissions};

/// Names are few, so that steps meet each other's files.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "a-longer-name"];
const XATTRS: [&str; 5] = [
    "user.one",
    "user.two",
    "user.three",
    "trusted.one",
    "unknown.one",
];
/// Older files are forgotten when more are known, and closed when more are open.
const MAX_NODES: usize = 20;
const MAX_HANDLES: usize = 6;

/// Times before this were set by a step; what is later is the clock's, and differs.
const CLOCK_BEGINS: i64 = 1_500_000_000;

/// What of an operation's result must be the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    Done,
    Count(u64),
    Bytes(Vec<u8>),
    Attributes(Seen),
    Names(Vec<(Vec<u8>, Option<FileKind>)>),
    /// The pick had nothing to pick from.
    Nothing,
}

/// Permissions, shown as they are known.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Octal(u32);

impl std::fmt::Debug for Octal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

/// What of the attributes must be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    kind: FileKind,
    permissions: Octal,
    links: u32,
    uid: u32,
    gid: u32,
    size: Option<u64>,
    device: Device,
    accessed: Option<Timestamp>,
    modified: Option<Timestamp>,
}

impl Seen {
    pub(super) fn of(attributes: &Attributes, features: Features) -> Self {
        // Only the fact that the clock was asked can be compared, not what it said.
        let set = |time: Timestamp| (time.seconds < CLOCK_BEGINS).then_some(time);
        let directory = attributes.kind == FileKind::Directory;
        let links = !directory || features.contains(Features::DIRECTORY_LINKS);
        Self {
            kind: attributes.kind,
            permissions: Octal(attributes.permissions),
            links: if links { attributes.links } else { 0 },
            uid: attributes.uid,
            gid: attributes.gid,
            size: (!directory).then_some(attributes.size),
            device: attributes.device,
            // Whoever looks for files on the host reads its directories too.
            accessed: (!directory && features.contains(Features::RELATIME))
                .then(|| set(attributes.accessed))
                .flatten(),
            modified: set(attributes.modified),
        }
    }
}

/// What an operation did.
pub(super) struct Effect {
    pub(super) shown: Outcome<Shown>,
    found: Option<Place>,
    opened: Option<Handle>,
}

impl From<Outcome<Shown>> for Effect {
    fn from(shown: Outcome<Shown>) -> Self {
        Self {
            shown,
            found: None,
            opened: None,
        }
    }
}

pub(super) struct Side {
    /// Keeps the file system.
    _fixture: Fixture,
    pub(super) features: Features,
    /// The root is always the first.
    pub(super) nodes: Vec<Place>,
    pub(super) handles: Vec<Handle>,
}

fn picked<T>(list: &[T], pick: Pick) -> Option<&T> {
    let at = usize::from(pick).checked_rem(list.len())?;
    list.get(at)
}

fn name(pick: Pick) -> &'static str {
    picked(&NAMES, pick).copied().unwrap_or("a")
}

fn xattr(pick: Pick) -> &'static str {
    picked(&XATTRS, pick).copied().unwrap_or("user.one")
}

/// An ACL: user and group 1000 named or nobody, with three permission bits each from `bits`. Groups may
/// always execute, as [`Steps`](super::step::Steps) has it.
fn acl(named: bool, bits: u16) -> Vec<u8> {
    let entries: &[(u16, u32)] = if named {
        &[
            (0x01, u32::MAX),
            (0x02, 1000),
            (0x04, u32::MAX),
            (0x08, 1000),
            (0x10, u32::MAX),
            (0x20, u32::MAX),
        ]
    } else {
        &[(0x01, u32::MAX), (0x04, u32::MAX), (0x20, u32::MAX)]
    };
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (index, (tag, id)) in entries.iter().enumerate() {
        let of_group = u16::from(matches!(tag, 0x04 | 0x08 | 0x10));
        value.extend(tag.to_le_bytes());
        value.extend(((bits >> (2 * index)) & 7 | of_group).to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn acl_name(default: bool) -> &'static str {
    if default {
        "system.posix_acl_default"
    } else {
        "system.posix_acl_access"
    }
}

fn pattern(fill: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| fill.wrapping_add((at % 251).to_le_bytes()[0]))
        .collect()
}

fn sorted(listed: Vec<Listed>) -> Vec<(Vec<u8>, Option<FileKind>)> {
    let mut names: Vec<_> = listed
        .into_iter()
        .map(|entry| (entry.name, entry.kind))
        .collect();
    names.sort_by(|one, other| one.0.cmp(&other.0));
    names
}

impl Side {
    pub(super) fn new(fixture: Fixture, features: Features) -> Self {
        Self {
            nodes: vec![Place(fixture.backend().root())],
            handles: Vec::new(),
            features,
            _fixture: fixture,
        }
    }

    /// Does a step, and takes note of the files that it finds and opens.
    pub(super) fn apply(&mut self, step: &Step) -> Effect {
        match *step {
            Step::Forget { node } => {
                // The root stays.
                let others = self.nodes.len() - 1;
                if let Some(at) = usize::from(node).checked_rem(others) {
                    self.nodes.remove(at + 1);
                }
                return Ok(Shown::Done).into();
            }
            Step::Close { handle } => {
                if let Some(at) = usize::from(handle).checked_rem(self.handles.len()) {
                    let closed = self.handles.remove(at);
                    return closed.flush(1).map(|()| Shown::Done).into();
                }
                return Ok(Shown::Nothing).into();
            }
            _ => {}
        }
        let effect = self.call(step);
        if let Some(found) = &effect.found {
            if self.nodes.len() >= MAX_NODES {
                self.nodes.remove(1);
            }
            self.nodes.push(found.clone());
        }
        if let Some(opened) = &effect.opened {
            if self.handles.len() >= MAX_HANDLES {
                self.handles.remove(0);
            }
            self.handles.push(opened.clone());
        }
        effect
    }

    fn call(&self, step: &Step) -> Effect {
        match self.call_node(step) {
            Some(effect) => effect,
            None => self.call_handle(step).unwrap_or(Ok(Shown::Nothing)).into(),
        }
    }

    fn node(&self, pick: Pick) -> &Place {
        picked(&self.nodes, pick).unwrap_or(&self.nodes[0])
    }

    fn seen(&self, attributes: Outcome<Attributes>) -> Outcome<Shown> {
        attributes.map(|attributes| Shown::Attributes(Seen::of(&attributes, self.features)))
    }

    fn found(&self, place: Outcome<Place>) -> Effect {
        match place {
            Err(errno) => Err(errno).into(),
            Ok(place) => Effect {
                shown: self.seen(place.attributes()),
                found: Some(place),
                opened: None,
            },
        }
    }

    fn created(&self, created: Outcome<(Place, Handle)>) -> Effect {
        match created {
            Err(errno) => Err(errno).into(),
            Ok((place, handle)) => Effect {
                opened: Some(handle),
                ..self.found(Ok(place))
            },
        }
    }

    /// Steps on files that are known.
    fn call_node(&self, step: &Step) -> Option<Effect> {
        let done = |outcome: Outcome<()>| outcome.map(|()| Shown::Done).into();
        let inode = |permissions, umask| NewInode {
            umask,
            ..with_permissions(permissions)
        };
        Some(match *step {
            Step::Lookup { dir, name: pick } => self.found(self.node(dir).lookup(name(pick))),
            Step::Create {
                dir,
                name: pick,
                flags,
                permissions,
                umask,
            } => {
                let inode = inode(permissions, umask);
                let dir = self.node(dir);
                self.created(dir.create_as(superuser(), name(pick), flags, inode))
            }
            Step::Tmpfile { dir, flags } => self.created(self.node(dir).tmpfile(flags)),
            Step::Mkdir {
                dir,
                name: pick,
                permissions,
                umask,
            } => {
                let inode = inode(permissions, umask);
                self.found(self.node(dir).mkdir_as(superuser(), name(pick), inode))
            }
            Step::Mkfifo { dir, name: pick } => {
                let made = self
                    .node(dir)
                    .mknod(name(pick), FileKind::Fifo, Device::default());
                self.found(made)
            }
            Step::Symlink {
                dir,
                name: pick,
                target,
            } => self.found(self.node(dir).symlink(name(pick), name(target))),
            Step::Link {
                node,
                dir,
                name: pick,
            } => self.found(self.node(dir).link(self.node(node), name(pick))),
            Step::Unlink { dir, name: pick } => done(self.node(dir).unlink(name(pick))),
            Step::Rmdir { dir, name: pick } => done(self.node(dir).rmdir(name(pick))),
            Step::Rename {
                dir,
                name: pick,
                new_dir,
                new_name,
                flags,
            } => {
                let new_dir = self.node(new_dir);
                let moved = self
                    .node(dir)
                    .rename_with(name(pick), new_dir, name(new_name), flags);
                done(moved)
            }
            Step::Open { node, flags } => match self.node(node).open(flags) {
                Err(errno) => Err(errno).into(),
                Ok(handle) => Effect {
                    shown: Ok(Shown::Done),
                    found: None,
                    opened: Some(handle),
                },
            },
            Step::Truncate {
                node,
                size,
                kill_privileges,
            } => self
                .seen(self.node(node).set(AttributeChanges {
                    size: Some(size),
                    kill_privileges,
                    ..AttributeChanges::default()
                }))
                .into(),
            Step::Chmod { node, permissions } => {
                self.seen(self.node(node).chmod(permissions)).into()
            }
            Step::Chown { node, uid, gid } => self.seen(self.node(node).chown(uid, gid)).into(),
            Step::Age { node, seconds } => {
                let time = SetTime::At(Timestamp {
                    seconds: 1_000_000 + i64::from(seconds),
                    nanoseconds: seconds,
                });
                self.seen(self.node(node).set(AttributeChanges {
                    accessed: Some(time),
                    modified: Some(time),
                    ..AttributeChanges::default()
                }))
                .into()
            }
            Step::Readlink { node } => self.node(node).readlink().map(Shown::Bytes).into(),
            Step::List { dir } => self
                .node(dir)
                .list()
                .map(|listed| Shown::Names(sorted(listed)))
                .into(),
            Step::GetXattr { node, name } => self
                .node(node)
                .getxattr(xattr(name))
                .map(Shown::Bytes)
                .into(),
            Step::SetXattr {
                node,
                name,
                length,
                fill,
                flags,
            } => {
                let value = pattern(fill, length);
                done(self.node(node).setxattr_with(xattr(name), &value, flags))
            }
            Step::RemoveXattr { node, name } => done(self.node(node).removexattr(xattr(name))),
            Step::SetAcl {
                node,
                default,
                named,
                bits,
            } => {
                let value = acl(named, bits);
                done(self.node(node).setxattr(acl_name(default), &value))
            }
            Step::RemoveAcl { node, default } => {
                done(self.node(node).removexattr(acl_name(default)))
            }
            _ => return None,
        })
    }

    /// Steps on open files. `None` when none is open.
    fn call_handle(&self, step: &Step) -> Option<Outcome<Shown>> {
        let handle = |pick| picked(&self.handles, pick);
        let done = |()| Shown::Done;
        let count = |count| Shown::Count(count);
        Some(match *step {
            Step::Read {
                handle: pick,
                offset,
                length,
            } => handle(pick)?.read(offset, length).map(Shown::Bytes),
            Step::Write {
                handle: pick,
                offset,
                length,
                fill,
                kill_privileges,
            } => handle(pick)?
                .write_with(offset, &pattern(fill, length), kill_privileges)
                .map(|written| Shown::Count(written as u64)),
            Step::Allocate {
                handle: pick,
                mode,
                offset,
                length,
            } => handle(pick)?.fallocate(mode, offset, length).map(done),
            Step::Copy {
                from,
                offset,
                to,
                target_offset,
                length,
            } => handle(from)?
                .copy_range(offset, handle(to)?, target_offset, length)
                .map(count),
            Step::Sync { handle: pick } => handle(pick)?.fsync().map(done),
            Step::TruncateOpen { handle: pick, size } => {
                match handle(pick)?.truncate(size) {
                    // The server asks the node then.
                    Err(Errno::OPNOTSUPP) => Ok(Shown::Nothing),
                    changed => self.seen(changed),
                }
            }
            _ => return None,
        })
    }
}
