//! Metadata: a journal of redo records, and SQLite's tables that follow it.
//!
//! An operation appends one record, the new images of all rows that it changes, to the [`journal`]: one
//! write to the host's page cache. The tables are made from these records and from nothing else, many
//! operations in one transaction, by a thread of their own; so the log cannot miss what the tables
//! have. Rows that the tables do not have yet are found [`ahead`] of them.

pub(crate) mod ahead;
pub(crate) mod change;
pub(crate) mod codec;
pub(crate) mod journal;
mod row;
pub(crate) mod schema;
mod store;
pub(crate) mod tables;

pub(crate) use change::Change;
pub(crate) use journal::Purpose;
pub(crate) use row::{EntryRow, NodeRow};
pub(crate) use store::{Meta, applied, create, figures};

/// Cookies before it are those of `.` and `..`.
pub(crate) const FIRST_COOKIE: u64 = 3;
