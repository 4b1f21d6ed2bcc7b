//! Keeping the daemon away from the rest of the host.
//!
//! Two steps, because storages are opened between them: [`enter`] leaves the host's files,
//! processes and network; [`give_up_privileges`] leaves what is not needed to serve. Both come
//! before the first thread is started.

mod capabilities;
mod child;
mod chroot;
mod id_range;
mod landlock;
mod namespace;
mod resolver;
mod seccomp;
mod user_namespace;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

pub(crate) use capabilities::{CapabilityChanges, Needs};
pub(crate) use child::{Child, Fork, fork, spawn};
pub(crate) use id_range::IdRange;

use crate::cli::choices::{FileHandles, SandboxMode, SeccompAction};
use crate::exit::Failure;
use crate::settings::Confinement;
use crate::source::Root;

/// A directory, or file, of the host that is served.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    /// What is used of it.
    pub(crate) used: Vec<PathBuf>,
    /// Its mounts as they were before another was made on top of it or below.
    pub(crate) tree: Option<Arc<OwnedFd>>,
    /// No other storage may use what is used of it.
    pub(crate) alone: bool,
}

impl Share {
    /// A place of the host, with what is mounted there when the sandbox is entered.
    pub(crate) fn at(path: PathBuf, readonly: bool) -> Self {
        Self {
            used: vec![path.clone()],
            path,
            readonly,
            tree: None,
            alone: false,
        }
    }

    /// As [`Self::at`], to be changed, by one storage alone.
    pub(crate) fn alone_at(path: PathBuf) -> Self {
        Self {
            alone: true,
            ..Self::at(path, false)
        }
    }

    /// Keeps out of it what will be mounted on `point`, which may be a used part of the share or lie
    /// below: who serves a mount and waits for it at the same time waits for good. Elsewhere in the share it is kept out
    /// if the sandbox can; says whether it is: a mount that is taken along outlives its unmounting outside.
    ///
    /// # Errors
    /// When `point` lies in a used part, and the sandbox cannot keep it out.
    pub(crate) fn keep_out(
        &mut self,
        point: &Path,
        confinement: &Confinement,
    ) -> Result<bool, Failure> {
        let identity = |path: &Path| {
            let status = rustix::fs::lstat(path).ok()?;
            Some((status.st_dev, status.st_ino))
        };
        let above: Vec<_> = point.ancestors().filter_map(identity).collect();
        let is_above = |path: &Path| identity(path).is_some_and(|path| above.contains(&path));
        let is_used = self.used.iter().any(|path| is_above(path));
        if !is_used && !is_above(&self.path) {
            return Ok(true);
        }
        let private = match confinement.sandbox {
            SandboxMode::Namespace if rustix::process::geteuid().is_root() => {
                namespace::take_tree(&self.path)
            }
            _ => Err(rustix::io::Errno::PERM),
        };
        match private {
            Ok(tree) => {
                self.tree = Some(Arc::new(tree));
                Ok(true)
            }
            Err(_) if !is_used => Ok(false),
            Err(_) => Err(Failure::run(format!(
                "cannot mount on {}: it is a part of {}, which is to be shown there; choose another \
                 place (root can mount there with --sandbox=namespace)",
                point.display(),
                self.path.display()
            ))),
        }
    }
}

/// Which process this is, behind [`enter`].
#[derive(Debug)]
pub(crate) enum Role {
    /// The one that was started. It stays outside, and looks after the other.
    Supervisor(Child),
    /// The one that serves.
    Daemon(Inside),
}

/// What the sandbox has of the host.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The shares, in their order.
    pub(crate) roots: Vec<Root>,
    /// The directory `/proc/self/fd`, as an `O_PATH` descriptor.
    pub(crate) proc_self_fd: OwnedFd,
}

enum Forked {
    Parent(Child),
    Child(Inside),
}

/// Whether files are opened by their handles, with so many descriptors for each export.
///
/// # Errors
/// When that is wanted, but not the capability that it takes.
pub(crate) fn file_handles(
    confinement: &Confinement,
    wanted: FileHandles,
    descriptors: usize,
) -> Result<vfsd_passthrough::FileHandles, Failure> {
    let permitted = confinement
        .modcaps
        .is_none_or(|changes| !changes.removes(CapabilitySet::DAC_READ_SEARCH));
    match wanted {
        FileHandles::Auto if !permitted => Ok(vfsd_passthrough::FileHandles::Never),
        FileHandles::Prefer | FileHandles::Mandatory if !permitted => Err(Failure::run(
            "--modcaps removes dac_read_search, which file handles need: add \
             --inode-file-handles=never",
        )),
        wanted => Ok(wanted.decided(descriptors)),
    }
}

/// Enters the sandbox. A child process of this one is then in it; with `SandboxMode::None` it is
/// this process, which has no supervisor.
///
/// # Errors
/// When the host does not permit the sandbox. A child that gets an error must end.
pub(crate) fn enter(
    confinement: &Confinement,
    shares: &[Share],
    needs: Needs,
) -> Result<Role, Failure> {
    let forked = match confinement.sandbox {
        SandboxMode::Namespace => namespace::enter(confinement, shares, needs)?,
        SandboxMode::Chroot if needs.network => {
            return Err(Failure::run(
                "--sandbox=chroot has neither names of hosts nor certificates in it: choose \
                 --sandbox=namespace or --sandbox=none",
            ));
        }
        SandboxMode::Chroot => chroot::enter(shares)?,
        SandboxMode::None => stay(shares)?,
    };
    Ok(match forked {
        Forked::Parent(child) => Role::Supervisor(child),
        Forked::Child(inside) => Role::Daemon(inside),
    })
}

fn stay(shares: &[Share]) -> Result<Forked, Failure> {
    tracing::warn!("no sandbox: the daemon can reach whatever its user can");
    let roots = shares
        .iter()
        .map(|share| open_root(&share.path))
        .collect::<Result<_, _>>()?;
    Ok(Forked::Child(Inside {
        roots,
        proc_self_fd: open_proc_self_fd()?,
    }))
}

fn open_root(path: &Path) -> Result<Root, Failure> {
    let descriptor =
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Failure::run(format!("cannot open {}: {errno}", path.display())))?;
    Ok(Root {
        descriptor,
        path: path.to_owned(),
    })
}

fn open_proc_self_fd() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/proc/self/fd", flags, Mode::empty())
        .map_err(|errno| Failure::run(format!("cannot open /proc/self/fd: {errno}; mount /proc")))
}

/// Gives up what the daemon does not need to serve, for good: groups, capabilities, core dumps,
/// files that are not the shares' and system calls.
///
/// # Errors
/// When the kernel does not do it.
pub(crate) fn give_up_privileges(
    confinement: &Confinement,
    needs: Needs,
    inside: &Inside,
) -> Result<(), Failure> {
    let failed = |what: &'static str| {
        move |errno: rustix::io::Errno| Failure::run(format!("cannot {what}: {errno}"))
    };
    if needs.trusted_attributes && confinement.seccomp == SeccompAction::None {
        return Err(Failure::run(
            "--seccomp=none leaves unguarded what the writable layer's trusted.* attributes take \
             (CAP_SYS_ADMIN): add --upper-xattr=user, or choose another --seccomp",
        ));
    }
    let own = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?;
    if own.effective.contains(CapabilitySet::SETGID)
        && let Err(errno) = rustix::thread::set_thread_groups(&[])
        && errno != rustix::io::Errno::PERM
    {
        // EPERM: in a user namespace with one group, where there are no others to act as.
        return Err(failed("leave supplementary groups")(errno));
    }
    capabilities::cut(needs.capabilities(confinement.modcaps.as_ref()))
        .map_err(failed("give up capabilities"))?;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(failed("forbid core dumps"))?;
    // Below a root of its own made by root there is nothing but the shares, and Landlock would cost
    // each open file a walk up to its share.
    let alone =
        confinement.sandbox == SandboxMode::Namespace && rustix::process::geteuid().is_root();
    if confinement.sandbox != SandboxMode::None && !alone {
        landlock::restrict(needs, inside)?;
    }
    seccomp::install(confinement.seccomp, needs.network)
}
