//! `vfsd virtiofsd`: the command line of virtiofsd 1.14, option for option.
//!
//! A repeated option overrides the earlier one, as there. What this version does not have is
//! refused by name with the reason.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};

use super::caching::CachingOptions;
use super::choices::{
    Cache, FileHandles, LogFormat, LogLevel, Negotiation, SandboxMode, SeccompAction,
};
use super::tree::{Offers, parse_xattr_map};
use super::{Task, legacy};
use crate::exit::Failure;
use crate::logging::LogSettings;
use crate::sandbox::{CapabilityChanges, IdRange};
use crate::settings::{
    Confinement, DEFAULT_POLL_LIMIT, Device, Endpoint, ExportSettings, LocalLocks, ServeSettings,
    Tag, Translation,
};
use crate::source::{Dir, Source, StorageOptions};

/// The version whose command line this is, and what is behind it.
const VERSION: &str = concat!("1.14.0\nvfsd ", env!("CARGO_PKG_VERSION"), " behind it");

/// Features that managers ask for by name. `migrate-precopy` is not among them: a running session
/// cannot be migrated.
const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}
"#;

/// Serve a directory with the command line of virtiofsd 1.14
#[derive(Debug, Clone, Parser)]
#[command(
    name = "virtiofsd", display_name = "virtiofsd", version = VERSION, disable_help_subcommand = true,
    args_override_self = true, arg_required_else_help = true, max_term_width = 100,
    override_usage = "virtiofsd --shared-dir <PATH> --socket-path <PATH> [OPTIONS]"
)]
pub(crate) struct VirtiofsdArguments {
    /// Directory to serve
    #[arg(
        long, value_name = "PATH",
        required_unless_present_any = ["compat_options", "print_capabilities"]
    )]
    pub(super) shared_dir: Option<PathBuf>,

    /// Tag to advertise in the device's config space
    #[arg(long, value_parser = Tag::parse)]
    tag: Option<Tag>,

    /// vhost-user socket path (deprecated: use --socket-path)
    #[arg(
        long, value_name = "PATH",
        required_unless_present_any = ["fd", "socket_path", "print_capabilities"]
    )]
    socket: Option<PathBuf>,

    /// vhost-user socket path
    #[arg(
        long, value_name = "PATH",
        required_unless_present_any = ["fd", "socket", "print_capabilities"]
    )]
    socket_path: Option<PathBuf>,

    /// Group of the vhost-user socket
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["fd", "print_capabilities"])]
    socket_group: Option<String>,

    /// Inherited listening socket
    #[arg(
        long, value_name = "N", conflicts_with_all = ["socket_path", "socket"],
        required_unless_present_any = ["socket", "socket_path", "print_capabilities"]
    )]
    fd: Option<RawFd>,

    /// Threads that may wait for a disk at the same time; 0 for as many as serve well
    #[arg(long, value_name = "N", default_value_t = 0)]
    thread_pool_size: usize,

    /// Extended attributes
    #[arg(long)]
    pub(super) xattr: bool,

    /// POSIX access control lists (implies --xattr)
    #[arg(
        long, value_enum, value_name = "never|auto|always", hide_possible_values = true,
        require_equals = true, num_args = 0..=1, default_value = "never",
        default_missing_value = "always"
    )]
    pub(super) posix_acl: Negotiation,

    /// Rules that rename extended attributes between guest and host (implies --xattr)
    #[arg(long, value_name = "RULES")]
    pub(super) xattrmap: Option<String>,

    /// How the daemon is kept away from the rest of the host
    #[arg(long, value_enum, ignore_case = true, default_value = "namespace")]
    pub(super) sandbox: SandboxMode,

    /// Answer every change with EROFS
    #[arg(long)]
    readonly: bool,

    /// What happens at a system call that the daemon has no use for
    #[arg(long, value_enum, default_value = "kill")]
    seccomp: SeccompAction,

    /// Tell the guest which directories are mount points (default)
    #[arg(long, overrides_with = "no_announce_submounts")]
    pub(super) announce_submounts: bool,

    /// Do not tell the guest which directories are mount points
    #[arg(long)]
    pub(super) no_announce_submounts: bool,

    /// How files are held that the guest knows but has not open
    #[arg(long, value_enum, default_value = "prefer")]
    inode_file_handles: FileHandles,

    /// What the guest may cache
    #[arg(long, value_enum, ignore_case = true, default_value = "auto")]
    pub(super) cache: Cache,

    /// Let files be mapped that bypass the guest's cache
    #[arg(long)]
    allow_mmap: bool,

    /// Do not let directory listings carry attributes
    #[arg(long)]
    pub(super) no_readdirplus: bool,

    /// Let the guest hold back and merge writes
    #[arg(long)]
    pub(super) writeback: bool,

    /// Honour O_DIRECT of guest programs
    #[arg(long)]
    pub(super) allow_direct_io: bool,

    /// Print what managers ask for, and exit
    #[arg(long)]
    print_capabilities: bool,

    /// Add and remove capabilities, for instance +sys_admin:-chown
    #[arg(long, allow_hyphen_values = true, value_parser = CapabilityChanges::parse)]
    pub(super) modcaps: Option<CapabilityChanges>,

    /// What is logged; RUST_LOG, when set, wins
    #[arg(long, value_enum, ignore_case = true, default_value = "info")]
    pub(super) log_level: LogLevel,

    /// Log to syslog instead of standard error
    #[arg(long)]
    syslog: bool,

    /// Open files that the daemon may have; 0 leaves the limit as it is
    #[arg(long, value_name = "N")]
    rlimit_nofile: Option<u64>,

    /// Options of the C virtiofsd (deprecated)
    #[arg(short = 'o', value_name = "LIST", action = ArgAction::Append)]
    compat_options: Vec<OsString>,

    /// --log-level debug (deprecated)
    #[arg(short = 'd')]
    compat_debug: bool,

    /// Nothing: the daemon stays in the foreground anyway (deprecated)
    #[arg(short = 'f')]
    compat_foreground: bool,

    /// Clear set-id bits in the guest (default)
    #[arg(long, overrides_with = "killpriv_v2")]
    no_killpriv_v2: bool,

    /// Clear set-id bits here instead of in the guest
    #[arg(long, overrides_with = "no_killpriv_v2")]
    pub(super) killpriv_v2: bool,

    /// Store the security label of a new file with its creation (implies --xattr)
    #[arg(
        long, value_enum, value_name = "never|auto|always", hide_possible_values = true,
        require_equals = true, num_args = 0..=1, default_value = "never",
        default_missing_value = "always"
    )]
    pub(super) security_label: Negotiation,

    /// Map users into the sandbox's user namespace, :INSIDE:OUTSIDE:COUNT:
    #[arg(long, value_name = "RANGE", value_parser = IdRange::parse, action = ArgAction::Append)]
    uid_map: Vec<IdRange>,

    /// Map groups into the sandbox's user namespace, :INSIDE:OUTSIDE:COUNT:
    #[arg(long, value_name = "RANGE", value_parser = IdRange::parse, action = ArgAction::Append)]
    gid_map: Vec<IdRange>,

    /// Translate user ids: guest:G:H:N, host:H:G:N, map:G:H:N, squash-guest:G:H:N,
    /// squash-host:H:G:N or forbid-guest:G:N
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    translate_uid: Vec<String>,

    /// Translate group ids, with the same rules
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    translate_gid: Vec<String>,

    /// Honour O_NOATIME of guest programs
    #[arg(long)]
    preserve_noatime: bool,

    #[command(flatten)]
    migration: MigrationOptions,

    /// Locks of guests are local to them; only `-o no_flock` and `-o no_posix_lock` say so.
    #[arg(skip)]
    pub(super) local_locks: LocalLocks,
}

/// Options about what this version does not have.
#[derive(Debug, Clone, Args)]
struct MigrationOptions {
    #[arg(long, hide = true, value_parser = refuse_migration)]
    migration_mode: Option<String>,
    #[arg(long, hide = true, value_parser = refuse_migration)]
    migration_on_error: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = refuse_migration)]
    migration_verify_handles: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = refuse_migration)]
    migration_confirm_paths: Option<String>,
}

fn refuse_migration(_: &str) -> Result<String, &'static str> {
    Err("live migration is not in this version; leave the option out")
}

impl VirtiofsdArguments {
    /// What the command line asks for.
    ///
    /// # Errors
    /// When the `-o` options cannot be read, or options contradict each other.
    pub(crate) fn task(mut self) -> Result<Task, Failure> {
        if self.print_capabilities {
            return Ok(Task::Print(CAPABILITIES.to_owned()));
        }
        let lists = std::mem::take(&mut self.compat_options);
        for list in &lists {
            legacy::apply(&mut self, list)?;
        }
        let mut notices = self.notices();
        if !lists.is_empty() {
            notices.push("-o is deprecated: use the options without it, as in --cache=auto");
        }
        let mut settings = self.settings()?;
        settings.log.notices = notices;
        Ok(Task::Serve(Box::new(settings)))
    }

    /// What an operator should change some day.
    fn notices(&self) -> Vec<&'static str> {
        [
            (
                self.compat_foreground,
                "-f is deprecated: it has no effect, remove it",
            ),
            (self.compat_debug, "-d is deprecated: use --log-level=debug"),
            (
                self.socket.is_some(),
                "--socket is deprecated: use --socket-path",
            ),
        ]
        .into_iter()
        .filter_map(|(given, notice)| given.then_some(notice))
        .collect()
    }

    fn settings(self) -> Result<ServeSettings, Failure> {
        let Some(shared) = self.shared_dir else {
            return Err(Failure::run(
                "nothing to serve: give --shared-dir, or -o source=PATH",
            ));
        };
        let endpoint = match (self.socket_path.or(self.socket), self.fd) {
            (Some(path), _) => Endpoint::Path {
                path,
                group: self.socket_group,
                pid_file: true,
            },
            (None, Some(fd)) => Endpoint::Inherited(fd),
            (None, None) => return Err(Failure::usage("give --socket-path, or --fd")),
        };
        let translates = !self.translate_uid.is_empty() || !self.translate_gid.is_empty();
        if translates && self.posix_acl != Negotiation::Never {
            return Err(Failure::run(
                "--translate-uid and --translate-gid exclude --posix-acl: ids inside the lists \
                 would stay untranslated",
            ));
        }
        let offers = Offers {
            xattr: self.xattr
                || self.xattrmap.is_some()
                || self.posix_acl != Negotiation::Never
                || self.security_label != Negotiation::Never,
            posix_acl: self.posix_acl,
            security_label: self.security_label,
            kill_privileges: self.killpriv_v2,
            local_locks: self.local_locks,
        };
        let caching = CachingOptions {
            cache: Some(self.cache),
            writeback: self.writeback,
            allow_direct_io: self.allow_direct_io,
            allow_mmap: self.allow_mmap,
            no_readdirplus: self.no_readdirplus,
            ..CachingOptions::default()
        };
        let translation = Translation::parse(&self.translate_uid, &self.translate_gid)?;
        let level = if self.compat_debug {
            LogLevel::Debug
        } else {
            self.log_level
        };
        Ok(ServeSettings {
            exports: vec![ExportSettings::unnamed(
                Source::new(Dir(shared)),
                self.readonly,
            )],
            session: offers.session(&caching, translation),
            storage: StorageOptions {
                file_handles: self.inode_file_handles,
                passthrough: vfsd_passthrough::Options {
                    xattr_map: parse_xattr_map(self.xattrmap.as_deref())?,
                    announce_submounts: !self.no_announce_submounts,
                    preserve_noatime: self.preserve_noatime,
                    ..offers.passthrough(&caching)
                },
                withheld: offers.withheld(),
                ..StorageOptions::default()
            },
            device: Device {
                endpoint,
                tag: self.tag,
                queues: QUEUES,
                poll_limit: DEFAULT_POLL_LIMIT,
                reconnect: false,
            },
            confinement: Confinement {
                sandbox: self.sandbox,
                seccomp: self.seccomp,
                modcaps: self.modcaps,
                uid_map: self.uid_map,
                gid_map: self.gid_map,
                rlimit_nofile: self.rlimit_nofile,
                thread_pool_size: self.thread_pool_size,
            },
            log: LogSettings {
                level,
                format: LogFormat::Text,
                syslog: self.syslog,
                notices: Vec::new(),
            },
            control: None,
        })
    }
}

/// Request queues that a front end may ask for. virtiofsd has one; more hurt nobody.
const QUEUES: u16 = 16;
