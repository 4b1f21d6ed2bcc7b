// UNSAFETY: a descriptor is kept as a number beside the count of those who use it.
#![allow(unsafe_code)]

//! A descriptor that can be closed as soon as nobody uses it, in eight bytes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::sync::atomic::{AtomicU64, Ordering};

/// A descriptor or none.
///
/// The upper half counts those who use it now, the lower half is its number plus 1, or 0. The
/// number is changed only from 0 to a descriptor that is given to the slot, and back to 0 in one
/// step with finding the count to be 0; then the descriptor is the taker's.
#[derive(Debug)]
pub(crate) struct DescriptorSlot(AtomicU64);

const USER: u64 = 1 << 32;

fn number(state: u64) -> Option<RawFd> {
    let stored = i64::try_from(state & 0xffff_ffff).ok()?;
    RawFd::try_from(stored.checked_sub(1)?)
        .ok()
        .filter(|&fd| fd >= 0)
}

fn stored(fd: OwnedFd) -> u64 {
    // Descriptors are never negative.
    u64::from(fd.into_raw_fd().unsigned_abs()).wrapping_add(1)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers have just taken the number out of a slot, which owned it, in the one step
    // that makes them its only holder.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl DescriptorSlot {
    pub(crate) fn empty() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self(AtomicU64::new(stored(fd)))
    }

    /// Whether there is a descriptor at this moment.
    pub(crate) fn is_open(&self) -> bool {
        number(self.0.load(Ordering::Acquire)).is_some()
    }

    /// The descriptor, which is not taken out as long as it is in use.
    pub(crate) fn get(&self) -> Option<InUse<'_>> {
        match number(self.0.fetch_add(USER, Ordering::Acquire)) {
            Some(fd) => Some(InUse { slot: self, fd }),
            None => {
                self.0.fetch_sub(USER, Ordering::Relaxed);
                None
            }
        }
    }

    /// Puts a descriptor in; false, and it is closed, if there is one already.
    pub(crate) fn put(&self, fd: OwnedFd) -> bool {
        let added = stored(fd);
        let put = self
            .0
            .fetch_update(Ordering::Release, Ordering::Relaxed, |state| {
                number(state).is_none().then(|| state.wrapping_add(added))
            });
        if put.is_err() {
            drop(number(added).map(owned));
        }
        put.is_ok()
    }

    /// Takes the descriptor out, unless it is in use.
    pub(crate) fn take_unused(&self) -> Option<OwnedFd> {
        let state = self.0.load(Ordering::Relaxed);
        let fd = number(state).filter(|_| state < USER)?;
        self.0
            .compare_exchange(state, 0, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(owned(fd))
    }

    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        number(std::mem::take(self.0.get_mut())).map(owned)
    }
}

impl Drop for DescriptorSlot {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// A descriptor that stays open as long as this lives.
#[derive(Debug)]
pub(crate) struct InUse<'a> {
    slot: &'a DescriptorSlot,
    fd: RawFd,
}

impl AsFd for InUse<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the slot owns the descriptor, and does not give it away while this counts as a user.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for InUse<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.slot.0.fetch_sub(USER, Ordering::Release);
    }
}
