//! The sandbox of chroot(2): for hosts without namespaces. Root only, and one directory.

use super::child::{self, Fork};
use super::{Forked, Inside, Share, namespace, open_proc_self_fd, open_root};
use crate::exit::Failure;

/// Divides this process in two: the child has the share as its root.
///
/// # Errors
/// Unless there is exactly one directory, and the caller is root.
pub(super) fn enter(shares: &[Share]) -> Result<Forked, Failure> {
    let [Share { path, .. }] = shares else {
        return Err(Failure::run(
            "--sandbox=chroot serves exactly one directory: choose --sandbox=namespace",
        ));
    };
    if !path.is_dir() {
        return Err(Failure::run(format!(
            "--sandbox=chroot serves a directory, which {} is not: choose --sandbox=namespace",
            path.display()
        )));
    }
    let fork = child::fork()
        .map_err(|error| Failure::run(format!("cannot start the daemon's process: {error}")))?;
    match fork {
        Fork::Parent(child) => Ok(Forked::Parent(child)),
        Fork::Child => {
            // Taking it needs CAP_SYS_ADMIN. Without, Landlock keeps the rest of /proc closed.
            let proc_self_fd = namespace::take_proc_self_fd().or_else(|_| open_proc_self_fd())?;
            rustix::process::chroot(path)
                .and_then(|()| rustix::process::chdir(c"/"))
                .map_err(|errno| {
                    Failure::run(format!(
                        "cannot chroot to {}: {errno}; run as root, or choose --sandbox=namespace",
                        path.display()
                    ))
                })?;
            Ok(Forked::Child(Inside {
                roots: vec![open_root("/".as_ref())?],
                proc_self_fd,
            }))
        }
    }
}
