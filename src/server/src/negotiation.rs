//! INIT: what is offered to a guest, and what was agreed.

use vfsd_backend::{Capabilities, Errno};
use vfsd_fuse::wire::InitOut;
use vfsd_fuse::{InitFlags, InitIn, Layout, MAJOR, MAX_TRANSFER, MINOR, MINOR_MIN};

use crate::options::{CacheMode, Offer, SessionOptions};

/// The page size that `max_pages` counts in.
const PAGE: u32 = 4096;
/// Requests of the kernel's own that may be under way, such as readahead. The protocol's maximum.
const MAX_BACKGROUND: u16 = u16::MAX;

/// The flags that POSIX ACLs need: ACLs with the umask applied here, and a setxattr that can say that set-group-id goes.
const ACL_FLAGS: InitFlags = InitFlags::POSIX_ACL
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::SETXATTR_EXT);

/// The outcome of an INIT.
#[derive(Debug)]
pub(crate) enum Negotiation {
    /// The session runs.
    Agreed {
        /// What was agreed.
        layout: Layout,
        /// The reply.
        reply: InitOut,
    },
    /// The guest speaks a newer major version: it is told ours and asks again.
    TryAgain {
        /// The reply.
        reply: InitOut,
    },
}

/// Answers an INIT. A guest can send as many as it likes, so it is logged only if `loud`.
/// With `without_open` the storages need no file to be opened before it is used.
///
/// # Errors
/// EPROTO for a protocol that is too old, or a guest without a feature that the operator demands.
pub(crate) fn negotiate(
    init: &InitIn,
    capabilities: Capabilities,
    without_open: bool,
    options: &SessionOptions,
    loud: bool,
) -> Result<Negotiation, Errno> {
    if init.major > MAJOR {
        let reply = reply(InitFlags::empty(), 0, MINOR);
        return Ok(Negotiation::TryAgain { reply });
    }
    if init.major < MAJOR || init.minor < MINOR_MIN {
        if loud {
            tracing::error!(
                "the guest speaks FUSE {}.{}, this daemon {MAJOR}.{MINOR_MIN} to {MAJOR}.{MINOR}: \
                 use a guest with Linux 5.4 or newer",
                init.major,
                init.minor
            );
        }
        return Err(Errno::PROTO);
    }
    let mut offered = init.flags;
    if !offered.contains(InitFlags::INIT_EXT) {
        offered = InitFlags::from_bits_retain(offered.bits() & u64::from(u32::MAX));
    }
    let wanted = wanted(capabilities, options);
    let mut flags = offered
        & (wanted
            | demanded(
                "POSIX ACLs",
                posix_acl(capabilities, options),
                ACL_FLAGS,
                offered,
                loud,
            )?
            | demanded(
                "security labels",
                security_label(capabilities, options),
                InitFlags::SECURITY_CTX,
                offered,
                loud,
            )?);
    // An open that truncates does not say whether set-id bits are to go, unless they are cleared here;
    // left to itself, the guest truncates in a request of its own that does.
    if !flags.contains(InitFlags::HANDLE_KILLPRIV_V2) {
        flags.remove(InitFlags::ATOMIC_O_TRUNC);
    }
    // Who locks a file must be known to have closed it.
    let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    if !without_open || flags.intersects(locks) {
        flags.remove(InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT);
    }
    // No OPEN comes that could truncate.
    if flags.contains(InitFlags::NO_OPEN_SUPPORT) {
        flags.remove(InitFlags::ATOMIC_O_TRUNC);
    }
    // A guest that chooses takes names alone after the first piece of a listing, and then asks for
    // each of them. What it learns of a tree of its own it keeps, so that it had better learn all of it.
    if flags.contains(InitFlags::NO_OPENDIR_SUPPORT) {
        flags.remove(InitFlags::READDIRPLUS_AUTO);
    }
    let minor = init.minor.min(MINOR);
    if loud {
        tracing::info!(
            "session starts: FUSE {}.{} with {:?}",
            init.major,
            minor,
            flags & InitFlags::all()
        );
    }
    Ok(Negotiation::Agreed {
        layout: Layout { flags },
        reply: reply(flags, init.max_readahead, minor),
    })
}

fn reply(flags: InitFlags, max_readahead: u32, minor: u32) -> InitOut {
    let (low, high) = flags.words();
    InitOut {
        major: MAJOR,
        minor,
        max_readahead,
        flags: low,
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND / 4 * 3,
        max_write: MAX_TRANSFER,
        time_gran: 1,
        max_pages: u16::try_from(MAX_TRANSFER / PAGE).unwrap_or(u16::MAX),
        map_alignment: 0,
        flags2: high,
        max_stack_depth: 0,
        request_timeout: 0,
        unused: [0; 11],
    }
}

/// What is always offered, and what the storage and the options allow.
fn wanted(capabilities: Capabilities, options: &SessionOptions) -> InitFlags {
    let mut flags = InitFlags::ASYNC_READ
        | InitFlags::BIG_WRITES
        | InitFlags::HAS_IOCTL_DIR
        | InitFlags::AUTO_INVAL_DATA
        | InitFlags::ASYNC_DIO
        | InitFlags::PARALLEL_DIROPS
        | InitFlags::MAX_PAGES
        | InitFlags::INIT_EXT
        | InitFlags::NO_OPEN_SUPPORT
        | InitFlags::NO_OPENDIR_SUPPORT
        | InitFlags::CREATE_SUPP_GROUP;
    let caches = options.cache.mode != CacheMode::Never;
    for (condition, flag) in [
        (
            capabilities.contains(Capabilities::ATOMIC_TRUNCATE),
            InitFlags::ATOMIC_O_TRUNC,
        ),
        (
            capabilities.contains(Capabilities::POSIX_LOCKS),
            InitFlags::POSIX_LOCKS,
        ),
        (
            capabilities.contains(Capabilities::FLOCK),
            InitFlags::FLOCK_LOCKS,
        ),
        (
            capabilities.contains(Capabilities::SUBMOUNTS),
            InitFlags::SUBMOUNTS,
        ),
        (
            capabilities.contains(Capabilities::WRITEBACK) && options.writeback,
            InitFlags::WRITEBACK_CACHE,
        ),
        (
            capabilities.contains(Capabilities::KILL_PRIVILEGES) && options.kill_privileges,
            InitFlags::HANDLE_KILLPRIV_V2,
        ),
        (
            options.readdirplus && caches,
            InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO,
        ),
        // A link's target never changes: another target is another inode.
        (caches, InitFlags::CACHE_SYMLINKS),
        (options.allow_mmap, InitFlags::DIRECT_IO_ALLOW_MMAP),
        (options.allow_idmap, InitFlags::ALLOW_IDMAP),
    ] {
        if condition {
            flags |= flag;
        }
    }
    flags
}

fn posix_acl(capabilities: Capabilities, options: &SessionOptions) -> Offer {
    if capabilities.contains(Capabilities::POSIX_ACL) {
        options.posix_acl
    } else {
        Offer::Never
    }
}

fn security_label(capabilities: Capabilities, options: &SessionOptions) -> Offer {
    let able = capabilities.contains(Capabilities::SECURITY_CONTEXT);
    if able {
        options.security_label
    } else {
        Offer::Never
    }
}

/// Flags that only make sense together, and that the operator may insist on.
fn demanded(
    what: &str,
    offer: Offer,
    flags: InitFlags,
    offered: InitFlags,
    loud: bool,
) -> Result<InitFlags, Errno> {
    match offer {
        Offer::Never => Ok(InitFlags::empty()),
        _ if offered.contains(flags) => Ok(flags),
        Offer::Auto => {
            if loud {
                tracing::warn!("the guest cannot do {what}: serving without them");
            }
            Ok(InitFlags::empty())
        }
        Offer::Always => {
            if loud {
                tracing::error!(
                    "the guest cannot do {what}, which are demanded: use a newer guest kernel, or \
                     choose 'auto'"
                );
            }
            Err(Errno::PROTO)
        }
    }
}

#[cfg(test)]
#[path = "negotiation_tests.rs"]
mod tests;
