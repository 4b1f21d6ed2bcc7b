//! The system calls that a serving daemon makes, and no others.
//!
//! The list is that of all storages and transports together, as traces of the test suites show it.
//! Calls that can do more than what is needed here are let through by their arguments.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::{c_long, c_ulong};
use seccompiler::{
    BpfProgram, SeccompAction as Action, SeccompCmpArgLen as Width, SeccompCmpOp as Op,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
};

use crate::cli::choices::SeccompAction;
use crate::exit::Failure;

/// Filters the calls of this thread and of those it starts later, for good. With `network` sockets to
/// other hosts can be made.
///
/// # Errors
/// When the kernel takes no filter.
pub(super) fn install(action: SeccompAction, network: bool) -> Result<(), Failure> {
    let mismatch = match action {
        SeccompAction::None => {
            tracing::warn!("system calls are not filtered");
            return Ok(());
        }
        SeccompAction::Kill => Action::KillProcess,
        SeccompAction::Trap => Action::Trap,
        SeccompAction::Log => Action::Log,
    };
    // The allow list comes last: it lets no other filter follow.
    let programs = [without_clone3(), allow_list(mismatch, network)];
    for program in programs {
        program
            .and_then(|program| seccompiler::apply_filter(&program))
            .map_err(|error| {
                Failure::run(format!(
                    "cannot filter system calls: {error}; --seccomp=none does without"
                ))
            })?;
    }
    Ok(())
}

type Compiled = Result<BpfProgram, seccompiler::Error>;

/// What `clone3` is to do stands behind a pointer, where no filter can look. The C library then
/// uses `clone`. Of two filters' answers the kernel takes the stricter, so this one is separate.
fn without_clone3() -> Compiled {
    let absent = u32::try_from(libc::ENOSYS).unwrap_or_default();
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, Action::Allow, Action::Errno(absent))
}

fn allow_list(mismatch: Action, network: bool) -> Compiled {
    let mut rules: BTreeMap<c_long, Vec<Rule>> = UNCONDITIONAL
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    for (call, argument, values) in BY_VALUE {
        let allowed = values
            .iter()
            .map(|value| rule(*argument, Width::Dword, Op::Eq, *value))
            .collect::<Result<_, _>>()?;
        rules.insert(*call, allowed);
    }
    // Memory is never executable.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
        rules.insert(
            call,
            vec![rule(2, Width::Dword, Op::MaskedEq(executable), 0)?],
        );
    }
    // New threads, no new processes.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    rules.insert(
        libc::SYS_clone,
        vec![rule(0, Width::Qword, Op::MaskedEq(thread), thread)?],
    );
    // Signals for this process's own threads, and its own limits to be read.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(0, Width::Dword, Op::Eq, own)?]);
    rules.insert(
        libc::SYS_prlimit64,
        vec![Rule::new(vec![
            Condition::new(0, Width::Dword, Op::Eq, 0)?,
            Condition::new(2, Width::Qword, Op::Eq, 0)?,
        ])?],
    );
    // To where the socket is connected, nowhere else.
    rules.insert(libc::SYS_sendto, vec![rule(4, Width::Qword, Op::Eq, 0)?]);
    if network {
        rules.extend(NETWORK.iter().map(|call| (*call, Vec::new())));
        let domains = [
            libc::AF_UNIX,
            libc::AF_INET,
            libc::AF_INET6,
            libc::AF_NETLINK,
        ];
        let allowed = domains
            .iter()
            .map(|domain| rule(0, Width::Dword, Op::Eq, u64::from(domain.unsigned_abs())))
            .collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_socket, allowed);
    }
    compile(rules, mismatch, Action::Allow)
}

fn rule(argument: u8, width: Width, operator: Op, value: u64) -> Result<Rule, seccompiler::Error> {
    Ok(Rule::new(vec![Condition::new(
        argument, width, operator, value,
    )?])?)
}

fn compile(rules: BTreeMap<c_long, Vec<Rule>>, mismatch: Action, matched: Action) -> Compiled {
    let architecture = TargetArch::try_from(ARCH)?;
    Ok(SeccompFilter::new(rules, mismatch, matched, architecture)?.try_into()?)
}

/// Calls with an argument (its position), and the values that it may have.
const BY_VALUE: &[(c_long, u8, &[c_ulong])] = &[
    // A thread's own working directory and umask.
    (libc::SYS_unshare, 0, &[libc::CLONE_FS as c_ulong]),
    (
        libc::SYS_prctl,
        0,
        &[
            PR_SET_NAME,
            PR_GET_NAME,
            PR_SET_VMA,
            PR_GET_SECUREBITS,
            PR_GET_AUXV,
        ],
    ),
    (
        libc::SYS_fcntl,
        1,
        &[
            libc::F_DUPFD_CLOEXEC as c_ulong,
            libc::F_GETFD as c_ulong,
            libc::F_SETFD as c_ulong,
            libc::F_GETFL as c_ulong,
            libc::F_SETFL as c_ulong,
            libc::F_GETLK as c_ulong,
            // SQLite, of a volume.
            libc::F_SETLK as c_ulong,
            libc::F_OFD_GETLK as c_ulong,
            libc::F_OFD_SETLK as c_ulong,
            libc::F_OFD_SETLKW as c_ulong,
            libc::F_ADD_SEALS as c_ulong,
            libc::F_GET_SEALS as c_ulong,
        ],
    ),
    (
        libc::SYS_ioctl,
        1,
        &[
            libc::FIONBIO,
            // The resolver of the C library, before it reads an answer.
            libc::FIONREAD,
            FS_IOC_GETFLAGS,
            FS_IOC_SETFLAGS,
            FS_IOC_FSGETXATTR,
            FS_IOC_FSSETXATTR,
            FS_IOC_GETFSUUID,
        ],
    ),
];

// include/uapi/linux/prctl.h
const PR_SET_NAME: c_ulong = libc::PR_SET_NAME as c_ulong;
const PR_GET_NAME: c_ulong = libc::PR_GET_NAME as c_ulong;
const PR_SET_VMA: c_ulong = libc::PR_SET_VMA as c_ulong;
const PR_GET_SECUREBITS: c_ulong = libc::PR_GET_SECUREBITS as c_ulong;
const PR_GET_AUXV: c_ulong = 0x4155_5856;

// include/uapi/linux/fs.h
const FS_IOC_GETFLAGS: c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: c_ulong = 0x4008_6602;
const FS_IOC_FSGETXATTR: c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: c_ulong = 0x401c_5820;
const FS_IOC_GETFSUUID: c_ulong = 0x8011_1500;

// Newer calls have the same number on every architecture (scripts/syscall.tbl).
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// What a storage on other hosts does beside: connections, and the C library's resolver.
const NETWORK: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_sendmmsg,
    // The resolver asks the kernel for the host's addresses.
    libc::SYS_sendto,
    libc::SYS_uname,
];

const UNCONDITIONAL: &[c_long] = &[
    // Descriptors and their data
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_syncfs,
    libc::SYS_write,
    libc::SYS_writev,
    // Files by name, handle or descriptor
    libc::SYS_chdir,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_newfstatat,
    libc::SYS_open_by_handle_at,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    // Extended attributes
    SETXATTRAT,
    GETXATTRAT,
    LISTXATTRAT,
    REMOVEXATTRAT,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    // Acting for a user of the guest
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getuid,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    // The front end, and whoever asks for metrics
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Waiting
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_sysinfo,
    // Threads and signals
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // What older architectures also have
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_on_this_architecture() {
        for network in [false, true] {
            assert!(allow_list(Action::KillProcess, network).is_ok());
        }
        assert!(without_clone3().is_ok());
    }

    #[test]
    fn no_call_is_both_unconditional_and_conditional() {
        for (call, ..) in BY_VALUE {
            assert!(!UNCONDITIONAL.contains(call), "{call}");
        }
        let filtered = [
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_clone,
            libc::SYS_sendto,
            libc::SYS_tgkill,
            libc::SYS_prlimit64,
        ];
        assert!(filtered.iter().all(|call| !UNCONDITIONAL.contains(call)));
    }

    #[test]
    fn other_processes_get_no_signals_and_no_limit_is_changed() {
        use rustix::io::Errno;
        use rustix::process::{Pid, Resource, getrlimit, prlimit, setrlimit};
        // An answer that neither call has.
        let filtered = Errno::NOTTY;
        let mismatch = Action::Errno(filtered.raw_os_error().unsigned_abs());
        let program = allow_list(mismatch, false).unwrap();
        let parent = rustix::process::getppid().unwrap();
        let limits = getrlimit(Resource::Core);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                seccompiler::apply_filter(&program).unwrap();
                let signal = |pid: Pid| tgkill(pid, rustix::thread::gettid());
                assert_eq!(signal(rustix::process::getpid()), Ok(()));
                assert_eq!(signal(parent), Err(filtered));
                assert_eq!(getrlimit(Resource::Core), limits);
                assert_eq!(setrlimit(Resource::Core, limits), Err(filtered));
                let other = prlimit(Some(parent), Resource::Core, limits);
                assert_eq!(other.map(drop), Err(filtered));
            });
        });
    }

    /// Looks whether a signal could be sent.
    #[allow(unsafe_code)]
    fn tgkill(pid: rustix::process::Pid, thread: rustix::process::Pid) -> rustix::io::Result<()> {
        // SAFETY: signal 0 is none, and the call has no pointers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                pid.as_raw_nonzero().get(),
                thread.as_raw_nonzero().get(),
                0,
            )
        };
        if result == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
    }

    #[test]
    fn what_would_leave_the_sandbox_is_not_let_through() {
        for call in [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_pidfd_getfd,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_kill,
            libc::SYS_seccomp,
        ] {
            assert!(!UNCONDITIONAL.contains(&call), "{call}");
        }
        for call in [
            libc::SYS_execve,
            libc::SYS_mount,
            libc::SYS_listen,
            libc::SYS_accept,
        ] {
            assert!(!NETWORK.contains(&call), "{call}");
        }
    }
}
