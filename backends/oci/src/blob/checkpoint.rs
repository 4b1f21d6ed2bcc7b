//! A place between two blocks of a deflate stream, while it is not known yet what of the window is needed there.
//!
//! Data after a checkpoint repeat little of the 32 KiB before it, for binaries less than a tenth. What they never repeat
//! may as well be zeros, which take no room. Which bytes are repeated shows when the data are decoded again with another
//! window: what comes out differs exactly where a byte of the window was copied to. Deflate copies three bytes or more, so
//! it is enough to change them such that two in a row tell their place ([`Marks`]).

use super::gzip::{GzipDecoder, WINDOW};
use super::span::Window;
use super::{BlobError, Resume};

/// The most of the blob that is kept for decoding it again. The next 32 KiB take more of it only if they were made to.
const INPUT: usize = 2 * WINDOW;

/// How many bytes at the end of a window count as repeated: a copy that begins there goes on with what follows, so that
/// there may be no two in a row.
const END: usize = 2;

/// How each byte of a window is changed, and which place two changes in a row are of.
pub(super) struct Marks {
    changes: Vec<u8>,
    /// For each two bytes.
    places: Vec<u16>,
}

impl Marks {
    pub(super) fn new() -> Self {
        // A sequence in which each two numbers come once (de Bruijn), without 0, which changes nothing.
        let pairs =
            |first: u8| (first..u8::MAX).flat_map(move |last| [first, last.wrapping_add(1)]);
        let sequence = (1..=u8::MAX).flat_map(|first| std::iter::once(first).chain(pairs(first)));
        let changes: Vec<u8> = sequence.take(WINDOW).collect();
        let mut places = vec![u16::MAX; 1 << 16];
        for (place, two) in (0..).zip(changes.windows(2)) {
            if let Some(of) = number(two).and_then(|number| places.get_mut(number)) {
                *of = place;
            }
        }
        Self { changes, places }
    }

    /// The place of two bytes that were changed so.
    fn place(&self, changes: &[u8]) -> Option<usize> {
        let place = self.places.get(number(changes)?)?;
        Some(usize::from(*place))
    }
}

/// Two bytes as one number.
fn number(two: &[u8]) -> Option<usize> {
    let two = two.first_chunk::<2>()?;
    Some(usize::from(u16::from_le_bytes(*two)))
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

    /// How decoding begins here, as far as what followed needs it.
    pub(super) fn resume(
        mut self,
        marks: &Marks,
        packer: &mut zstd::bulk::Compressor<'static>,
    ) -> Result<Resume, BlobError> {
        if let Some(repeated) = self.repeated(marks) {
            for (byte, is_repeated) in self.window.iter_mut().zip(repeated) {
                if !is_repeated {
                    *byte = 0;
                }
            }
        }
        Ok(Resume::Block {
            bits: self.bits,
            window: Window::pack(packer, &self.window)?,
        })
    }

    /// For each byte of the window whether it is repeated, and for some that are not; none where more of the blob would
    /// be needed to tell.
    fn repeated(&self, marks: &Marks) -> Option<Vec<bool>> {
        let changed = self.window.iter().zip(&marks.changes);
        let changed: Vec<u8> = changed.map(|(byte, change)| byte ^ change).collect();
        let output = self.decode(&changed)?;
        let mut repeated = vec![false; self.window.len()];
        let end = self.window.len().saturating_sub(END);
        repeated.get_mut(end..)?.fill(true);
        let changes = self.output.iter().zip(&output);
        let changes: Vec<u8> = changes.map(|(is, changed)| is ^ changed).collect();
        for (is, changes) in self.output.windows(2).zip(changes.windows(2)) {
            if changes.contains(&0) {
                continue;
            }
            let place = marks.place(changes)?;
            let places = place..place.saturating_add(2);
            // Where one copy ends and another begins the two are of no place, or of one that has other bytes.
            if self.window.get(places.clone()) == Some(is) {
                repeated.get_mut(places)?.fill(true);
            }
        }
        Some(repeated)
    }

    /// What follows, decoded with another window.
    fn decode(&self, window: &[u8]) -> Option<Vec<u8>> {
        let mut decoder = GzipDecoder::resume(self.bits, self.before, window, WINDOW).ok()?;
        let mut input = self.input.as_slice();
        let mut output = Vec::with_capacity(self.output.len());
        while output.len() < self.output.len() {
            let step = decoder.step(input).ok()?;
            if step.is_stalled() {
                return None;
            }
            input = input.get(step.consumed..)?;
            output.extend_from_slice(step.output);
        }
        Some(output)
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
            assert_eq!(marks.place(two), Some(place));
        }
    }
}
