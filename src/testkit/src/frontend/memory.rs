//! Guest memory: memfds mapped at guest addresses, and an allocator over them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

use super::{Error, Result};

/// Added to a guest address to get the "user address" that is announced for it. The device only
/// ever uses it to translate ring addresses back, so no mapping has to live there; a value far
/// from every guest address shows a device that mixes the two up.
pub const USER_OFFSET: u64 = 0x7000_0000_0000;

/// Where a region lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First guest address.
    pub start: u64,
    /// Length in bytes, a multiple of the page size.
    pub size: u64,
}

impl Extent {
    /// The first address after the region.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// A region as vhost-user announces it.
#[derive(Debug, Clone)]
pub struct Region {
    /// Where the guest sees it.
    pub extent: Extent,
    /// Where in the memfd it starts.
    pub file_offset: u64,
    /// The memfd.
    pub file: Arc<File>,
}

impl Region {
    /// Makes a memfd that holds `file_offset` unused bytes and then the region.
    ///
    /// # Errors
    /// What memfd_create(2) and ftruncate(2) give.
    pub fn new(extent: Extent, file_offset: u64) -> Result<Self> {
        let memfd = memfd_create("guest-memory", MemfdFlags::CLOEXEC)?;
        ftruncate(&memfd, file_offset + extent.size)?;
        Ok(Self {
            extent,
            file_offset,
            file: Arc::new(File::from(memfd)),
        })
    }

    fn map(&self) -> Result<Arc<GuestRegionMmap>> {
        let offset = FileOffset::from_arc(Arc::clone(&self.file), self.file_offset);
        let size = usize::try_from(self.extent.size)
            .map_err(|_| Error::Layout("region larger than the address space".into()))?;
        let mapping =
            MmapRegion::from_file(offset, size).map_err(|e| Error::Layout(e.to_string()))?;
        GuestRegionMmap::new(mapping, GuestAddress(self.extent.start))
            .map(Arc::new)
            .ok_or_else(|| Error::Layout("region wraps the address space".into()))
    }
}

/// Memory of one guest, shared by everything that plays a part of that guest.
#[derive(Debug)]
pub struct Memory {
    map: RwLock<GuestMemoryMmap>,
    regions: Mutex<Vec<Region>>,
    free: Mutex<FreeList>,
}

impl Memory {
    /// Memory with one region for each extent, each in a memfd of its own.
    ///
    /// # Errors
    /// [`Error::Layout`] if extents overlap or wrap, otherwise what making memfds gives.
    pub fn new(extents: &[Extent]) -> Result<Arc<Self>> {
        let memory = Self {
            map: RwLock::new(GuestMemoryMmap::new()),
            regions: Mutex::new(Vec::new()),
            free: Mutex::new(FreeList::default()),
        };
        for extent in extents {
            memory.add(Region::new(*extent, 0)?)?;
        }
        Ok(Arc::new(memory))
    }

    /// Maps one more region on this side; the device learns of it by a message of its own.
    ///
    /// # Errors
    /// [`Error::Layout`] if it overlaps another region.
    pub fn add(&self, region: Region) -> Result<()> {
        let mapped = region.map()?;
        let mut map = self.map.write();
        *map = map
            .insert_region(mapped)
            .map_err(|e| Error::Layout(e.to_string()))?;
        self.free.lock().open(region.extent);
        self.regions.lock().push(region);
        Ok(())
    }

    /// Unmaps the region that starts at `start`. Buffers allocated there are lost.
    ///
    /// # Errors
    /// [`Error::Layout`] if there is none.
    pub fn remove(&self, start: u64) -> Result<Region> {
        let mut regions = self.regions.lock();
        let position = regions
            .iter()
            .position(|region| region.extent.start == start)
            .ok_or_else(|| Error::Layout(format!("no region at {start:#x}")))?;
        let region = regions.remove(position);
        let mut map = self.map.write();
        let (rest, _) = map
            .remove_region(GuestAddress(start), region.extent.size)
            .map_err(|e| Error::Layout(e.to_string()))?;
        *map = rest;
        self.free.lock().withdraw(region.extent);
        Ok(region)
    }

    /// The regions, in the order they were added.
    pub fn regions(&self) -> Vec<Region> {
        self.regions.lock().clone()
    }

    /// Reserves `len` bytes within one region, at a multiple of `align` (a power of two).
    ///
    /// # Errors
    /// [`Error::Exhausted`] if no free run is long enough.
    pub fn allocate(&self, len: u64, align: u64) -> Result<u64> {
        self.free
            .lock()
            .take(len, align)
            .ok_or(Error::Exhausted("guest memory"))
    }

    /// Gives back what [`Memory::allocate`] gave, with the same `len`.
    pub fn release(&self, address: u64, len: u64) {
        self.free.lock().give(address, len);
    }

    /// Writes bytes at a guest address.
    ///
    /// # Errors
    /// [`Error::Memory`] if the range is not all mapped; a part may have been written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.map.read().write_slice(bytes, GuestAddress(address))?)
    }

    /// Reads `len` bytes at a guest address.
    ///
    /// # Errors
    /// [`Error::Memory`] if the range is not all mapped.
    pub fn read(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.map
            .read()
            .read_slice(&mut bytes, GuestAddress(address))?;
        Ok(bytes)
    }

    /// Writes one little-endian u16 in a single store that later stores may not overtake.
    ///
    /// # Errors
    /// [`Error::Memory`] if the address is not mapped.
    pub fn store_u16(&self, address: u64, value: u16) -> Result<()> {
        Ok(self
            .map
            .read()
            .store(value.to_le(), GuestAddress(address), Ordering::Release)?)
    }

    /// Reads one little-endian u16 in a single load that earlier loads may not pass.
    ///
    /// # Errors
    /// [`Error::Memory`] if the address is not mapped.
    pub fn load_u16(&self, address: u64) -> Result<u16> {
        let value: u16 = self
            .map
            .read()
            .load(GuestAddress(address), Ordering::Acquire)?;
        Ok(u16::from_le(value))
    }

    /// The regions as they are mapped now, to use them without the lock.
    pub(super) fn mapping(&self) -> GuestMemoryMmap {
        self.map.read().clone()
    }

    /// The region that holds `address`.
    pub fn extent_of(&self, address: u64) -> Option<Extent> {
        self.map
            .read()
            .find_region(GuestAddress(address))
            .map(|region| Extent {
                start: region.start_addr().0,
                size: region.len(),
            })
    }
}

/// Free runs as (start, length), sorted by start. Touching runs of the same region are merged;
/// runs of different regions are kept apart by never merging across a region's start.
#[derive(Debug, Default)]
struct FreeList {
    runs: Vec<(u64, u64)>,
    region_starts: Vec<u64>,
}

impl FreeList {
    fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        let len = len.max(1);
        for index in 0..self.runs.len() {
            let (start, size) = self.runs[index];
            let aligned = start.next_multiple_of(align);
            let padding = aligned - start;
            if padding.checked_add(len).is_none_or(|needed| needed > size) {
                continue;
            }
            self.runs.remove(index);
            let rest = size - padding - len;
            if rest > 0 {
                self.runs.insert(index, (aligned + len, rest));
            }
            if padding > 0 {
                self.runs.insert(index, (start, padding));
            }
            return Some(aligned);
        }
        None
    }

    fn give(&mut self, start: u64, len: u64) {
        let len = len.max(1);
        let index = self.runs.partition_point(|(run, _)| *run < start);
        self.runs.insert(index, (start, len));
        self.merge(index);
        if index > 0 {
            self.merge(index - 1);
        }
    }

    /// Joins the run at `index` with the one after it if they touch.
    fn merge(&mut self, index: usize) {
        let (Some(&(start, len)), Some(&(next, next_len))) =
            (self.runs.get(index), self.runs.get(index + 1))
        else {
            return;
        };
        if start + len == next && !self.region_starts.contains(&next) {
            self.runs[index].1 = len + next_len;
            self.runs.remove(index + 1);
        }
    }

    fn open(&mut self, extent: Extent) {
        self.region_starts.push(extent.start);
        self.give(extent.start, extent.size);
    }

    fn withdraw(&mut self, extent: Extent) {
        self.runs
            .retain(|(start, _)| *start < extent.start || *start >= extent.end());
        self.region_starts.retain(|start| *start != extent.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_runs_join_again() {
        let memory = Memory::new(&[Extent {
            start: 0x1000,
            size: 0x4000,
        }])
        .unwrap();
        let all: Vec<u64> = (0..4)
            .map(|_| memory.allocate(0x1000, 0x1000).unwrap())
            .collect();
        assert!(memory.allocate(1, 1).is_err());
        for address in all.iter().rev() {
            memory.release(*address, 0x1000);
        }
        assert_eq!(memory.allocate(0x4000, 0x1000).unwrap(), 0x1000);
    }

    #[test]
    fn no_buffer_spans_two_regions_that_touch() {
        let extents = [
            Extent {
                start: 0x1000,
                size: 0x1000,
            },
            Extent {
                start: 0x2000,
                size: 0x1000,
            },
        ];
        let memory = Memory::new(&extents).unwrap();
        assert!(memory.allocate(0x1800, 1).is_err());
        let first = memory.allocate(0x1000, 1).unwrap();
        memory.release(first, 0x1000);
        assert!(memory.allocate(0x1800, 1).is_err());
    }

    #[test]
    fn bytes_written_across_two_regions_are_read_back() {
        let extents = [
            Extent {
                start: 0x1000,
                size: 0x1000,
            },
            Extent {
                start: 0x2000,
                size: 0x1000,
            },
        ];
        let memory = Memory::new(&extents).unwrap();
        memory.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.read(0x1ffe, 4).unwrap(), [1, 2, 3, 4]);
        assert!(memory.read(0x2fff, 2).is_err());
    }
}
