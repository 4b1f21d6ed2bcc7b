// UNSAFETY: guest memory is given to preadv2(2) and pwritev2(2), and copied from and to.
#![allow(unsafe_code)]
//! Scattered pieces of guest memory, used in place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use smallvec::SmallVec;
use vfsd_backend::Wait;
use vm_memory::VolatileSlice;

use crate::memory::{MemoryMap, OutsideMemory, Region};

/// Pieces that one system call takes (`UIO_MAXIOV`, include/uapi/linux/uio.h).
const IOV_MAX: usize = 1_024;

/// Pieces that need no allocation. A request of metadata has one or two each way.
const INLINE_PIECES: usize = 4;

/// Some bytes of guest memory, valid only together with the region that they belong to.
#[derive(Debug, Clone, Copy)]
struct Piece {
    address: *mut u8,
    length: usize,
}

impl Piece {
    /// Where the byte behind the last would be.
    fn end(&self) -> *mut u8 {
        self.address.wrapping_add(self.length)
    }
}

/// A sequence of bytes that lies scattered in guest memory, which stays mapped with it.
///
/// The guest may change them at any time, and the front end take them away: then the memory counts as
/// [lost](Self::lost), copies move nothing or zeros, and transfers fail with EFAULT.
#[derive(Debug, Default)]
pub(crate) struct GuestBuffers {
    // Invariant: each piece lies within the mapping of a region that is kept here.
    pieces: SmallVec<[Piece; INLINE_PIECES]>,
    length: usize,
    region: Option<Arc<Region>>,
    /// Those of them that are not the same.
    more_regions: Vec<Arc<Region>>,
}

// SAFETY: the pointers lead into shared mappings that the regions (which are Send and Sync) keep,
// and whoever uses them expects that others do so at the same time.
unsafe impl Send for GuestBuffers {}
// SAFETY: as above.
unsafe impl Sync for GuestBuffers {}

impl GuestBuffers {
    /// Appends `length` bytes at a guest address.
    ///
    /// # Errors
    /// When they are not all memory; then none is appended.
    pub(crate) fn append(
        &mut self,
        memory: &MemoryMap,
        address: u64,
        length: usize,
    ) -> Result<(), OutsideMemory> {
        let before = (self.pieces.len(), self.pieces.last().copied());
        let visited = memory.visit(address, length, |region, slice| {
            let same_region = self.keep(region);
            let piece = Piece {
                address: slice.ptr_guard_mut().as_ptr(),
                length: slice.len(),
            };
            match self.pieces.last_mut() {
                // Pages that follow one another, as a guest's often do, are one piece.
                Some(last) if same_region && last.end() == piece.address => {
                    last.length = last.length.saturating_add(piece.length);
                }
                _ => self.pieces.push(piece),
            }
        });
        match visited {
            Ok(()) => self.length = self.length.saturating_add(length),
            Err(_) => {
                self.pieces.truncate(before.0);
                if let (Some(last), Some(was)) = (self.pieces.last_mut(), before.1) {
                    *last = was;
                }
            }
        }
        visited
    }

    /// Keeps a region, and says whether it is that of the last piece.
    fn keep(&mut self, region: &Arc<Region>) -> bool {
        let last = self.more_regions.last().or(self.region.as_ref());
        let same = last.is_some_and(|last| Arc::ptr_eq(last, region));
        match &self.region {
            _ if same => {}
            None => self.region = Some(Arc::clone(region)),
            Some(_) => self.more_regions.push(Arc::clone(region)),
        }
        same
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether the front end took some of them away, so that copies cannot be trusted.
    pub(crate) fn lost(&self) -> bool {
        self.region
            .iter()
            .chain(&self.more_regions)
            .any(|region| region.lost())
    }

    /// The pieces of up to `length` bytes from `offset`.
    fn window(&self, offset: usize, length: usize) -> impl Iterator<Item = Piece> {
        let mut skip = offset;
        let mut left = length;
        self.pieces.iter().filter_map(move |piece| {
            let skipped = skip.min(piece.length);
            skip = skip.saturating_sub(skipped);
            let length = piece.length.saturating_sub(skipped).min(left);
            left = left.saturating_sub(length);
            // `skipped` is at most the piece's length, so this stays within it or at its end.
            (length > 0).then(|| Piece {
                address: piece.address.wrapping_add(skipped),
                length,
            })
        })
    }

    /// Copies bytes out, from `offset`, until `buffer` is full or there are no more, and says how
    /// many that were.
    pub(crate) fn copy_out(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let mut copied: usize = 0;
        if self.lost() {
            return copied;
        }
        for piece in self.window(offset, buffer.len()) {
            // SAFETY: the piece lies within a mapping that `self` keeps (the invariant), and the slice
            // does not outlive this loop.
            let slice = unsafe { VolatileSlice::new(piece.address, piece.length) };
            let target = buffer.get_mut(copied..).unwrap_or_default();
            copied = copied.saturating_add(slice.copy_to(target));
        }
        copied
    }

    /// Copies `bytes` in, from `offset`, as far as there is room, and says how many that were.
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) -> usize {
        let mut copied: usize = 0;
        if self.lost() {
            return copied;
        }
        for piece in self.window(offset, bytes.len()) {
            // SAFETY: as in `copy_out`.
            let slice = unsafe { VolatileSlice::new(piece.address, piece.length) };
            slice.copy_from(bytes.get(copied..).unwrap_or_default());
            copied = copied.saturating_add(piece.length);
        }
        copied
    }

    /// Reads up to `length` bytes of `file` from `file_offset` to where `offset` is, and says how
    /// many there were; fewer only at the end of the file.
    ///
    /// # Errors
    /// What preadv2(2) answers; then the content of these bytes is undefined. EFAULT if some are lost.
    pub(crate) fn read_from(
        &self,
        file: BorrowedFd<'_>,
        file_offset: u64,
        offset: usize,
        length: usize,
        wait: Wait,
    ) -> io::Result<usize> {
        if self.lost() {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        let length = length.min(self.length.saturating_sub(offset));
        let mut done: usize = 0;
        while done < length {
            let vectors = self.vectors(offset.saturating_add(done), length.saturating_sub(done));
            match transfer(
                Direction::Read,
                file,
                &vectors,
                position(file_offset, done)?,
                wait,
            ) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                // The rest of a file opened with O_DIRECT, behind its unaligned end. Any other error
                // must show: a short count would look like the end of the file.
                Err(error) if done > 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes up to `length` bytes from `offset` to `file` at `file_offset`, and says how many
    /// were written: fewer when the file system takes no more.
    ///
    /// # Errors
    /// What pwritev2(2) answers when nothing was written. EFAULT if some are lost: there may be zeros
    /// in their place by now.
    pub(crate) fn write_to(
        &self,
        file: BorrowedFd<'_>,
        file_offset: u64,
        offset: usize,
        length: usize,
        wait: Wait,
    ) -> io::Result<usize> {
        if self.lost() {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        let length = length.min(self.length.saturating_sub(offset));
        let mut done: usize = 0;
        while done < length {
            let vectors = self.vectors(offset.saturating_add(done), length.saturating_sub(done));
            let asked: usize = vectors
                .iter()
                .fold(0, |sum, vector| usize::saturating_add(sum, vector.iov_len));
            match transfer(
                Direction::Write,
                file,
                &vectors,
                position(file_offset, done)?,
                wait,
            ) {
                Ok(count) => {
                    done = done.saturating_add(count);
                    if count < asked {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// At most [`IOV_MAX`] vectors for the bytes from `offset`.
    fn vectors(&self, offset: usize, length: usize) -> SmallVec<[libc::iovec; INLINE_PIECES]> {
        self.window(offset, length)
            .take(IOV_MAX)
            .map(|piece| libc::iovec {
                iov_base: piece.address.cast(),
                iov_len: piece.length,
            })
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Read,
    Write,
}

fn position(file_offset: u64, done: usize) -> io::Result<i64> {
    u64::try_from(done)
        .ok()
        .and_then(|done| file_offset.checked_add(done))
        .and_then(|position| i64::try_from(position).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// One preadv2(2) or pwritev2(2), made again if a signal interrupted it.
fn transfer(
    direction: Direction,
    file: BorrowedFd<'_>,
    vectors: &[libc::iovec],
    position: i64,
    wait: Wait,
) -> io::Result<usize> {
    let flags = match wait {
        Wait::Allowed => 0,
        Wait::Refused => libc::RWF_NOWAIT,
    };
    let count = libc::c_int::try_from(vectors.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    loop {
        // SAFETY: `vectors` is valid for `count` elements, and each names bytes of a mapping that
        // outlives the call. The kernel checks the addresses anew and answers EFAULT, and nobody
        // holds Rust references to guest memory.
        let result = unsafe {
            match direction {
                Direction::Read => {
                    libc::preadv2(file.as_raw_fd(), vectors.as_ptr(), count, position, flags)
                }
                Direction::Write => {
                    libc::pwritev2(file.as_raw_fd(), vectors.as_ptr(), count, position, flags)
                }
            }
        };
        match usize::try_from(result) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
