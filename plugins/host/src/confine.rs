//! What a program that the daemon starts cannot reach.

// UNSAFETY: what the child does between fork(2) and execve(2), and unshare(2), which is unsafe in rustix for its effect on
// descriptors.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, getrlimit, setrlimit, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::filter::Filter;
use crate::reach::Reach;

/// What a program may do beyond its arguments' promise.
///
/// Whatever it says, the program gains no privilege by execve(2), has no capabilities, no core dumps, a session of its own, is refused the
/// system calls that no storage needs ([`filter`](crate::filter)), and is killed when the daemon is. Where the daemon may make namespaces (as root, or behind [`enter_namespaces`]) it has its own
/// for processes, mounts, System V IPC, the host's name and, unless it may use it, the network; its `/proc` then shows itself and what it
/// has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// User and group to run as, without further groups; without it, those of the daemon. Only root can choose.
    pub user: Option<(u32, u32)>,
    /// It may use the network. Otherwise it has none, if the daemon is privileged enough to take it away.
    pub network: bool,
    /// Descriptors that it may have open.
    pub open_files: u64,
    /// Processes and threads that its user may have. Root has no such limit.
    pub processes: u64,
    /// Bytes of address space that it may have; no limit without it.
    pub address_space: Option<u64>,
    /// The files and directories that it can reach, beside programs and libraries; without it, whatever its user can.
    pub paths: Option<Vec<PathBuf>>,
}

impl Default for Confinement {
    /// The daemon's user, no network, 1024 descriptors, 4096 threads.
    fn default() -> Self {
        Self {
            user: None,
            network: false,
            open_files: 1024,
            processes: 4096,
            address_space: None,
            paths: None,
        }
    }
}

/// Gives a process that does nothing but start programs its own view of what is mounted: what is mounted later comes and goes there as on
/// the host, or stays away, but nothing is held on to. One that is not root's gets a user namespace, too, in which its user and group are
/// all there is, so that it may make the others.
///
/// # Errors
/// When the host permits none; EINVAL when the process has several threads.
pub fn enter_namespaces() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        unshare(UnshareFlags::NEWUSER)?;
        // Without privileges a map of groups is permitted only once groups cannot be dropped any more.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))?;
    }
    unshare(UnshareFlags::NEWNS)?;
    follow_host()?;
    Ok(())
}

/// Has this mount namespace follow the one that it was made from, and tell it nothing.
fn follow_host() -> rustix::io::Result<()> {
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(c"/", downstream)
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the table of descriptors is not among what is unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Whether a program is in namespaces of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaces {
    Own,
    /// The host permits none.
    Shared,
}

/// Takes from this thread, for good, what the processes that it starts shall not have.
///
/// # Errors
/// What is always permitted fails.
pub(crate) fn confine_thread(confinement: &Confinement) -> io::Result<Namespaces> {
    set_no_new_privs(true)?;
    let mut flags = UnshareFlags::NEWPID
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET;
    if confinement.network {
        flags.remove(UnshareFlags::NEWNET);
    }
    // All of them, or none.
    let namespaces = match unshare(flags) {
        Ok(()) => {
            follow_host()?;
            Namespaces::Own
        }
        Err(errno) => {
            tracing::warn!(
                "a plugin runs in the host's namespaces, since it can have none of its own: {errno}"
            );
            Namespaces::Shared
        }
    };
    // Needs a capability of its own; who does not have it has little to give up. The number
    // behind the last one is EINVAL.
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    Ok(namespaces)
}

/// Has `command` give up, in the new process, what only that can.
pub(crate) fn confine_child(
    command: &mut Command,
    confinement: &Confinement,
    namespaces: Namespaces,
    filter: Filter,
    reach: Option<Reach>,
) {
    let confinement = confinement.clone();
    let give_up = move || {
        setsid()?;
        take_signals()?;
        // As a file system has: who makes a file says which permissions it has.
        umask(Mode::empty());
        if namespaces == Namespaces::Own {
            show_own_processes();
        }
        limit(Resource::Core, 0)?;
        limit(Resource::Nofile, confinement.open_files)?;
        limit(Resource::Nproc, confinement.processes)?;
        if let Some(bytes) = confinement.address_space {
            limit(Resource::As, bytes)?;
        }
        if let Some((uid, gid)) = confinement.user {
            become_user(Uid::from_raw(uid), Gid::from_raw(gid))?;
        }
        give_up_capabilities()?;
        if let Some(reach) = &reach {
            reach.restrict()?;
        }
        close_at_execve();
        // Behind a change of ids, which takes it back.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        filter.install()
    };
    // SAFETY: between fork(2) and execve(2) it makes system calls and nothing else: it takes no lock and no memory, and what it changes is
    // the child's own.
    unsafe { command.pre_exec(give_up) };
}

/// Lets signals come again that the daemon holds back to wait for them: execve(2) would keep that.
fn take_signals() -> io::Result<()> {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset writes a whole set to the place it is given; no old mask is asked for.
    let error = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A `/proc` of this process namespace. A host that has hidden parts of its own permits an ordinary user none; the processes
/// that are then seen there are in another user namespace, which forbids to look into them.
fn show_own_processes() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let _ = mount(c"proc", c"/proc", c"proc", flags, None);
}

/// Lowers a limit: what the daemon itself has less of is not raised.
fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |maximum| maximum.min(most));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit)
}

/// Changes the ids of this process, which has one thread.
fn become_user(uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn give_up_capabilities() -> rustix::io::Result<()> {
    match clear_ambient_capability_set() {
        // Older than Linux 4.3: there are none.
        Err(Errno::INVAL) => {}
        other => other?,
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// Has all descriptors but the standard ones closed by execve(2): also those that whoever started the daemon has left open.
fn close_at_execve() {
    const FIRST: libc::c_int = 3;
    /// As far as is looked where the kernel cannot do it at once.
    const LAST: libc::c_int = 1 << 16;
    // SAFETY: the call takes numbers only, and closes nothing yet.
    let at_once = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    // Older than Linux 5.11.
    if at_once != 0 {
        for number in FIRST..LAST {
            // SAFETY: it closes nothing yet; a number that is not open is an error without consequences.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}
