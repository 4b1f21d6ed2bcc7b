//! Locks exclude whoever else uses the directory: other owners in the guest, and the host.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::*;
use vfsd_backend::{
    Errno, File, HeldLock, LockKind, LockOwner, LockRange, LockRequest, LockStyle, OpenFlags,
};
use vfsd_passthrough::Options;

const ALL: LockRange = LockRange {
    start: 0,
    end: i64::MAX as u64,
};

fn posix(owner: u64, kind: Option<LockKind>, start: u64, end: u64) -> LockRequest {
    LockRequest {
        owner: LockOwner(owner),
        pid: owner as u32 + 1000,
        style: LockStyle::Posix,
        kind,
        range: LockRange { start, end },
        wait: false,
    }
}

fn flock(kind: Option<LockKind>) -> LockRequest {
    LockRequest {
        style: LockStyle::Flock,
        range: ALL,
        ..posix(1, kind, 0, 0)
    }
}

const WRITE: Option<LockKind> = Some(LockKind::Write);
const SHARED: Option<LockKind> = Some(LockKind::Read);

fn with_file() -> (Share, Arc<dyn File>) {
    let share = Share::new(Options::default());
    let file = share.create("file").opened.file;
    (share, file)
}

impl Share {
    fn lock(&self, file: &dyn File, request: LockRequest) -> vfsd_backend::Result<()> {
        self.wait(file.setlk(request))
    }

    fn held(&self, file: &dyn File, request: LockRequest) -> Option<HeldLock> {
        self.wait(file.getlk(request)).unwrap()
    }
}

/// Perl for a write lock by fcntl(2), with `struct flock` as it is on 64-bit Linux; false when another
/// has it.
fn fcntl(start: u64, length: u64) -> String {
    format!(
        "do {{ my $lock = pack('s s x4 q q i x4', 1, 0, {start}, {length}, 0); fcntl(F, 6, $lock) }}"
    )
}

/// Until this is dropped no other test of this program runs: one that starts a process would lend it, until its
/// program begins, the files that are open here, and a lock lasts as long as anybody has its file open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process of the host that holds a lock until it is told to end.
struct HostProcess(Child);

impl HostProcess {
    /// Runs Perl, which every Debian has, with the code that locks the file `F`.
    fn lock(path: &Path, code: &str) -> Self {
        let script = format!(
            "use Fcntl ':flock'; open(F, '+<', $ARGV[0]) or die; {code} or die $!; \
             $| = 1; print \"locked\\n\"; <STDIN>;"
        );
        let mut child = Command::new("perl")
            .args(["-e", &script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }

    fn lock_posix(path: &Path, start: u64, length: u64) -> Self {
        Self::lock(path, &fcntl(start, length))
    }

    fn lock_flock(path: &Path) -> Self {
        Self::lock(path, "flock(F, LOCK_EX)")
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Whether a host process could lock the file now.
fn host_can_lock(path: &Path, code: &str) -> bool {
    let script =
        format!("use Fcntl ':flock'; open(F, '+<', $ARGV[0]) or die; exit({code} ? 0 : 7)");
    let status = Command::new("perl")
        .args(["-e", &script])
        .arg(path)
        .status()
        .unwrap();
    match status.code() {
        Some(0) => true,
        Some(7) => false,
        other => panic!("perl ended with {other:?}"),
    }
}

fn host_can_lock_posix(path: &Path) -> bool {
    host_can_lock(path, &fcntl(0, 0))
}

fn host_can_flock(path: &Path) -> bool {
    host_can_lock(path, "flock(F, LOCK_EX | LOCK_NB)")
}

#[test]
fn two_owners_of_one_open_file_exclude_each_other() {
    let _alone = alone();
    let (share, file) = with_file();
    share.lock(&*file, posix(1, WRITE, 0, 99)).unwrap();
    assert_eq!(
        errno(share.lock(&*file, posix(2, WRITE, 50, 60))),
        Errno::AGAIN
    );
    assert_eq!(
        share.held(&*file, posix(2, SHARED, 50, 200)),
        Some(HeldLock {
            kind: LockKind::Write,
            range: LockRange { start: 0, end: 99 },
            pid: 1001,
        })
    );
    assert_eq!(share.held(&*file, posix(1, WRITE, 0, 99)), None);
    share.lock(&*file, posix(2, WRITE, 100, 199)).unwrap();
    share.lock(&*file, posix(1, None, 50, 99)).unwrap();
    share.lock(&*file, posix(2, SHARED, 50, 60)).unwrap();
}

#[test]
fn readers_share_and_writers_do_not() {
    let _alone = alone();
    let (share, file) = with_file();
    share.lock(&*file, posix(1, SHARED, 0, 9)).unwrap();
    share.lock(&*file, posix(2, SHARED, 0, 9)).unwrap();
    assert_eq!(
        errno(share.lock(&*file, posix(1, WRITE, 0, 9))),
        Errno::AGAIN
    );
    // A failed upgrade leaves what was held.
    assert_eq!(
        errno(share.lock(&*file, posix(3, WRITE, 0, 9))),
        Errno::AGAIN
    );
    share.lock(&*file, posix(2, None, 0, 9)).unwrap();
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
}

#[test]
fn a_lock_to_the_end_covers_what_the_file_becomes() {
    let _alone = alone();
    let (share, file) = with_file();
    let to_the_end = posix(1, WRITE, 10, i64::MAX as u64);
    share.lock(&*file, to_the_end).unwrap();
    share.write(&*file, 0, &[0; 1000]).unwrap();
    let held = share.held(&*file, posix(2, WRITE, 900, 901)).unwrap();
    assert_eq!(held.range, to_the_end.range);
}

#[test]
fn the_end_of_a_flush_is_the_end_of_its_owners_locks() {
    let _alone = alone();
    let (share, file) = with_file();
    let before = share.fs.descriptors_in_use();
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
    share.lock(&*file, posix(2, WRITE, 10, 19)).unwrap();
    assert_eq!(share.fs.descriptors_in_use(), before + 2);
    share.wait(file.flush(LockOwner(1))).unwrap();
    share.lock(&*file, posix(3, WRITE, 0, 9)).unwrap();
    assert_eq!(
        errno(share.lock(&*file, posix(3, WRITE, 0, 19))),
        Errno::AGAIN
    );
    share.wait(file.flush(LockOwner(2))).unwrap();
    // Who releases all it has costs nothing more.
    share.lock(&*file, posix(3, None, 0, 1 << 40)).unwrap();
    assert_eq!(share.fs.descriptors_in_use(), before);
}

#[test]
fn guest_and_host_exclude_each_other_by_fcntl() {
    let _alone = alone();
    let (share, file) = with_file();
    let path = share.host("file");
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
    assert!(!host_can_lock_posix(&path));
    share.lock(&*file, posix(1, None, 0, 9)).unwrap();
    let host = HostProcess::lock_posix(&path, 5, 10);
    assert_eq!(
        errno(share.lock(&*file, posix(1, WRITE, 0, 9))),
        Errno::AGAIN
    );
    assert_eq!(
        share.held(&*file, posix(1, WRITE, 0, 9)),
        Some(HeldLock {
            kind: LockKind::Write,
            range: LockRange { start: 5, end: 14 },
            pid: 0,
        })
    );
    share.lock(&*file, posix(1, WRITE, 15, 20)).unwrap();
    host.end();
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
}

#[test]
fn guest_and_host_exclude_each_other_by_flock() {
    let _alone = alone();
    let (share, file) = with_file();
    let path = share.host("file");
    share.lock(&*file, flock(WRITE)).unwrap();
    assert!(!host_can_flock(&path));
    let node = share.lookup("file").node;
    let other = share.open(&*node, READ).unwrap().file;
    assert_eq!(errno(share.lock(&*other, flock(SHARED))), Errno::AGAIN);
    // The lock goes with the open file.
    drop(file);
    share.lock(&*other, flock(SHARED)).unwrap();
    assert!(!host_can_flock(&path));
    share.lock(&*other, flock(None)).unwrap();
    let host = HostProcess::lock_flock(&path);
    assert_eq!(errno(share.lock(&*other, flock(WRITE))), Errno::AGAIN);
    host.end();
    share.lock(&*other, flock(WRITE)).unwrap();
}

#[test]
fn two_daemons_exclude_each_other() {
    let _alone = alone();
    let (share, file) = with_file();
    let other = vfsd_passthrough::Passthrough::open(share.host_root(), Options::default()).unwrap();
    let root = vfsd_backend::Backend::root(&other);
    let node = share.try_lookup(&*root, "file").unwrap().unwrap().node;
    let foreign = share.open(&*node, READ_WRITE).unwrap().file;
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
    assert_eq!(
        errno(share.lock(&*foreign, posix(1, WRITE, 0, 9))),
        Errno::AGAIN
    );
    assert_eq!(share.held(&*foreign, posix(1, WRITE, 0, 9)).unwrap().pid, 0);
}

#[test]
fn a_wait_ends_when_the_guest_releases_the_lock() {
    let _alone = alone();
    for style in [LockStyle::Posix, LockStyle::Flock] {
        let (share, file) = with_file();
        let node = share.lookup("file").node;
        let other = share.open(&*node, READ_WRITE).unwrap().file;
        let request = |owner, kind| LockRequest {
            style,
            ..posix(owner, kind, 0, i64::MAX as u64)
        };
        share.lock(&*file, request(1, WRITE)).unwrap();
        let waiting = LockRequest {
            wait: true,
            ..request(2, WRITE)
        };
        share.runtime.block_on(async {
            let wait = other.setlk(waiting);
            let release = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                match style {
                    LockStyle::Posix => file.flush(LockOwner(1)).await,
                    LockStyle::Flock => file.setlk(request(1, None)).await,
                }
            };
            let (waited, released) = tokio::join!(wait, release);
            waited.unwrap();
            released.unwrap();
        });
        assert_eq!(errno(share.lock(&*file, request(1, WRITE))), Errno::AGAIN);
    }
}

#[test]
fn a_wait_ends_when_a_host_process_releases_the_lock() {
    let _alone = alone();
    let (share, file) = with_file();
    let host = HostProcess::lock_posix(&share.host("file"), 0, 0);
    let request = LockRequest {
        wait: true,
        ..posix(1, WRITE, 0, 9)
    };
    share.runtime.block_on(async {
        let end = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            host.end();
        };
        let (waited, ()) = tokio::join!(file.setlk(request), end);
        waited.unwrap();
    });
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_behind() {
    let _alone = alone();
    let (share, file) = with_file();
    share.lock(&*file, posix(1, WRITE, 0, 9)).unwrap();
    let before = share.fs.descriptors_in_use();
    let mut wait = file.setlk(LockRequest {
        wait: true,
        ..posix(2, WRITE, 0, 9)
    });
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        let _inside = share.runtime.enter();
        let poll = std::pin::pin!(&mut wait).poll(&mut context);
        assert!(matches!(poll, Poll::Pending));
    }
    drop(wait);
    assert_eq!(share.fs.descriptors_in_use(), before);
    share.lock(&*file, posix(1, None, 0, 9)).unwrap();
    share.lock(&*file, posix(3, WRITE, 0, 9)).unwrap();
}

#[test]
fn a_hundred_waits_hold_no_thread() {
    let _alone = alone();
    let (share, file) = with_file();
    share.lock(&*file, posix(0, WRITE, 0, 9)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut waits = tokio::task::JoinSet::new();
        for owner in 1..=100 {
            let file = file.clone();
            waits.spawn(async move {
                let request = LockRequest {
                    wait: true,
                    ..posix(owner, WRITE, 0, 9)
                };
                file.setlk(request).await.unwrap();
                file.flush(LockOwner(owner)).await.unwrap();
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let other = tokio::task::spawn_blocking(|| ());
        let other = tokio::time::timeout(Duration::from_secs(60), other).await;
        assert!(other.is_ok(), "there is no thread for anything else");
        file.flush(LockOwner(0)).await.unwrap();
        while let Some(ended) = waits.join_next().await {
            ended.unwrap();
        }
    });
}

#[test]
fn a_file_that_can_only_be_read_can_be_locked_for_reading() {
    let _alone = alone();
    let (share, file) = with_file();
    drop(file);
    let node = share.lookup("file").node;
    let file = share.open(&*node, OpenFlags::READ).unwrap().file;
    // A running program cannot be opened for writing.
    // By another process: one that is forked meanwhile must not have the program open to write it.
    let copied = Command::new("cp")
        .args(["/bin/sleep".as_ref(), share.host("program").as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let mut running = Command::new(share.host("program"))
        .arg("60")
        .spawn()
        .unwrap();
    let program = share.lookup("program").node;
    let program = share.open(&*program, OpenFlags::READ).unwrap().file;
    let locked = share.lock(&*program, posix(1, SHARED, 0, 9));
    let refused = share.lock(&*program, posix(1, WRITE, 0, 9));
    running.kill().unwrap();
    running.wait().unwrap();
    locked.unwrap();
    assert_eq!(errno(refused), Errno::BADF);
    share.lock(&*file, posix(1, SHARED, 0, 9)).unwrap();
}

#[test]
fn locks_count_against_the_budget() {
    let _alone = alone();
    let share = Share::new(Options {
        descriptor_budget: Some(10),
        file_handles: vfsd_passthrough::FileHandles::Never,
        ..Options::default()
    });
    // Of the 10, the root has one and the file two.
    let created = share.create("file");
    let file = &*created.opened.file;
    for owner in 0..7 {
        share.lock(file, posix(owner, WRITE, owner, owner)).unwrap();
    }
    assert_eq!(errno(share.lock(file, posix(7, WRITE, 7, 7))), Errno::NFILE);
    // Closing a file in the guest needs no descriptor.
    share.wait(file.flush(LockOwner(3))).unwrap();
    share.lock(file, posix(7, WRITE, 7, 7)).unwrap();
}
