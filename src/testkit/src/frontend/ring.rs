//! A split virtqueue seen from the driver's side (virtio 1.2, section 2.7).
//!
//! [`Ring::submit`] and [`Ring::wait`] are what a driver does. Everything below them is public as
//! well, so that a test may write any descriptor, any index and any head.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::memory::Memory;
use super::{Error, LIMIT, Result};

/// The chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// The device writes the buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;
/// Bytes of a descriptor.
pub const DESC_SIZE: u64 = 16;

const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// One entry of a descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`DESC_NEXT`], [`DESC_WRITE`], [`DESC_INDIRECT`] or anything else a test likes.
    pub flags: u16,
    /// The entry after this one, if [`DESC_NEXT`] is set.
    pub next: u16,
}

impl Descriptor {
    /// The descriptor as it lies in guest memory.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A buffer of a well-formed chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

impl Segment {
    /// A buffer the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: false,
        }
    }

    /// A buffer the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: true,
        }
    }

    fn flags(&self) -> u16 {
        if self.writable { DESC_WRITE } else { 0 }
    }
}

/// An entry of the used ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The head of the chain.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub len: u32,
}

/// Where the three parts of a ring lie, as guest addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of descriptors, a power of two up to 32768.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The ring the driver fills.
    pub available: u64,
    /// The ring the device fills.
    pub used: u64,
}

impl Layout {
    /// Reserves room for a ring of `size` descriptors.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if guest memory is full.
    pub fn allocate(memory: &Memory, size: u16) -> Result<Self> {
        let entries = u64::from(size);
        let layout = Self {
            size,
            descriptors: memory.allocate(entries * DESC_SIZE, 4096)?,
            available: memory.allocate(6 + 2 * entries, 4096)?,
            used: memory.allocate(6 + 8 * entries, 4096)?,
        };
        layout.clear(memory)?;
        Ok(layout)
    }

    /// Zeroes all three parts, as a driver does before it hands them to the device.
    ///
    /// # Errors
    /// [`Error::Memory`] if a part lies outside guest memory.
    pub fn clear(&self, memory: &Memory) -> Result<()> {
        let entries = usize::from(self.size);
        memory.write(self.descriptors, &vec![0; entries * 16])?;
        memory.write(self.available, &vec![0; 6 + 2 * entries])?;
        memory.write(self.used, &vec![0; 6 + 8 * entries])
    }
}

/// The eventfds of a ring.
#[derive(Debug, Clone)]
pub struct Events {
    /// Signalled by the driver.
    pub kick: Arc<OwnedFd>,
    /// Signalled by the device when it returned chains.
    pub call: Arc<OwnedFd>,
    /// Signalled by the device when the ring is broken.
    pub error: Arc<OwnedFd>,
}

impl Events {
    /// Three fresh eventfds.
    ///
    /// # Errors
    /// What eventfd(2) gives.
    pub fn new() -> Result<Self> {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new);
        Ok(Self {
            kick: make()?,
            call: make()?,
            error: make()?,
        })
    }
}

/// The driver's half of a ring.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    layout: Layout,
    events: Events,
    event_idx: bool,
    free: Vec<u16>,
    /// The descriptors of each chain the device has, indexed by head.
    in_flight: Vec<Option<Vec<u16>>>,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    /// Drives the ring at `layout`, which holds zeroes.
    pub fn new(memory: Arc<Memory>, layout: Layout, events: Events, event_idx: bool) -> Self {
        Self {
            memory,
            layout,
            events,
            event_idx,
            free: (0..layout.size).rev().collect(),
            in_flight: vec![None; usize::from(layout.size)],
            next_available: 0,
            next_used: 0,
        }
    }

    /// The memory the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Where the ring lies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of chains the device has.
    pub fn in_flight(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }

    /// The heads of the chains the device has.
    pub fn heads_in_flight(&self) -> Vec<u16> {
        (0..self.layout.size)
            .filter(|head| self.in_flight[usize::from(*head)].is_some())
            .collect()
    }

    /// Number of descriptors no chain uses.
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// Hands a chain to the device and kicks it if it asks for that. Returns the head.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there are not enough free descriptors.
    pub fn submit(&mut self, chain: &[Segment]) -> Result<u16> {
        let head = self.prepare(chain)?;
        self.publish(head)?;
        Ok(head)
    }

    /// Hands a chain to the device as one descriptor that points to a table at `table`, where
    /// `chain.len()` descriptors fit.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there is no free descriptor.
    pub fn submit_indirect(&mut self, table: u64, chain: &[Segment]) -> Result<u16> {
        for (index, segment) in (0_u16..).zip(chain) {
            let last = usize::from(index) + 1 == chain.len();
            let descriptor = Descriptor {
                address: segment.address,
                len: segment.len,
                flags: segment.flags() | if last { 0 } else { DESC_NEXT },
                next: if last { 0 } else { index + 1 },
            };
            self.memory
                .write(table + u64::from(index) * DESC_SIZE, &descriptor.bytes())?;
        }
        let head = self.take_descriptors(1)?[0];
        let len = u32::try_from(chain.len() * 16).map_err(|_| Error::Exhausted("a table"))?;
        let descriptor = Descriptor {
            address: table,
            len,
            flags: DESC_INDIRECT,
            next: 0,
        };
        self.write_descriptor(head, descriptor)?;
        self.claim(head, vec![head]);
        self.publish(head)?;
        Ok(head)
    }

    /// Writes a chain into the descriptor table without making it available.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there are not enough free descriptors.
    pub fn prepare(&mut self, chain: &[Segment]) -> Result<u16> {
        let slots = self.take_descriptors(chain.len())?;
        for (position, segment) in chain.iter().enumerate() {
            let next = slots.get(position + 1).copied();
            let descriptor = Descriptor {
                address: segment.address,
                len: segment.len,
                flags: segment.flags() | if next.is_some() { DESC_NEXT } else { 0 },
                next: next.unwrap_or(0),
            };
            self.write_descriptor(slots[position], descriptor)?;
        }
        let head = *slots.first().ok_or(Error::Exhausted("an empty chain"))?;
        self.claim(head, slots);
        Ok(head)
    }

    /// Makes `head` available and kicks the device if it asks for that.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn publish(&mut self, head: u16) -> Result<()> {
        let before = self.next_available;
        self.offer(head)?;
        if self.wants_kick(before)? {
            self.kick()?;
        }
        Ok(())
    }

    /// The next chain the device returned, if there is one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device returns a head it does not have.
    pub fn try_wait(&mut self) -> Result<Option<Used>> {
        if self.used_index()? == self.next_used {
            return Ok(None);
        }
        let (id, len) = self.used_entry(self.next_used % self.layout.size)?;
        self.next_used = self.next_used.wrapping_add(1);
        let slots = usize::try_from(id)
            .ok()
            .and_then(|id| self.in_flight.get_mut(id))
            .and_then(Option::take)
            .ok_or_else(|| {
                Error::Protocol(format!(
                    "returned head {id}, which the device does not have"
                ))
            })?;
        self.free.extend(slots);
        let head = u16::try_from(id).map_err(|_| Error::Protocol(format!("head {id}")))?;
        Ok(Some(Used { head, len }))
    }

    /// The next chain the device returns.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it returns none, [`Error::LostInterrupt`] if it returns one in
    /// silence, [`Error::Protocol`] as for [`Ring::try_wait`].
    pub fn wait(&mut self) -> Result<Used> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.ask_for_interrupt()?;
            if let Some(used) = self.try_wait()? {
                return Ok(used);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !wait_readable(&self.events.call, left)? {
                return match self.try_wait()? {
                    Some(_) => Err(Error::LostInterrupt),
                    None => Err(Error::TimedOut("a used chain")),
                };
            }
            drain(&self.events.call)?;
        }
    }

    /// Forgets every chain in flight, as a driver does after the device stopped the ring, and
    /// starts at index 0 again over zeroed rings.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn reset(&mut self) -> Result<()> {
        self.layout.clear(&self.memory)?;
        self.free = (0..self.layout.size).rev().collect();
        self.in_flight = vec![None; usize::from(self.layout.size)];
        self.next_available = 0;
        self.next_used = 0;
        Ok(())
    }

    /// Takes descriptors out of the driver's free list.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there are fewer.
    pub fn take_descriptors(&mut self, count: usize) -> Result<Vec<u16>> {
        let keep = self
            .free
            .len()
            .checked_sub(count)
            .ok_or(Error::Exhausted("the descriptor table"))?;
        let mut taken = self.free.split_off(keep);
        taken.reverse();
        Ok(taken)
    }

    /// Notes that the device has the chain at `head`, so that its return is expected once and
    /// frees `slots`.
    pub fn claim(&mut self, head: u16, slots: Vec<u16>) {
        if let Some(entry) = self.in_flight.get_mut(usize::from(head)) {
            *entry = Some(slots);
        }
    }

    /// Writes one entry of the descriptor table.
    ///
    /// # Errors
    /// [`Error::Memory`] if it lies outside guest memory.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        let address = self.layout.descriptors + u64::from(index) * DESC_SIZE;
        self.memory.write(address, &descriptor.bytes())
    }

    /// Puts any number into the next slot of the available ring and moves the index on by one,
    /// without a kick.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn offer(&mut self, head: u16) -> Result<()> {
        let slot = self.next_available % self.layout.size;
        self.memory
            .store_u16(self.layout.available + 4 + 2 * u64::from(slot), head)?;
        self.set_available_index(self.next_available.wrapping_add(1))
    }

    /// Sets the available index to any number.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn set_available_index(&mut self, index: u16) -> Result<()> {
        self.next_available = index;
        self.memory.store_u16(self.layout.available + 2, index)
    }

    /// The available index as last written.
    pub fn available_index(&self) -> u16 {
        self.next_available
    }

    /// The used index up to which chains were taken back.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// The used index.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn used_index(&self) -> Result<u16> {
        self.memory.load_u16(self.layout.used + 2)
    }

    /// The id and length in one slot of the used ring.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn used_entry(&self, slot: u16) -> Result<(u32, u32)> {
        let bytes = self
            .memory
            .read(self.layout.used + 4 + 8 * u64::from(slot), 8)?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Ok((word(0), word(4)))
    }

    /// Signals the kick eventfd, whether or not the device wants it.
    ///
    /// # Errors
    /// What write(2) gives.
    pub fn kick(&self) -> Result<()> {
        match rustix::io::write(&self.events.kick, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the device has signalled the call eventfd since the last wait.
    ///
    /// # Errors
    /// What read(2) gives.
    pub fn take_interrupt(&self) -> Result<bool> {
        drain(&self.events.call)
    }

    /// Tells the device, by the means negotiated, to interrupt after the next chain it returns.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn ask_for_interrupt(&self) -> Result<()> {
        if self.event_idx {
            let used_event = self.layout.available + 4 + 2 * u64::from(self.layout.size);
            self.memory.store_u16(used_event, self.next_used)?;
        } else {
            self.memory.store_u16(self.layout.available, 0)?;
        }
        // The device must see the wish before this side looks at the used index once more.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Tells the device to return chains without interrupts, as far as the means negotiated go.
    ///
    /// # Errors
    /// [`Error::Memory`] if the ring lies outside guest memory.
    pub fn refuse_interrupts(&self) -> Result<()> {
        if self.event_idx {
            let used_event = self.layout.available + 4 + 2 * u64::from(self.layout.size);
            self.memory
                .store_u16(used_event, self.next_used.wrapping_sub(1))
        } else {
            self.memory
                .store_u16(self.layout.available, AVAIL_NO_INTERRUPT)
        }
    }

    /// Whether the device wants a kick for what was made available since `before`.
    fn wants_kick(&self, before: u16) -> Result<bool> {
        // The device must see the index before this side looks at its wish.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self
                .memory
                .load_u16(self.layout.used + 4 + 8 * u64::from(self.layout.size))?;
            let passed = self.next_available.wrapping_sub(event).wrapping_sub(1);
            return Ok(passed < self.next_available.wrapping_sub(before));
        }
        Ok(self.memory.load_u16(self.layout.used)? & USED_NO_NOTIFY == 0)
    }
}

/// Waits until an eventfd may be read; false when the time is over.
fn wait_readable(fd: &OwnedFd, limit: std::time::Duration) -> Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Sets an eventfd back to zero; true if it was not.
fn drain(fd: &OwnedFd) -> Result<bool> {
    let mut count = [0; 8];
    match rustix::io::read(fd, &mut count) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
