//! The sandbox of namespaces: a root with nothing in it but the shares, no network, no other
//! process.

// UNSAFETY: unshare(2) is unsafe in rustix for its effect on descriptors, and mount_setattr(2) has
// no safe interface.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use super::child::{self, Fork};
use super::user_namespace::MapWriter;
use super::{Forked, Inside, Needs, Share, resolver};
use crate::exit::Failure;
use crate::settings::Confinement;

/// Divides this process in two: the child is alone in its namespaces, and has the shares as its
/// whole file system.
///
/// # Errors
/// When the kernel does not permit it. In the child, too: then it must end.
pub(super) fn enter(
    confinement: &Confinement,
    shares: &[Share],
    needs: Needs,
) -> Result<Forked, Failure> {
    let maps = if rustix::process::geteuid().is_root() {
        if !confinement.uid_map.is_empty() || !confinement.gid_map.is_empty() {
            return Err(Failure::run(
                "--uid-map and --gid-map are for daemons that are not started as root: leave them \
                 out, or use --translate-uid and --translate-gid",
            ));
        }
        None
    } else {
        Some(MapWriter::start(
            &confinement.uid_map,
            &confinement.gid_map,
        )?)
    };
    let user = if maps.is_some() {
        UnshareFlags::NEWUSER
    } else {
        UnshareFlags::empty()
    };
    // The parent's own process stays where it is: a process namespace begins with its children.
    unshare(user | UnshareFlags::NEWPID).map_err(|errno| refused("enter namespaces", errno))?;
    if let Some(maps) = maps {
        maps.write()?;
    }
    let fork = child::fork()
        .map_err(|error| Failure::run(format!("cannot start the daemon's process: {error}")))?;
    match fork {
        Fork::Parent(child) => Ok(Forked::Parent(child)),
        Fork::Child => {
            let mut left = UnshareFlags::NEWNS | UnshareFlags::NEWNET;
            if needs.network {
                left.remove(UnshareFlags::NEWNET);
            }
            unshare(left).map_err(|errno| refused("leave the host's mounts and network", errno))?;
            Ok(Forked::Child(leave_root(shares, needs)?))
        }
    }
}

fn refused(what: &str, errno: Errno) -> Failure {
    let advice = match errno {
        Errno::PERM if rustix::process::geteuid().is_root() => {
            "this root has no CAP_SYS_ADMIN, as in a container: add it, or choose \
             --sandbox=chroot or --sandbox=none"
        }
        Errno::PERM | Errno::ACCESS | Errno::NOSPC => {
            "allow unprivileged user namespaces, run as root, or choose --sandbox=none"
        }
        _ => "choose --sandbox=chroot (as root) or --sandbox=none",
    };
    Failure::run(format!("cannot {what}: {errno}; {advice}"))
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    let mut tries: u32 = 0;
    loop {
        // SAFETY: the table of descriptors is not among what is unshared.
        match unsafe { rustix::thread::unshare_unsafe(flags) } {
            // A process with one thread alone enters a user namespace, and those that have ended and were waited for are
            // in the kernel's list for a moment still.
            Err(Errno::INVAL) if tries < 30 => {
                tries = tries.saturating_add(1);
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Makes a root of nothing but the shares, each under its number, and gives up the old one.
fn leave_root(shares: &[Share], needs: Needs) -> Result<Inside, Failure> {
    let failed = |what: &'static str| move |errno: Errno| refused(what, errno);
    // Mounts made on the host later still appear below the shares, but none of ours there.
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("separate the sandbox's mounts"))?;

    let proc_self_fd = take_proc_self_fd().map_err(failed("take /proc/self/fd along"))?;

    let root = empty_file_system().map_err(failed("make a root for the sandbox"))?;
    // Any directory serves that surely exists.
    attach(&root, CWD, c"/proc").map_err(failed("make a root for the sandbox"))?;
    for (number, share) in shares.iter().enumerate() {
        take_along(share, &root, &number.to_string())
            .map_err(|errno| refused(&format!("take {} along", share.path.display()), errno))?;
    }
    if needs.network {
        for path in resolver::FILES {
            take_along_for_network(Path::new(path), &root)
                .map_err(|errno| refused(&format!("take {path} along"), errno))?;
        }
    }
    set_attributes(root.as_fd(), Depth::One, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(failed("make the sandbox's root read-only"))?;

    let leave = || -> rustix::io::Result<()> {
        rustix::process::fchdir(&root)?;
        rustix::process::pivot_root(c".", c".")?;
        // The old root lies on top of the new one.
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    };
    leave().map_err(failed("leave the host's root"))?;

    let roots = (0..shares.len())
        .map(|number| super::open_root(Path::new("/").join(number.to_string()).as_path()))
        .collect::<Result<_, _>>()?;
    Ok(Inside {
        roots,
        proc_self_fd,
    })
}

/// A file system for the places of the shares, mounted nowhere yet.
fn empty_file_system() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", c"0755")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// `/proc/self/fd` as a mount of its own, which ends at its root: `..` leads nowhere, as it would to
/// all of `/proc`.
///
/// # Errors
/// When the caller may not mount.
pub(super) fn take_proc_self_fd() -> rustix::io::Result<OwnedFd> {
    clone_mounts(CWD, c"/proc/self/fd", OpenTreeFlags::empty())
}

/// The mounts at `path` and below as they are now. None that is made later appears among them.
///
/// # Errors
/// When the caller may not mount.
pub(super) fn take_tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    let tree = clone_mounts(CWD, path, OpenTreeFlags::AT_RECURSIVE)?;
    change_mounts(
        tree.as_fd(),
        Depth::All,
        libc::mount_attr {
            attr_set: 0,
            attr_clr: 0,
            propagation: MountPropagationFlags::PRIVATE.bits().into(),
            userns_fd: 0,
        },
    )?;
    Ok(tree)
}

/// Mounts the tree of a share at `name` below `root`, with all that is mounted below it.
fn take_along(share: &Share, root: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let tree = match &share.tree {
        Some(tree) => tree.try_clone().map_err(|_| Errno::MFILE)?,
        None => clone_mounts(CWD, &*share.path, OpenTreeFlags::AT_RECURSIVE)?,
    };
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, share.readonly);
    set_attributes(tree.as_fd(), Depth::All, attributes)?;
    place(&tree, root, Path::new(name))
}

/// Mounts a file or directory of the host, and nothing below it, at its own path below `root`, to
/// be read. What the host does not have is left out.
fn take_along_for_network(path: &Path, root: &OwnedFd) -> rustix::io::Result<()> {
    // The resolver's configuration often is a link out of /etc.
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    let tree = clone_mounts(CWD, &*real, OpenTreeFlags::empty())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    set_attributes(tree.as_fd(), Depth::One, attributes)?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let parents: Vec<&Path> = below.ancestors().skip(1).collect();
    for parent in parents.into_iter().rev() {
        match rustix::fs::mkdirat(root, parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    place(&tree, root, below)
}

/// Makes a place at `path` below `root`, and mounts a tree there.
fn place(tree: &OwnedFd, root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let status = rustix::fs::fstat(tree)?;
    if FileType::from_raw_mode(status.st_mode).is_dir() {
        rustix::fs::mkdirat(root, path, Mode::RWXU)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(root, path, flags, Mode::RUSR)?);
    }
    attach(tree, root.as_fd(), path)
}

fn clone_mounts(
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    depth: OpenTreeFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(directory, path, flags | depth)
}

fn attach(
    tree: &OwnedFd,
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
) -> rustix::io::Result<()> {
    rustix::mount::move_mount(
        tree.as_fd(),
        c"",
        directory,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Which mounts of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

/// Adds attributes to mounts (Linux 5.12).
fn set_attributes(
    tree: BorrowedFd<'_>,
    depth: Depth,
    added: MountAttrFlags,
) -> rustix::io::Result<()> {
    change_mounts(
        tree,
        depth,
        libc::mount_attr {
            attr_set: u64::from(added.bits()),
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        },
    )
}

fn change_mounts(
    tree: BorrowedFd<'_>,
    depth: Depth,
    attributes: libc::mount_attr,
) -> rustix::io::Result<()> {
    let recursive = if depth == Depth::All {
        libc::AT_RECURSIVE
    } else {
        0
    };
    let path: &CStr = c"";
    // SAFETY: the path ends with a NUL, and the structure is as long as the call is told; both live
    // until it returns, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
