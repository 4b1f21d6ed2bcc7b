//! DEFLATE (RFC 1951) by zlib-rs, such that decoding can begin anew between two blocks.
//!
//! An [`Inflater`] stops between blocks, where another one can [continue](Inflater::continue_at) with the 32 KiB before.
//! The safe interfaces of zlib-rs say neither how many bits of a byte are left there, nor do they take such bits: so this
//! is its interface in the manner of C, and the only place that calls it.
//!
//! Of those 32 KiB what follows repeats little: [`References`] tells which of them.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used
    )
)]
#![expect(
    unsafe_code,
    reason = "zlib-rs has these functions in the manner of C alone"
)]

mod references;
#[cfg(test)]
mod tests;

use std::ffi::c_int;
use std::mem::size_of;

pub use references::{Continued, References};

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_OK, Z_STREAM_END, inflate, inflateEnd, inflateInit2_, inflatePrime,
    inflateReset, inflateSetDictionary, z_stream, zlibVersion,
};

/// How far back a stream may refer, in bytes (RFC 1951, section 2).
pub const WINDOW: usize = 32 * 1024;

/// No header and no sum around the stream, and a window of 32 KiB.
const RAW: c_int = -15;

/// Flags of `data_type`.
const LAST_BLOCK: c_int = 64;
const AFTER_BLOCK: c_int = 128;

/// Bytes are no DEFLATE stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no deflate stream")]
pub struct Malformed;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes that were written.
    pub made: usize,
    /// Why no more was done.
    pub stop: Stop,
}

/// Why decoding stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// More input is needed, or room.
    Wants,
    /// A block has ended, and another one follows. So many high bits of the last byte that is done with, 0 to 7, belong
    /// to that.
    Boundary {
        /// How many.
        bits: u8,
    },
    /// The stream has ended. What is left of the last byte says nothing.
    End,
}

/// Decodes a stream. Its memory does not grow.
#[expect(missing_debug_implementations, reason = "zlib's state has none")]
pub struct Inflater {
    stream: Box<z_stream>,
}

// SAFETY: the state is the stream's alone, and nothing of it belongs to a thread.
unsafe impl Send for Inflater {}

impl Inflater {
    /// One that begins a stream.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> std::io::Result<Self> {
        let mut stream = Box::new(z_stream::default());
        let size = c_int::try_from(size_of::<z_stream>()).map_err(std::io::Error::other)?;
        // SAFETY: the stream has no allocators, so that zlib takes its own; the version and the size are those of this
        // very library.
        let begun = unsafe { inflateInit2_(&mut *stream, RAW, zlibVersion(), size) };
        match begun {
            Z_OK => Ok(Self { stream }),
            _ => Err(std::io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// Never, in truth.
    pub fn begin(&mut self) -> Result<(), Malformed> {
        // SAFETY: the stream was initialized, and is until it is dropped.
        match unsafe { inflateReset(&mut *self.stream) } {
            Z_OK => Ok(()),
            _ => Err(Malformed),
        }
    }

    /// Goes on between two blocks, with the `bits` high bits of the byte `before`, behind `window`.
    ///
    /// # Errors
    /// More than seven bits, or more than 32 KiB.
    pub fn continue_at(&mut self, bits: u8, before: u8, window: &[u8]) -> Result<(), Malformed> {
        let low = 8_u8.checked_sub(bits).filter(|low| *low > 0);
        let low = low.ok_or(Malformed)?;
        self.begin()?;
        let value = c_int::from(before.checked_shr(u32::from(low)).unwrap_or(0));
        // SAFETY: as in `begin`.
        if unsafe { inflatePrime(&mut *self.stream, c_int::from(bits), value) } != Z_OK {
            return Err(Malformed);
        }
        let length = u32::try_from(window.len()).map_err(|_| Malformed)?;
        if window.len() > WINDOW {
            return Err(Malformed);
        }
        if window.is_empty() {
            return Ok(());
        }
        // SAFETY: so many bytes are there.
        match unsafe { inflateSetDictionary(&mut *self.stream, window.as_ptr(), length) } {
            Z_OK => Ok(()),
            _ => Err(Malformed),
        }
    }

    /// Decodes to `output`, up to the end of a block.
    ///
    /// # Errors
    /// What is no DEFLATE stream. The inflater is of no use afterwards, but to [begin](Self::begin) anew.
    pub fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Malformed> {
        let (mut consumed, mut made) = (0_usize, 0_usize);
        loop {
            let from = input.get(consumed..).unwrap_or_default();
            let to = output.get_mut(made..).unwrap_or_default();
            let (reads, writes) = (clamp(from.len()), clamp(to.len()));
            self.stream.next_in = from.as_ptr();
            self.stream.avail_in = reads;
            self.stream.next_out = to.as_mut_ptr();
            self.stream.avail_out = writes;
            // SAFETY: so many bytes are there to be read, and so many to be written; nobody else has them meanwhile, and
            // zlib looks at neither once it has returned.
            let status = unsafe { inflate(&mut *self.stream, Z_BLOCK) };
            let read = reads.saturating_sub(self.stream.avail_in);
            let written = writes.saturating_sub(self.stream.avail_out);
            consumed = consumed.saturating_add(usize::try_from(read).unwrap_or(0));
            made = made.saturating_add(usize::try_from(written).unwrap_or(0));
            let flags = self.stream.data_type;
            let stop = match status {
                Z_STREAM_END => Stop::End,
                // "Buffer error": nothing was read or written, but a block may have ended with bits that were read before.
                Z_OK | Z_BUF_ERROR if flags & AFTER_BLOCK == 0 => Stop::Wants,
                // Only the next call says that it was the last.
                Z_OK | Z_BUF_ERROR if flags & LAST_BLOCK != 0 => continue,
                Z_OK | Z_BUF_ERROR => Stop::Boundary {
                    bits: u8::try_from(flags & 7).unwrap_or(0),
                },
                _ => return Err(Malformed),
            };
            return Ok(Step {
                consumed,
                made,
                stop,
            });
        }
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: the stream was initialized, and is not used again.
        unsafe { inflateEnd(&mut *self.stream) };
    }
}

fn clamp(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
