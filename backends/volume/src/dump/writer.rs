//! Writing a dump.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Row};
use vfsd_backend::FileKind;

use super::line::{
    Beginning, ContentLine, Data, EntryLine, FORMAT, InodeLine, Line, Mode, Summary, XattrLine,
};
use super::source::Source;
use crate::error::VolumeError;
use crate::meta::{NodeRow, tables};
use crate::quota::Quota;

/// So many entries of a directory are read at a time.
const PAGE: u64 = 200;

/// Why a dump is not whole.
pub(super) enum Broken {
    /// The volume cannot be read.
    Volume(vfsd_backend::Error),
    /// The dump cannot be written.
    Output(std::io::Error),
}

impl From<vfsd_backend::Error> for Broken {
    fn from(error: vfsd_backend::Error) -> Self {
        Self::Volume(error)
    }
}

impl From<rusqlite::Error> for Broken {
    fn from(error: rusqlite::Error) -> Self {
        Self::Volume(vfsd_backend::Error::Storage(Box::new(error)))
    }
}

/// Writes what rows and content say.
pub(super) struct Writer<'a> {
    pub(super) rows: &'a Connection,
    /// None where it is not wanted.
    pub(super) content: Option<&'a Source>,
    pub(super) to: &'a mut dyn Write,
}

impl Writer<'_> {
    /// Writes the whole dump.
    pub(super) fn run(&mut self, uuid: String, quota: Quota) -> Result<Summary, Broken> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.line(&Line::Volume(Beginning {
            format: FORMAT,
            uuid,
            made: now.map_or(0, |since| since.as_secs()),
            content: self.content.is_some(),
            quota,
        }))?;
        let mut summary = Summary::default();
        let rows = self.rows;
        // One without a name goes when who has it open is done.
        let sql = tables::nodes("WHERE nlink > 0 ORDER BY ino");
        let mut statement = rows.prepare(&sql)?;
        let mut nodes = statement.query([])?;
        while let Some(row) = nodes.next()? {
            let (ino, node) = numbered(row)?;
            self.inode(ino, &node, &mut summary)?;
        }
        self.line(&Line::End(summary))?;
        self.to.flush().map_err(Broken::Output)?;
        Ok(summary)
    }

    fn line(&mut self, line: &Line) -> Result<(), Broken> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| Broken::Output(error.into()))?;
        bytes.push(b'\n');
        self.to.write_all(&bytes).map_err(Broken::Output)
    }

    fn inode(&mut self, ino: u64, row: &NodeRow, summary: &mut Summary) -> Result<(), Broken> {
        summary.inodes = summary.inodes.saturating_add(1);
        let is_device = matches!(row.kind, FileKind::CharDevice | FileKind::BlockDevice);
        self.line(&Line::Inode(Box::new(InodeLine {
            inode: ino,
            file_type: row.kind.into(),
            mode: Mode(row.permissions),
            uid: row.uid,
            gid: row.gid,
            links: row.links,
            size: row.size,
            atime: row.accessed.into(),
            mtime: row.modified.into(),
            ctime: row.changed.into(),
            btime: row.born.into(),
            device: is_device.then_some((row.device.major, row.device.minor)),
            target: (row.kind == FileKind::Symlink).then(|| row.target[..].into()),
            parent: (row.kind == FileKind::Directory).then_some(row.parent),
            flags: row.flags,
            project: row.project,
        })))?;
        if row.xattrs > 0 {
            for (name, value) in tables::attributes(self.rows, ino)? {
                self.line(&Line::Xattr(XattrLine {
                    inode: ino,
                    name: name[..].into(),
                    value: value[..].into(),
                }))?;
            }
        }
        match row.kind {
            FileKind::Directory => self.entries(ino, summary),
            FileKind::Regular if row.has_data && row.size > 0 => {
                self.content(ino, row.size, summary)
            }
            _ => Ok(()),
        }
    }

    fn entries(&mut self, directory: u64, summary: &mut Summary) -> Result<(), Broken> {
        let mut cookie = 0;
        loop {
            let page = tables::entries(self.rows, directory, cookie, PAGE)?;
            let Some((_, last)) = page.last() else {
                return Ok(());
            };
            cookie = last.cookie;
            for (name, entry) in &page {
                summary.entries = summary.entries.saturating_add(1);
                self.line(&Line::Entry(EntryLine {
                    directory,
                    name: name[..].into(),
                    inode: entry.ino,
                    file_type: entry.kind.into(),
                }))?;
            }
        }
    }

    fn content(&mut self, ino: u64, size: u64, summary: &mut Summary) -> Result<(), Broken> {
        let Some(content) = self.content else {
            return Ok(());
        };
        content.each_part(ino, size, |offset, bytes| {
            summary.bytes = summary.bytes.saturating_add(bytes.len() as u64);
            self.line(&Line::Content(ContentLine {
                inode: ino,
                offset,
                data: Data(bytes.to_vec()),
            }))
        })
    }
}

fn numbered(row: &Row<'_>) -> rusqlite::Result<(u64, NodeRow)> {
    let node = tables::node_of(row)?;
    let ino: i64 = row.get(tables::INO_COLUMN)?;
    Ok((ino.cast_unsigned(), node))
}

impl Broken {
    /// What is told of it, where the volume's rows are at `path`.
    pub(super) fn told(self, path: &std::path::Path) -> VolumeError {
        match self {
            Self::Volume(error) => VolumeError::storage(path, "cannot dump it")(error),
            Self::Output(error) => VolumeError::Output(error),
        }
    }
}
