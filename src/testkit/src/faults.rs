//! A backend that works until it is told to fail: for tests of what stands above a backend.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Backend, Caller, Capabilities, CopyRange,
    Created, DirSink, Directory, Entry, EntrySink, Errno, Extent, FallocateRequest, File, FileKind,
    FsStatistics, FsXattr, HeldLock, LinkTarget, Locator, LockOwner, LockRequest, Lookup, Name,
    NewDevice, NewInode, Node, NodeIdentity, OpenFlags, OpenRequest, Opened, ReadRequest, ReadSink,
    Rename, SeekFrom, WriteRequest, WriteSource, XattrFlags, XattrName,
};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this errno, and never reaches the backend.
    Fail(Errno),
    /// Its answer comes this much later than the backend's.
    Delay(Duration),
    /// It panics before it reaches the backend.
    Panic,
    /// It is answered as if it had been done, and never reaches the backend. Only calls that answer
    /// nothing, and writes, are lost in this way; others work.
    Lose,
}

/// Decides what happens to each call. Shared by a [`Faulty`] backend and the test that drives it.
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    syncs: u64,
    armed: Option<Armed>,
}

#[derive(Debug, Clone, Copy)]
struct Armed {
    fault: Fault,
    /// Calls that still work.
    skip: u64,
    /// Calls that then fail.
    times: u64,
}

impl Faults {
    /// Lets `skip` more calls through, and then meets all with `fault`.
    pub fn after(&self, skip: u64, fault: Fault) {
        self.arm(skip, u64::MAX, fault);
    }

    /// Lets `skip` more calls through, and then meets one with `fault`.
    pub fn once_after(&self, skip: u64, fault: Fault) {
        self.arm(skip, 1, fault);
    }

    /// Lets all calls through again.
    pub fn clear(&self) {
        self.plan.lock().armed = None;
    }

    /// How many calls there were so far, those that failed among them.
    pub fn calls(&self) -> u64 {
        self.plan.lock().calls
    }

    /// How many of those that did not fail made a file's content durable.
    pub fn syncs(&self) -> u64 {
        self.plan.lock().syncs
    }

    fn arm(&self, skip: u64, times: u64, fault: Fault) {
        self.plan.lock().armed = Some(Armed { fault, skip, times });
    }

    /// Counts a call and says what is to happen to it.
    fn next(&self) -> Option<Fault> {
        let mut plan = self.plan.lock();
        plan.calls = plan.calls.saturating_add(1);
        let armed = plan.armed.as_mut()?;
        if armed.skip > 0 {
            armed.skip = armed.skip.saturating_sub(1);
            return None;
        }
        if armed.times == 0 {
            return None;
        }
        armed.times = armed.times.saturating_sub(1);
        Some(armed.fault)
    }

    /// As [`around`](Self::around), for a call that can be lost: then `done` makes its answer.
    fn around_losing<'a, T: Send + 'a>(
        &self,
        done: impl FnOnce() -> T,
        call: impl FnOnce() -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        match self.next() {
            Some(Fault::Lose) => Answer::ok(done()),
            fault => meet(fault, call),
        }
    }

    /// Makes a call, or what is to happen instead.
    fn around<'a, T: Send + 'a>(
        &self,
        call: impl FnOnce() -> Answer<'a, T> + Send + 'a,
    ) -> Answer<'a, T> {
        meet(self.next(), call)
    }
}

/// Makes a call as a fault has it. One that cannot be lost is made.
#[expect(clippy::panic, reason = "a panic is one of the faults")]
fn meet<'a, T: Send + 'a>(
    fault: Option<Fault>,
    call: impl FnOnce() -> Answer<'a, T> + Send + 'a,
) -> Answer<'a, T> {
    match fault {
        None | Some(Fault::Lose) => call(),
        Some(Fault::Fail(errno)) => Answer::error(errno),
        Some(Fault::Delay(delay)) => Answer::later(async move {
            tokio::time::sleep(delay).await;
            call().await
        }),
        Some(Fault::Panic) => panic!("injected by the test"),
    }
}

/// A backend whose calls go through [`Faults`].
///
/// Calls that only tell what is known already, such as [`Node::identity`], always work.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    root: Arc<FaultyNode>,
}

impl Faulty {
    /// Wraps a backend.
    pub fn new(inner: Arc<dyn Backend>, faults: Arc<Faults>) -> Self {
        let root = Arc::new(FaultyNode {
            inner: inner.root(),
            faults,
        });
        Self { inner, root }
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty")
            .field("faults", &self.root.faults)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Faulty {
    fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn resolve<'a>(&'a self, locator: &'a Locator) -> Answer<'a, Arc<dyn Node>> {
        let faults = &self.root.faults;
        faults.around(move || {
            wrap(self.inner.resolve(locator), faults, |inner, faults| {
                Arc::new(FaultyNode {
                    inner,
                    faults: faults.clone(),
                })
            })
        })
    }

    fn close(&self) -> vfsd_backend::Result<()> {
        self.inner.close()
    }
}

struct FaultyNode {
    inner: Arc<dyn Node>,
    faults: Arc<Faults>,
}

struct FaultyFile {
    inner: Arc<dyn File>,
    faults: Arc<Faults>,
}

struct FaultyDirectory {
    inner: Arc<dyn Directory>,
    faults: Arc<Faults>,
}

/// Wraps what an answer hands out, so that calls on it go through the same faults.
fn wrap<'a, T: Send + 'a>(
    answer: Answer<'a, T>,
    faults: &'a Arc<Faults>,
    wrap: impl FnOnce(T, &Arc<Faults>) -> T + Send + 'a,
) -> Answer<'a, T> {
    Answer::later(async move { Ok(wrap(answer.await?, faults)) })
}

fn wrap_entry(entry: Entry, faults: &Arc<Faults>) -> Entry {
    Entry {
        node: Arc::new(FaultyNode {
            inner: entry.node,
            faults: faults.clone(),
        }),
        ..entry
    }
}

fn wrap_opened(opened: Opened, faults: &Arc<Faults>) -> Opened {
    Opened {
        file: Arc::new(FaultyFile {
            inner: opened.file,
            faults: faults.clone(),
        }),
        ..opened
    }
}

fn wrap_created(created: Created, faults: &Arc<Faults>) -> Created {
    Created {
        entry: wrap_entry(created.entry, faults),
        opened: wrap_opened(created.opened, faults),
    }
}

fn inner_node(node: &dyn Node) -> &dyn Node {
    let any: &dyn Any = node;
    match any.downcast_ref::<FaultyNode>() {
        Some(faulty) => faulty.inner.as_ref(),
        None => node,
    }
}

#[deny(clippy::missing_trait_methods)]
impl Node for FaultyNode {
    fn identity(&self) -> NodeIdentity {
        self.inner.identity()
    }

    fn kind(&self) -> FileKind {
        self.inner.kind()
    }

    fn locator(&self) -> Answer<'_, Locator> {
        self.faults.around(|| self.inner.locator())
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.faults.around(|| self.inner.getattr())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        self.faults.around(move || self.inner.setattr(changes))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        self.faults.around(move || {
            wrap(
                self.inner.lookup(name),
                &self.faults,
                |found, faults| match found {
                    Lookup::Found(entry) => Lookup::Found(wrap_entry(entry, faults)),
                    missing @ Lookup::Missing { .. } => missing,
                },
            )
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        self.faults.around(|| self.inner.readlink())
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        self.faults
            .around(move || wrap(self.inner.open(request), &self.faults, wrap_opened))
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        self.faults.around(|| {
            wrap(self.inner.opendir(), &self.faults, |inner, faults| {
                Arc::new(FaultyDirectory {
                    inner,
                    faults: faults.clone(),
                })
            })
        })
    }

    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        self.faults.around(move || {
            let answer = self.inner.create(caller, name, flags, inode);
            wrap(answer, &self.faults, wrap_created)
        })
    }

    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        self.faults.around(move || {
            let answer = self.inner.tmpfile(caller, flags, inode);
            wrap(answer, &self.faults, wrap_created)
        })
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        self.faults.around(move || {
            let answer = self.inner.mkdir(caller, name, inode);
            wrap(answer, &self.faults, wrap_entry)
        })
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        self.faults.around(move || {
            let answer = self.inner.mknod(caller, name, new);
            wrap(answer, &self.faults, wrap_entry)
        })
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        self.faults.around(move || {
            let answer = self.inner.symlink(caller, name, target, inode);
            wrap(answer, &self.faults, wrap_entry)
        })
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        self.faults.around(move || {
            let answer = self.inner.link(inner_node(target), name);
            wrap(answer, &self.faults, wrap_entry)
        })
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.unlink(name))
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.rmdir(name))
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        self.faults.around_losing(
            || (),
            move || {
                let rename = Rename {
                    new_parent: inner_node(rename.new_parent),
                    ..rename
                };
                self.inner.rename(caller, rename)
            },
        )
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.access(caller, mask))
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        self.faults.around(move || self.inner.getxattr(name))
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        self.faults.around(|| self.inner.listxattr())
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.setxattr(name, value, flags))
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.removexattr(name))
    }

    fn getflags(&self) -> Answer<'_, u32> {
        self.faults.around(|| self.inner.getflags())
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.setflags(flags))
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        self.faults.around(|| self.inner.getfsxattr())
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.setfsxattr(value))
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        self.faults.around(|| self.inner.statfs())
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        self.faults.around_losing(|| (), || self.inner.syncfs())
    }
}

#[deny(clippy::missing_trait_methods)]
impl File for FaultyFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        self.faults.around(move || self.inner.read(request, sink))
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        let length = source.remaining();
        self.faults
            .around_losing(|| length, move || self.inner.write(request, source))
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        self.faults.around(|| self.inner.getattr())
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        self.faults.around(move || self.inner.setattr(changes))
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.flush(owner))
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        let call = move || {
            let mut plan = self.faults.plan.lock();
            plan.syncs = plan.syncs.saturating_add(1);
            drop(plan);
            self.inner.fsync(data_only)
        };
        self.faults.around_losing(|| (), call)
    }

    fn release(&self) -> Answer<'_, ()> {
        self.faults.around_losing(|| (), || self.inner.release())
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.fallocate(request))
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        self.faults.around(move || self.inner.seek(from, offset))
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        self.faults.around(move || {
            let any: &dyn Any = copy.target;
            let target = match any.downcast_ref::<Self>() {
                Some(faulty) => faulty.inner.as_ref(),
                None => copy.target,
            };
            self.inner.copy_range(CopyRange { target, ..copy })
        })
    }

    fn extent(&self, offset: u64, length: u64) -> Answer<'_, Option<Extent>> {
        self.faults
            .around(move || self.inner.extent(offset, length))
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        self.faults.around(move || self.inner.getlk(request))
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.setlk(request))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Directory for FaultyDirectory {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.read(cookie, sink))
    }

    /// Each name is looked up by itself then, which can go wrong by itself.
    fn read_plus<'a>(&'a self, _: u64, _: &'a mut dyn EntrySink) -> Answer<'a, ()> {
        Answer::not_supported()
    }

    fn entry<'a>(&'a self, _: Name<'a>) -> Option<Answer<'a, Lookup>> {
        None
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        self.faults
            .around_losing(|| (), move || self.inner.fsync(data_only))
    }
}
