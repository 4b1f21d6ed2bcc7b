//! Chains of descriptors (virtio 1.3, section 2.7.5), walked once and whole.

use smallvec::{SmallVec, smallvec};

use crate::iovec::GuestBuffers;
use crate::memory::{MemoryMap, Part};

/// Descriptors that a chain may have: the pages of the largest request (`max_pages` 256), and
/// some for headers, arguments and unaligned ends.
pub(crate) const MAX_ENTRIES: usize = 256 + 8;

/// Bytes of a descriptor: address, length, flags, next.
pub(crate) const DESCRIPTOR_LENGTH: usize = 16;

/// Bytes of an indirect table that need no allocation: those of a request of metadata.
const INLINE_TABLE: usize = 8 * DESCRIPTOR_LENGTH;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainFault {
    OutsideMemory,
    NextOutOfRange,
    TooManyEntries,
    ReadableAfterWritable,
    TooManyBytes,
    IndirectNotNegotiated,
    NestedIndirect,
    IndirectWithNext,
    IndirectTableLength,
    ShortHeader,
}

impl ChainFault {
    /// All of them, with what the log and the metrics call them.
    pub(crate) const ALL: [(Self, &'static str); 10] = [
        (Self::OutsideMemory, "outside_memory"),
        (Self::NextOutOfRange, "next_out_of_range"),
        (Self::TooManyEntries, "too_many_entries"),
        (Self::ReadableAfterWritable, "readable_after_writable"),
        (Self::TooManyBytes, "too_many_bytes"),
        (Self::IndirectNotNegotiated, "indirect_not_negotiated"),
        (Self::NestedIndirect, "nested_indirect"),
        (Self::IndirectWithNext, "indirect_with_next"),
        (Self::IndirectTableLength, "indirect_table_length"),
        (Self::ShortHeader, "short_header"),
    ];

    /// What the guest is told, if it can be told anything. An address outside memory is not always
    /// the driver's fault: User-Mode Linux writes from its zero page, which it does not share.
    pub(crate) fn errno(self) -> i32 {
        match self {
            Self::OutsideMemory => libc::EFAULT,
            _ => libc::EIO,
        }
    }
}

/// What a chain consists of.
///
/// If it has a fault, both sequences end before the first descriptor of their kind that cannot be
/// used, so what they hold is in its place.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) readable: GuestBuffers,
    pub(crate) writable: GuestBuffers,
    pub(crate) fault: Option<ChainFault>,
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn decode(bytes: [u8; DESCRIPTOR_LENGTH]) -> Self {
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            l0,
            l1,
            l2,
            l3,
            f0,
            f1,
            n0,
            n1,
        ] = bytes;
        Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Where descriptors are read from: the ring's own table, or our copy of an indirect one.
enum Table<'a> {
    Ring { part: &'a Part, size: u16 },
    Indirect(SmallVec<[u8; INLINE_TABLE]>),
}

impl Table<'_> {
    /// A copy of a descriptor, if the table has it.
    fn get(&self, index: u16) -> Option<Descriptor> {
        let at = usize::from(index).checked_mul(DESCRIPTOR_LENGTH)?;
        let mut bytes = [0; DESCRIPTOR_LENGTH];
        match self {
            Self::Ring { part, size } => {
                (index < *size && part.read(at, &mut bytes)).then_some(())?;
            }
            Self::Indirect(table) => {
                let end = at.checked_add(DESCRIPTOR_LENGTH)?;
                bytes.copy_from_slice(table.get(at..end)?);
            }
        }
        Some(Descriptor::decode(bytes))
    }
}

/// The chain so far.
struct Collector<'a> {
    memory: &'a MemoryMap,
    chain: Chain,
    /// Whether the next readable, or writable, descriptor would be in its place.
    readable_intact: bool,
    writable_intact: bool,
    any_writable: bool,
    bytes: u64,
}

impl<'a> Collector<'a> {
    fn new(memory: &'a MemoryMap) -> Self {
        let chain = Chain {
            readable: GuestBuffers::default(),
            writable: GuestBuffers::default(),
            fault: None,
        };
        Self {
            memory,
            chain,
            readable_intact: true,
            writable_intact: true,
            any_writable: false,
            bytes: 0,
        }
    }

    /// Notes a fault; the first decides what the guest is told.
    fn fault(&mut self, fault: ChainFault) {
        self.chain.fault.get_or_insert(fault);
    }

    fn add(&mut self, descriptor: &Descriptor) {
        let writable = descriptor.has(WRITE);
        if !writable && self.any_writable {
            self.fault(ChainFault::ReadableAfterWritable);
            self.readable_intact = false;
        }
        self.any_writable |= writable;
        self.bytes = self.bytes.saturating_add(u64::from(descriptor.length));
        if self.bytes > u64::from(u32::MAX) {
            self.fault(ChainFault::TooManyBytes);
            self.readable_intact = false;
            self.writable_intact = false;
        }
        let (buffers, intact) = if writable {
            (&mut self.chain.writable, &mut self.writable_intact)
        } else {
            (&mut self.chain.readable, &mut self.readable_intact)
        };
        let appended = usize::try_from(descriptor.length).is_ok_and(|length| {
            !*intact
                || buffers
                    .append(self.memory, descriptor.address, length)
                    .is_ok()
        });
        if !appended {
            *intact = false;
            self.fault(ChainFault::OutsideMemory);
        }
    }
}

/// Walks the chain that begins at `head` of the ring's table `descriptors` of `size` entries.
///
/// Each descriptor and each indirect table is copied before it is looked at, so the guest cannot
/// change what was checked. The walk ends after [`MAX_ENTRIES`] descriptors whatever the guest
/// does.
pub(crate) fn walk(
    memory: &MemoryMap,
    descriptors: &Part,
    size: u16,
    head: u16,
    indirect_negotiated: bool,
) -> Chain {
    let mut collector = Collector::new(memory);
    if let Err(fault) = follow(
        &mut collector,
        Table::Ring {
            part: descriptors,
            size,
        },
        head,
        indirect_negotiated,
    ) {
        collector.fault(fault);
    }
    collector.chain
}

/// Goes from descriptor to descriptor. An error is a fault behind which nothing can be followed.
fn follow(
    collector: &mut Collector<'_>,
    mut table: Table<'_>,
    head: u16,
    indirect_negotiated: bool,
) -> Result<(), ChainFault> {
    let mut index = head;
    let mut left = MAX_ENTRIES;
    loop {
        let descriptor = table.get(index).ok_or(ChainFault::NextOutOfRange)?;
        if descriptor.has(INDIRECT) {
            table = match table {
                Table::Indirect(_) => return Err(ChainFault::NestedIndirect),
                Table::Ring { .. } if !indirect_negotiated => {
                    return Err(ChainFault::IndirectNotNegotiated);
                }
                Table::Ring { .. } => copy_indirect(collector.memory, &descriptor)?,
            };
            index = 0;
            continue;
        }
        left = left.checked_sub(1).ok_or(ChainFault::TooManyEntries)?;
        // A buffer of no bytes may point anywhere.
        if descriptor.length > 0 {
            collector.add(&descriptor);
        }
        if !descriptor.has(NEXT) {
            return Ok(());
        }
        index = descriptor.next;
    }
}

fn copy_indirect(
    memory: &MemoryMap,
    descriptor: &Descriptor,
) -> Result<Table<'static>, ChainFault> {
    if descriptor.has(NEXT) {
        return Err(ChainFault::IndirectWithNext);
    }
    let length = usize::try_from(descriptor.length).unwrap_or(usize::MAX);
    if length == 0 || length.checked_rem(DESCRIPTOR_LENGTH) != Some(0) {
        return Err(ChainFault::IndirectTableLength);
    }
    if length > MAX_ENTRIES.saturating_mul(DESCRIPTOR_LENGTH) {
        return Err(ChainFault::TooManyEntries);
    }
    let mut table = smallvec![0; length];
    memory
        .read(descriptor.address, &mut table)
        .map_err(|_| ChainFault::OutsideMemory)?;
    Ok(Table::Indirect(table))
}
