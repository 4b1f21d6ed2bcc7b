// UNSAFETY: a signal handler is installed and guest mappings are replaced from within it.
#![allow(unsafe_code)]
//! What happens when a front end truncates the memory that it shared.
//!
//! Reading or writing a mapped page that its file no longer has raises SIGBUS (mmap(2)), which
//! would end the daemon. System calls answer EFAULT instead, but ring indices, headers and
//! arguments are accessed directly. So each guest region is [watched](Watch::over): a fault in it
//! puts anonymous memory in its place, marks it as lost, and the access goes on. A fault
//! elsewhere goes to whoever handled it before.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use parking_lot::Mutex;

/// Regions that can be watched at a time, in all devices of the process: eight times what one
/// front end may map.
const SLOT_COUNT: usize = 4_096;

/// A watched range of addresses, readable by the signal handler at any moment.
struct Slot {
    /// Odd while the range changes.
    sequence: AtomicUsize,
    /// Zero when the slot is free.
    start: AtomicUsize,
    length: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; SLOT_COUNT] = [const {
    Slot {
        sequence: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOT_COUNT];

/// Whoever holds it may change the ranges.
static CHANGES: Mutex<()> = Mutex::new(());

/// Whether a region was ever lost, so that nobody need look at each of them.
static ANY_LOST: AtomicBool = AtomicBool::new(false);

/// The `si_code` of memory that went bad, without anybody using it (asm-generic/siginfo.h).
const BUS_MCEERR_AO: libc::c_int = 5;

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    fn set(&self, start: usize, length: usize) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
        self.length.store(length, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.sequence.fetch_add(1, Ordering::SeqCst);
    }

    /// The range, if it holds `address`. A range that changes meanwhile is not that of a fault:
    /// whoever touches a region keeps it watched.
    fn holds(&self, address: usize) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        let length = self.length.load(Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let steady = before & 1 == 0 && before == self.sequence.load(Ordering::SeqCst);
        let within = start != 0 && address >= start && address.wrapping_sub(start) < length;
        (steady && within).then_some((start, length))
    }
}

/// Keeps a mapping watched, until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    slot: &'static Slot,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches the mapping of `length` bytes at `start`.
    ///
    /// # Errors
    /// When the handler cannot be installed, or too many mappings are watched (ENOSPC).
    ///
    /// # Safety
    /// The range is one or more whole mappings, and stays mapped until the watch is dropped.
    pub(crate) unsafe fn over(start: *mut u8, length: usize) -> io::Result<Self> {
        install()?;
        let _changes = CHANGES.lock();
        let slot = SLOTS
            .iter()
            .find(|slot| slot.start.load(Ordering::SeqCst) == 0)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        slot.set(start.addr(), length);
        Ok(Self { slot })
    }

    /// Takes the memory away from those who still use it, as a front end does that truncates it:
    /// what a system call has not yet read or written there fails with EFAULT. Pages that a device
    /// of the host transfers to directly (`O_DIRECT`) stay until it is done.
    ///
    /// # Errors
    /// What memfd_create(2) or mmap(2) gives; then it counts as taken away, but system calls that
    /// have begun go on.
    pub(crate) fn take_away(&self) -> io::Result<()> {
        let _changes = CHANGES.lock();
        // First, so that nobody looks at it any more who can help it.
        self.slot.lost.store(true, Ordering::SeqCst);
        ANY_LOST.store(true, Ordering::SeqCst);
        let nothing = rustix::fs::memfd_create("nothing", rustix::fs::MemfdFlags::CLOEXEC)?;
        let start = self.slot.start.load(Ordering::SeqCst);
        let length = self.slot.length.load(Ordering::SeqCst);
        // SAFETY: the range consists of whole mappings that stay while they are watched. All
        // accesses to it are of the kind that lets the content change at any time; those to a file
        // without a byte fault, and are handled as any others in a watched range.
        let mapped = unsafe {
            libc::mmap(
                ptr::with_exposed_provenance_mut(start),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_SHARED | libc::MAP_NORESERVE,
                nothing.as_raw_fd(),
                0,
            )
        };
        match mapped {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Whether the memory was taken away: what it holds since then is not the guest's.
    pub(crate) fn lost(&self) -> bool {
        self.slot.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _changes = CHANGES.lock();
        self.slot.set(0, 0);
    }
}

/// Whether any region was lost since the process started. Costs a load.
pub(crate) fn any_lost() -> bool {
    ANY_LOST.load(Ordering::Relaxed)
}

fn install() -> io::Result<()> {
    static INSTALLING: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLING.lock();
    if *installed {
        return Ok(());
    }
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action, sigaction(2) only writes the old one to where it is told.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the structure is initialised.
    let previous = unsafe { previous.assume_init() };
    // It stays set once it is, and the handler never runs before.
    let _ = PREVIOUS.set(previous);

    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is valid, and `on_sigbus` has the signature that SA_SIGINFO asks for and
    // calls nothing but async-signal-safe functions.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}

/// Runs on the thread that faulted. Only atomics and system calls are allowed here.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO. `si_addr` is only looked at for
    // signals that the kernel raised for a fault (`si_code` > 0), which have it.
    let (code, address) = unsafe {
        let code = (*info).si_code;
        (
            code,
            if code > 0 {
                (*info).si_addr().addr()
            } else {
                0
            },
        )
    };
    if code == BUS_MCEERR_AO {
        // Memory went bad that nobody was using: there is nothing to do, and no access shows that
        // the range is still what it was when the signal was sent. Who uses it gets another.
        return;
    }
    let raised_by_fault = code > 0;
    if raised_by_fault && replace(address) {
        return;
    }
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` is an action that the kernel gave us. On return the access is made
        // again, and faults into it.
        unsafe {
            libc::sigaction(signal, previous, ptr::null_mut());
            if !raised_by_fault {
                libc::raise(signal);
            }
        }
    }
}

/// Puts anonymous memory in the place of the watched region that holds `address`.
fn replace(address: usize) -> bool {
    let Some((slot, (start, length))) = SLOTS
        .iter()
        .find_map(|slot| Some((slot, slot.holds(address)?)))
    else {
        return false;
    };
    slot.lost.store(true, Ordering::SeqCst);
    ANY_LOST.store(true, Ordering::SeqCst);
    // SAFETY: errno belongs to this thread, and is put back for whoever was interrupted. The range
    // consists of whole mappings of a guest region that stays mapped while it is watched, and the
    // interrupted access shows that someone uses it: nothing else can have been mapped there. All
    // accesses to it are of the kind that lets the content change at any time.
    unsafe {
        let errno = *libc::__errno_location();
        let mapped = libc::mmap(
            ptr::with_exposed_provenance_mut(start),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        *libc::__errno_location() = errno;
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 4 * 4096;

    /// A watched mapping, unmapped when dropped.
    struct Mapped {
        watch: Option<Watch>,
        start: *mut u8,
    }

    impl Mapped {
        fn new() -> Self {
            let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, LENGTH as u64).unwrap();
            // SAFETY: a mapping where the kernel likes, of a file that is long enough.
            let start = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    LENGTH,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            assert_ne!(start, libc::MAP_FAILED);
            let start = start.cast::<u8>();
            // SAFETY: the whole of the mapping just made, which goes after the watch.
            let watch = unsafe { Watch::over(start, LENGTH) }.unwrap();
            start.expose_provenance();
            Self {
                watch: Some(watch),
                start,
            }
        }

        fn lost(&self) -> bool {
            self.watch.as_ref().unwrap().lost()
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            drop(self.watch.take());
            // SAFETY: the mapping is this value's own, and nothing uses it any more.
            unsafe { libc::munmap(self.start.cast(), LENGTH) };
        }
    }

    #[test]
    fn memory_that_went_bad_unused_is_left_alone() {
        let mapped = Mapped::new();
        // SAFETY: all-zero is a valid siginfo.
        let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
        info.si_code = BUS_MCEERR_AO;
        // SAFETY: the address is the first thing behind the three numbers, aligned as a pointer.
        unsafe {
            (&raw mut info)
                .byte_add(16)
                .cast::<*mut u8>()
                .write(mapped.start);
            assert_eq!(info.si_addr().addr(), mapped.start.addr());
        }
        on_sigbus(libc::SIGBUS, &raw mut info, ptr::null_mut());
        assert!(!mapped.lost());
        info.si_code = BUS_MCEERR_AO - 1;
        on_sigbus(libc::SIGBUS, &raw mut info, ptr::null_mut());
        assert!(mapped.lost(), "somebody used it");
    }

    #[test]
    fn memory_that_is_taken_away_fails_for_system_calls_and_is_empty_for_others() {
        let mapped = Mapped::new();
        mapped.watch.as_ref().unwrap().take_away().unwrap();
        assert!(mapped.lost());
        // SAFETY: read(2) checks the range it is given; here it finds it without memory.
        let read = unsafe {
            let zero = std::fs::File::open("/dev/zero").unwrap();
            libc::read(zero.as_raw_fd(), mapped.start.cast(), LENGTH)
        };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((read, error), (-1, Some(libc::EFAULT)));
        // SAFETY: the range is mapped; the fault is handled.
        assert_eq!(unsafe { mapped.start.read_volatile() }, 0);
    }
}
