//! Landlock: which files a program that the daemon starts can reach at all, whoever's they are.
//!
//! Beside what it is given these are its own file, the host's programs and libraries with what they are configured by, devices of
//! which nothing is learned, and its `/proc`; all of that to read, and none of the host's data.

// UNSAFETY: what the child does between fork(2) and execve(2) takes no memory, as system calls do and the crate does not.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};
use rustix::io::Errno;

/// The oldest version in which files can be moved between directories.
const OLDEST: ABI = ABI::V2;

/// The newest version whose rights are known here.
const NEWEST: ABI = ABI::V5;

/// Programs, libraries, and what says where they are.
const PROGRAMS: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
];

/// What connections are made by.
const NETWORK: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
];

const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// What a program can reach.
#[derive(Debug)]
pub(crate) struct Reach(OwnedFd);

impl Reach {
    /// `paths`, where it may do whatever its user may; `program` is its own file, if that is known.
    ///
    /// # Errors
    /// ENOENT for a path that cannot be opened, ENOSYS where the kernel does not have enough of Landlock.
    pub(crate) fn to(paths: &[PathBuf], program: Option<&Path>, network: bool) -> io::Result<Self> {
        // As a kernel says that has none.
        let lacks = || io::Error::from(Errno::NOSYS);
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(OLDEST))
            .map_err(|_| lacks())?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(Ruleset::create);
        let mut rules = rules.map_err(|_| lacks())?;
        for path in paths {
            let opened = PathFd::new(path).map_err(|_| Errno::NOENT)?;
            rules = allow(rules, path, opened, AccessFs::from_all(NEWEST))?;
        }
        let read = AccessFs::from_read(NEWEST);
        let network = if network { NETWORK } else { &[] };
        let paths = PROGRAMS.iter().chain(network).map(Path::new).chain(program);
        let paths = paths.map(|path| (path, read));
        let change = AccessFs::ReadFile | AccessFs::WriteFile;
        let devices = DEVICES.iter().map(|path| (Path::new(path), change));
        for (path, rights) in paths.chain(devices) {
            // What this host does not have needs no rule.
            if let Ok(opened) = PathFd::new(path) {
                rules = allow(rules, path, opened, rights)?;
            }
        }
        let descriptor: Option<OwnedFd> = rules.into();
        descriptor.map(Self).ok_or_else(lacks)
    }

    /// Restricts this process, which has gained no privileges since it set `no_new_privs`, and what it starts. It makes system calls
    /// and nothing else.
    ///
    /// # Errors
    /// What landlock_restrict_self(2) answers.
    pub(crate) fn restrict(&self) -> io::Result<()> {
        self.allow_proc()?;
        // SAFETY: it takes two numbers, and changes this thread's rights alone.
        match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Allows to read the `/proc` that there is now: before the fork it was another one.
    fn allow_proc(&self) -> io::Result<()> {
        /// `struct landlock_path_beneath_attr` of include/uapi/linux/landlock.h.
        #[repr(C, packed)]
        struct PathBeneathAttr {
            allowed_access: u64,
            parent_fd: i32,
        }
        const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1;
        /// `LANDLOCK_ACCESS_FS_READ_FILE` and `_READ_DIR`.
        const READ: u64 = 1 << 2 | 1 << 3;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let Ok(proc) = rustix::fs::open(c"/proc", flags, rustix::fs::Mode::empty()) else {
            return Ok(());
        };
        let rule = PathBeneathAttr {
            allowed_access: READ,
            parent_fd: proc.as_raw_fd(),
        };
        // SAFETY: `rule` is what the call reads for this kind of rule, and outlives it.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                LANDLOCK_RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        match added {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Adds a rule: of a file those of the rights that are a file's.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    opened: PathFd,
    rights: BitFlags<AccessFs>,
) -> io::Result<RulesetCreated> {
    let rights = match path.is_dir() {
        true => rights,
        false => rights & AccessFs::from_file(NEWEST),
    };
    rules
        .add_rule(PathBeneath::new(opened, rights))
        .map_err(io::Error::other)
}
