//! What the host does at the same time as a guest, when the guest's script
//! asks for it (`host WORD [PATH]` in `guest/lib.sh`).
//!
//! Paths are relative to the served folder. Locks are taken by this program,
//! a process of the host beside the daemon.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::process::{Signal, kill_process};

use super::plugin;

/// How many files come and go in a churned folder.
const CHURNED_FILES: usize = 64;

/// The host's side of one script.
#[derive(Debug)]
pub(crate) struct HostRole {
    root: PathBuf,
    /// The folder of what is served beside it.
    beside: Option<PathBuf>,
    held: Option<File>,
    churn: Option<Churn>,
}

/// Which of the two kinds of lock.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Flock,
    Record,
}

impl HostRole {
    /// The host beside a guest that is served `root`, and what is in the folder `beside`.
    pub(crate) fn new(root: &Path, beside: Option<&Path>) -> Self {
        Self {
            root: root.to_path_buf(),
            beside: beside.map(Path::to_path_buf),
            held: None,
            churn: None,
        }
    }

    /// Does what a script asks.
    ///
    /// # Errors
    /// It is not so, or cannot be done.
    pub(crate) fn act(&mut self, words: &[&str]) -> Result<()> {
        use FlockOperation::{
            NonBlockingLockExclusive as Exclusive, NonBlockingLockShared as Shared,
        };
        match words {
            ["flock-take", path] => self.take(path, Kind::Flock),
            ["fcntl-take", path] => self.take(path, Kind::Record),
            ["lock-release"] => self.held.take().map(drop).context("the host holds no lock"),
            ["flock-exclusive-refused", path] => self.refused(path, Kind::Flock, Exclusive),
            ["flock-shared-refused", path] => self.refused(path, Kind::Flock, Shared),
            ["flock-exclusive-allowed", path] => self.lock(path, Kind::Flock, Exclusive).map(drop),
            ["flock-shared-allowed", path] => self.lock(path, Kind::Flock, Shared).map(drop),
            ["fcntl-exclusive-refused", path] => self.refused(path, Kind::Record, Exclusive),
            ["fcntl-exclusive-allowed", path] => self.lock(path, Kind::Record, Exclusive).map(drop),
            ["fcntl-shared-allowed", path] => self.lock(path, Kind::Record, Shared).map(drop),
            ["churn-start", path] => {
                self.churn = Some(Churn::start(self.root.join(path)));
                Ok(())
            }
            ["plugin-kill", program] => self.signal(program, Signal::KILL),
            ["plugin-stop", program] => self.signal(program, Signal::STOP),
            ["churn-stop"] => self.churn.take().context("nothing is churned")?.stop(),
            _ => bail!("unknown request"),
        }
    }

    fn signal(&self, program: &str, signal: Signal) -> Result<()> {
        let folder = self.beside.as_ref().context("nothing is served beside")?;
        match plugin::running(program, folder)?.as_slice() {
            [pid] => kill_process(*pid, signal).context("signal a plugin"),
            found => bail!("{} processes are that plugin", found.len()),
        }
    }

    fn take(&mut self, path: &str, kind: Kind) -> Result<()> {
        let operation = FlockOperation::NonBlockingLockExclusive;
        self.held = Some(self.lock(path, kind, operation)?);
        Ok(())
    }

    fn lock(&self, path: &str, kind: Kind, operation: FlockOperation) -> Result<File> {
        let file = self.open(path)?;
        kind.lock(&file, operation)
            .context("the host does not get the lock")?;
        Ok(file)
    }

    fn refused(&self, path: &str, kind: Kind, operation: FlockOperation) -> Result<()> {
        match kind.lock(&self.open(path)?, operation) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(()),
            Err(error) => Err(error).context("refused for another reason"),
            Ok(()) => bail!("the host got a lock that the guest holds"),
        }
    }

    fn open(&self, path: &str) -> Result<File> {
        let path = self.root.join(path);
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))
    }
}

impl Kind {
    fn lock(self, file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
        match self {
            Self::Flock => flock(file, operation),
            Self::Record => fcntl_lock(file, operation),
        }
    }
}

/// A thread that creates and deletes files in a folder until it is stopped.
#[derive(Debug)]
struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Churn {
    fn start(folder: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let names: Vec<PathBuf> = (0..CHURNED_FILES)
                .map(|n| folder.join(format!("comes-and-goes-{n}")))
                .collect();
            while !seen.load(Ordering::Relaxed) {
                for name in &names {
                    File::create(name).with_context(|| format!("make {}", name.display()))?;
                }
                for name in &names {
                    fs::remove_file(name).with_context(|| format!("remove {}", name.display()))?;
                }
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the thread runs")?;
        thread
            .join()
            .map_err(|_| anyhow!("the deleting thread panicked"))?
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_seen_as_refused_and_a_free_one_as_allowed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        let (mut guest, mut host) = (
            HostRole::new(folder.path(), None),
            HostRole::new(folder.path(), None),
        );
        guest.act(&["flock-take", "lock"]).unwrap();
        host.act(&["flock-exclusive-refused", "lock"]).unwrap();
        host.act(&["flock-shared-refused", "lock"]).unwrap();
        assert!(host.act(&["flock-exclusive-allowed", "lock"]).is_err());
        guest.act(&["lock-release"]).unwrap();
        host.act(&["flock-exclusive-allowed", "lock"]).unwrap();
        assert!(host.act(&["flock-exclusive-refused", "lock"]).is_err());
    }

    #[test]
    fn churning_leaves_the_folder_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = HostRole::new(folder.path(), None);
        host.act(&["churn-start", "."]).unwrap();
        host.act(&["churn-stop"]).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
