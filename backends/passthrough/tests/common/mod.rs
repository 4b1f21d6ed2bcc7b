//! A shared directory in a temporary one, used as a guest would.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "only tests call this")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vfsd_backend::{
    Answer, Backend, BufferSink, Caller, Created, DirEntry, DirSink, Directory, Entry, EntrySink,
    Errno, File, Identity, Lookup, Name, NewInode, Node, OpenFlags, OpenRequest, Opened,
    ReadRequest, Result, SliceSource, WriteRequest, XattrName,
};
use vfsd_passthrough::{Options, Passthrough};

pub(crate) struct Share {
    pub(crate) fs: Passthrough,
    pub(crate) root: Arc<dyn Node>,
    pub(crate) runtime: tokio::runtime::Runtime,
    directory: TempDir,
}

pub(crate) const NEW_FILE: NewInode<'static> = NewInode {
    permissions: 0o644,
    umask: 0,
    security: None,
};

pub(crate) const READ: OpenFlags = OpenFlags::READ;
pub(crate) const READ_WRITE: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

pub(crate) fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

pub(crate) fn xattr_name(name: &str) -> XattrName<'_> {
    XattrName::new(name.as_bytes()).unwrap()
}

pub(crate) fn caller(uid: u32, gid: u32) -> Caller {
    Caller {
        identity: Some(Identity {
            uid,
            gid,
            supplementary: None,
        }),
        pid: 1,
    }
}

pub(crate) fn root_caller() -> Caller {
    caller(0, 0)
}

/// Whether tests may do what only root of the whole host may. Those that cannot run say so.
pub(crate) fn is_root() -> bool {
    let all_ids = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let root = rustix::process::geteuid().is_root() && all_ids;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

pub(crate) fn errno<T>(result: Result<T>) -> Errno {
    match result {
        Err(vfsd_backend::Error::Errno(errno)) => errno,
        Err(other) => panic!("not an errno: {other:?}"),
        Ok(_) => panic!("it succeeded"),
    }
}

impl Share {
    pub(crate) fn new(options: Options) -> Self {
        Self::of(tempfile::tempdir().unwrap(), options)
    }

    pub(crate) fn of(directory: TempDir, options: Options) -> Self {
        let fs = Passthrough::open(directory.path(), options).unwrap();
        Self {
            root: fs.root(),
            fs,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build()
                .unwrap(),
            directory,
        }
    }

    /// Where a name of the share is on the host.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn host_root(&self) -> &Path {
        self.directory.path()
    }

    /// How many descriptors this process has on files of this share: other tests of the process have theirs elsewhere.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.starts_with(self.host_root()))
            .count()
    }

    pub(crate) fn wait<T>(&self, answer: Answer<'_, T>) -> Result<T> {
        self.runtime.block_on(answer)
    }

    pub(crate) fn try_lookup(&self, directory: &dyn Node, child: &str) -> Result<Option<Entry>> {
        match self.wait(directory.lookup(name(child)))? {
            Lookup::Found(entry) => Ok(Some(entry)),
            Lookup::Missing { .. } => Ok(None),
        }
    }

    pub(crate) fn lookup(&self, child: &str) -> Entry {
        self.try_lookup(&*self.root, child).unwrap().unwrap()
    }

    pub(crate) fn create(&self, child: &str) -> Created {
        let flags = READ_WRITE | OpenFlags::EXCLUSIVE;
        self.wait(
            self.root
                .create(root_caller(), name(child), flags, NEW_FILE),
        )
        .unwrap()
    }

    pub(crate) fn mkdir(&self, child: &str) -> Entry {
        let inode = NewInode {
            permissions: 0o755,
            ..NEW_FILE
        };
        self.wait(self.root.mkdir(root_caller(), name(child), inode))
            .unwrap()
    }

    pub(crate) fn open(&self, node: &dyn Node, flags: OpenFlags) -> Result<Opened> {
        self.wait(node.open(OpenRequest {
            flags,
            kill_privileges: false,
        }))
    }

    pub(crate) fn write(&self, file: &dyn File, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.write_as(file, offset, bytes, false)
    }

    /// As [`write`](Self::write), or from the guest's page cache.
    pub(crate) fn write_as(
        &self,
        file: &dyn File,
        offset: u64,
        bytes: &[u8],
        cached: bool,
    ) -> Result<usize> {
        let request = WriteRequest {
            offset,
            kill_privileges: false,
            cached,
        };
        self.wait(file.write(request, &mut SliceSource::new(bytes)))
    }

    pub(crate) fn read(&self, file: &dyn File, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        let mut sink = BufferSink::new(&mut buffer);
        let count = self.wait(file.read(ReadRequest { offset, length }, &mut sink))?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// The entries from `cookie` on, with the cookies after them; at most `room` of them.
    pub(crate) fn list(
        &self,
        directory: &dyn Directory,
        cookie: u64,
        room: usize,
    ) -> Result<Vec<(String, u64)>> {
        let mut names = Names {
            entries: Vec::new(),
            room,
        };
        self.wait(directory.read(cookie, &mut names))?;
        Ok(names.entries)
    }
}

impl Share {
    /// What a directory lists, with what each name leads to, `.` and `..` left out.
    pub(crate) fn list_plus(&self, node: &dyn Node) -> Vec<(String, Entry)> {
        let directory = self.wait(node.opendir()).unwrap();
        let mut found = Found(Vec::new());
        self.wait(directory.read_plus(0, &mut found)).unwrap();
        found.0
    }

    /// The node of a name, listed and not used.
    pub(crate) fn listed(&self, child: &str) -> Entry {
        let listed = self.list_plus(&*self.root);
        let found = listed.into_iter().find(|(name, _)| name == child);
        found.unwrap().1
    }
}

struct Found(Vec<(String, Entry)>);

impl EntrySink for Found {
    fn has_room(&mut self, _: &[u8]) -> bool {
        true
    }

    fn entry(&mut self, listed: &DirEntry<'_>, found: Option<Entry>) {
        let name = String::from_utf8(listed.name.to_vec()).unwrap();
        match found {
            Some(entry) => self.0.push((name, entry)),
            None => assert!(name == "." || name == "..", "{name} was not found"),
        }
    }
}

struct Names {
    entries: Vec<(String, u64)>,
    room: usize,
}

impl DirSink for Names {
    fn entry(&mut self, entry: &DirEntry<'_>) -> ControlFlow<()> {
        if self.entries.len() == self.room {
            return ControlFlow::Break(());
        }
        let name = String::from_utf8(entry.name.to_vec()).unwrap();
        self.entries.push((name, entry.next));
        ControlFlow::Continue(())
    }
}
