//! Memory in which the daemon passes the data of WRITEs.

// UNSAFETY: mmap(2), and slices of what it maps, which another process writes to.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfsd_plugin_protocol::is_area;

/// The area of one connection, mapped.
#[derive(Debug)]
pub(crate) struct Area {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is memory that no thread of this process writes to, and that stays mapped as long as this value.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

/// The data of one WRITE, until it is answered.
#[derive(Debug)]
pub(crate) struct Range {
    area: Arc<Area>,
    offset: usize,
    length: usize,
}

impl Area {
    /// Maps the area that a descriptor is of. `None` if it is none of that size, or cannot be mapped.
    pub(crate) fn map(descriptor: &OwnedFd, bytes: u32) -> Option<Arc<Self>> {
        let length = usize::try_from(bytes).ok().filter(|length| *length > 0)?;
        if !is_area(descriptor, bytes) {
            return None;
        }
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                descriptor,
                0,
            )
        };
        let start = NonNull::new(start.ok()?.cast())?;
        Some(Arc::new(Self { start, length }))
    }

    /// A part of it. `None` for what is not inside.
    pub(crate) fn range(self: &Arc<Self>, offset: u64, length: u32) -> Option<Range> {
        let (offset, length) = (offset.try_into().ok()?, length.try_into().ok()?);
        let end = usize::checked_add(offset, length)?;
        let area = Arc::clone(self);
        (end <= self.length).then_some(Range {
            area,
            offset,
            length,
        })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and no range of it is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Range {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping, which stays as long as this value and cannot shrink (a seal). The daemon
        // writes nothing there until this WRITE is answered, which is after this value's last use; a daemon that does not keep
        // to that has this process in its hands anyway.
        unsafe {
            std::slice::from_raw_parts(self.area.start.as_ptr().add(self.offset), self.length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_plugin_protocol::make_area;

    #[test]
    fn what_the_other_side_writes_is_read_and_nothing_beside_the_area() {
        let memory = make_area(8192).unwrap();
        let area = Area::map(&memory, 8192).unwrap();
        rustix::io::pwrite(&memory, b"data", 4096).unwrap();
        assert_eq!(area.range(4096, 4).unwrap().bytes(), b"data");
        assert_eq!(area.range(8192, 0).unwrap().bytes(), b"");
        for (offset, length) in [(8192, 1), (4096, 4097), (u64::MAX, 1), (1, u32::MAX)] {
            assert!(area.range(offset, length).is_none(), "{offset} {length}");
        }
        assert!(Area::map(&memory, 4096).is_none() && Area::map(&memory, 0).is_none());
    }
}
