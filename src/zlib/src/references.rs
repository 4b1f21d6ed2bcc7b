//! What a stream that goes on between two blocks repeats of the bytes before, told without decoding it.

use std::ops::Range;

use crate::{Malformed, WINDOW};

/// The longest code, in bits.
const LONGEST: usize = 15;

/// How many bits are looked up at once. Longer codes are rare: that is what they are long for.
const AT_ONCE: u32 = 10;

/// Symbols of literals and lengths at most; there are fewer of distances.
const SYMBOLS: usize = 288;

/// The symbol between those of literals and those of lengths.
const END_OF_BLOCK: u16 = 256;

/// What the symbols of lengths, and those of distances, stand for (section 3.2.5).
const LENGTHS: Numbers = Numbers {
    least: &[
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
        131, 163, 195, 227, 258,
    ],
    bits: &[
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
    ],
};
const DISTANCES: Numbers = Numbers {
    least: &[
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
        2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
    ],
    bits: &[
        0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12,
        13, 13,
    ],
};

/// For each symbol the least number that it stands for, and how many bits behind it are added to that.
struct Numbers {
    least: &'static [u16],
    bits: &'static [u8],
}

/// In which order the lengths of the codes stand that lengths of codes are in (section 3.2.7).
const ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// A place between two blocks, and how much follows.
#[derive(Debug, Clone, Copy)]
pub struct Continued<'a> {
    /// So many high bits of the byte `before` are still unread, 0 to 7.
    pub bits: u8,
    /// The byte of the stream before.
    pub before: u8,
    /// What follows of the stream.
    pub input: &'a [u8],
    /// How many bytes before there are, at most 32 KiB.
    pub window: usize,
    /// How many bytes are looked at of those that the input decodes to; fewer if the stream ends.
    pub output: usize,
}

/// Finds out what is repeated of a window: reads the codes of blocks, and copies nothing.
#[derive(Debug, Default)]
pub struct References {
    codes: Codes,
    /// Lengths of the codes of a block.
    lengths: Vec<u8>,
}

/// The codes of a block.
#[derive(Debug, Default)]
struct Codes {
    /// Literals and lengths.
    literals: Code,
    distances: Code,
}

impl References {
    /// Tells the pieces of the window that are repeated, in the order of the stream, those that are repeated more often
    /// more often.
    ///
    /// # Errors
    /// What is no DEFLATE stream, and one of which the input is too short for the output. What was told until then is
    /// repeated.
    pub fn of(
        &mut self,
        at: Continued<'_>,
        mut repeated: impl FnMut(Range<usize>),
    ) -> Result<(), Malformed> {
        let window = Some(at.window).filter(|window| *window <= WINDOW);
        let window = window.ok_or(Malformed)?;
        let mut bits = Bits::behind(at.bits, at.before, at.input)?;
        let mut made = 0;
        while made < at.output {
            let is_last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => {
                    let length = bits.stored()?;
                    made = made.saturating_add(length);
                }
                kind @ (1 | 2) => {
                    match kind {
                        1 => self.codes.fix()?,
                        _ => self.read_codes(&mut bits)?,
                    }
                    let block = (window, at.output);
                    made = self.codes.walk(&mut bits, made, block, &mut repeated)?;
                }
                _ => return Err(Malformed),
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// The codes that a block begins with (section 3.2.7).
    fn read_codes(&mut self, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        let literals = bits.take(5)?.saturating_add(257);
        let all = bits.take(5)?.saturating_add(1).saturating_add(literals);
        let count = bits.take(4)?.saturating_add(4);
        let mut of_lengths = [0; ORDER.len()];
        for place in ORDER.iter().take(count) {
            let length = u8::try_from(bits.take(3)?).map_err(|_| Malformed)?;
            *of_lengths.get_mut(*place).ok_or(Malformed)? = length;
        }
        // Its place is needed for a moment only.
        let code = &mut self.codes.distances;
        code.set(&of_lengths)?;
        self.lengths.clear();
        while self.lengths.len() < all {
            let (length, times) = match code.symbol(bits)? {
                16 => {
                    let last = self.lengths.last().copied().ok_or(Malformed)?;
                    (last, bits.take(2)?.saturating_add(3))
                }
                17 => (0, bits.take(3)?.saturating_add(3)),
                18 => (0, bits.take(7)?.saturating_add(11)),
                length => (u8::try_from(length).map_err(|_| Malformed)?, 1),
            };
            let end = self.lengths.len().saturating_add(times);
            if end > all {
                return Err(Malformed);
            }
            self.lengths.resize(end, length);
        }
        let split = self.lengths.split_at_checked(literals);
        let (literals, distances) = split.ok_or(Malformed)?;
        self.codes.literals.set(literals)?;
        self.codes.distances.set(distances)
    }
}

impl Codes {
    /// Those that a block need not say (section 3.2.6).
    fn fix(&mut self) -> Result<(), Malformed> {
        let mut lengths = [8; SYMBOLS];
        for (symbol, length) in lengths.iter_mut().enumerate() {
            match symbol {
                144..=255 => *length = 9,
                256..=279 => *length = 7,
                _ => {}
            }
        }
        self.literals.set(&lengths)?;
        self.distances.set(&[5; DISTANCES.least.len()])
    }

    /// Goes through a block before which `made` bytes came out, to its end or to where all that counts has, and says how
    /// many have by then.
    fn walk(
        &self,
        from: &mut Bits<'_>,
        mut made: usize,
        (window, output): (usize, usize),
        repeated: &mut impl FnMut(Range<usize>),
    ) -> Result<usize, Malformed> {
        // Where nobody else can see them, they are in registers.
        let mut bits = *from;
        while made < output {
            let symbol = self.literals.symbol(&mut bits)?;
            let Some(of_length) = symbol.checked_sub(END_OF_BLOCK) else {
                made = made.saturating_add(1);
                continue;
            };
            let Some(of_length) = of_length.checked_sub(1) else {
                break;
            };
            let length = bits.number(&LENGTHS, of_length)?;
            let symbol = self.distances.symbol(&mut bits)?;
            let distance = bits.number(&DISTANCES, symbol)?;
            // What reaches back behind the window is of it until its end, and then of what came out.
            if let Some(back) = distance.checked_sub(made).filter(|back| *back > 0) {
                let start = window.checked_sub(back).ok_or(Malformed)?;
                repeated(start..start.saturating_add(length).min(window));
            }
            made = made.saturating_add(length);
        }
        *from = bits;
        Ok(made)
    }
}

/// A prefix code.
#[derive(Debug)]
struct Code {
    /// For what the next bits are: the symbol times 16, and the length of its code; 0 where that is longer.
    symbols: Box<[u16; 1 << AT_ONCE]>,
    /// How many codes of each length there are, and all symbols in the order of their codes: for those that are longer.
    counts: [u16; LONGEST + 1],
    ordered: [u16; SYMBOLS],
}

impl Default for Code {
    fn default() -> Self {
        Self {
            symbols: Box::new([0; 1 << AT_ONCE]),
            counts: [0; LONGEST + 1],
            ordered: [0; SYMBOLS],
        }
    }
}

impl Code {
    /// Becomes the one whose codes have these lengths (section 3.2.2). Not all bits need be a code.
    fn set(&mut self, lengths: &[u8]) -> Result<(), Malformed> {
        self.counts = [0; LONGEST + 1];
        for length in lengths.iter().filter(|length| **length > 0) {
            let count = self.counts.get_mut(usize::from(*length));
            let count = count.ok_or(Malformed)?;
            *count = count.saturating_add(1);
        }
        // For each length: its next code, and its next symbol's place in the order.
        let mut nexts = [(0_u32, 0_usize); LONGEST + 1];
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, (next, count)) in (0_u32..).zip(nexts.iter_mut().zip(&self.counts)) {
            code = code.wrapping_shl(1);
            *next = (code, place);
            code = code.saturating_add(u32::from(*count));
            place = place.saturating_add(usize::from(*count));
            if code > 1_u32.wrapping_shl(length) {
                return Err(Malformed);
            }
        }
        self.symbols.fill(0);
        for (symbol, length) in (0_u16..).zip(lengths).filter(|(_, length)| **length > 0) {
            let next = nexts.get_mut(usize::from(*length));
            let (code, place) = next.ok_or(Malformed)?;
            *self.ordered.get_mut(*place).ok_or(Malformed)? = symbol;
            let length = u32::from(*length);
            if length <= AT_ONCE {
                // The first bit of a code is the lowest of what is read.
                let first = code
                    .reverse_bits()
                    .wrapping_shr(u32::BITS.wrapping_sub(length));
                let first = usize::try_from(first).map_err(|_| Malformed)?;
                let entry = symbol.wrapping_shl(4) | u16::try_from(length).unwrap_or(0);
                let step = 1_usize.wrapping_shl(length);
                for slot in self.symbols.iter_mut().skip(first).step_by(step) {
                    *slot = entry;
                }
            }
            *code = code.saturating_add(1);
            *place = place.saturating_add(1);
        }
        Ok(())
    }

    /// The next symbol.
    #[inline(always)]
    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u16, Malformed> {
        let next = bits.peek();
        let entry = self.symbols.get(low(next, AT_ONCE)).copied().unwrap_or(0);
        let (symbol, length) = match entry {
            0 => self.long(next)?,
            short => (short >> 4, u32::from(short & 15)),
        };
        bits.skip(length)?;
        Ok(symbol)
    }

    /// The symbol of a code that is longer than what is looked up at once, and how long the code is.
    #[cold]
    fn long(&self, next: u64) -> Result<(u16, u32), Malformed> {
        let (mut code, mut first, mut place) = (0_usize, 0_usize, 0_usize);
        for (length, count) in (1_u32..).zip(self.counts.iter().skip(1)) {
            code |= low(next.wrapping_shr(length.wrapping_sub(1)), 1);
            let count = usize::from(*count);
            if let Some(within) = code.checked_sub(first).filter(|within| *within < count) {
                let symbol = self.ordered.get(place.saturating_add(within));
                return Ok((*symbol.ok_or(Malformed)?, length));
            }
            place = place.saturating_add(count);
            first = first.saturating_add(count).wrapping_shl(1);
            code = code.wrapping_shl(1);
        }
        Err(Malformed)
    }
}

/// The bits of a stream, the lowest of each byte first.
#[derive(Clone, Copy)]
struct Bits<'a> {
    /// So many bits that were read and not used; those above are what follows, or none.
    held: u64,
    count: u32,
    rest: &'a [u8],
}

impl<'a> Bits<'a> {
    /// Those that are left of a byte, and those of the bytes behind it.
    fn behind(left: u8, before: u8, rest: &'a [u8]) -> Result<Self, Malformed> {
        let count = u32::from(left);
        let used = u8::BITS.checked_sub(count).filter(|used| *used > 0);
        let held = before.checked_shr(used.ok_or(Malformed)?).unwrap_or(0);
        Ok(Self {
            held: u64::from(held),
            count,
            rest,
        })
    }

    /// The next bits, at least 48 of them if there are so many, and zeros behind the last.
    #[inline(always)]
    fn peek(&mut self) -> u64 {
        if self.count < 48 {
            self.refill();
        }
        self.held
    }

    #[inline(always)]
    fn refill(&mut self) {
        if let Some(word) = self.rest.first_chunk() {
            self.held |= u64::from_le_bytes(*word).wrapping_shl(self.count);
            // Whole bytes, as far as there is room.
            let taken = 63_u32.saturating_sub(self.count) >> 3;
            self.count |= 56;
            let taken = usize::try_from(taken).unwrap_or(0);
            self.rest = self.rest.get(taken..).unwrap_or_default();
            return;
        }
        while self.count <= 56
            && let Some((byte, rest)) = self.rest.split_first()
        {
            self.held |= u64::from(*byte).wrapping_shl(self.count);
            self.count = self.count.saturating_add(8);
            self.rest = rest;
        }
    }

    /// Uses so many bits, at most 48.
    #[inline(always)]
    fn skip(&mut self, count: u32) -> Result<(), Malformed> {
        self.count = self.count.checked_sub(count).ok_or(Malformed)?;
        self.held = self.held.wrapping_shr(count);
        Ok(())
    }

    /// So many bits as a number, at most 48.
    #[inline(always)]
    fn take(&mut self, count: u32) -> Result<usize, Malformed> {
        let taken = low(self.peek(), count);
        self.skip(count)?;
        Ok(taken)
    }

    /// The length or distance of a symbol, with the bits that belong to it.
    #[inline(always)]
    fn number(&mut self, of: &Numbers, symbol: u16) -> Result<usize, Malformed> {
        let symbol = usize::from(symbol);
        let least = of.least.get(symbol).ok_or(Malformed)?;
        let bits = of.bits.get(symbol).ok_or(Malformed)?;
        Ok(usize::from(*least).saturating_add(self.take(u32::from(*bits))?))
    }

    /// Uses a block that is stored as it is, and says how many bytes it has (section 3.2.4).
    fn stored(&mut self) -> Result<usize, Malformed> {
        self.skip(self.count & 7)?;
        let (length, complement) = (self.take(16)?, self.take(16)?);
        if length ^ complement != 0xffff {
            return Err(Malformed);
        }
        // What is held of it was read already.
        let held = usize::try_from(self.count >> 3).unwrap_or(0);
        match length.checked_sub(held) {
            Some(beyond) => {
                (self.held, self.count) = (0, 0);
                // Bytes that are not there are not needed, unless something is read behind them.
                self.rest = self.rest.get(beyond..).unwrap_or_default();
            }
            None => self.skip(u32::try_from(length).unwrap_or(0).wrapping_shl(3))?,
        }
        Ok(length)
    }
}

/// The low bits, at most 48.
#[inline(always)]
fn low(of: u64, count: u32) -> usize {
    let mask = 1_u64.wrapping_shl(count).wrapping_sub(1);
    usize::try_from(of & mask).unwrap_or(0)
}
