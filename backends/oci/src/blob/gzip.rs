//! gzip, member after member, with the block boundaries at which decoding can begin anew.

use crc32fast::Hasher;
pub(crate) use vfsd_zlib::WINDOW;
use vfsd_zlib::{Inflater, Step as Inflated, Stop};

use super::BlobError;
use super::decoder::{Point, Step};
use super::header::HeaderParser;

/// What is decoded at most between two moves of the window to the buffer's start.
const OUTPUT: usize = 256 * 1024;

/// Decodes concatenated gzip members. Zeros after the last one are taken for padding.
pub(crate) struct GzipDecoder {
    state: State,
    inflater: Inflater,
    /// The current member's last bytes: at least 32 KiB of them, if it has so many.
    buffer: Box<[u8]>,
    filled: usize,
    /// Of the current member, if it is known from its start and to be checked.
    sums: Option<Sums>,
    members_ended: u64,
}

enum State {
    Header(HeaderParser),
    Body,
    Trailer { bytes: [u8; 8], have: usize },
    Between,
    Padding,
}

impl GzipDecoder {
    /// One that starts with a member. `check` says whether members' checksums are verified: not
    /// needed for what has a better one.
    pub(crate) fn new(check: bool) -> Result<Self, BlobError> {
        Ok(Self {
            state: State::Header(HeaderParser::new()),
            inflater: Inflater::new()?,
            buffer: vec![0; WINDOW.saturating_add(OUTPUT)].into_boxed_slice(),
            filled: 0,
            sums: check.then(Sums::default),
            members_ended: 0,
        })
    }

    /// One that starts between two blocks, with `bits` high bits of the byte `before`.
    pub(crate) fn resume(bits: u8, before: u8, window: &[u8]) -> Result<Self, BlobError> {
        let mut decoder = Self::new(false)?;
        let continued = decoder.inflater.continue_at(bits, before, window);
        continued.map_err(|_| BlobError::Malformed("a checkpoint of more than 7 bits"))?;
        decoder
            .buffer
            .get_mut(..window.len())
            .filter(|_| window.len() <= WINDOW)
            .ok_or(BlobError::Malformed("a window of more than 32 KiB"))?
            .copy_from_slice(window);
        decoder.filled = window.len();
        decoder.state = State::Body;
        Ok(decoder)
    }

    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step<'_>, BlobError> {
        let mut consumed = 0;
        let mut point = None;
        let mut output = 0..0;
        match &mut self.state {
            State::Header(header) => {
                let (taken, complete) = header.push(input)?;
                consumed = taken;
                if complete {
                    self.state = State::Body;
                    let begun = self.inflater.begin();
                    begun.map_err(|_| BlobError::Malformed("gzip: no deflate stream"))?;
                    self.filled = 0;
                    if let Some(sums) = &mut self.sums {
                        *sums = Sums::default();
                    }
                }
            }
            State::Body => {
                let start = self.make_room();
                let room = self.buffer.get_mut(start..).unwrap_or_default();
                let inflated = self.inflater.inflate(input, room);
                let Inflated {
                    consumed: taken,
                    made,
                    stop,
                } = inflated.map_err(|_| BlobError::Malformed("gzip: no deflate stream"))?;
                consumed = taken;
                self.filled = start.saturating_add(made);
                output = start..self.filled;
                if let Some(sums) = &mut self.sums {
                    sums.update(self.buffer.get(output.clone()).unwrap_or_default());
                }
                match stop {
                    Stop::Wants => {}
                    Stop::Boundary { bits } => point = Some(Point::Block { bits }),
                    Stop::End => {
                        self.state = State::Trailer {
                            bytes: [0; 8],
                            have: 0,
                        };
                    }
                }
            }
            State::Trailer { bytes, have } => {
                for (to, from) in bytes.iter_mut().skip(*have).zip(input) {
                    *to = *from;
                    consumed = consumed.saturating_add(1);
                }
                *have = have.saturating_add(consumed);
                if *have == bytes.len() {
                    if let Some(sums) = &self.sums {
                        sums.compare(*bytes)?;
                    }
                    self.members_ended = self.members_ended.saturating_add(1);
                    self.state = State::Between;
                }
            }
            State::Between => match input.first() {
                None => {}
                Some(0) => self.state = State::Padding,
                Some(_) => {
                    point = Some(Point::Fresh);
                    self.state = State::Header(HeaderParser::new());
                }
            },
            State::Padding => {
                if input.iter().any(|byte| *byte != 0) {
                    return Err(BlobError::Malformed("gzip: garbage after the last member"));
                }
                consumed = input.len();
            }
        }
        // A change of state alone is no progress that a caller can see.
        if consumed == 0 && output.is_empty() && point.is_none() && self.has_more_to_do(input) {
            return self.step(input);
        }
        Ok(Step {
            consumed,
            output: self.buffer.get(output).unwrap_or_default(),
            point,
        })
    }

    /// Whether a step that changed nothing but the state must be followed by another one: only from
    /// `Between` to `Padding`, so it happens once.
    fn has_more_to_do(&self, input: &[u8]) -> bool {
        matches!(self.state, State::Padding) && !input.is_empty()
    }

    /// Makes room for output and says where it begins.
    fn make_room(&mut self) -> usize {
        if self.buffer.len().saturating_sub(self.filled) < WINDOW {
            let keep = self.filled.saturating_sub(WINDOW)..self.filled;
            let kept = keep.len();
            self.buffer.copy_within(keep, 0);
            self.filled = kept;
        }
        self.filled
    }

    pub(crate) fn window(&self) -> &[u8] {
        let start = self.filled.saturating_sub(WINDOW);
        self.buffer.get(start..self.filled).unwrap_or_default()
    }

    pub(crate) fn members_ended(&self) -> u64 {
        self.members_ended
    }

    pub(crate) fn may_end(&self) -> bool {
        matches!(self.state, State::Between | State::Padding)
    }
}

/// What a member's trailer says of its content.
#[derive(Default)]
struct Sums {
    crc: Hasher,
    /// Modulo 2^32, as the format has it.
    length: u32,
}

impl Sums {
    fn update(&mut self, output: &[u8]) {
        self.crc.update(output);
        let [a, b, c, d, ..] = output.len().to_le_bytes();
        self.length = self.length.wrapping_add(u32::from_le_bytes([a, b, c, d]));
    }

    fn compare(&self, trailer: [u8; 8]) -> Result<(), BlobError> {
        let [a, b, c, d, e, f, g, h] = trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.clone().finalize() {
            return Err(BlobError::Malformed("gzip: wrong checksum"));
        }
        if u32::from_le_bytes([e, f, g, h]) != self.length {
            return Err(BlobError::Malformed("gzip: wrong length"));
        }
        Ok(())
    }
}
