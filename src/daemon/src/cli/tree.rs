//! Options that say how a tree appears in the guest, and what the guest may do with it.

use clap::Args;
use vfsd_backend::Capabilities;
use vfsd_passthrough::XattrMap;
use vfsd_server::SessionOptions;

use super::caching::CachingOptions;
use super::choices::{FileHandles, Locks, Negotiation};
use crate::exit::Failure;
use crate::settings::{LocalLocks, Translation};
use crate::source::StorageOptions;

/// How a tree is served, as an operator says it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "File system")]
pub(crate) struct TreeOptions {
    /// Answer every change with EROFS
    #[arg(long)]
    pub(crate) readonly: bool,

    /// Extended attributes (default)
    #[arg(long, conflicts_with = "no_xattr")]
    xattr: bool,

    /// No extended attributes, and so no ACLs and no security labels
    #[arg(long, conflicts_with_all = ["posix_acl", "security_label", "xattr_map"])]
    no_xattr: bool,

    /// POSIX access control lists [default: auto; never with --translate-uid, --translate-gid or
    /// --no-xattr]
    #[arg(
        long, value_enum, value_name = "never|auto|always", hide_possible_values = true,
        require_equals = true, num_args = 0..=1, default_missing_value = "always",
        conflicts_with_all = ["translate_uid", "translate_gid"]
    )]
    posix_acl: Option<Negotiation>,

    /// Store the security label of a new file with its creation
    #[arg(
        long, value_enum, value_name = "never|auto|always", hide_possible_values = true,
        require_equals = true, num_args = 0..=1, default_missing_value = "always",
        default_value = "never"
    )]
    security_label: Negotiation,

    /// Rules that rename extended attributes between guest and host, in virtiofsd's language
    /// (:type:scope:key:prepend: or :map:key:prepend:)
    #[arg(long, visible_alias = "xattrmap", value_name = "RULES")]
    xattr_map: Option<String>,

    /// Translate user ids: guest:G:H:N, host:H:G:N, map:G:H:N, squash-guest:G:H:N,
    /// squash-host:H:G:N or forbid-guest:G:N; may be repeated
    #[arg(long, value_name = "RULE")]
    translate_uid: Vec<String>,

    /// Translate group ids, with the same rules; may be repeated
    #[arg(long, value_name = "RULE")]
    translate_gid: Vec<String>,

    /// Clear set-id bits here instead of in the guest, which then need not ask for
    /// security.capability before each write (default)
    #[arg(long, conflicts_with = "no_killpriv_v2")]
    killpriv_v2: bool,

    /// Clear set-id bits in the guest
    #[arg(long)]
    no_killpriv_v2: bool,

    /// Tell the guest which directories are mount points (default)
    #[arg(long, conflicts_with = "no_announce_submounts")]
    announce_submounts: bool,

    /// Do not tell the guest which directories are mount points
    #[arg(long)]
    no_announce_submounts: bool,

    /// How files are held that the guest knows but has not open
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    inode_file_handles: FileHandles,

    /// Refuse to create device nodes (EPERM)
    #[arg(long)]
    no_device_nodes: bool,

    /// Locks of the guest exclude nobody outside it, and a guest process that waits for one can be
    /// killed: all of them, or those of flock(2) or fcntl(2) only
    #[arg(
        long, value_enum, value_name = "all|flock|posix", hide_possible_values = true,
        require_equals = true, num_args = 0..=1, default_missing_value = "all"
    )]
    local_locks: Option<Locks>,

    /// Honour O_NOATIME of guest programs instead of dropping it
    #[arg(long)]
    preserve_noatime: bool,
}

impl TreeOptions {
    /// What is offered to the guest.
    pub(super) fn offers(&self) -> Offers {
        let translates = !self.translate_uid.is_empty() || !self.translate_gid.is_empty();
        let acl_by_default = if self.no_xattr || translates {
            Negotiation::Never
        } else {
            Negotiation::Auto
        };
        Offers {
            xattr: !self.no_xattr,
            posix_acl: self.posix_acl.unwrap_or(acl_by_default),
            security_label: self.security_label,
            kill_privileges: !self.no_killpriv_v2,
            local_locks: self.local_locks.map(Locks::into).unwrap_or_default(),
        }
    }

    /// How trees are opened.
    ///
    /// # Errors
    /// When the rules for extended attributes cannot be read.
    pub(super) fn storage(&self, caching: &CachingOptions) -> Result<StorageOptions, Failure> {
        let offers = self.offers();
        Ok(StorageOptions {
            passthrough: vfsd_passthrough::Options {
                xattr_map: parse_xattr_map(self.xattr_map.as_deref())?,
                device_nodes: !self.no_device_nodes,
                announce_submounts: !self.no_announce_submounts,
                preserve_noatime: self.preserve_noatime,
                ..offers.passthrough(caching)
            },
            file_handles: self.inode_file_handles,
            withheld: offers.withheld(),
            cached_as_told: caching.is_chosen(),
            ..StorageOptions::default()
        })
    }

    /// The translation of ids.
    ///
    /// # Errors
    /// When a rule cannot be read, or two of them speak of the same ids.
    pub(crate) fn translation(&self) -> Result<Translation, Failure> {
        Translation::parse(&self.translate_uid, &self.translate_gid)
    }
}

/// What is offered to the guest, whichever command line says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offers {
    pub(super) xattr: bool,
    pub(super) posix_acl: Negotiation,
    pub(super) security_label: Negotiation,
    pub(super) kill_privileges: bool,
    pub(super) local_locks: LocalLocks,
}

impl Offers {
    /// What a session is told.
    pub(super) fn session(self, caching: &CachingOptions, ids: Translation) -> SessionOptions {
        SessionOptions {
            cache: caching.policy(),
            writeback: caching.writeback,
            readdirplus: caching.readdirplus(),
            allow_mmap: caching.allow_mmap,
            kill_privileges: self.kill_privileges,
            posix_acl: self.posix_acl.into(),
            security_label: self.security_label.into(),
            uid_map: ids.uids,
            gid_map: ids.gids,
            ..SessionOptions::default()
        }
    }

    /// What directories of the host are told.
    pub(super) fn passthrough(self, caching: &CachingOptions) -> vfsd_passthrough::Options {
        vfsd_passthrough::Options {
            xattr: self.xattr,
            posix_acl: self.posix_acl != Negotiation::Never,
            security_labels: self.security_label != Negotiation::Never,
            kill_privileges: self.kill_privileges,
            writeback: caching.writeback,
            allow_direct_io: caching.allow_direct_io,
            ..vfsd_passthrough::Options::default()
        }
    }

    /// What the guest is not offered, whatever a storage can do.
    pub(super) fn withheld(self) -> Capabilities {
        let mut withheld = self.local_locks.withheld();
        withheld.set(Capabilities::XATTR | Capabilities::POSIX_ACL, !self.xattr);
        withheld
    }
}

/// Reads the rules of `--xattr-map`.
///
/// # Errors
/// When they cannot be read.
pub(super) fn parse_xattr_map(rules: Option<&str>) -> Result<Option<XattrMap>, Failure> {
    rules
        .map(str::parse)
        .transpose()
        .map_err(|error| Failure::usage(format!("--xattr-map: {error}")))
}
