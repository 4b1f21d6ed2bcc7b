//! The descriptors that the daemon was given, by number.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, open};
use vfsd_backend::{Errno, Result};
use vfsd_fuse::wire::{OutHeader, Unique};
use vfsd_plugin_protocol::{DESCRIPTOR_DROP, DESCRIPTOR_PUT, Note, check_descriptor};
use zerocopy::IntoBytes;

use crate::connection::Connection;

/// Which file: its device and inode number. While a descriptor of it is held no other file gets them.
type Key = (u64, u64);

/// The descriptors that the daemon has. The one used longest ago makes room for the next.
#[derive(Debug)]
pub(crate) struct Numbers {
    limit: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<Key, Held>,
    free: Vec<u32>,
    /// Numbers from here on were never used.
    next: u32,
    clock: u64,
}

#[derive(Debug)]
struct Held {
    /// Shared with the replies that are about to name it.
    number: Arc<u32>,
    descriptor: OwnedFd,
    used: u64,
}

impl Numbers {
    /// No descriptors yet, and never more than `limit`.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            table: Mutex::default(),
        }
    }

    /// The number of a file that the daemon has, or gets now, and the file's size. `None` for a file that it does not
    /// take, or that has no name any more and so should not be held.
    pub(crate) fn of(
        &self,
        file: BorrowedFd<'_>,
        connection: &Connection,
    ) -> Option<(Arc<u32>, u64)> {
        if self.limit == 0 {
            return None;
        }
        let status = fstat(file).ok()?;
        let size = u64::try_from(status.st_size).ok()?;
        let key = (status.st_dev, status.st_ino);
        let mut table = self.table.lock();
        table.clock = table.clock.saturating_add(1);
        let clock = table.clock;
        if let Some(held) = table.held.get_mut(&key) {
            held.used = clock;
            return Some((Arc::clone(&held.number), size));
        }
        if check_descriptor(file).is_err() {
            return None;
        }
        let descriptor = read_only(file)?;
        let number = self.room(&mut table, connection)?;
        // The lock is held while this is sent: nobody names the number before the daemon knows it.
        tell(connection, DESCRIPTOR_PUT, number, Some(descriptor.as_fd()))?;
        let number = Arc::new(number);
        let held = Held {
            number: Arc::clone(&number),
            descriptor,
            used: clock,
        };
        table.held.insert(key, held);
        Some((number, size))
    }

    /// A number that is free, if need be because another file's was taken back.
    fn room(&self, table: &mut Table, connection: &Connection) -> Option<u32> {
        if let Some(number) = table.free.pop() {
            return Some(number);
        }
        if table.next < self.limit {
            let number = table.next;
            table.next = table.next.saturating_add(1);
            return Some(number);
        }
        let idle = |held: &Held| Arc::strong_count(&held.number) == 1;
        let oldest = table
            .held
            .iter()
            .filter(|(_, held)| idle(held))
            .min_by_key(|(_, held)| held.used);
        let key = oldest.map(|(key, _)| *key)?;
        let held = table.held.remove(&key)?;
        tell(connection, DESCRIPTOR_DROP, *held.number, None)?;
        Some(*held.number)
    }

    /// Reads from a file that the daemon has.
    pub(crate) fn read(&self, number: &Arc<u32>, target: &mut [u8], offset: u64) -> Result<usize> {
        let table = self.table.lock();
        let held = table.held.values();
        let held = held
            .into_iter()
            .find(|held| Arc::ptr_eq(&held.number, number));
        let held = held.ok_or(Errno::IO)?;
        Ok(rustix::io::pread(&held.descriptor, target, offset)?)
    }
}

/// A descriptor of the same file with which it cannot be changed.
fn read_only(file: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mode = fcntl_getfl(file).ok()?;
    if mode & OFlags::RWMODE == OFlags::RDONLY && !mode.contains(OFlags::DIRECT) {
        return file.try_clone_to_owned().ok();
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn tell(
    connection: &Connection,
    what: i32,
    number: u32,
    descriptor: Option<BorrowedFd<'_>>,
) -> Option<()> {
    let header = OutHeader {
        error: what,
        ..OutHeader::success(Unique::NONE, size_of::<Note>())
    };
    let note = Note {
        descriptor: number,
        reserved: 0,
    };
    let parts: [&[u8]; 2] = [&header.to_bytes(), note.as_bytes()];
    connection.send(&parts, descriptor).ok()
}
