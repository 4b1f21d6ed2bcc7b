//! Turns at a layer: what takes long and is of use to all who share a cache is done by one of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::blob::Sha256Digest;

/// How often it is looked whether a lock is free.
const LOOK: Duration = Duration::from_millis(20);
/// After this time it is told that a lock is waited for.
const SLOW: Duration = Duration::from_secs(2);

/// The turn of one process, or thread, which others wait for. It ends with its holder, whatever ends that.
///
/// Its file is one of those that a cache removes when it finds them.
#[derive(Debug)]
pub(crate) struct Turn {
    _file: File,
    path: PathBuf,
}

impl Turn {
    /// Waits for the turn at a layer of the cache's `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn take(folder: &Path, layer: Sha256Digest) -> io::Result<Self> {
        let path = folder.join(format!(".tmp-turn-{}", layer.hex()));
        loop {
            if let Some(file) = lock_named(&path)? {
                return Ok(Self { _file: file, path });
            }
        }
    }
}

/// Waits for the lock of a file, which is made if it is not there. `None` if whoever had the lock before has removed or renamed
/// the file: what has the name now is another.
///
/// # Errors
/// The file cannot be made or locked.
pub(crate) fn lock_named(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    wait_for_lock(&file, path)?;
    let held = file.metadata()?;
    let named = std::fs::metadata(path);
    let is_same = named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
    Ok(is_same.then_some(file))
}

/// Waits until whoever has a lock has ended or given it up. What it does may take long; that it is waited for is told.
fn wait_for_lock(file: &File, path: &Path) -> io::Result<()> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            other => return Ok(other?),
        }
        if !told && begin.elapsed() >= SLOW {
            told = true;
            let name = path.file_name().unwrap_or_default();
            tracing::warn!(
                "another process or export fetches or indexes a layer of this cache, and is waited for: should it hang, end \
                 who has the lock of {} (lslocks)",
                name.display()
            );
        }
        std::thread::sleep(LOOK);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // One that stays is taken, or removed, by the next.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_has_a_turn_at_a_time_and_nothing_is_left_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let layer = Sha256Digest::of(b"layer");
        let taken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = Turn::take(folder.path(), layer).unwrap();
                        assert!(!taken.swap(true, Ordering::SeqCst));
                        std::thread::yield_now();
                        taken.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_turn_comes_when_its_holder_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let layer = Sha256Digest::of(b"layer");
        let path = folder.path().join(format!(".tmp-turn-{}", layer.hex()));
        let held = lock_named(&path).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| Turn::take(folder.path(), layer).map(drop));
            std::thread::sleep(LOOK.saturating_mul(3));
            assert!(!waits.is_finished());
            drop(held);
            waits.join().unwrap().unwrap();
        });
    }

    #[test]
    fn turns_at_several_layers_are_had_together() {
        let folder = tempfile::tempdir().unwrap();
        let turns = [b"a", b"b"].map(|layer| Turn::take(folder.path(), Sha256Digest::of(layer)));
        assert!(turns.iter().all(Result::is_ok));
    }
}
