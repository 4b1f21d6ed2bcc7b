//! Rings and chains over memory in this process.

mod chains;
mod interrupts;
mod rings;

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Addresses, Call, Chain, Ring, Setup, chain};
use crate::counters::QueueCounters;
use crate::memory::MemoryMap;
use crate::memory::{Extent, Region};

const SIZE: u16 = 16;
/// Where the front end sees guest address 0.
const USER: u64 = 0x5000_0000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Where tests put indirect tables and buffers.
const TABLE: u64 = 0x4000;
const BUFFER: u64 = 0x8000;
/// The first region ends here, and a second begins.
const SEAM: u64 = 0x1_0000;
/// The second ends here.
const END: u64 = 0x2_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A driver's view of a ring.
struct Driver {
    memory: Arc<MemoryMap>,
    files: [File; 2],
    next: u16,
}

/// A descriptor: address, length, flags, next.
type Entry = (u64, u32, u16, u16);

/// A descriptor that points to a table: address, length, further flags.
type Pointer = (u64, u32, u16);

impl Driver {
    fn new() -> Self {
        let file = || {
            let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, SEAM).unwrap();
            File::from(file)
        };
        let files = [file(), file()];
        let region = |start: u64, file: &File| {
            let extent = Extent {
                guest_address: start,
                user_address: USER + start,
                file_offset: 0,
                length: SEAM,
            };
            Region::map(extent, file.try_clone().unwrap()).unwrap()
        };
        let regions = vec![region(SEAM, &files[1]), region(0, &files[0])];
        Self {
            memory: Arc::new(MemoryMap::new(regions).unwrap()),
            files,
            next: 0,
        }
    }

    fn ring(&self, event_idx: bool, call: Option<Arc<Call>>) -> Ring {
        let setup = Setup {
            size: SIZE,
            addresses: Addresses {
                descriptors: USER + DESCRIPTORS,
                available: USER + AVAILABLE,
                used: USER + USED,
            },
            event_idx,
            indirect: true,
            next_available: self.next,
        };
        let counters = Arc::new(QueueCounters::default());
        Ring::new(
            "test".into(),
            setup,
            Arc::clone(&self.memory),
            call,
            None,
            counters,
        )
        .unwrap()
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let file = &self.files[usize::from(address >= SEAM)];
        file.write_all_at(bytes, address % SEAM).unwrap();
    }

    fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(address, &mut bytes).unwrap();
        bytes
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address))
    }

    fn describe(&self, table: u64, entries: &[Entry]) {
        for (index, (address, length, flags, next)) in (0..).zip(entries) {
            let mut bytes = Vec::new();
            bytes.extend(address.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            self.write(table + index * 16, &bytes);
        }
    }

    /// Makes a head available, index and all.
    fn offer(&mut self, head: u16) {
        self.write(
            AVAILABLE + 4 + 2 * u64::from(self.next % SIZE),
            &head.to_le_bytes(),
        );
        self.set_index(self.next.wrapping_add(1));
    }

    fn set_index(&mut self, index: u16) {
        self.next = index;
        self.write(AVAILABLE + 2, &index.to_le_bytes());
    }

    /// Makes a head available, which the device takes and gives back.
    fn round_trip(&mut self, ring: &Ring, head: u16) {
        self.offer(head);
        assert_eq!(ring.take(&mut ring.available()), Ok(Some(head)));
        assert!(ring.give_back(head, 0, 0));
    }

    fn walk(&self, head: u16, indirect: bool) -> Chain {
        let part = self
            .memory
            .part_at_user_address(USER + DESCRIPTORS, 16 * 16)
            .unwrap();
        chain::walk(&self.memory, &part, SIZE, head, indirect)
    }
}
