//! What is done behind the operations: inodes without names go, and what is newer in memory than in
//! the journal follows within seconds.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::inode::Inode;

/// Sizes and times of files that are written to follow after this time, if nobody asks for it before.
const SETTLE: Duration = Duration::from_secs(5);

/// Something to be done.
#[derive(Debug)]
enum Job {
    /// The inode has no name and no user any more.
    Gone {
        ino: u64,
        has_data: bool,
    },
    /// The inode has no name any more: its access time need not be written, and nothing keeps it here.
    Unlinked(u64),
    /// Its access time is to be written.
    AccessTime(Arc<Inode>),
    /// Its size and times are to be written, if it is still open then: who closes it does so, too.
    Content(Weak<Inode>),
    Stop,
}

/// Where jobs are handed in. Never waits.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep(Sender<Job>);

/// Where they are taken out.
#[derive(Debug)]
pub(crate) struct Jobs(Receiver<Job>);

pub(crate) fn channel() -> (Upkeep, Jobs) {
    let (sender, receiver) = std::sync::mpsc::channel();
    (Upkeep(sender), Jobs(receiver))
}

impl Upkeep {
    fn send(&self, job: Job) {
        // After the end nothing is left to be done: the next start drains orphans.
        let _ = self.0.send(job);
    }

    pub(crate) fn gone(&self, ino: u64, has_data: bool) {
        self.send(Job::Gone { ino, has_data });
    }

    pub(crate) fn unlinked(&self, ino: u64) {
        self.send(Job::Unlinked(ino));
    }

    pub(crate) fn access_time_is_pending(&self, inode: Arc<Inode>) {
        self.send(Job::AccessTime(inode));
    }

    pub(crate) fn content_is_pending(&self, inode: &Arc<Inode>) {
        self.send(Job::Content(Arc::downgrade(inode)));
    }

    /// Everything handed in before is done, then the thread ends.
    pub(crate) fn stop(&self) {
        self.send(Job::Stop);
    }
}

impl Jobs {
    /// The thread's work. Without jobs it sleeps.
    pub(crate) fn run(&self, core: &Core) {
        let mut strong: HashMap<u64, Arc<Inode>> = HashMap::new();
        let mut weak: Vec<Weak<Inode>> = Vec::new();
        let mut since: Option<Instant> = None;
        loop {
            let job = match since {
                None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => self.0.recv_timeout(SETTLE.saturating_sub(since.elapsed())),
            };
            match job {
                Ok(Job::Gone { ino, has_data }) => core.remove_inode(ino, has_data),
                Ok(Job::Unlinked(ino)) => drop(strong.remove(&ino)),
                Ok(Job::AccessTime(inode)) => {
                    strong.insert(inode.ino, inode);
                    since.get_or_insert_with(Instant::now);
                }
                Ok(Job::Content(inode)) => {
                    weak.push(inode);
                    since.get_or_insert_with(Instant::now);
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if since.is_some_and(|since| since.elapsed() >= SETTLE) {
                settle(&mut strong, &mut weak);
                since = None;
            }
        }
        settle(&mut strong, &mut weak);
        // What was dropped just now.
        while let Ok(job) = self.0.try_recv() {
            if let Job::Gone { ino, has_data } = job {
                core.remove_inode(ino, has_data);
            }
        }
    }
}

fn settle(strong: &mut HashMap<u64, Arc<Inode>>, weak: &mut Vec<Weak<Inode>>) {
    let open = weak.drain(..).filter_map(|inode| inode.upgrade());
    let read = strong.drain().map(|(_, inode)| inode);
    for inode in read.chain(open) {
        if let Err(error) = inode.settle() {
            tracing::warn!(inode = inode.ino, %error, "volume: size and times were not written");
        }
    }
}
