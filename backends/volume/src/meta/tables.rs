//! Rows in and out of SQLite.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};
use vfsd_backend::{Device, FileKind, Timestamp};

use super::ahead::Ahead;
use super::row::{EntryRow, NodeRow};

/// An extended attribute of some inode: name and value.
pub(crate) type Attribute = (Arc<[u8]>, Arc<[u8]>);
/// A name in a directory.
pub(crate) type Named = (Arc<[u8]>, EntryRow);

const NODE_COLUMNS: &str = "mode, uid, gid, nlink, linkable, has_data, size, blocks, major, minor, \
     atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, btime, btime_ns, flags, project, xattrs, \
     parent, entries, next_cookie, target";

/// A column whose value no row of ours has.
fn strange(column: usize) -> rusqlite::Error {
    rusqlite::Error::IntegralValueOutOfRange(column, 0)
}

fn kind(row: &Row<'_>, column: usize) -> Result<FileKind> {
    FileKind::from_mode(row.get(column)?).ok_or_else(|| strange(column))
}

fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    let nanoseconds = row.get(column.saturating_add(1))?;
    Timestamp::new(row.get(column)?, nanoseconds).map_err(|_| strange(column))
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn blob(row: &Row<'_>, column: usize) -> Result<Arc<[u8]>> {
    Ok(row.get_ref(column)?.as_blob()?.into())
}

pub(crate) fn node_of(row: &Row<'_>) -> Result<NodeRow> {
    let mode: u32 = row.get(0)?;
    Ok(NodeRow {
        kind: kind(row, 0)?,
        permissions: mode & 0o7777,
        uid: row.get(1)?,
        gid: row.get(2)?,
        links: row.get(3)?,
        linkable: row.get(4)?,
        has_data: row.get(5)?,
        size: unsigned(row, 6)?,
        blocks: unsigned(row, 7)?,
        device: Device {
            major: row.get(8)?,
            minor: row.get(9)?,
        },
        accessed: time(row, 10)?,
        modified: time(row, 12)?,
        changed: time(row, 14)?,
        born: time(row, 16)?,
        flags: row.get(18)?,
        project: row.get(19)?,
        xattrs: row.get(20)?,
        parent: unsigned(row, 21)?,
        entries: unsigned(row, 22)?,
        next_cookie: unsigned(row, 23)?,
        target: blob(row, 24)?,
    })
}

/// An entry in columns `ino, mode, cookie` from `first` on.
fn entry_of(row: &Row<'_>, first: usize) -> Result<EntryRow> {
    Ok(EntryRow {
        ino: unsigned(row, first)?,
        kind: kind(row, first.saturating_add(1))?,
        cookie: unsigned(row, first.saturating_add(2))?,
    })
}

fn named(row: &Row<'_>) -> Result<Named> {
    Ok((blob(row, 0)?, entry_of(row, 1)?))
}

/// Asks for rows of inodes, which [`node_of`] reads, and their numbers in [`INO_COLUMN`].
pub(crate) fn nodes(which: &str) -> String {
    format!("SELECT {NODE_COLUMNS}, ino FROM node {which}")
}

/// See [`nodes`].
pub(crate) const INO_COLUMN: usize = 25;

pub(crate) fn node(db: &Connection, ino: u64) -> Result<Option<NodeRow>> {
    let sql = format!("SELECT {NODE_COLUMNS} FROM node WHERE ino=?1");
    db.prepare_cached(&sql)?
        .query_row([ino.cast_signed()], node_of)
        .optional()
}

pub(crate) fn entry(db: &Connection, parent: u64, name: &[u8]) -> Result<Option<EntryRow>> {
    db.prepare_cached("SELECT ino, mode, cookie FROM dentry WHERE parent=?1 AND name=?2")?
        .query_row(params![parent.cast_signed(), name], |row| entry_of(row, 0))
        .optional()
}

/// Up to `count` entries after `cookie`, in the order of their cookies.
pub(crate) fn entries(db: &Connection, parent: u64, cookie: u64, count: u64) -> Result<Vec<Named>> {
    db.prepare_cached(
        "SELECT name, ino, mode, cookie FROM dentry WHERE parent=?1 AND cookie>?2 \
         ORDER BY cookie LIMIT ?3",
    )?
    .query_map([parent, cookie, count].map(u64::cast_signed), named)?
    .collect()
}

pub(crate) fn attributes(db: &Connection, ino: u64) -> Result<Vec<Attribute>> {
    db.prepare_cached("SELECT name, value FROM xattr WHERE ino=?1")?
        .query_map([ino.cast_signed()], |row| {
            Ok((blob(row, 0)?, blob(row, 1)?))
        })?
        .collect()
}

/// The inodes in one of the tables that have nothing else.
pub(crate) fn inodes(db: &Connection, table: &'static str) -> Result<Vec<u64>> {
    db.prepare(&format!("SELECT ino FROM {table} ORDER BY ino"))?
        .query_map([], |row| unsigned(row, 0))?
        .collect()
}

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) inodes: u64,
    /// Content of all files, holes included.
    pub(crate) bytes: u64,
    /// Allocated blocks of 512 bytes.
    pub(crate) blocks: u64,
}

pub(crate) fn figures(db: &Connection) -> Result<Figures> {
    let sql = "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(blocks), 0) FROM node";
    db.query_row(sql, [], |row| {
        Ok(Figures {
            inodes: unsigned(row, 0)?,
            bytes: unsigned(row, 1)?,
            blocks: unsigned(row, 2)?,
        })
    })
}

/// A number of the state; 0 if it is not there.
pub(crate) fn state(db: &Connection, key: &str) -> Result<u64> {
    let found = db
        .prepare_cached("SELECT v FROM state WHERE k=?1")?
        .query_row([key], |row| unsigned(row, 0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

fn set_state(db: &Connection, key: &str, value: u64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO state(k, v) VALUES(?1, ?2)")?
        .execute(params![key, value.cast_signed()])?;
    Ok(())
}

fn put_node(db: &Connection, ino: u64, row: &NodeRow) -> Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO node(ino, {NODE_COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, \
         ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)"
    );
    db.prepare_cached(&sql)?.execute(params![
        ino.cast_signed(),
        row.kind.mode_bits() | row.permissions,
        row.uid,
        row.gid,
        row.links,
        row.linkable,
        row.has_data,
        row.size.cast_signed(),
        row.blocks.cast_signed(),
        row.device.major,
        row.device.minor,
        row.accessed.seconds,
        row.accessed.nanoseconds,
        row.modified.seconds,
        row.modified.nanoseconds,
        row.changed.seconds,
        row.changed.nanoseconds,
        row.born.seconds,
        row.born.nanoseconds,
        row.flags,
        row.project,
        row.xattrs,
        row.parent.cast_signed(),
        row.entries.cast_signed(),
        row.next_cookie.cast_signed(),
        &*row.target,
    ])?;
    Ok(())
}

fn drop_node(db: &Connection, ino: u64) -> Result<()> {
    let ino = [ino.cast_signed()];
    db.prepare_cached("DELETE FROM node WHERE ino=?1")?
        .execute(ino)?;
    db.prepare_cached("DELETE FROM xattr WHERE ino=?1")?
        .execute(ino)?;
    Ok(())
}

fn put_entry(db: &Connection, parent: u64, name: &[u8], row: Option<&EntryRow>) -> Result<()> {
    let parent = parent.cast_signed();
    match row {
        Some(row) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO dentry(parent, name, ino, mode, cookie) \
                 VALUES(?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                parent,
                name,
                row.ino.cast_signed(),
                row.kind.mode_bits(),
                row.cookie.cast_signed()
            ])?,
        None => db
            .prepare_cached("DELETE FROM dentry WHERE parent=?1 AND name=?2")?
            .execute(params![parent, name])?,
    };
    Ok(())
}

fn put_attribute(db: &Connection, ino: u64, name: &[u8], value: Option<&[u8]>) -> Result<()> {
    let ino = ino.cast_signed();
    match value {
        Some(value) => db
            .prepare_cached("INSERT OR REPLACE INTO xattr(ino, name, value) VALUES(?1, ?2, ?3)")?
            .execute(params![ino, name, value])?,
        None => db
            .prepare_cached("DELETE FROM xattr WHERE ino=?1 AND name=?2")?
            .execute(params![ino, name])?,
    };
    Ok(())
}

fn put_mark(db: &Connection, table: &str, ino: u64, there: bool) -> Result<()> {
    let sql = match there {
        true => format!("INSERT OR REPLACE INTO {table}(ino) VALUES(?1)"),
        false => format!("DELETE FROM {table} WHERE ino=?1"),
    };
    db.prepare_cached(&sql)?.execute([ino.cast_signed()])?;
    Ok(())
}

/// Brings the tables up to date with all that is ahead of them, in one transaction.
pub(crate) fn apply(db: &mut Connection, ahead: &Ahead) -> Result<()> {
    let transaction = db.transaction()?;
    apply_within(&transaction, ahead)?;
    transaction.commit()
}

/// As [`apply`], within a transaction that has more in it.
pub(crate) fn apply_within(transaction: &Transaction<'_>, ahead: &Ahead) -> Result<()> {
    for (parent, names) in &ahead.entries {
        // What goes first, so that no two entries have one cookie in between.
        for (name, row) in names.iter().filter(|(_, row)| row.is_none()) {
            put_entry(transaction, *parent, name, row.as_ref())?;
        }
        for (name, row) in names.iter().filter(|(_, row)| row.is_some()) {
            put_entry(transaction, *parent, name, row.as_ref())?;
        }
    }
    for (ino, attributes) in &ahead.attributes {
        for (name, value) in attributes {
            put_attribute(transaction, *ino, name, value.as_deref())?;
        }
    }
    for (ino, there) in &ahead.orphans {
        put_mark(transaction, "orphan", *ino, *there)?;
    }
    for (ino, there) in &ahead.unsettled {
        put_mark(transaction, "unsettled", *ino, *there)?;
    }
    for (ino, row) in &ahead.nodes {
        match row {
            Some(row) => put_node(transaction, *ino, row)?,
            None => drop_node(transaction, *ino)?,
        }
    }
    // A number is never used again, also when its inode was the newest and is gone.
    if let Some((&newest, _)) = ahead.nodes.last_key_value()
        && newest > state(transaction, NEWEST_INODE)?
    {
        set_state(transaction, NEWEST_INODE, newest)?;
    }
    set_state(transaction, APPLIED, ahead.last)
}

/// The last record that is in the tables.
pub(crate) const APPLIED: &str = "applied_lsn";
/// The highest inode number ever used.
pub(crate) const NEWEST_INODE: &str = "newest_ino";

/// Copies the write-ahead log into the database, on the disk. False if a reader was in the way.
pub(crate) fn checkpoint(db: &Connection) -> Result<bool> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    })
}
