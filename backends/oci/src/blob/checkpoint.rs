//! A place between two blocks of a deflate stream, while it is not known yet what of the window is needed there.
//!
//! Data after a checkpoint repeat little of the 32 KiB before it, for binaries less than a tenth. What they never repeat
//! may as well be zeros, which take no room. Which bytes are repeated shows when the data are decoded again with another
//! window: what comes out differs exactly where a byte of the window was copied to. Deflate copies three bytes or more, so
//! it is enough to change them such that two in a row tell their place ([`Marks`]).

use vfsd_zlib::{Inflater, Stop};

use super::gzip::WINDOW;
use super::span::Window;
use super::{BlobError, Resume};

/// The most of the blob that is kept for decoding it again. The next 32 KiB take more of it only if they were made to.
const INPUT: usize = 2 * WINDOW;

/// How many bytes at the end of a window count as repeated: a copy that begins there goes on with what follows, so that
/// there may be no two in a row.
const END: usize = 2;

/// How hard windows are compressed.
const LEVEL: i32 = 1;

/// How many bytes are looked at together.
const AHEAD: usize = 16;

/// How each byte of a window is changed, and which place two changes in a row are of.
struct Marks {
    changes: Vec<u8>,
    /// For each two bytes.
    places: Vec<u16>,
}

impl Marks {
    fn new() -> Self {
        // A sequence in which each two numbers come once (de Bruijn), without 0, which changes nothing.
        let pairs =
            |first: u8| (first..u8::MAX).flat_map(move |last| [first, last.wrapping_add(1)]);
        let sequence = (1..=u8::MAX).flat_map(|first| std::iter::once(first).chain(pairs(first)));
        let changes: Vec<u8> = sequence.take(WINDOW).collect();
        let mut places = vec![u16::MAX; 1 << 16];
        for (place, two) in (0..).zip(changes.windows(2)) {
            if let [first, second] = two
                && let Some(of) = places.get_mut(number(*first, *second))
            {
                *of = place;
            }
        }
        Self { changes, places }
    }

    /// The place of two bytes that were changed so.
    fn place(&self, first: u8, second: u8) -> Option<usize> {
        let place = self.places.get(number(first, second))?;
        Some(usize::from(*place))
    }
}

/// Two bytes as one number.
fn number(first: u8, second: u8) -> usize {
    usize::from(u16::from_le_bytes([first, second]))
}

/// A checkpoint, and what follows it.
pub(super) struct Checkpoint {
    bits: u8,
    /// The byte of the blob before it, of which these bits are.
    before: u8,
    window: Vec<u8>,
    /// What follows in the blob, at most [`INPUT`].
    input: Vec<u8>,
    /// What that decodes to, at most what can refer to the window.
    output: Vec<u8>,
}

impl Checkpoint {
    /// One that nothing follows yet.
    pub(super) fn new(bits: u8, before: u8, window: &[u8]) -> Self {
        Self {
            bits,
            before,
            window: window.to_vec(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Takes what follows in the blob and what it decodes to, and says whether that is enough.
    pub(super) fn follow(&mut self, input: &[u8], output: &[u8]) -> bool {
        let room = |of: &Vec<u8>, most: usize| most.saturating_sub(of.len());
        let more = input.get(..room(&self.input, INPUT)).unwrap_or(input);
        self.input.extend_from_slice(more);
        let more = output.get(..room(&self.output, WINDOW)).unwrap_or(output);
        self.output.extend_from_slice(more);
        self.output.len() >= WINDOW
    }

    /// Zeros what is never repeated of the window. Does nothing where more of the blob would be needed to tell.
    fn zero(&mut self, repeats: &mut Repeats) {
        if let Some(repeated) = repeats.of(self) {
            for (byte, repeated) in self.window.iter_mut().zip(repeated) {
                *byte &= repeated;
            }
        }
    }
}

/// Makes checkpoints what is stored of them, one after the other.
pub(super) struct Packer {
    repeats: Repeats,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Packer {
    pub(super) fn new() -> Result<Self, BlobError> {
        Ok(Self {
            repeats: Repeats::new()?,
            zstd: zstd::bulk::Compressor::new(LEVEL)?,
        })
    }

    /// How decoding begins at a checkpoint, as far as what followed needs it.
    pub(super) fn resume(&mut self, mut checkpoint: Checkpoint) -> Result<Resume, BlobError> {
        checkpoint.zero(&mut self.repeats);
        Ok(Resume::Block {
            bits: checkpoint.bits,
            window: Window::pack(&mut self.zstd, &checkpoint.window)?,
        })
    }
}

/// Finds out what is repeated of a window.
struct Repeats {
    marks: Marks,
    inflater: Inflater,
    /// The changed window, and behind it what is decoded with that.
    buffer: Box<[u8]>,
    /// For each byte of the window all bits, if it is repeated, or none.
    repeated: Box<[u8]>,
}

impl Repeats {
    fn new() -> Result<Self, BlobError> {
        Ok(Self {
            marks: Marks::new(),
            inflater: Inflater::new()?,
            buffer: vec![0; WINDOW.saturating_mul(2)].into_boxed_slice(),
            repeated: vec![0; WINDOW].into_boxed_slice(),
        })
    }

    /// For each byte of the window all bits, if it is repeated, and for some that are not, or none. `None` where more of
    /// the blob would be needed to tell.
    fn of(&mut self, checkpoint: &Checkpoint) -> Option<&[u8]> {
        let (window, output) = (&checkpoint.window, &checkpoint.output);
        let end = self.decode(checkpoint)?;
        let repeated = self.repeated.get_mut(..window.len())?;
        repeated.fill(0);
        repeated
            .get_mut(window.len().saturating_sub(END)..)?
            .fill(u8::MAX);
        let changes = self.buffer.get_mut(window.len()..end)?;
        for (change, is) in changes.iter_mut().zip(output) {
            *change ^= is;
        }
        let mut at: usize = 0;
        while let Some([first, second, ..]) = changes.get(at..) {
            let before = at;
            at = at.saturating_add(1);
            if *first == 0 {
                // Most are as they were.
                let ahead = changes.get(before..).and_then(<[u8]>::first_chunk);
                if ahead == Some(&[0; AHEAD]) {
                    at = before.saturating_add(AHEAD);
                }
                continue;
            }
            if *second == 0 {
                continue;
            }
            let place = self.marks.place(*first, *second)?;
            // As far as one copy goes. Where it ends and another begins two are of no place, or of one that has other
            // bytes.
            let of_copy = changes
                .get(before..)?
                .iter()
                .zip(self.marks.changes.get(place..).unwrap_or_default())
                .zip(output.get(before..)?.iter())
                .zip(window.get(place..).unwrap_or_default())
                .take_while(|(((is, marked), byte), of)| is == marked && byte == of)
                .count();
            if of_copy >= 2 {
                repeated
                    .get_mut(place..place.saturating_add(of_copy))?
                    .fill(u8::MAX);
                // Its last byte may be the first of another copy.
                at = before.saturating_add(of_copy).saturating_sub(1);
            }
        }
        Some(repeated)
    }

    /// Decodes what follows, with a changed window, and says where it ends: before it should if its member does. What
    /// the next member has repeats nothing.
    fn decode(&mut self, checkpoint: &Checkpoint) -> Option<usize> {
        let length = checkpoint.window.len();
        let end = length.checked_add(checkpoint.output.len())?;
        let buffer = self.buffer.get_mut(..end)?;
        let window = checkpoint.window.iter().zip(&self.marks.changes);
        for (changed, (byte, change)) in buffer.iter_mut().zip(window) {
            *changed = byte ^ change;
        }
        let (window, output) = buffer.split_at_mut_checked(length)?;
        let (bits, before) = (checkpoint.bits, checkpoint.before);
        self.inflater.continue_at(bits, before, window).ok()?;
        let mut input = checkpoint.input.as_slice();
        let mut at = 0;
        while at < output.len() {
            let step = self.inflater.inflate(input, output.get_mut(at..)?).ok()?;
            at = at.saturating_add(step.made);
            match step.stop {
                Stop::End => break,
                Stop::Wants if step.made == 0 && step.consumed == 0 => return None,
                Stop::Wants | Stop::Boundary { .. } => {}
            }
            input = input.get(step.consumed..)?;
        }
        Some(length.saturating_add(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_changes_in_a_row_tell_their_place_and_every_byte_is_changed() {
        let marks = Marks::new();
        assert_eq!(marks.changes.len(), WINDOW);
        assert!(!marks.changes.contains(&0));
        for (place, two) in marks.changes.windows(2).enumerate() {
            assert_eq!(marks.place(two[0], two[1]), Some(place));
        }
    }
}
