//! A place between two blocks of a deflate stream, while it is not known yet what of the window is needed there.
//!
//! Data after a checkpoint repeat little of the 32 KiB before it, for binaries less than a tenth. What they never repeat
//! may as well be zeros, which take no room.

use vfsd_zlib::{Continued, References};

use super::gzip::WINDOW;
use super::span::Window;
use super::{BlobError, Resume};

/// The most of the blob that is kept for finding out. The next 32 KiB take more of it only if they were made to.
const INPUT: usize = 2 * WINDOW;

/// How hard windows are compressed.
const LEVEL: i32 = 1;

/// A checkpoint, and what follows it.
pub(super) struct Checkpoint {
    bits: u8,
    /// The byte of the blob before it, of which these bits are.
    before: u8,
    window: Vec<u8>,
    /// What follows in the blob, at most [`INPUT`].
    input: Vec<u8>,
    /// How many bytes that decodes to, at most so many as can refer to the window.
    output: usize,
}

impl Checkpoint {
    /// One that nothing follows yet.
    pub(super) fn new(bits: u8, before: u8, window: &[u8]) -> Self {
        Self {
            bits,
            before,
            window: window.to_vec(),
            input: Vec::new(),
            output: 0,
        }
    }

    /// Takes what follows in the blob and what it decodes to, and says whether that is enough.
    pub(super) fn follow(&mut self, input: &[u8], output: &[u8]) -> bool {
        let room = INPUT.saturating_sub(self.input.len());
        let more = input.get(..room).unwrap_or(input);
        self.input.extend_from_slice(more);
        self.output = self.output.saturating_add(output.len()).min(WINDOW);
        self.output >= WINDOW
    }
}

/// Makes checkpoints what is stored of them, one after the other.
pub(super) struct Packer {
    references: References,
    /// A window, and zeros where it is never repeated.
    needed: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Packer {
    pub(super) fn new() -> Result<Self, BlobError> {
        Ok(Self {
            references: References::default(),
            needed: Vec::with_capacity(WINDOW),
            zstd: zstd::bulk::Compressor::new(LEVEL)?,
        })
    }

    /// How decoding begins at a checkpoint, as far as what followed needs it.
    pub(super) fn resume(&mut self, checkpoint: Checkpoint) -> Result<Resume, BlobError> {
        let window = &checkpoint.window;
        let needed = &mut self.needed;
        needed.clear();
        needed.resize(window.len(), 0);
        let at = Continued {
            bits: checkpoint.bits,
            before: checkpoint.before,
            input: &checkpoint.input,
            window: window.len(),
            output: checkpoint.output,
        };
        let told = self.references.of(at, |repeated| {
            let from = window.get(repeated.clone());
            if let (Some(from), Some(to)) = (from, needed.get_mut(repeated)) {
                to.copy_from_slice(from);
            }
        });
        // All of it where more of the blob would be needed to tell.
        let window = if told.is_ok() { needed } else { window };
        Ok(Resume::Block {
            bits: checkpoint.bits,
            window: Window::pack(&mut self.zstd, window)?,
        })
    }
}
