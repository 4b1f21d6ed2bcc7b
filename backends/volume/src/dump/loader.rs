//! Filling a volume with what a dump says.

use std::sync::Arc;

use vfsd_backend::posix::{ACL_ACCESS, ACL_DEFAULT, Acl};
use vfsd_backend::{
    AttributeChanges, Device, Errno, FileKind, LinkTarget, Name, OpenFlags, SliceSource,
    WriteRequest, XattrName,
};

use super::line::{ContentLine, EntryLine, InodeLine, Line, Summary, XattrLine};
use super::reader::Lines;
use crate::check::{CheckReport, check_rows};
use crate::error::VolumeError;
use crate::file::OpenFile;
use crate::live::ranges::END;
use crate::meta::{Change, EntryRow, NodeRow, Purpose};
use crate::volume::{ROOT, Volume};

/// So many changes are made together at most.
const MOST_CHANGES: usize = 1000;
/// So many bytes of rows are written together at most.
const MOST_BYTES: u64 = 256 << 10;
/// A value of an extended attribute is no longer.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Why a line is not taken.
enum Refused {
    /// It makes no sense.
    Line(String),
    /// The volume does not take it.
    Volume(vfsd_backend::Error),
}

impl From<vfsd_backend::Error> for Refused {
    fn from(error: vfsd_backend::Error) -> Self {
        Self::Volume(error)
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self::Volume(errno.into())
    }
}

fn refused<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Line(what.into()))
}

/// Takes lines into a volume that has nothing but a root.
pub(super) struct Loader<'a> {
    volume: &'a Volume,
    current: Option<Current>,
    changes: Vec<Change>,
    bytes: u64,
    summary: Summary,
}

/// The inode whose lines come.
struct Current {
    ino: u64,
    row: NodeRow,
    /// Once content came.
    file: Option<OpenFile>,
    /// Where that ended.
    end: u64,
}

impl<'a> Loader<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        Self {
            volume,
            current: None,
            changes: Vec::new(),
            bytes: 0,
            summary: Summary::default(),
        }
    }

    /// Takes all lines after the first one.
    pub(super) fn run(mut self, lines: &mut Lines<'_>) -> Result<Summary, VolumeError> {
        let failed = |lines: &Lines<'_>, error| match error {
            Refused::Line(what) => lines.wrong(what),
            Refused::Volume(error) => lines.wrong(format!("it cannot be loaded: {error}")),
        };
        let told = loop {
            match lines.next()? {
                Some(Line::End(told)) => break told,
                Some(line) => self.take(line).map_err(|error| failed(lines, error))?,
                None => return Err(lines.wrong("the dump is not whole: it has no last line")),
            }
        };
        self.finish_current()
            .and_then(|()| self.flush())
            .map_err(|error| failed(lines, error))?;
        if told != self.summary {
            return Err(lines.wrong("it tells of other lines than those before it"));
        }
        let report = self.check().map_err(|error| failed(lines, error.into()))?;
        match report.problems.first() {
            Some(problem) => {
                Err(lines.wrong(format!("what came does not fit together: {problem}")))
            }
            None => Ok(self.summary),
        }
    }

    fn check(&self) -> vfsd_backend::Result<CheckReport> {
        let meta = &self.volume.core().meta;
        meta.catch_up()?;
        let mut report = CheckReport::default();
        meta.read(|db| check_rows(db, &mut report, &[], false))?;
        Ok(report)
    }

    fn take(&mut self, line: Line) -> Result<(), Refused> {
        match line {
            Line::Inode(line) => self.inode(*line),
            Line::Xattr(line) => self.xattr(line),
            Line::Content(line) => self.content(&line),
            Line::Entry(line) => self.entry(line),
            Line::Volume(_) | Line::End(_) => refused("it has no place here"),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Refused> {
        self.bytes = self.bytes.saturating_add(change.bytes());
        self.changes.push(change);
        match self.changes.len() >= MOST_CHANGES || self.bytes >= MOST_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Refused> {
        self.bytes = 0;
        if !self.changes.is_empty() {
            let core = self.volume.core();
            let _passing = core.pass();
            core.commit(std::mem::take(&mut self.changes), Purpose::Usual)?;
        }
        Ok(())
    }

    fn inode(&mut self, line: InodeLine) -> Result<(), Refused> {
        let before = self.current.as_ref().map_or(0, |current| current.ino);
        self.finish_current()?;
        let ino = line.inode;
        if ino <= before || i64::try_from(ino).is_err() {
            return refused("inodes come in the order of their numbers");
        }
        if before == 0 && ino != ROOT {
            return refused(format!("the first inode is the root, number {ROOT}"));
        }
        self.summary.inodes = self.summary.inodes.saturating_add(1);
        let row = row_of(&line)?;
        self.current = Some(Current {
            ino,
            row,
            file: None,
            end: 0,
        });
        Ok(())
    }

    /// The inode whose lines come, of this kind.
    fn current(&mut self, ino: u64, kind: Option<FileKind>) -> Result<&mut Current, Refused> {
        match self.current.as_mut().filter(|current| current.ino == ino) {
            None => refused("it does not follow its inode"),
            Some(current) if kind.is_some_and(|kind| kind != current.row.kind) => {
                refused("its inode is of another type")
            }
            Some(current) => Ok(current),
        }
    }

    fn xattr(&mut self, line: XattrLine) -> Result<(), Refused> {
        let (name, value) = (line.name.0, line.value.0);
        let is_name = XattrName::new(&name).is_ok();
        if !is_name || value.len() > MAX_VALUE_BYTES {
            return refused("this is no extended attribute");
        }
        if matches!(&name[..], ACL_ACCESS | ACL_DEFAULT) && Acl::decode(&value).is_err() {
            return refused("this is no ACL");
        }
        let current = self.current(line.inode, None)?;
        current.row.xattrs = current.row.xattrs.saturating_add(1);
        self.change(Change::Xattr(line.inode, name.into(), Some(value.into())))
    }

    fn entry(&mut self, line: EntryLine) -> Result<(), Refused> {
        if Name::new(&line.name.0).is_err() {
            return refused("this is no name");
        }
        let current = self.current(line.directory, Some(FileKind::Directory))?;
        let cookie = current.row.next_cookie;
        current.row.next_cookie = cookie.saturating_add(1);
        current.row.entries = current.row.entries.saturating_add(1);
        self.summary.entries = self.summary.entries.saturating_add(1);
        let row = EntryRow {
            ino: line.inode,
            kind: line.file_type.into(),
            cookie,
        };
        self.change(Change::Entry(line.directory, line.name.0.into(), Some(row)))
    }

    fn content(&mut self, line: &ContentLine) -> Result<(), Refused> {
        let bytes = &line.data.0;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = line.offset.checked_add(length);
        let current = self.current(line.inode, Some(FileKind::Regular))?;
        let (from, size) = (current.end, current.row.size);
        let Some(end) = end.filter(|end| line.offset >= from && *end <= size) else {
            return refused("this content is not behind what came, and within its file");
        };
        current.end = end;
        self.summary.bytes = self.summary.bytes.saturating_add(length);
        self.open_current()?;
        let Some(file) = self
            .current
            .as_ref()
            .and_then(|current| current.file.as_ref())
        else {
            return refused("its file is not open");
        };
        let mut source = SliceSource::new(bytes);
        let mut offset = line.offset;
        while offset < end {
            let request = WriteRequest {
                offset,
                cached: false,
                kill_privileges: false,
            };
            match file.write_from(request, &mut source)? {
                0 => return Err(Errno::IO.into()),
                written => offset = offset.saturating_add(written as u64),
            }
        }
        Ok(())
    }

    /// Makes the file of the inode whose lines come, with nothing that its content could take away.
    fn open_current(&mut self) -> Result<(), Refused> {
        let Some(current) = self
            .current
            .as_ref()
            .filter(|current| current.file.is_none())
        else {
            return Ok(());
        };
        let ino = current.ino;
        let bare = NodeRow {
            links: current.row.links,
            ..NodeRow::new(FileKind::Regular, 0, current.row.changed)
        };
        self.change(Change::Node(ino, Some(bare)))?;
        self.flush()?;
        let inode = self.volume.core().inode(ino)?;
        let node = self.volume.node(inode);
        if let Some(current) = self.current.as_mut() {
            current.file = Some(OpenFile::new(node, OpenFlags::READ | OpenFlags::WRITE));
        }
        Ok(())
    }

    /// All lines of an inode have come.
    fn finish_current(&mut self) -> Result<(), Refused> {
        let size = self.current.as_ref().map_or(0, |current| current.row.size);
        if size > 0 {
            self.open_current()?;
        }
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        if let Some(file) = current.file.take() {
            let inode = file.inode().clone();
            if inode.state.read().row.size != size {
                // It ends with a hole.
                let changes = AttributeChanges {
                    size: Some(size),
                    ..AttributeChanges::default()
                };
                self.volume.node(inode.clone()).change_attributes(changes)?;
            }
            inode.settle()?;
            let state = inode.state.read();
            current.row.has_data = state.row.has_data;
            current.row.blocks = state.row.blocks;
        }
        self.change(Change::Node(current.ino, Some(current.row)))
    }
}

fn row_of(line: &InodeLine) -> Result<NodeRow, Refused> {
    let kind = FileKind::from(line.file_type);
    let time = |time: super::line::Time| time.timestamp().or_else(refused);
    let target: Arc<[u8]> = match &line.target {
        Some(target) if kind == FileKind::Symlink && LinkTarget::new(&target.0).is_ok() => {
            target.0[..].into()
        }
        None if kind != FileKind::Symlink => Arc::default(),
        _ => return refused("a symbolic link has a target, and nothing else has"),
    };
    let parent = match (kind, line.parent) {
        (FileKind::Directory, Some(parent)) => parent,
        (FileKind::Directory, None) => return refused("a directory has a parent"),
        _ => 0,
    };
    if (line.inode == ROOT) != (parent == line.inode) {
        return refused("the root, and nothing else, is the directory above itself");
    }
    if line.links == 0 || line.size > END || (kind != FileKind::Regular && line.size > 0) {
        return refused("it has no such count of names, or no such size");
    }
    let (major, minor) = line.device.unwrap_or_default();
    Ok(NodeRow {
        uid: line.uid,
        gid: line.gid,
        links: line.links,
        size: line.size,
        device: Device { major, minor },
        accessed: time(line.atime)?,
        modified: time(line.mtime)?,
        changed: time(line.ctime)?,
        born: time(line.btime)?,
        flags: line.flags,
        project: line.project,
        parent,
        target,
        ..NodeRow::new(kind, line.mode.0, time(line.ctime)?)
    })
}
