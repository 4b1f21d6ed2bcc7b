//! System calls that no storage needs: programs that the daemon starts cannot make them.
//!
//! It is a list of what is refused, because what a program in any language needs to run is not known. It has what changes the host or
//! looks into other processes, and parts of the kernel in which mistakes were often found. All of it is EPERM, so that a program that
//! merely tries goes on.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction as Action, SeccompCmpArgLen as Width, SeccompCmpOp as Op,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
};

/// What a process is filtered by, compiled before it is started.
#[derive(Debug, Clone)]
pub(crate) struct Filter([BpfProgram; 2]);

impl Filter {
    /// For a program that may use the network, or not.
    ///
    /// # Errors
    /// On an architecture for which there are no filters.
    pub(crate) fn new(network: bool) -> io::Result<Self> {
        Self::compile(network).map_err(io::Error::other)
    }

    fn compile(network: bool) -> Result<Self, seccompiler::Error> {
        let mut refused: BTreeMap<c_long, Vec<Rule>> =
            REFUSED.iter().map(|call| (*call, Vec::new())).collect();
        // Namespaces of its own would give it capabilities there. The low bits of clone(2) are a signal.
        refused.insert(libc::SYS_unshare, any_bit(0, &NEW_NAMESPACES)?);
        let of_clone = NEW_NAMESPACES.iter().copied().filter(|flag| *flag > 0xff);
        let of_clone: Vec<c_int> = of_clone.collect();
        refused.insert(libc::SYS_clone, any_bit(0, &of_clone)?);
        let typed_for_another = Condition::new(1, Width::Dword, Op::Eq, libc::TIOCSTI)?;
        refused.insert(libc::SYS_ioctl, vec![Rule::new(vec![typed_for_another])?]);
        let others = DOMAINS
            .iter()
            .chain(network.then_some(&libc::AF_VSOCK))
            .map(|domain| Condition::new(0, Width::Dword, Op::Ne, number(*domain)))
            .collect::<Result<_, _>>()?;
        refused.insert(libc::SYS_socket, vec![Rule::new(others)?]);
        // The same calls by the numbers of the x32 ABI, which is the same architecture.
        #[cfg(target_arch = "x86_64")]
        for (call, rules) in refused.clone() {
            refused.insert(call | X32, rules);
        }
        let refused = program(refused, number_of(libc::EPERM))?;
        // What this one is to do stands behind a pointer, where no filter can look. C libraries then use clone(2).
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        Ok(Self([refused, program(clone3, number_of(libc::ENOSYS))?]))
    }

    /// Filters the calls of this process, which has one thread, for good. Between fork(2) and execve(2): it takes no lock and no memory.
    ///
    /// # Errors
    /// What seccomp(2) answers.
    pub(crate) fn install(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|program| {
            seccompiler::apply_filter(program).map_err(|_| io::Error::last_os_error())
        })
    }
}

#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// Refuses the calls of a list. The kernel kills who calls it in the way of another architecture.
fn program(
    refused: BTreeMap<c_long, Vec<Rule>>,
    errno: u32,
) -> Result<BpfProgram, seccompiler::Error> {
    let architecture = TargetArch::try_from(ARCH)?;
    let filter = SeccompFilter::new(refused, Action::Allow, Action::Errno(errno), architecture)?;
    Ok(filter.try_into()?)
}

/// Rules of which one matches an argument with any of these bits.
fn any_bit(argument: u8, bits: &[c_int]) -> Result<Vec<Rule>, seccompiler::Error> {
    let rule = |bit: &c_int| {
        let bit = number(*bit);
        Rule::new(vec![Condition::new(
            argument,
            Width::Dword,
            Op::MaskedEq(bit),
            bit,
        )?])
    };
    Ok(bits.iter().map(rule).collect::<Result<_, _>>()?)
}

fn number(of: c_int) -> u64 {
    u64::from(of.unsigned_abs())
}

fn number_of(errno: c_int) -> u32 {
    errno.unsigned_abs()
}

const NEW_NAMESPACES: [c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    // CLONE_NEWTIME of linux/sched.h.
    0x80,
];

/// Sockets that may be made: files, addresses of the network that it has, and what the C library asks the kernel about that.
const DOMAINS: [c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

// Newer calls have the same number on every architecture (scripts/syscall.tbl).
const OPEN_TREE_ATTR: c_long = 467;

const REFUSED: &[c_long] = &[
    // What is mounted, and where a process is in it
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    // The kernel itself
    libc::SYS_acct,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Other processes
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // What is not needed, and was often wrong
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_filter_for_this_architecture() {
        for network in [false, true] {
            let Filter(programs) = Filter::new(network).unwrap();
            assert!(programs.iter().all(|program| !program.is_empty()));
        }
    }
}
