//! Names in a directory: resolving them, and making, moving and removing what they name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, makedev, mkdirat, mknodat, renameat_with, symlinkat, unlinkat,
};
use vfsd_backend::{
    Caller, Created, Device, Entry, Errno, FileCaching, FileKind, LinkTarget, Lookup, Name,
    NewDevice, NewInode, Node, OpenFlags, Opened, RenameFlags, SecurityContext, Ttl,
};

use crate::budget::Permit;
use crate::credentials::creating;
use crate::file::OpenFile;
use crate::inode::Inode;
use crate::open::host_flags;
use crate::share::{Patience, no_descriptor};
use crate::stat::Stat;

type Result<T> = std::result::Result<T, Errno>;

/// A regular file that is to be made and opened.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    caller: &'a Caller,
    name: Name<'a>,
    flags: OpenFlags,
    new: NewInode<'a>,
}

/// A name that comes and goes between two steps is tried again this often.
const RACES: usize = 16;

fn mode(permissions: u32) -> Mode {
    Mode::from_bits_retain(permissions & 0o7777)
}

impl Inode {
    /// Resolves a name. EAGAIN when that takes a disk and there is no patience for one.
    pub(crate) fn find(&self, name: Name<'_>, patience: Patience) -> Result<Lookup> {
        let missing = Lookup::Missing { ttl: Ttl::Policy };
        let directory = self.directory()?;
        let seen = self.share.seen.key(&self.identity(), name);
        if self.share.seen.contains(seen) {
            match Stat::at(directory.as_fd(), name) {
                Ok(stat) => {
                    if let Some(node) = self.known(&stat) {
                        return Ok(Lookup::Found(node.entry(&stat)));
                    }
                }
                Err(Errno::NOENT) => return Ok(missing),
                Err(errno) => return Err(errno),
            }
        }
        match self.resolve(directory.as_fd(), name, patience) {
            Ok((node, stat)) => {
                self.share.seen.insert(seen);
                Ok(Lookup::Found(node.entry(&stat)))
            }
            Err(Errno::NOENT) => Ok(missing),
            Err(errno) => Err(errno),
        }
    }

    /// The node that a name of `directory`, which is this one's descriptor, leads to.
    fn resolve(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
        patience: Patience,
    ) -> Result<(Arc<Self>, Stat)> {
        let fd = self
            .share
            .open_child(directory, name, OFlags::PATH, Mode::empty(), patience)?;
        self.child(fd)
    }

    /// The node of an inode that was just made under `name`, labelled. Takes the name back when
    /// that fails.
    fn made(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
        kind: FileKind,
        security: Option<SecurityContext<'_>>,
    ) -> Result<Entry> {
        let (node, stat) = self.resolve(directory, name, Patience::Disk)?;
        if node.kind() != kind {
            // Somebody on the host has replaced it: the new inode is not ours to answer with.
            return Err(Errno::STALE);
        }
        if let Some(label) = security {
            let labelled = self.share.label(node.descriptor()?.as_fd(), label);
            if let Err(errno) = labelled {
                self.take_back(directory, name, kind);
                return Err(errno);
            }
            // The label changes the time of change.
            let stat = Stat::of(node.descriptor()?.as_fd())?;
            return Ok(node.entry(&stat));
        }
        Ok(node.entry(&stat))
    }

    fn take_back(&self, directory: BorrowedFd<'_>, name: Name<'_>, kind: FileKind) {
        let flags = match kind {
            FileKind::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        if let Err(errno) = unlinkat(directory, name.as_bytes(), flags) {
            tracing::warn!(%errno, "an inode whose label could not be set stays without it");
        }
    }

    pub(crate) fn make_directory(
        &self,
        caller: &Caller,
        name: Name<'_>,
        new: NewInode<'_>,
    ) -> Result<Entry> {
        let directory = self.directory()?;
        creating(caller, new.umask, || {
            mkdirat(&*directory, name.as_bytes(), mode(new.permissions))
        })?;
        self.made(directory.as_fd(), name, FileKind::Directory, new.security)
    }

    pub(crate) fn make_symlink(
        &self,
        caller: &Caller,
        name: Name<'_>,
        target: LinkTarget<'_>,
        new: NewInode<'_>,
    ) -> Result<Entry> {
        let directory = self.directory()?;
        creating(caller, 0, || {
            symlinkat(target.as_bytes(), &*directory, name.as_bytes())
        })?;
        self.made(directory.as_fd(), name, FileKind::Symlink, new.security)
    }

    /// Makes a special file, or a regular one without opening it.
    pub(crate) fn make_node(
        &self,
        caller: &Caller,
        name: Name<'_>,
        new: NewDevice<'_>,
    ) -> Result<Entry> {
        let kind = match new.kind {
            FileKind::Regular => FileType::RegularFile,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Directory | FileKind::Symlink => return Err(Errno::INVAL),
        };
        let device = matches!(new.kind, FileKind::CharDevice | FileKind::BlockDevice);
        let whiteout = new.kind == FileKind::CharDevice && new.device == Device::default();
        if device && !whiteout && !self.share.options.device_nodes {
            return Err(Errno::PERM);
        }
        let number = match device {
            true => makedev(new.device.major, new.device.minor),
            false => 0,
        };
        let directory = self.directory()?;
        creating(caller, new.inode.umask, || {
            mknodat(
                &*directory,
                name.as_bytes(),
                kind,
                mode(new.inode.permissions),
                number,
            )
        })?;
        self.made(directory.as_fd(), name, new.kind, new.inode.security)
    }

    /// Makes and opens a regular file, or opens the one that has the name.
    pub(crate) fn create_file(
        &self,
        caller: &Caller,
        name: Name<'_>,
        flags: OpenFlags,
        new: NewInode<'_>,
    ) -> Result<Created> {
        let directory = self.directory()?;
        let wanted = Wanted {
            caller,
            name,
            flags,
            new,
        };
        for _ in 0..RACES {
            match self.create_new(directory.as_fd(), wanted) {
                Err(Errno::EXIST) if !flags.contains(OpenFlags::EXCLUSIVE) => {}
                other => return other,
            }
            let (node, _) = match self.resolve(directory.as_fd(), name, Patience::Disk) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            // Whether the caller may keep set-id bits is not known here, so they go.
            let kill = self.share.options.kill_privileges;
            let opened = match node.kind() {
                FileKind::Regular => node.open_file(flags, kill, Patience::Disk)?,
                FileKind::Directory => return Err(Errno::ISDIR),
                // The guest's kernel follows links; one that appeared meanwhile is looked up again.
                FileKind::Symlink => return Err(Errno::STALE),
                _ => return Err(Errno::BADF),
            };
            // Opening may have truncated.
            let stat = Stat::of(node.descriptor()?.as_fd())?;
            return Ok(Created {
                entry: node.entry(&stat),
                opened,
            });
        }
        Err(Errno::STALE)
    }

    fn create_new(&self, directory: BorrowedFd<'_>, wanted: Wanted<'_>) -> Result<Created> {
        // Whatever can be refused is refused before there is something to take back.
        let permit = self.share.permit()?;
        let fd = match wanted.new.security {
            Some(label) => self.create_labelled(directory, wanted, label)?,
            None => self.create_plain(directory, wanted)?,
        };
        self.created(fd, permit, wanted.flags)
    }

    fn create_plain(&self, directory: BorrowedFd<'_>, wanted: Wanted<'_>) -> Result<OwnedFd> {
        let flags = host_flags(&self.share.options, wanted.flags);
        creating(wanted.caller, wanted.new.umask, || {
            self.share.open_child(
                directory,
                wanted.name,
                flags | OFlags::CREATE | OFlags::EXCL,
                mode(wanted.new.permissions),
                Patience::Disk,
            )
        })
    }

    /// A file that nobody can see before it has its label: it gets its name last. Where that is
    /// not possible (not on every file system, not when opened for reading only), the name comes first.
    fn create_labelled(
        &self,
        directory: BorrowedFd<'_>,
        wanted: Wanted<'_>,
        label: SecurityContext<'_>,
    ) -> Result<OwnedFd> {
        let flags = host_flags(&self.share.options, wanted.flags);
        let unnamed = creating(wanted.caller, wanted.new.umask, || {
            open_unnamed(directory, flags, mode(wanted.new.permissions))
        });
        match unnamed {
            Ok(fd) => {
                self.share.label(fd.as_fd(), label)?;
                self.share
                    .proc_fd
                    .link(fd.as_fd(), directory, wanted.name)?;
                Ok(fd)
            }
            Err(Errno::OPNOTSUPP | Errno::INVAL) => {
                let fd = self.create_plain(directory, wanted)?;
                if let Err(errno) = self.share.label(fd.as_fd(), label) {
                    self.take_back(directory, wanted.name, FileKind::Regular);
                    return Err(errno);
                }
                Ok(fd)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Makes and opens a file without a name.
    pub(crate) fn create_unnamed(
        &self,
        caller: &Caller,
        flags: OpenFlags,
        new: NewInode<'_>,
    ) -> Result<Created> {
        let directory = self.directory()?;
        let permit = self.share.permit()?;
        let mut host_flags = host_flags(&self.share.options, flags);
        if flags.contains(OpenFlags::EXCLUSIVE) {
            host_flags |= OFlags::EXCL;
        }
        let fd = creating(caller, new.umask, || {
            open_unnamed(directory.as_fd(), host_flags, mode(new.permissions))
        })?;
        if let Some(label) = new.security {
            self.share.label(fd.as_fd(), label)?;
        }
        self.created(fd, permit, flags)
    }

    /// The node and the open file of a descriptor that has made its file.
    fn created(&self, fd: OwnedFd, permit: Permit, flags: OpenFlags) -> Result<Created> {
        let path = self
            .share
            .proc_fd
            .reopen_path(fd.as_fd())
            .map_err(no_descriptor)?;
        let (node, stat) = self.child(path)?;
        let file = OpenFile::new(&node, permit.hold(fd), flags);
        Ok(Created {
            entry: node.entry(&stat),
            opened: Opened {
                file: Arc::new(file),
                caching: FileCaching::Policy,
            },
        })
    }

    /// Gives `target` another name, in this directory.
    pub(crate) fn make_link(&self, target: &dyn Node, name: Name<'_>) -> Result<Entry> {
        let target = self.of(target)?;
        let directory = self.directory()?;
        let file = target.descriptor()?;
        self.share
            .proc_fd
            .link(file.as_fd(), directory.as_fd(), name)?;
        let stat = Stat::of(file.as_fd())?;
        Ok(target.share_self()?.entry(&stat))
    }

    pub(crate) fn remove(&self, name: Name<'_>, flags: AtFlags) -> Result<()> {
        unlinkat(&*self.directory()?, name.as_bytes(), flags)
    }

    pub(crate) fn move_name(
        &self,
        caller: &Caller,
        rename: vfsd_backend::Rename<'_>,
    ) -> Result<()> {
        let from = self.directory()?;
        let to = self.of(rename.new_parent)?.directory()?;
        let mut flags = rustix::fs::RenameFlags::empty();
        for (asked, host) in [
            (RenameFlags::NOREPLACE, rustix::fs::RenameFlags::NOREPLACE),
            (RenameFlags::EXCHANGE, rustix::fs::RenameFlags::EXCHANGE),
            (RenameFlags::WHITEOUT, rustix::fs::RenameFlags::WHITEOUT),
        ] {
            flags.set(host, rename.flags.contains(asked));
        }
        let work = || {
            renameat_with(
                &*from,
                rename.name.as_bytes(),
                &*to,
                rename.new_name.as_bytes(),
                flags,
            )
        };
        // Only a whiteout is a new inode that has to belong to somebody.
        if rename.flags.contains(RenameFlags::WHITEOUT) {
            return creating(caller, 0, work);
        }
        work()
    }
}

/// Opens a new file without a name in `directory`.
fn open_unnamed(directory: BorrowedFd<'_>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(directory, c".", flags, mode).map_err(no_descriptor)
}
