//! A place between two blocks of a deflate stream, while it is not known yet what of the window is needed there.
//!
//! Data after a checkpoint repeat little of the 32 KiB before it, for binaries less than a tenth. What they never repeat
//! may as well be zeros, which take no room. Which bytes are repeated shows when the data are decoded again with another
//! window: what comes out differs exactly where a byte of the window was copied to.

use super::gzip::{GzipDecoder, WINDOW};
use super::span::Window;
use super::{BlobError, Resume};

/// The most of the blob that is kept for decoding it again. The next 32 KiB take more of it only if they were made to.
const INPUT: usize = 2 * WINDOW;

/// Values that tell bytes of a window apart: all but 0, which changes nothing.
const VALUES: usize = 255;

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
        packer: &mut zstd::bulk::Compressor<'static>,
    ) -> Result<Resume, BlobError> {
        if let Some(repeated) = self.repeated() {
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

    /// For each byte of the window whether it is repeated; none where more of the blob would be needed to tell.
    fn repeated(&self) -> Option<Vec<bool>> {
        // Two digits of a byte's place, each changed by one more than it is.
        let low = self.decode(|place| place % VALUES)?;
        let high = self.decode(|place| place / VALUES)?;
        let mut repeated = vec![false; self.window.len()];
        let digit = |output: u8, is: u8| usize::from(output ^ is).checked_sub(1);
        for (is, (low, high)) in self.output.iter().zip(low.iter().zip(&high)) {
            if let (Some(low), Some(high)) = (digit(*low, *is), digit(*high, *is)) {
                let place = high.saturating_mul(VALUES).saturating_add(low);
                *repeated.get_mut(place)? = true;
            }
        }
        Some(repeated)
    }

    /// What follows, decoded with a window of which each byte differs by one more than the digit of its place.
    fn decode(&self, digit: impl Fn(usize) -> usize) -> Option<Vec<u8>> {
        let bytes = self.window.iter().enumerate().map(|(place, byte)| {
            let change = u8::try_from(digit(place).saturating_add(1)).ok()?;
            Some(byte ^ change)
        });
        let window = bytes.collect::<Option<Vec<u8>>>()?;
        let mut decoder = GzipDecoder::resume(self.bits, self.before, &window, WINDOW).ok()?;
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
