//! Whether the rows of a volume fit together, and its data files fit the rows.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, Row};
use vfsd_backend::Result;

use crate::data::DataFolder;
use crate::error::VolumeError;
use crate::layout::Layout;
use crate::volume::{ROOT, Volume, VolumeOptions};

/// More problems are counted, but not told.
const MOST_TOLD: usize = 1000;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// How many inodes there are.
    pub inodes: u64,
    /// How many names there are, that of the root not included.
    pub names: u64,
    /// Bytes of content of all files, holes included.
    pub bytes: u64,
    /// What does not fit together, one line each: at most 1000.
    pub problems: Vec<String>,
    /// How many problems there are in all.
    pub problem_count: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn tell(&mut self, problem: String) {
        self.problem_count = self.problem_count.saturating_add(1);
        if self.problems.len() < MOST_TOLD {
            self.problems.push(problem);
        }
    }
}

/// Rules that hold when nobody uses a volume.
const OF_SETTLED: [&str; 2] = ["SELECT ino FROM orphan", "SELECT ino FROM unsettled"];

/// What must not be found, and how it is told: `{0}`, `{1}` and so on are the columns.
const RULES: &[(&str, &str)] = &[
    (
        "SELECT d.parent, d.name, d.ino FROM dentry d LEFT JOIN node n ON n.ino=d.ino \
         WHERE n.ino IS NULL",
        "directory {0}: {1} names inode {2}, which does not exist",
    ),
    (
        "SELECT d.parent, d.name, d.ino FROM dentry d JOIN node n ON n.ino=d.ino \
         WHERE (d.mode & 61440) <> (n.mode & 61440)",
        "directory {0}: {1} tells another type than inode {2} has",
    ),
    (
        "SELECT d.parent, d.name FROM dentry d LEFT JOIN node n ON n.ino=d.parent \
         WHERE n.ino IS NULL OR (n.mode & 61440) <> 16384 OR n.nlink=0",
        "{1} is in {0}, which is no directory",
    ),
    (
        "SELECT n.ino, n.entries, coalesce(c.count, 0) FROM node n \
         LEFT JOIN (SELECT parent, count(*) count FROM dentry GROUP BY parent) c ON c.parent=n.ino \
         WHERE n.entries <> coalesce(c.count, 0)",
        "directory {0} has {2} entries and counts {1}",
    ),
    (
        "SELECT n.ino, n.nlink, coalesce(c.count, 0) FROM node n \
         LEFT JOIN (SELECT ino, count(*) count FROM dentry GROUP BY ino) c ON c.ino=n.ino \
         WHERE (n.mode & 61440) <> 16384 AND n.nlink <> coalesce(c.count, 0)",
        "inode {0} has {2} names and counts {1}",
    ),
    (
        "SELECT n.ino, n.nlink, coalesce(c.count, 0) + 2 FROM node n LEFT JOIN \
         (SELECT parent, count(*) count FROM dentry WHERE (mode & 61440)=16384 GROUP BY parent) c \
         ON c.parent=n.ino \
         WHERE (n.mode & 61440)=16384 AND n.nlink <> coalesce(c.count, 0) + 2 \
         AND n.ino NOT IN (SELECT ino FROM orphan)",
        "directory {0} should have {2} links and counts {1}",
    ),
    (
        "SELECT n.ino, coalesce(c.count, 0) FROM node n \
         LEFT JOIN (SELECT ino, count(*) count FROM dentry GROUP BY ino) c ON c.ino=n.ino \
         WHERE (n.mode & 61440)=16384 AND coalesce(c.count, 0) <> (n.ino <> 1) \
         AND n.ino NOT IN (SELECT ino FROM orphan)",
        "directory {0} has {1} names",
    ),
    (
        "SELECT d.parent, d.name, n.parent FROM dentry d JOIN node n ON n.ino=d.ino \
         WHERE (n.mode & 61440)=16384 AND n.parent <> d.parent",
        "directory {0}: {1} has {2} for its parent",
    ),
    (
        "SELECT n.ino, n.next_cookie, c.last FROM node n \
         JOIN (SELECT parent, max(cookie) last FROM dentry GROUP BY parent) c ON c.parent=n.ino \
         WHERE c.last >= n.next_cookie",
        "directory {0} would use place {1} again: the last is {2}",
    ),
    (
        "SELECT DISTINCT x.ino FROM xattr x LEFT JOIN node n ON n.ino=x.ino WHERE n.ino IS NULL",
        "extended attributes of inode {0}, which does not exist",
    ),
    (
        "SELECT n.ino, n.xattrs, coalesce(c.count, 0) FROM node n \
         LEFT JOIN (SELECT ino, count(*) count FROM xattr GROUP BY ino) c ON c.ino=n.ino \
         WHERE n.xattrs <> coalesce(c.count, 0)",
        "inode {0} has {2} extended attributes and counts {1}",
    ),
    (OF_SETTLED[0], "inode {0} has no name, and nobody uses it"),
    (
        OF_SETTLED[1],
        "the size of inode {0} was not taken from its data file",
    ),
    (
        "SELECT ino FROM node WHERE (mode & 61440)=16384 AND ino NOT IN (SELECT ino FROM orphan) AND ino NOT IN (
           WITH RECURSIVE reached(ino) AS (
             VALUES(1)
             UNION
             SELECT d.ino FROM reached r JOIN dentry d ON d.parent=r.ino
             WHERE (d.mode & 61440)=16384)
           SELECT ino FROM reached)",
        "directory {0} cannot be reached from the root",
    ),
];

impl Volume {
    /// Looks whether everything in the volume in `directory` fits together. The volume is opened for it, so
    /// that what was going on when it was not closed is finished first.
    ///
    /// # Errors
    /// As [`open`](Self::open). What does not fit together is no error: it is in the report.
    pub fn check(directory: &Path) -> Result<CheckReport, VolumeError> {
        let volume = Self::open(directory, &VolumeOptions::default())?;
        let data = Layout::new(directory).data();
        let failed = VolumeError::storage(directory, "cannot check it");
        volume.check_open(&data).map_err(failed)
    }

    fn check_open(&self, data: &Path) -> Result<CheckReport> {
        let meta = &self.core().meta;
        meta.catch_up()?;
        let mut report = CheckReport::default();
        let sizes = meta.read(|db| {
            check_rows(db, &mut report, &[], true)?;
            sizes(db)
        })?;
        check_data(&mut report, &sizes, data)?;
        Ok(report)
    }
}

/// Looks whether rows follow the rules of all volumes, and those of `more`. A volume that is not `settled` may have files in use
/// that have no name, or whose size is about to be written.
pub(crate) fn check_rows(
    db: &Connection,
    report: &mut CheckReport,
    more: &[(&str, &str)],
    settled: bool,
) -> rusqlite::Result<()> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    report.inodes = count("SELECT count(*) FROM node")?.cast_unsigned();
    report.names = count("SELECT count(*) FROM dentry")?.cast_unsigned();
    report.bytes = count("SELECT coalesce(sum(size), 0) FROM node")?.cast_unsigned();
    let mut integrity = db.prepare("PRAGMA integrity_check(100)")?;
    let mut lines = integrity.query([])?;
    while let Some(line) = lines.next()? {
        let line: String = line.get(0)?;
        if line != "ok" {
            report.tell(format!("SQLite: {line}"));
        }
    }
    if count("SELECT count(*) FROM node WHERE ino=1 AND (mode & 61440)=16384")? != 1 {
        report.tell(format!("there is no root: inode {ROOT}"));
    }
    let rules = RULES
        .iter()
        .filter(|(sql, _)| settled || !OF_SETTLED.contains(sql));
    for (sql, form) in rules.chain(more) {
        let mut statement = db.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            report.tell(fill_in(form, row, columns)?);
        }
    }
    Ok(())
}

/// Puts the columns of a row into a form.
fn fill_in(form: &str, row: &Row<'_>, columns: usize) -> rusqlite::Result<String> {
    let mut text = form.to_owned();
    for column in 0..columns {
        let value = match row.get_ref(column)? {
            rusqlite::types::ValueRef::Blob(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        text = text.replace(&format!("{{{column}}}"), &value);
    }
    Ok(text)
}

/// The sizes of all inodes that have a data file.
fn sizes(db: &Connection) -> rusqlite::Result<HashMap<u64, u64>> {
    db.prepare("SELECT ino, size FROM node WHERE has_data")?
        .query_map([], |row| {
            let (ino, size): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((ino.cast_unsigned(), size.cast_unsigned()))
        })?
        .collect()
}

fn check_data(report: &mut CheckReport, sizes: &HashMap<u64, u64>, data: &Path) -> Result<()> {
    let mut left = sizes.clone();
    for (ino, found) in DataFolder::all(data)? {
        match left.remove(&ino) {
            Some(size) if size == found => {}
            Some(size) => report.tell(format!(
                "inode {ino} has {size} bytes, its data file has {found}"
            )),
            None => report.tell(format!("a data file of inode {ino}, which has none")),
        }
    }
    for ino in left.keys() {
        report.tell(format!("the data file of inode {ino} is not there"));
    }
    Ok(())
}
