//! Descriptors that whoever started the program has left open.
//!
//! The process outside the sandbox keeps them: a manager may hold a lock on one of them for as
//! long as its child lives. Inside they would be ways out of it.

// UNSAFETY: closing a descriptor that is known by its number only.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// The descriptors behind standard error that the program did not open itself.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Takes note of what is open, before anything else is. `wanted` is not among it.
    pub(crate) fn take_note(wanted: Option<RawFd>) -> Self {
        let open = std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten();
        let numbers: Vec<RawFd> = open
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let stray = |number: &RawFd| *number > libc::STDERR_FILENO && Some(*number) != wanted;
        // The listing itself was open then, and is not now.
        Self(
            numbers
                .into_iter()
                .filter(stray)
                .filter(|number| is_open(*number))
                .collect(),
        )
    }

    /// Closes them.
    pub(crate) fn close(self) {
        for number in self.0 {
            // SAFETY: the number was open before this program opened anything, so nothing here
            // owns it, and it has been used for nothing since.
            unsafe { libc::close(number) };
        }
    }
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no further argument, and any number may be asked about.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}
