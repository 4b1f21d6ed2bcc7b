//! SQLite's tables: what they are called, and how a connection to them is made.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result};

/// Wait that long for another connection; there is one writer only, so it is a checkpoint.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE state(k TEXT PRIMARY KEY, v INT NOT NULL) WITHOUT ROWID;
CREATE TABLE node(
  ino INTEGER PRIMARY KEY, mode INT NOT NULL, uid INT NOT NULL, gid INT NOT NULL, nlink INT NOT NULL,
  linkable INT NOT NULL, has_data INT NOT NULL, size INT NOT NULL, blocks INT NOT NULL,
  major INT NOT NULL, minor INT NOT NULL,
  atime INT NOT NULL, atime_ns INT NOT NULL, mtime INT NOT NULL, mtime_ns INT NOT NULL,
  ctime INT NOT NULL, ctime_ns INT NOT NULL, btime INT NOT NULL, btime_ns INT NOT NULL,
  flags INT NOT NULL, project INT NOT NULL, xattrs INT NOT NULL,
  parent INT NOT NULL, entries INT NOT NULL, next_cookie INT NOT NULL, target BLOB NOT NULL);
CREATE TABLE dentry(
  parent INT NOT NULL, name BLOB NOT NULL, ino INT NOT NULL, mode INT NOT NULL, cookie INT NOT NULL,
  PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE UNIQUE INDEX dentry_cookie ON dentry(parent, cookie);
CREATE TABLE xattr(ino INT NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(ino, name)) WITHOUT ROWID;
CREATE TABLE orphan(ino INTEGER PRIMARY KEY);
CREATE TABLE unsettled(ino INTEGER PRIMARY KEY);
";

/// Makes the tables.
pub(crate) fn create(path: &Path) -> Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA page_size=4096; PRAGMA journal_mode=WAL;")?;
    connection.execute_batch(TABLES)
}

/// The connection that writes. A commit is not on the disk before a checkpoint: the journal has it
/// until then.
pub(crate) fn writer(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(
        "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-32768;",
    )?;
    Ok(connection)
}

/// A connection that reads.
pub(crate) fn reader(path: &Path) -> Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA cache_size=-4096; PRAGMA mmap_size=268435456;")?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // There are no statistics to plan by. Without this SQLite, in case there are, compiles a statement with a LIMIT anew each time
    // that it was kept for the next who needs it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_that_was_kept_is_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.sqlite");
        create(&path).unwrap();
        for connection in [writer(&path).unwrap(), reader(&path).unwrap()] {
            let sql =
                "SELECT name FROM dentry WHERE parent=?1 AND cookie>?2 ORDER BY cookie LIMIT 1";
            for number in 0..50_i64 {
                let mut statement = connection.prepare_cached(sql).unwrap();
                let rows = statement.query_map((number, number), |_| Ok(()));
                assert_eq!(rows.unwrap().count(), 0);
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
            }
        }
    }
}
