//! Rings and chains over memory in this process.

use std::fs::File;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::chain::MAX_ENTRIES;
use super::*;
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
        assert!(ring.give_back(head, 0));
    }

    fn walk(&self, head: u16, indirect: bool) -> Chain {
        let part = self
            .memory
            .part_at_user_address(USER + DESCRIPTORS, 16 * 16)
            .unwrap();
        chain::walk(&self.memory, &part, SIZE, head, indirect)
    }
}

fn call() -> (Arc<Call>, File) {
    let event = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    (
        Arc::new(Call::new(event.try_clone().unwrap()).unwrap()),
        event,
    )
}

/// Whether it was signalled since the last look.
fn signalled(event: &File) -> bool {
    rustix::io::read(event, &mut [0_u8; 8]).is_ok()
}

/// What a chain must come out as: readable bytes, writable bytes, fault.
type Outcome = (usize, usize, Option<ChainFault>);

fn outcome(chain: &Chain) -> Outcome {
    (chain.readable.len(), chain.writable.len(), chain.fault)
}

#[test]
fn a_chain_is_what_its_descriptors_say_and_faults_are_found() {
    use ChainFault::*;
    let in_range = |flags, next| (BUFFER, 64, flags, next);
    let cases: [(&str, &[Entry], Outcome); 20] = [
        ("one readable", &[in_range(0, 0)], (64, 0, None)),
        (
            "request and reply",
            &[in_range(NEXT, 1), in_range(WRITE, 0)],
            (64, 64, None),
        ),
        (
            "next is not looked at without its flag",
            &[in_range(0, 999)],
            (64, 0, None),
        ),
        ("unknown flags", &[in_range(0x100, 0)], (64, 0, None)),
        (
            "no bytes, anywhere",
            &[
                (u64::MAX, 0, NEXT, 1),
                in_range(NEXT, 2),
                (END, 0, WRITE, 0),
            ],
            (64, 0, None),
        ),
        (
            "an empty descriptor of the other kind between",
            &[
                in_range(NEXT, 1),
                (BUFFER, 0, WRITE | NEXT, 2),
                in_range(0, 0),
            ],
            (128, 0, None),
        ),
        (
            "up to the end of memory",
            &[(END - 64, 64, 0, 0)],
            (64, 0, None),
        ),
        (
            "across two regions",
            &[(SEAM - 10, 64, 0, 0)],
            (64, 0, None),
        ),
        (
            "all of memory",
            &[(0, END as u32, WRITE, 0)],
            (0, END as usize, None),
        ),
        (
            "one byte too far",
            &[(END - 63, 64, 0, 0)],
            (0, 0, Some(OutsideMemory)),
        ),
        (
            "right behind",
            &[(END, 1, 0, 0)],
            (0, 0, Some(OutsideMemory)),
        ),
        (
            "wraps",
            &[(u64::MAX - 8, 64, 0, 0)],
            (0, 0, Some(OutsideMemory)),
        ),
        (
            "payload outside: header and reply remain",
            &[
                in_range(NEXT, 1),
                (END, 64, NEXT, 2),
                in_range(NEXT, 3),
                in_range(WRITE, 0),
            ],
            (64, 64, Some(OutsideMemory)),
        ),
        (
            "reply header outside: nothing to write to",
            &[
                in_range(NEXT, 1),
                (END, 64, WRITE | NEXT, 2),
                in_range(WRITE, 0),
            ],
            (64, 0, Some(OutsideMemory)),
        ),
        (
            "readable after writable",
            &[in_range(NEXT, 1), in_range(WRITE | NEXT, 2), in_range(0, 0)],
            (64, 64, Some(ReadableAfterWritable)),
        ),
        (
            "next out of the table",
            &[in_range(NEXT, SIZE)],
            (64, 0, Some(NextOutOfRange)),
        ),
        (
            "next far out",
            &[in_range(NEXT, u16::MAX)],
            (64, 0, Some(NextOutOfRange)),
        ),
        (
            "a loop of one",
            &[in_range(NEXT, 0)],
            (64 * MAX_ENTRIES, 0, Some(TooManyEntries)),
        ),
        (
            "a loop of two",
            &[in_range(NEXT, 1), in_range(NEXT, 0)],
            (64 * MAX_ENTRIES, 0, Some(TooManyEntries)),
        ),
        (
            "2^32 bytes",
            &[in_range(NEXT, 1), (0, u32::MAX, WRITE, 0)],
            (64, 0, Some(TooManyBytes)),
        ),
    ];
    for (name, entries, expected) in cases {
        let driver = Driver::new();
        driver.describe(DESCRIPTORS, entries);
        assert_eq!(outcome(&driver.walk(0, true)), expected, "{name}");
    }
}

#[test]
fn an_indirect_table_is_a_chain_of_its_own_and_faults_are_found() {
    use ChainFault::*;
    let entry = |flags, next| (BUFFER, 64, flags, next);
    let long: Vec<Entry> = (1..=MAX_ENTRIES as u16)
        .map(|next| entry(NEXT, next))
        .collect();
    let mut fits = long.clone();
    fits[MAX_ENTRIES - 1] = entry(0, 0);
    let cases: [(&str, &[Entry], Pointer, Outcome); 13] = [
        (
            "two",
            &[entry(NEXT, 1), entry(WRITE, 0)],
            (TABLE, 32, 0),
            (64, 64, None),
        ),
        (
            "its own WRITE flag says nothing",
            &[entry(0, 0)],
            (TABLE, 16, WRITE),
            (64, 0, None),
        ),
        (
            "as long as can be",
            &fits,
            (TABLE, MAX_ENTRIES as u32 * 16, 0),
            (64 * MAX_ENTRIES, 0, None),
        ),
        (
            "too long",
            &long,
            (TABLE, MAX_ENTRIES as u32 * 16 + 16, 0),
            (0, 0, Some(TooManyEntries)),
        ),
        (
            "65535 entries",
            &long,
            (0, 65_535 * 16, 0),
            (0, 0, Some(TooManyEntries)),
        ),
        (
            "no entries",
            &[],
            (TABLE, 0, 0),
            (0, 0, Some(IndirectTableLength)),
        ),
        (
            "odd length",
            &[entry(0, 0)],
            (TABLE, 17, 0),
            (0, 0, Some(IndirectTableLength)),
        ),
        (
            "shorter than an entry",
            &[entry(0, 0)],
            (TABLE, 15, 0),
            (0, 0, Some(IndirectTableLength)),
        ),
        (
            "with NEXT",
            &[entry(0, 0)],
            (TABLE, 16, NEXT),
            (0, 0, Some(IndirectWithNext)),
        ),
        ("outside", &[], (END, 16, 0), (0, 0, Some(OutsideMemory))),
        (
            "half outside",
            &[],
            (END - 16, 32, 0),
            (0, 0, Some(OutsideMemory)),
        ),
        (
            "nested",
            &[(TABLE, 16, INDIRECT, 0)],
            (TABLE, 16, 0),
            (0, 0, Some(NestedIndirect)),
        ),
        (
            "next beyond it",
            &[entry(NEXT, 1)],
            (TABLE, 16, 0),
            (64, 0, Some(NextOutOfRange)),
        ),
    ];
    for (name, entries, (address, length, flags), expected) in cases {
        let driver = Driver::new();
        driver.describe(TABLE, entries);
        driver.describe(DESCRIPTORS, &[(address, length, INDIRECT | flags, 0)]);
        assert_eq!(outcome(&driver.walk(0, true)), expected, "{name}");
    }
}

#[test]
fn an_indirect_table_may_lie_across_regions_and_end_a_direct_chain() {
    let driver = Driver::new();
    for (index, entry) in [(BUFFER, 10, NEXT, 1), (BUFFER, 20, WRITE, 0)]
        .iter()
        .enumerate()
    {
        driver.describe(SEAM - 16 + 16 * index as u64, &[*entry]);
    }
    driver.describe(
        DESCRIPTORS,
        &[(BUFFER, 5, NEXT, 1), (SEAM - 16, 32, INDIRECT, 0)],
    );
    assert_eq!(outcome(&driver.walk(0, true)), (15, 20, None));
}

#[test]
fn an_indirect_table_that_was_not_negotiated_is_a_fault() {
    let driver = Driver::new();
    driver.describe(TABLE, &[(BUFFER, 64, 0, 0)]);
    driver.describe(DESCRIPTORS, &[(TABLE, 16, INDIRECT, 0)]);
    let expected = (0, 0, Some(ChainFault::IndirectNotNegotiated));
    assert_eq!(outcome(&driver.walk(0, false)), expected);
}

#[test]
fn bytes_are_read_and_written_across_regions_where_they_lie() {
    let driver = Driver::new();
    driver.describe(
        DESCRIPTORS,
        &[
            (SEAM - 3, 6, NEXT, 1),
            (BUFFER, 2, NEXT, 2),
            (SEAM - 1, 4, WRITE, 0),
        ],
    );
    driver.write(SEAM - 3, b"abc");
    driver.write(SEAM, b"def");
    driver.write(BUFFER, b"gh");
    let chain = driver.walk(0, true);
    let mut bytes = [0; 16];
    assert_eq!(chain.readable.copy_out(2, &mut bytes), 6);
    assert_eq!(&bytes[..6], b"cdefgh");
    assert_eq!(chain.writable.copy_in(1, b"XYZuvw"), 3);
    assert_eq!(&driver.read::<4>(SEAM - 1), b"cXYZ");
}

#[test]
fn heads_come_in_order_and_go_back_with_their_lengths() {
    let mut driver = Driver::new();
    driver.next = 0xfffe;
    driver.set_index(0xfffe);
    let ring = driver.ring(false, None);
    for head in [3, 0, 15] {
        driver.offer(head);
    }
    let mut available = ring.available();
    for head in [3, 0, 15] {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
    }
    assert_eq!(ring.take(&mut available), Ok(None));
    assert_eq!(ring.requests().count(), 3);
    for (head, length) in [(0, 16), (15, 0), (3, 4_112)] {
        assert!(ring.give_back(head, length));
    }
    assert_eq!(ring.requests().count(), 0);
    assert_eq!(driver.read_u16(USED + 2), 3);
    for (slot, (head, length)) in [(0_u32, 16_u32), (15, 0), (3, 4_112)]
        .into_iter()
        .enumerate()
    {
        let at = USED + 4 + 8 * slot as u64;
        assert_eq!(u32::from_le_bytes(driver.read(at)), head);
        assert_eq!(u32::from_le_bytes(driver.read(at + 4)), length);
    }
}

#[test]
fn what_makes_no_sense_in_the_available_ring_is_a_fault() {
    let cases: [(&str, &[u16], Option<u16>, RingFault); 4] = [
        ("index jump", &[], Some(SIZE + 1), RingFault::IndexJump),
        (
            "index before ours",
            &[],
            Some(u16::MAX),
            RingFault::IndexJump,
        ),
        (
            "head beyond the ring",
            &[SIZE],
            None,
            RingFault::HeadOutOfRange,
        ),
        ("head twice", &[2, 2], None, RingFault::HeadInFlight),
    ];
    for (name, heads, index, expected) in cases {
        let mut driver = Driver::new();
        let ring = driver.ring(true, None);
        for &head in heads {
            driver.offer(head);
        }
        if let Some(index) = index {
            driver.set_index(index);
        }
        let mut available = ring.available();
        let fault = loop {
            match ring.take(&mut available) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{name}: accepted"),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, expected, "{name}");
    }
}

#[test]
fn a_full_ring_is_no_fault() {
    let mut driver = Driver::new();
    let ring = driver.ring(true, None);
    for head in 0..SIZE {
        driver.offer(head);
    }
    let mut available = ring.available();
    for head in 0..SIZE {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
    }
}

#[test]
fn the_batch_of_a_thread_is_published_at_its_end_with_one_interrupt() {
    let mut driver = Driver::new();
    let (call, event) = call();
    let ring = driver.ring(false, Some(call));
    for head in 0..3 {
        driver.offer(head);
    }
    let mut available = ring.available();
    ring.begin_batches();
    for head in 0..3 {
        assert_eq!(ring.take(&mut available), Ok(Some(head)));
        assert!(ring.give_back(head, 0));
    }
    assert_eq!((driver.read_u16(USED + 2), signalled(&event)), (0, false));
    ring.flush();
    assert_eq!((driver.read_u16(USED + 2), signalled(&event)), (3, true));
    ring.flush();
    assert!(!signalled(&event), "nothing new, no interrupt");
}

#[test]
fn a_head_given_back_by_another_thread_is_published_at_once() {
    let mut driver = Driver::new();
    let (call, event) = call();
    let ring = driver.ring(false, Some(call));
    driver.offer(7);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(7)));
    ring.begin_batches();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(ring.give_back(7, 16)));
    });
    assert_eq!((driver.read_u16(USED + 2), signalled(&event)), (1, true));
}

#[test]
fn the_driver_says_with_a_flag_or_an_index_when_it_wants_no_interrupt() {
    let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
    for (event_idx, at, refuse, accept) in
        [(false, AVAILABLE, 1_u16, 0_u16), (true, used_event, 100, 2)]
    {
        let mut driver = Driver::new();
        let (call, event) = call();
        let ring = driver.ring(event_idx, Some(call));
        driver.round_trip(&ring, 0);
        assert!(signalled(&event), "the first is always told");
        driver.write(at, &refuse.to_le_bytes());
        driver.round_trip(&ring, 1);
        assert!(!signalled(&event), "event_idx {event_idx}");
        driver.write(at, &accept.to_le_bytes());
        driver.round_trip(&ring, 2);
        assert!(signalled(&event), "event_idx {event_idx}");
    }
}

#[test]
fn the_used_index_goes_on_where_memory_says() {
    let mut driver = Driver::new();
    driver.write(USED + 2, &5_u16.to_le_bytes());
    driver.set_index(5);
    let ring = driver.ring(false, None);
    driver.offer(1);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(1)));
    assert!(ring.give_back(1, 20));
    assert_eq!(driver.read_u16(USED + 2), 6);
    assert_eq!(
        driver.read::<8>(USED + 4 + 8 * 5),
        [1, 0, 0, 0, 20, 0, 0, 0]
    );
}

#[test]
fn a_detached_ring_is_not_written_to() {
    let mut driver = Driver::new();
    let ring = driver.ring(false, None);
    driver.offer(1);
    assert_eq!(ring.take(&mut ring.available()), Ok(Some(1)));
    ring.detach();
    assert!(!ring.give_back(1, 16));
    assert_eq!(driver.read_u16(USED + 2), 0);
    assert_eq!(ring.requests().count(), 0);
}

#[test]
fn a_ring_must_lie_in_memory_and_aligned() {
    let driver = Driver::new();
    let good = Addresses {
        descriptors: USER + DESCRIPTORS,
        available: USER + AVAILABLE,
        used: USER + USED,
    };
    let setup = |addresses| Setup {
        size: SIZE,
        addresses,
        event_idx: true,
        indirect: true,
        next_available: 0,
    };
    assert!(Ring::fits(&driver.memory, &setup(good)));
    for bad in [
        Addresses {
            descriptors: USER - 16,
            ..good
        },
        Addresses {
            descriptors: USER + END - 16,
            ..good
        },
        Addresses {
            descriptors: USER + SEAM - 16,
            ..good
        },
        Addresses {
            descriptors: USER + 8,
            ..good
        },
        Addresses {
            available: USER + 1,
            ..good
        },
        Addresses {
            used: USER + END - 130,
            ..good
        },
        Addresses {
            used: u64::MAX - 3,
            ..good
        },
        Addresses {
            used: USER + 2,
            ..good
        },
        Addresses {
            available: DESCRIPTORS,
            ..good
        },
    ] {
        assert!(!Ring::fits(&driver.memory, &setup(bad)), "{bad:x?}");
    }
}
