//! Shares on host file systems that are unlike most.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::process::Signal;
use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, DirEntry, DirSink, Directory, Entry, FileKind,
    Lookup, Name, Node, NodeIdentity, Ttl,
};
use vfsd_hostmount::{HostMount, MountOptions};
use vfsd_server::{Exports, Session, SessionOptions, Transport};
use vfsd_testkit::lookups::Lookups;

use crate::mounting::{Mounted, cannot_mount};
use crate::process::{Helper, Place, text, wait_until};

/// A directory of empty files whose cookies are what those of NFS, EFS and many a FUSE file system are:
/// 64 bits without order.
#[derive(Debug, Clone, Copy)]
struct Wild {
    entries: u64,
    /// One of the files, by number, instead of the directory.
    file: Option<u64>,
}

impl Wild {
    fn inode(&self) -> u64 {
        self.file.unwrap_or_default() + 1
    }
}

/// The cookie behind the entry with this number; more than half of them are beyond `i64::MAX`.
fn cookie(number: u64) -> u64 {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if number % 8 == 7 {
        scattered & i64::MAX as u64
    } else {
        scattered | 1 << 63
    }
}

fn name(number: u64) -> String {
    format!("file-{number:05}")
}

impl Backend for Wild {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(*self)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Wild {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.inode(),
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        match self.file {
            Some(_) => FileKind::Regular,
            None => FileKind::Directory,
        }
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(Attributes::new(self.inode(), self.kind(), 0o755))
    }

    fn lookup<'a>(&'a self, wanted: Name<'a>) -> Answer<'a, Lookup> {
        let known = |number: &u64| name(*number).as_bytes() == wanted.as_bytes();
        let Some(number) = (1..=self.entries).find(known) else {
            return Answer::ok(Lookup::Missing { ttl: Ttl::Policy });
        };
        let node = Self {
            file: Some(number),
            ..*self
        };
        Answer::ok(Lookup::Found(Entry {
            attributes: Attributes::new(node.inode(), node.kind(), 0o644),
            node: Arc::new(node),
            entry_ttl: Ttl::Policy,
            attribute_ttl: Ttl::Policy,
        }))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::ok(Arc::new(*self))
    }
}

impl Directory for Wild {
    fn read<'a>(&'a self, from: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        let begin = match from {
            0 => 1,
            _ => (1..=self.entries)
                .find(|number| cookie(*number) == from)
                .map_or(self.entries, |number| number)
                .saturating_add(1),
        };
        for number in begin..=self.entries {
            let name = name(number);
            let entry = DirEntry {
                name: name.as_bytes(),
                inode: number + 1,
                kind: Some(FileKind::Regular),
                next: cookie(number),
            };
            if sink.entry(&entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Answer::ok(())
    }
}

/// A file system that this process serves to its host; gone when dropped.
struct Hosted {
    point: PathBuf,
    serving: Option<JoinHandle<()>>,
}

impl Hosted {
    fn new(backend: impl Backend + 'static, point: PathBuf) -> Self {
        std::fs::create_dir(&point).unwrap();
        let (_, connection) = HostMount::mount(&point, &MountOptions::default()).unwrap();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let options = SessionOptions {
                transport: Transport::HostKernel,
                ..SessionOptions::default()
            };
            let exports = Exports::single(Arc::new(backend), true);
            let session = Session::new(exports, options, runtime.handle().clone());
            connection.serve(&session).unwrap();
        });
        Self {
            point,
            serving: Some(serving),
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// The names in a directory, listed into a small buffer as many programs do.
fn list(directory: &Path) -> Vec<CString> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty()).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        names.push(entry.unwrap().file_name().to_owned());
    }
    names
}

#[test]
fn a_directory_with_any_cookies_is_listed_whole_into_a_small_buffer() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let entries = 3000;
    let hosted = Hosted::new(
        Wild {
            entries,
            file: None,
        },
        place.path("wild"),
    );
    let expected: BTreeSet<CString> = (1..=entries)
        .map(|number| CString::new(name(number)).unwrap())
        .collect();
    for options in [&[][..], &["--cache=always"]] {
        let mounted = Mounted::new(&place, options, &format!("dir:{}", text(&hosted.point)));
        let names = list(&mounted.path("."));
        assert_eq!(names.len(), expected.len(), "{options:?}");
        assert_eq!(BTreeSet::from_iter(names), expected, "{options:?}");
    }
}

/// A directory that is never synced: its storage is out of reach.
#[derive(Clone)]
struct Unsynced {
    asked: Arc<AtomicU32>,
}

impl Backend for Unsynced {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(self.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Unsynced {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: 1,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(Attributes::new(1, FileKind::Directory, 0o755))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::ok(Arc::new(self.clone()))
    }
}

impl Directory for Unsynced {
    fn read<'a>(&'a self, _from: u64, _sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::ok(())
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Answer::later(std::future::pending())
    }
}

#[test]
fn who_syncs_to_a_storage_that_never_answers_can_be_killed() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let asked = Arc::new(AtomicU32::new(0));
    let unsynced = Unsynced {
        asked: asked.clone(),
    };
    let hosted = Hosted::new(unsynced, place.path("unsynced"));
    let mut syncing = Command::new("sync");
    syncing.arg(&hosted.point);
    let mut syncing = Helper(syncing.spawn().unwrap());
    wait_until("a sync", || asked.load(Ordering::SeqCst) == 1);
    assert!(syncing.ends_by(Signal::KILL));
}

#[test]
fn who_waits_for_a_storage_that_never_answers_can_be_ended() {
    if cannot_mount() {
        return;
    }
    let place = Place::new();
    let asked = Arc::new(AtomicU32::new(0));
    let lookups = asked.clone();
    let silent = Lookups::new(move |_| {
        lookups.fetch_add(1, Ordering::SeqCst);
        Answer::later(std::future::pending())
    });
    let hosted = Hosted::new(silent, place.path("silent"));
    for (number, signal) in (1..).zip([Signal::TERM, Signal::KILL]) {
        let mut waiting = Command::new("stat");
        waiting.arg(hosted.point.join("name"));
        let mut waiting = Helper(waiting.spawn().unwrap());
        wait_until("a lookup", || asked.load(Ordering::SeqCst) == number);
        // Without an answer to the kernel's INTERRUPT not even SIGKILL would end it.
        assert!(waiting.ends_by(signal));
    }
}
