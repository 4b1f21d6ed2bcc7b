// UNSAFETY: mappings of guest memory are handed to the watch over them.
#![allow(unsafe_code)]
//! Guest memory as the front end announced it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::sigbus::{self, Watch};

/// Regions that a front end may announce: what the kernel's own vhost allows.
pub(crate) const MAX_REGIONS: usize = 509;

/// Where a region lies, in the three address spaces that know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where the guest sees it.
    pub(crate) guest_address: u64,
    /// Where the front end sees it: ring addresses are given that way.
    pub(crate) user_address: u64,
    /// Where it starts in its file.
    pub(crate) file_offset: u64,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// Why a region was not taken, or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("a memory region is empty")]
    Empty,
    #[error("a memory region of {length} bytes at {start:#x} wraps around")]
    Wraps { start: u64, length: u64 },
    #[error("a memory region ends at byte {end} of a file that has {length}")]
    PastEndOfFile { end: u64, length: u64 },
    #[error("a memory region of {length} bytes does not end at a huge page of {page} bytes")]
    HalfHugePage { length: u64, page: u64 },
    #[error("memory regions overlap at guest address {0:#x}")]
    Overlap(u64),
    #[error("more than {MAX_REGIONS} memory regions")]
    TooMany,
    #[error("no memory region of {length} bytes at guest address {start:#x}")]
    Unknown { start: u64, length: u64 },
    #[error("a memory region cannot be mapped")]
    Map(#[source] io::Error),
}

/// One contiguous piece of guest memory, mapped as long as anybody uses it.
#[derive(Debug)]
pub(crate) struct Region {
    // Dropped before the mapping that it watches.
    watch: Watch,
    mapping: MmapRegion,
    extent: Extent,
    file: FileIdentity,
}

/// Tells one file from another, as long as one of them is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Region {
    /// Maps a region of `file`.
    ///
    /// # Errors
    /// What is wrong with the extent or the file.
    pub(crate) fn map(extent: Extent, file: File) -> Result<Arc<Self>, MemoryError> {
        let Extent {
            guest_address,
            user_address,
            file_offset,
            length,
        } = extent;
        if length == 0 {
            return Err(MemoryError::Empty);
        }
        for start in [guest_address, user_address, file_offset] {
            start
                .checked_add(length)
                .ok_or(MemoryError::Wraps { start, length })?;
        }
        let metadata = file.metadata().map_err(MemoryError::Map)?;
        check_file(&file, &metadata, extent)?;
        fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(|errno| MemoryError::Map(errno.into()))?;
        let size = usize::try_from(length)
            .map_err(|_| MemoryError::Map(io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let mapping: MmapRegion = MmapRegion::from_file(FileOffset::new(file, file_offset), size)
            .map_err(|error| MemoryError::Map(io::Error::other(error)))?;
        // SAFETY: the range is the whole of a mapping just made. It stays mapped while this region
        // holds it, and the watch is dropped first.
        let watch = unsafe { Watch::over(mapping.as_ptr(), size) }.map_err(MemoryError::Map)?;
        Ok(Arc::new(Self {
            watch,
            mapping,
            extent,
            file: FileIdentity::from(&metadata),
        }))
    }

    /// Whether it maps exactly this extent of this file, and still has it.
    fn is(&self, extent: Extent, file: &File) -> bool {
        let same_file = || {
            file.metadata()
                .is_ok_and(|metadata| self.file == FileIdentity::from(&metadata))
        };
        self.extent == extent && !self.lost() && same_file()
    }

    /// Whether the front end took it away.
    pub(crate) fn lost(&self) -> bool {
        sigbus::any_lost() && self.watch.lost()
    }

    /// Takes it away from requests that still use it: what it maps may be another guest's by now.
    fn take_away(&self) {
        if let Err(error) = self.watch.take_away() {
            tracing::warn!(
                "memory of a guest that is gone stays mapped for requests that have not ended: \
                 {error}"
            );
        }
    }

    /// Waits until only the caller has it, for `limit` at most.
    pub(crate) fn wait_for_users(region: &Arc<Self>, limit: Duration) {
        let start = Instant::now();
        while Arc::strong_count(region) > 1 && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn last_guest_address(&self) -> u64 {
        self.extent
            .guest_address
            .saturating_add(self.extent.length)
            .saturating_sub(1)
    }

    /// The bytes of it from a guest address on, at most `length`; none if it lies elsewhere.
    fn slice_at(&self, address: u64, length: usize) -> Option<VolatileSlice<'_>> {
        let offset = usize::try_from(address.checked_sub(self.extent.guest_address)?).ok()?;
        let length = self.mapping.size().checked_sub(offset)?.min(length);
        self.mapping.get_slice(offset, length).ok()
    }
}

/// Refuses a region whose file is shorter than it: each access there would fault. And one that
/// ends within a huge page: munmap(2) refuses to take it back.
fn check_file(file: &File, metadata: &Metadata, extent: Extent) -> Result<(), MemoryError> {
    if metadata.is_file() {
        let end = extent.file_offset.saturating_add(extent.length);
        if end > metadata.size() {
            return Err(MemoryError::PastEndOfFile {
                end,
                length: metadata.size(),
            });
        }
    }
    let statistics = rustix::fs::fstatfs(file).map_err(|errno| MemoryError::Map(errno.into()))?;
    if statistics.f_type == libc::HUGETLBFS_MAGIC {
        let page = metadata.blksize().max(1);
        if extent.length.checked_rem(page) != Some(0) {
            return Err(MemoryError::HalfHugePage {
                length: extent.length,
                page,
            });
        }
    }
    Ok(())
}

/// All memory of a guest at one time. A change makes a new map; requests in flight keep the
/// regions that they use.
#[derive(Debug, Default)]
pub(crate) struct MemoryMap {
    /// In the order of guest addresses, none overlapping another.
    regions: Vec<Arc<Region>>,
}

impl MemoryMap {
    /// A map of these regions.
    ///
    /// # Errors
    /// When some overlap for the guest, or there are too many.
    pub(crate) fn new(mut regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        regions.sort_by_key(|region| region.extent.guest_address);
        for (lower, upper) in regions.iter().zip(regions.iter().skip(1)) {
            if lower.last_guest_address() >= upper.extent.guest_address {
                return Err(MemoryError::Overlap(upper.extent.guest_address));
            }
        }
        Ok(Self { regions })
    }

    /// A map of these regions, in which those that this one has already stay as they are.
    ///
    /// # Errors
    /// As [`Region::map`] and [`new`](Self::new).
    pub(crate) fn replaced_by(
        &self,
        regions: impl Iterator<Item = (Extent, File)>,
    ) -> Result<Self, MemoryError> {
        let take = |(extent, file): (Extent, File)| {
            let same = self.regions.iter().find(|region| region.is(extent, &file));
            same.map_or_else(
                || Region::map(extent, file),
                |region| Ok(Arc::clone(region)),
            )
        };
        Self::new(regions.map(take).collect::<Result<_, _>>()?)
    }

    /// Whether anybody but this map has a region of it.
    pub(crate) fn is_used(&self) -> bool {
        let used = |region: &Arc<Region>| Arc::strong_count(region) > 1;
        self.regions.iter().any(used)
    }

    /// Takes all of it away from requests that still use it, as the front end is gone.
    pub(crate) fn take_away(&self) {
        self.regions.iter().for_each(|region| region.take_away());
    }

    /// This map and one more region.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn with(&self, region: Arc<Region>) -> Result<Self, MemoryError> {
        Self::new(self.regions.iter().cloned().chain([region]).collect())
    }

    /// This map without the region that lies there.
    ///
    /// # Errors
    /// [`MemoryError::Unknown`] unless exactly this region is there.
    pub(crate) fn without(&self, extent: Extent) -> Result<Self, MemoryError> {
        let same = |region: &Arc<Region>| {
            region.extent.guest_address == extent.guest_address
                && region.extent.user_address == extent.user_address
                && region.extent.length == extent.length
        };
        let rest: Vec<_> = self
            .regions
            .iter()
            .filter(|&one| !same(one))
            .cloned()
            .collect();
        if rest.len() == self.regions.len() {
            return Err(MemoryError::Unknown {
                start: extent.guest_address,
                length: extent.length,
            });
        }
        Self::new(rest)
    }

    /// The regions that `later` does not have any more.
    pub(crate) fn removed_in(&self, later: &Self) -> Vec<Arc<Region>> {
        let stays = |region: &Arc<Region>| later.regions.iter().any(|one| Arc::ptr_eq(one, region));
        self.regions
            .iter()
            .filter(|&region| !stays(region))
            .cloned()
            .collect()
    }

    /// Whether the front end took some of it away.
    pub(crate) fn lost(&self) -> bool {
        sigbus::any_lost() && self.regions.iter().any(|region| region.lost())
    }

    fn find(&self, address: u64) -> Option<&Arc<Region>> {
        let above = self
            .regions
            .partition_point(|region| region.extent.guest_address <= address);
        let region = self.regions.get(above.checked_sub(1)?)?;
        (address <= region.last_guest_address()).then_some(region)
    }

    /// Shows the slices that `length` bytes from a guest address consist of, in order: several if
    /// the range crosses regions.
    ///
    /// # Errors
    /// When not all of it is memory; the slices before have been shown.
    pub(crate) fn visit<'a>(
        &'a self,
        address: u64,
        length: usize,
        mut visitor: impl FnMut(&'a Arc<Region>, VolatileSlice<'a>),
    ) -> Result<(), OutsideMemory> {
        let (mut address, mut left) = (Some(address), length);
        while left > 0 {
            let at = address.ok_or(OutsideMemory)?;
            let region = self.find(at).ok_or(OutsideMemory)?;
            let slice = region.slice_at(at, left).ok_or(OutsideMemory)?;
            left = left.saturating_sub(slice.len());
            // None when the address space ends here.
            address = u64::try_from(slice.len())
                .ok()
                .and_then(|length| at.checked_add(length));
            visitor(region, slice);
        }
        Ok(())
    }

    /// Copies from a guest address until `buffer` is full.
    ///
    /// # Errors
    /// When not all of it is memory.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideMemory> {
        let mut copied: usize = 0;
        let length = buffer.len();
        self.visit(address, length, |_, slice| {
            let target = buffer.get_mut(copied..).unwrap_or_default();
            copied = copied.saturating_add(slice.copy_to(target));
        })
    }

    /// The part of a region that lies at an address of the front end's.
    pub(crate) fn part_at_user_address(&self, address: u64, length: usize) -> Option<Part> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.extent.user_address)?).ok()?;
            let fits = offset.checked_add(length)? <= region.mapping.size();
            fits.then(|| Part {
                region: Arc::clone(region),
                offset,
                length,
            })
        })
    }
}

/// An address range that is not, or not wholly, guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutsideMemory;

/// A contiguous part of guest memory that is used over and over: a part of a ring.
///
/// Accesses outside it read zero and write nothing; those who use it know its length.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    region: Arc<Region>,
    offset: usize,
    length: usize,
}

impl Part {
    /// Whether it begins, in our own address space, at a multiple of `alignment`.
    pub(crate) fn is_aligned(&self, alignment: usize) -> bool {
        self.offset.checked_rem(alignment) == Some(0)
    }

    /// Whether the front end took it away.
    pub(crate) fn lost(&self) -> bool {
        self.region.lost()
    }

    fn slice(&self) -> Option<VolatileSlice<'_>> {
        self.region.mapping.get_slice(self.offset, self.length).ok()
    }

    /// The little-endian number at `at`, which is a multiple of two.
    pub(crate) fn load_u16(&self, at: usize, ordering: Ordering) -> u16 {
        let value: u16 = self
            .slice()
            .and_then(|slice| slice.load(at, ordering).ok())
            .unwrap_or_default();
        u16::from_le(value)
    }

    /// Stores a little-endian number at `at`, which is a multiple of two.
    pub(crate) fn store_u16(&self, at: usize, value: u16, ordering: Ordering) {
        if let Some(slice) = self.slice() {
            // It fails only outside the slice or unaligned, where nothing is to be written.
            let _ = slice.store(value.to_le(), at, ordering);
        }
    }

    /// Copies bytes out. False if they do not all lie within the part.
    pub(crate) fn read(&self, at: usize, buffer: &mut [u8]) -> bool {
        self.slice()
            .is_some_and(|slice| slice.read_slice(buffer, at).is_ok())
    }

    /// Copies bytes in. False if they do not all lie within the part.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> bool {
        self.slice()
            .is_some_and(|slice| slice.write_slice(bytes, at).is_ok())
    }
}
