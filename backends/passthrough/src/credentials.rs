//! Acting for a caller: effective ids, groups, capabilities and umask of one thread.
//!
//! All of this is switched with raw system calls, which change the calling thread only (the C
//! library's change all threads): no request waits for another's switch, and no lock is held. A
//! switch lasts for one closure, never across an await, because a future may go on in another thread.
//!
//! The real and saved ids stay the daemon's, so switching back is always permitted. If it fails all
//! the same, the thread is marked foreign and refuses every further request with EIO.

use std::cell::Cell;

use rustix::fs::Mode;
use rustix::process::{Gid, Uid, getegid, geteuid, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use vfsd_backend::{Caller, Errno, Identity};

use crate::syscalls::unshare_fs;

type Result<T> = std::result::Result<T, Errno>;

/// Who a thread is when it acts for nobody.
#[derive(Clone, Copy)]
struct Own {
    uid: u32,
    gid: u32,
    capabilities: CapabilitySets,
    /// It may, and its user namespace does not forbid it (`/proc/PID/setgroups`).
    sets_groups: bool,
    /// The kernel gives the capabilities back by itself when the thread is root again
    /// (capabilities(7), effect of user id changes).
    regains_capabilities: bool,
}

thread_local! {
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
    static FOREIGN: Cell<bool> = const { Cell::new(false) };
}

/// Refuses to work on a thread that could not be given its own identity back.
pub(crate) fn check_thread() -> Result<()> {
    if FOREIGN.get() {
        return Err(Errno::IO);
    }
    Ok(())
}

/// Runs `work`, which makes a new inode, as `caller`.
///
/// A caller without an identity acts as the daemon. An id of 0 stands for the daemon's own when
/// the daemon is not root, so that an ordinary user can serve a guest whose root makes files.
/// Supplementary groups are those of the caller, of which at most one is known: set-group-id
/// then follows from the caller's groups and not from those the daemon was started with.
///
/// The caller keeps `CAP_DAC_OVERRIDE` if the daemon has it, because the guest's kernel has
/// already checked permissions, with all groups of the caller; it loses `CAP_FSETID`.
///
/// # Errors
/// EPERM when the daemon may not act as the caller, EINVAL for an id of `u32::MAX`, and what `work`
/// answers.
pub(crate) fn creating<T>(
    caller: &Caller,
    mask: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    check_thread()?;
    let own = own()?;
    let _masked = Masked::with(mask);
    let Some(identity) = caller.identity else {
        return work();
    };
    let _switched = Switched::to(own, identity, CapabilitySet::DAC_OVERRIDE)?;
    work()
}

/// Whether the daemon can open each file of the share, whatever its mode.
pub(crate) fn opens_anything() -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::DAC_OVERRIDE))
}

/// Runs `work`, which asks what `identity` may do, with no more rights than that has.
///
/// # Errors
/// EPERM when the daemon may not act as somebody else.
pub(crate) fn asking<T>(identity: Identity, work: impl FnOnce() -> Result<T>) -> Result<T> {
    check_thread()?;
    let _switched = Switched::to(own()?, identity, CapabilitySet::empty())?;
    work()
}

/// Runs `work` without `CAP_FSETID`: the kernel then clears set-id bits of files that are written
/// or truncated, as it does for an ordinary user. With a `group`, and where the daemon may choose, that one is
/// in it and in no other.
pub(crate) fn without_fsetid<T>(group: Option<u32>, work: impl FnOnce() -> T) -> Result<T> {
    check_thread()?;
    let own = own()?;
    let reduced = own.capabilities.effective.difference(CapabilitySet::FSETID);
    if reduced == own.capabilities.effective {
        return Ok(work());
    }
    let member = group.map(|gid| Identity {
        uid: own.uid,
        gid,
        supplementary: None,
    });
    // Not to a group that the daemon's user namespace does not have.
    let _switched =
        member.and_then(|member| Switched::to(own, member, own.capabilities.effective).ok());
    set_effective(own, reduced)?;
    let _restored = Restored(own);
    Ok(work())
}

/// Gives the thread a working directory of its own and the umask 0, and learns who it is.
pub(crate) fn prepare_thread() -> Result<()> {
    own().map(drop)
}

fn own() -> Result<Own> {
    match OWN.get() {
        Some(own) => Ok(own),
        None => {
            unshare_fs()?;
            let (uid, capabilities) = (geteuid().as_raw(), capabilities(None)?);
            // Whoever makes a file says which permissions it has.
            umask(Mode::empty());
            let own = Own {
                uid,
                // Those that the daemon was started with end here.
                sets_groups: capabilities.effective.contains(CapabilitySet::SETGID)
                    && set_thread_groups(&[]).is_ok(),
                gid: getegid().as_raw(),
                capabilities,
                regains_capabilities: uid == 0
                    && capabilities.effective == capabilities.permitted
                    && !capabilities_secure_bits()?
                        .contains(CapabilitiesSecureBits::NO_SETUID_FIXUP),
            };
            OWN.set(Some(own));
            Ok(own)
        }
    }
}

/// The thread has another umask as long as this lives.
struct Masked;

impl Masked {
    /// Nothing for 0, which the thread has.
    fn with(mask: u32) -> Option<Self> {
        let mask = Mode::from_raw_mode(mask & 0o777);
        (!mask.is_empty()).then(|| {
            umask(mask);
            Self
        })
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        umask(Mode::empty());
    }
}

fn set_effective(own: Own, effective: CapabilitySet) -> Result<()> {
    set_capabilities(
        None,
        CapabilitySets {
            effective,
            ..own.capabilities
        },
    )
}

/// The thread's identity is another's as long as this lives.
struct Switched {
    own: Own,
    uid: bool,
    gid: bool,
    groups: bool,
}

impl Switched {
    /// Becomes `identity`. If that is another user, it has no capabilities but those of the daemon's
    /// that are among `kept`.
    fn to(own: Own, identity: Identity, kept: CapabilitySet) -> Result<Self> {
        let daemon_is_root = own.uid == 0;
        let standing_for = |id: u32, own: u32| match id {
            0 if !daemon_is_root => own,
            id => id,
        };
        let uid = standing_for(identity.uid, own.uid);
        let gid = standing_for(identity.gid, own.gid);
        // To the kernel this id means "unchanged".
        if uid == u32::MAX || gid == u32::MAX || identity.supplementary == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }

        // What has been done so far is undone when this is dropped, also on the way out of an error.
        let mut switched = Self {
            own,
            uid: false,
            gid: false,
            groups: false,
        };
        if let Some(group) = identity.supplementary.filter(|&group| group != gid)
            && own.sets_groups
        {
            set_thread_groups(&[Gid::from_raw(group)])?;
            switched.groups = true;
        }
        // The group first: who is no longer root cannot change it.
        if gid != own.gid {
            set_thread_res_gid(None, Gid::from_raw(gid), None).map_err(not_allowed)?;
            switched.gid = true;
        }
        if uid != own.uid {
            set_thread_res_uid(None, Uid::from_raw(uid), None).map_err(not_allowed)?;
            switched.uid = true;
            let kept = own.capabilities.effective & kept;
            if !(own.regains_capabilities && kept.is_empty()) {
                set_effective(own, kept)?;
            }
        }
        Ok(switched)
    }

    fn restore(&self) -> Result<()> {
        if self.uid {
            set_thread_res_uid(None, Uid::from_raw(self.own.uid), None)?;
            if !self.own.regains_capabilities {
                set_effective(self.own, self.own.capabilities.effective)?;
            }
        }
        if self.gid {
            set_thread_res_gid(None, Gid::from_raw(self.own.gid), None)?;
        }
        if self.groups {
            set_thread_groups(&[])?;
        }
        Ok(())
    }
}

/// An id that is not mapped into the daemon's user namespace is one it may not act as.
fn not_allowed(errno: Errno) -> Errno {
    match errno {
        Errno::INVAL => Errno::PERM,
        other => other,
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if self.restore().is_err() {
            abandon_thread();
        }
    }
}

/// The thread has its own effective capabilities again when this is dropped.
struct Restored(Own);

impl Drop for Restored {
    fn drop(&mut self) {
        if set_effective(self.0, self.0.capabilities.effective).is_err() {
            abandon_thread();
        }
    }
}

fn abandon_thread() {
    FOREIGN.set(true);
    tracing::error!("a thread did not get its own identity back and serves no more requests");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32, supplementary: Option<u32>) -> Caller {
        Caller {
            identity: Some(Identity {
                uid,
                gid,
                supplementary,
            }),
            pid: 1,
        }
    }

    fn status(key: &str) -> Vec<String> {
        std::fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    fn snapshot() -> Vec<Vec<String>> {
        ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"]
            .map(status)
            .to_vec()
    }

    fn is_root() -> bool {
        geteuid().is_root()
    }

    #[test]
    fn a_caller_has_its_ids_and_group_and_the_thread_gets_its_own_back() {
        if !is_root() {
            return;
        }
        prepare_thread().unwrap();
        let before = snapshot();
        creating(&caller(1234, 2345, Some(3456)), 0o22, || {
            assert_eq!(status("Uid:"), ["0", "1234", "0", "1234"]);
            assert_eq!(status("Gid:"), ["0", "2345", "0", "2345"]);
            assert_eq!(status("Groups:"), ["3456"]);
            let effective = capabilities(None).unwrap().effective;
            assert_eq!(effective, CapabilitySet::DAC_OVERRIDE);
            Ok(())
        })
        .unwrap();
        assert_eq!(snapshot(), before);
        assert!(status("Groups:").is_empty());
    }

    #[test]
    fn a_group_is_dropped_again_when_no_id_had_to_change() {
        if !is_root() {
            return;
        }
        creating(&caller(0, 0, Some(3456)), 0, || {
            assert_eq!(status("Groups:"), ["3456"]);
            Ok(())
        })
        .unwrap();
        assert!(status("Groups:").is_empty());
    }

    #[test]
    fn a_panic_leaves_the_thread_with_its_own_identity() {
        if !is_root() {
            return;
        }
        prepare_thread().unwrap();
        let before = snapshot();
        let work = || creating::<()>(&caller(1, 1, Some(2)), 0, || panic!("on purpose"));
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(snapshot(), before);
        assert_eq!(check_thread(), Ok(()));
    }

    #[test]
    fn an_id_that_means_unchanged_is_never_used() {
        let work = || -> Result<()> { panic!("must not run") };
        assert_eq!(
            creating(&caller(u32::MAX, 0, None), 0, work),
            Err(Errno::INVAL)
        );
        assert_eq!(
            creating(&caller(0, u32::MAX, None), 0, work),
            Err(Errno::INVAL)
        );
        assert_eq!(
            creating(&caller(0, 0, Some(u32::MAX)), 0, work),
            Err(Errno::INVAL)
        );
    }

    #[test]
    fn without_fsetid_lacks_just_that() {
        if !is_root() {
            return;
        }
        let before = capabilities(None).unwrap().effective;
        let inside = without_fsetid(Some(4567), || {
            assert_eq!(status("Gid:"), ["0", "4567", "0", "4567"]);
            assert_eq!(status("Uid:"), ["0"; 4]);
            capabilities(None).unwrap().effective
        })
        .unwrap();
        assert_eq!(inside, before - CapabilitySet::FSETID);
        assert_eq!(status("Gid:"), ["0"; 4]);
        assert_eq!(capabilities(None).unwrap().effective, before);
    }

    #[test]
    fn a_daemon_with_fewer_capabilities_gets_just_those_back() {
        if !is_root() {
            return;
        }
        let thread = std::thread::spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::FSETID;
            set_capabilities(None, sets).unwrap();
            let before = snapshot();
            creating(&caller(1234, 2345, None), 0, || {
                assert!(capabilities(None).unwrap().effective.is_empty());
                Ok(())
            })
            .unwrap();
            assert_eq!(snapshot(), before);
            without_fsetid(Some(4567), || ()).unwrap();
            assert_eq!(snapshot(), before);
        });
        thread.join().unwrap();
    }

    #[test]
    fn an_ordinary_user_is_root_of_the_guest_and_nobody_else() {
        if !is_root() {
            return;
        }
        let thread = std::thread::spawn(|| {
            set_thread_groups(&[]).unwrap();
            let (user, group) = (Uid::from_raw(4321), Gid::from_raw(4321));
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            let seen = || Ok((status("Uid:"), status("Gid:")));
            let (uid, gid) = creating(&caller(0, 0, Some(99)), 0, seen).unwrap();
            assert_eq!((&*uid[3], &*gid[3]), ("4321", "4321"));
            assert!(creating(&caller(4321, 4321, None), 0, seen).is_ok());
            assert_eq!(
                creating(&caller(4322, 4321, None), 0, seen),
                Err(Errno::PERM)
            );
            assert_eq!(check_thread(), Ok(()));
        });
        thread.join().unwrap();
    }
}
