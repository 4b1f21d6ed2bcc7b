//! Spans that stay where they are while somebody reads or writes them.
//!
//! A cache that is bounded takes content away from layers that are in use, too, and several daemons do so at once. So
//! each span has a byte of the cache file, far behind its end, to be locked (`F_OFD_SETLK`, which ends with whoever
//! has it): shared by those who read, fill or sync it, exclusively by who takes it away. A cache without a bound has
//! all these bytes locked for as long as it is open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parking_lot::Mutex;
use vfsd_backend::Wait;

/// Where the bytes are that are locked: no content is so far behind.
const FIRST: i64 = 1 << 62;

/// How many spans are told apart at most.
const SPANS: i64 = 1 << 32;

/// What is done with a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Shared,
    Exclusive,
    None,
}

/// Locks spans of a file for its open file description. False where somebody else has another lock and a wait was
/// refused.
pub(super) fn lock(file: &File, spans: &Range<usize>, lock: Lock, wait: Wait) -> io::Result<bool> {
    let number = |span: usize| i64::try_from(span).unwrap_or(SPANS).min(SPANS);
    let (start, end) = (number(spans.start), number(spans.end));
    lock_bytes(file, start, end.saturating_sub(start), lock, wait)
}

/// Locks all spans, shared, for good.
pub(super) fn lock_all(file: &File) -> io::Result<()> {
    lock_bytes(file, 0, SPANS, Lock::Shared, Wait::Allowed).map(drop)
}

/// Whether somebody else has [locked all](lock_all).
pub(super) fn is_locked_for_good(file: &File) -> io::Result<bool> {
    // No span has the last byte.
    let last = SPANS.saturating_sub(1);
    let is_free = lock_bytes(file, last, 1, Lock::Exclusive, Wait::Refused)?;
    lock_bytes(file, last, 1, Lock::None, Wait::Refused)?;
    Ok(!is_free)
}

fn lock_bytes(file: &File, start: i64, length: i64, lock: Lock, wait: Wait) -> io::Result<bool> {
    if length <= 0 {
        return Ok(true);
    }
    let kind = match lock {
        Lock::Shared => libc::F_RDLCK,
        Lock::Exclusive => libc::F_WRLCK,
        Lock::None => libc::F_UNLCK,
    };
    let short = |number: libc::c_int| libc::c_short::try_from(number).unwrap_or_default();
    let place = libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: FIRST.saturating_add(start),
        l_len: length,
        l_pid: 0,
    };
    loop {
        let locked = match wait {
            Wait::Allowed => fcntl(file, FcntlArg::F_OFD_SETLKW(&place)),
            Wait::Refused => fcntl(file, FcntlArg::F_OFD_SETLK(&place)),
        };
        match locked {
            Ok(_) => return Ok(true),
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN | nix::Error::EACCES) if wait == Wait::Refused => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who in this process holds which spans of a file. The locks are one open file description's, however many hold
/// them.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<usize, usize>>);

impl Pins {
    /// Holds spans. False where somebody takes one of them away at the moment; then none is held.
    pub(super) fn hold(&self, file: &File, spans: &Range<usize>) -> io::Result<bool> {
        let mut held = self.0.lock();
        let is_held = |held: &HashMap<_, _>| spans.clone().all(|span| held.contains_key(&span));
        // A shared lock over those that are held already changes nothing.
        if !is_held(&held) && !lock(file, spans, Lock::Shared, Wait::Refused)? {
            return Ok(false);
        }
        for span in spans.clone() {
            let count = held.entry(span).or_insert(0);
            *count = count.saturating_add(1);
        }
        Ok(true)
    }

    /// Lets spans go that were held.
    pub(super) fn release(&self, file: &File, spans: &Range<usize>) {
        let mut held = self.0.lock();
        for span in spans.clone() {
            let left = held.get(&span).copied().unwrap_or(0).saturating_sub(1);
            match left {
                0 => held.remove(&span),
                left => held.insert(span, left),
            };
        }
        // One that stays locked is not taken away: the file can only grow too large by it.
        let _ = Self::unlock(&held, file, spans);
    }

    /// Unlocks those of `spans` that nobody holds, neighbours together.
    fn unlock(held: &HashMap<usize, usize>, file: &File, spans: &Range<usize>) -> io::Result<()> {
        let mut start = spans.start;
        for span in spans.clone() {
            if held.contains_key(&span) {
                lock(file, &(start..span), Lock::None, Wait::Refused)?;
                start = span.saturating_add(1);
            }
        }
        lock(file, &(start..spans.end), Lock::None, Wait::Refused).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_holds_another_does_not_take_away_until_the_last_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let ours = File::create_new(&path).unwrap();
        let reader = File::options().read(true).write(true).open(&path).unwrap();
        let taken = |spans: Range<usize>| {
            let taken = lock(&ours, &spans, Lock::Exclusive, Wait::Refused).unwrap();
            lock(&ours, &spans, Lock::None, Wait::Refused).unwrap();
            taken
        };
        let pins = Pins::default();
        assert!(pins.hold(&reader, &(2..5)).unwrap());
        assert!(pins.hold(&reader, &(3..4)).unwrap());
        assert!(taken(0..2) && !taken(4..5) && taken(5..9));
        pins.release(&reader, &(2..5));
        assert!(taken(2..3) && !taken(3..4) && taken(4..5));
        pins.release(&reader, &(3..4));
        assert!(taken(0..9));
        // What is being taken away is not held, nor anything else then.
        assert!(lock(&ours, &(1..2), Lock::Exclusive, Wait::Refused).unwrap());
        assert!(!pins.hold(&reader, &(0..3)).unwrap());
        lock(&ours, &(1..2), Lock::None, Wait::Refused).unwrap();
        assert!(taken(0..3));
        assert!(!is_locked_for_good(&ours).unwrap());
        lock_all(&reader).unwrap();
        assert!(!taken(7..8) && is_locked_for_good(&ours).unwrap());
        drop(reader);
        assert!(taken(7..8));
    }
}
