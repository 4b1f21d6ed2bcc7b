//! How many files may be open, and who gets them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::Failure;
use crate::runtime::ThreadCounts;

/// Open files that are asked for by default.
const DEFAULT: u64 = 1_000_000;

/// Regions of guest memory that a front end may share, a descriptor each (vhost-user).
const REGIONS: usize = 509;
/// Sockets, pipes, the runtime's and what a sandbox leaves.
const PROCESS: usize = 32;
/// What a storage has open for itself: readers of a database, layers of an image, connections.
const EXPORT: usize = 48;
/// Of a queue: what it is kicked with, interrupts with and tells errors with, and what wakes its thread.
const QUEUE: usize = 4;
/// What a thread has open that is not counted yet, or never is: a file and a way to it, or a database and
/// its log.
const THREAD: usize = 2;

/// What a daemon has open besides what its guest knows or has open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    /// Queues of the device, or readers of a mount, of which each has a thread.
    pub(crate) queues: usize,
    /// Storages.
    pub(crate) exports: usize,
    /// Of the runtime.
    pub(crate) threads: ThreadCounts,
}

impl Own {
    /// Descriptors that all of it takes up at most.
    fn descriptors(self) -> u64 {
        let threads = self.threads.all().saturating_add(self.queues);
        let sum = [
            (self.queues, QUEUE),
            (self.exports, EXPORT),
            (threads, THREAD),
        ]
        .iter()
        .fold(REGIONS.saturating_add(PROCESS), |sum, (count, each)| {
            sum.saturating_add(count.saturating_mul(*each))
        });
        u64::try_from(sum).unwrap_or(u64::MAX)
    }
}

/// Raises the limit of open files, and says how many of them the guest may use.
///
/// `wanted` is the operator's choice: 0 leaves the limit alone; without one it becomes 1000000,
/// or what the system allows.
///
/// # Errors
/// When a chosen limit is not allowed, or leaves nothing for the guest.
pub(crate) fn open_files(wanted: Option<u64>, own: Own) -> Result<usize, Failure> {
    let limit = raise(wanted)?;
    let reserve = own.descriptors();
    let Some(budget) = limit.checked_sub(reserve).filter(|budget| *budget > 0) else {
        return Err(Failure::run(format!(
            "{limit} open files are too few, the daemon itself needs {reserve}: raise \
             --rlimit-nofile, or the hard limit that the daemon is started with; fewer queues and a smaller \
             --thread-pool-size need less"
        )));
    };
    if budget < 128 {
        tracing::warn!("only {budget} open files are left for the guest; raise --rlimit-nofile");
    }
    Ok(usize::try_from(budget).unwrap_or(usize::MAX))
}

fn raise(wanted: Option<u64>) -> Result<u64, Failure> {
    let now = getrlimit(Resource::Nofile);
    let soft = now.current.unwrap_or(u64::MAX);
    let set = |limit: u64| {
        let limits = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(Resource::Nofile, limits).map(|()| limit)
    };
    match wanted {
        Some(0) => Ok(soft),
        Some(wanted) => set(wanted).map_err(|errno| {
            Failure::run(format!(
                "cannot allow {wanted} open files: {errno}; choose a smaller --rlimit-nofile, or \
                 raise the hard limit and fs.nr_open"
            ))
        }),
        None if soft >= DEFAULT => Ok(soft),
        None => {
            let hard = now.maximum.unwrap_or(u64::MAX);
            let allowed = DEFAULT.min(system_maximum());
            set(allowed)
                .or_else(|_| {
                    tracing::warn!(
                        "{allowed} open files are not allowed, the hard limit of {hard} is used"
                    );
                    set(hard)
                })
                .map_err(|errno| Failure::run(format!("cannot raise the open files: {errno}")))
        }
    }
}

/// What no process may exceed.
fn system_maximum() -> u64 {
    let number = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    number
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(queues: usize, exports: usize, pool: usize) -> u64 {
        let threads = ThreadCounts::new(pool, exports);
        Own {
            queues,
            exports,
            threads,
        }
        .descriptors()
    }

    #[test]
    fn each_queue_export_and_thread_has_its_descriptors() {
        let usual = needed(2, 1, 0);
        assert_eq!(needed(256, 1, 0) - usual, 254 * 6);
        assert_eq!(needed(2, 1, 164) - usual, 100 * 2);
        assert_eq!(needed(2, 2, 0) - usual, 48 + 64 * 2);
        assert!(needed(17, 1, 0) < 900, "little is left of 1024");
        needed(usize::MAX, usize::MAX, usize::MAX);
    }
}
