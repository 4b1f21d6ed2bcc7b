//! Chains, well made and not.

use super::super::chain::MAX_ENTRIES;
use super::super::{Chain, ChainFault};
use super::{
    BUFFER, DESCRIPTORS, Driver, END, Entry, INDIRECT, NEXT, Pointer, SEAM, SIZE, TABLE, WRITE,
};

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

/// Numbers that look random and are the same each time (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn entry(&mut self) -> Entry {
        let address = match self.below(8) {
            0 => self.next(),
            1 => END - self.below(64),
            2 => SEAM - self.below(64),
            _ => self.below(END),
        };
        let length = match self.below(8) {
            0 => self.next() as u32,
            1 => 0,
            2 => 16 * self.below(20) as u32,
            _ => self.below(100) as u32,
        };
        let flags = if self.below(8) == 0 {
            self.next() as u16
        } else {
            self.below(4) as u16
        };
        let next = if self.below(8) == 0 {
            self.next() as u16
        } else {
            self.below(16) as u16
        };
        (address, length, flags, next)
    }
}

/// What a chain of the ring's own table comes to by the rules: bytes to read and to write. None if
/// it breaks one, or goes on in a table of its own.
fn by_the_rules(entries: &[Entry], head: u16) -> Option<(usize, usize)> {
    let (mut readable, mut writable, mut any_writable) = (0_u64, 0_u64, false);
    let mut index = usize::from(head);
    for _ in 0..MAX_ENTRIES {
        let &(address, length, flags, next) = entries.get(index)?;
        let length = u64::from(length);
        let inside = address.checked_add(length).is_some_and(|end| end <= END);
        if flags & INDIRECT != 0 || length > 0 && !inside {
            return None;
        }
        match (flags & WRITE != 0, length) {
            (_, 0) => {}
            (true, _) => (writable, any_writable) = (writable + length, true),
            (false, _) if any_writable => return None,
            (false, _) => readable += length,
        }
        if flags & NEXT == 0 {
            let fits = readable + writable <= u64::from(u32::MAX);
            return fits.then_some((readable as usize, writable as usize));
        }
        index = usize::from(next);
    }
    None
}

#[test]
fn whatever_a_table_holds_a_chain_is_taken_only_by_the_rules_and_stays_in_memory() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let driver = Driver::new();
    let mut taken = 0;
    for round in 0..20_000 {
        let entries: Vec<Entry> = (0..SIZE).map(|_| numbers.entry()).collect();
        driver.describe(DESCRIPTORS, &entries);
        let head = numbers.below(u64::from(SIZE) + 1) as u16;
        let chain = driver.walk(head, round % 2 == 0);
        match by_the_rules(&entries, head) {
            Some((readable, writable)) => {
                taken += 1;
                assert_eq!(
                    outcome(&chain),
                    (readable, writable, None),
                    "{head} {entries:x?}"
                );
            }
            None => {
                let indirect = entries.iter().any(|entry| entry.2 & INDIRECT != 0);
                assert!(chain.fault.is_some() || indirect, "{head} {entries:x?}");
            }
        }
        // Each byte can be reached.
        let mut bytes = vec![0; chain.readable.len().min(1 << 20)];
        assert_eq!(chain.readable.copy_out(0, &mut bytes), bytes.len());
        let end = chain.writable.len();
        assert_eq!(
            chain.writable.copy_in(end.saturating_sub(1), b"xy"),
            end.min(1)
        );
    }
    assert!(taken > 1_000, "{taken} chains that follow the rules");
}
