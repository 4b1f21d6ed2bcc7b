//! How many files may be open, and who gets them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::Failure;

/// Open files that are asked for by default.
const DEFAULT: u64 = 1_000_000;

/// Descriptors for the daemon itself: a memory slot of a front end takes one each, of which there
/// can be 509 (vhost-user), and queues, sockets and the runtime have the rest.
const RESERVE: u64 = 509 + 100;

/// Descriptors of requests that have been opened and are not yet counted: one for each thread.
fn in_passing(threads: usize) -> u64 {
    u64::try_from(threads).unwrap_or(u64::MAX).max(1)
}

/// Raises the limit of open files, and says how many of them the guest may use.
///
/// `wanted` is the operator's choice: 0 leaves the limit alone; without one it becomes 1000000,
/// or what the system allows.
///
/// # Errors
/// When a chosen limit is not allowed, or leaves nothing for the guest.
pub(crate) fn open_files(wanted: Option<u64>, threads: usize) -> Result<usize, Failure> {
    let limit = raise(wanted)?;
    let reserve = RESERVE.saturating_add(in_passing(threads));
    let Some(budget) = limit.checked_sub(reserve).filter(|budget| *budget > 0) else {
        return Err(Failure::run(format!(
            "{limit} open files are too few, the daemon itself needs {reserve}: raise \
             --rlimit-nofile, or the hard limit that the daemon is started with"
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
