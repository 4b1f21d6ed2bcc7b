//! Names in a directory: resolving them, and making, moving and removing what they name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, makedev, mkdirat, mknodat, renameat_with, symlinkat, unlinkat,
};
use vfsd_backend::{
    Caller, Created, Device, Entry, Errno, FileCaching, FileKind, LinkTarget, Lookup, Name,
    NewDevice, NewInode, Node, OpenFlags, Opened, RenameFlags, SecurityContext, Ttl, Wait,
};

use crate::budget::Permit;
use crate::credentials::creating;
use crate::file::OpenFile;
use crate::inode::Inode;
use crate::open::host_flags;
use crate::share::{Share, no_descriptor};
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

/// The descriptors for a new file, taken before it is made: then nothing has to be taken back when there
/// are none left.
struct Permits<'a> {
    node: Permit<'a>,
    file: Permit<'a>,
}

impl<'a> Permits<'a> {
    fn take(share: &'a Share) -> Result<Self> {
        Ok(Self {
            node: share.permit()?,
            file: share.permit()?,
        })
    }
}

/// A name that comes and goes between two steps is tried again this often.
const RACES: usize = 16;

fn mode(permissions: u32) -> Mode {
    Mode::from_bits_retain(permissions & 0o7777)
}

impl Inode {
    /// Resolves a name. EAGAIN when that takes a disk and no wait is allowed.
    pub(crate) fn find(&self, name: Name<'_>, wait: Wait) -> Result<Lookup> {
        let missing = Lookup::Missing { ttl: Ttl::Policy };
        let directory = self.directory()?;
        let seen = self.share().seen.key(&self.identity(), name);
        if self.leads_to_nodes() || self.share().seen.contains(seen) {
            match Stat::at(directory.as_fd(), name) {
                Ok(stat) => {
                    if let Some(node) = self.known(name, &stat) {
                        return Ok(Lookup::Found(node.entry(&stat)));
                    }
                }
                Err(Errno::NOENT) => return Ok(missing),
                Err(errno) => return Err(errno),
            }
        }
        let opened = self.open_path(directory.as_fd(), name, wait);
        match opened.and_then(|fd| self.child(fd, None)) {
            Ok((node, stat)) => {
                let given_up = self.share().descriptors.given_up();
                self.share().seen.insert(seen, given_up);
                Ok(Lookup::Found(node.entry(&stat)))
            }
            Err(Errno::NOENT) => Ok(missing),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn open_path(
        &self,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
        wait: Wait,
    ) -> Result<OwnedFd> {
        self.share()
            .open_child(directory, name, OFlags::PATH, Mode::empty(), wait)
    }

    /// Makes an inode by `make`, under `name`, and answers its node with the label that it has to
    /// have. Takes the name back when that cannot be set.
    fn make(
        &self,
        name: Name<'_>,
        kind: FileKind,
        security: Option<SecurityContext<'_>>,
        make: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Entry> {
        let directory = self.directory()?;
        let directory = directory.as_fd();
        // Whatever can be refused is refused before there is something to take back.
        let permit = self.share().permit()?;
        make(directory)?;
        let fd = self.open_path(directory, name, Wait::Allowed)?;
        // Somebody on the host may have put something else there: that is not what was made.
        let check = |found| match found == kind {
            true => Ok(()),
            false => Err(Errno::STALE),
        };
        if let Some(label) = security {
            check(Stat::of(fd.as_fd())?.attributes.kind)?;
            if let Err(errno) = self.share().label(fd.as_fd(), label) {
                self.take_back(directory, name, kind);
                return Err(errno);
            }
        }
        let (node, stat) = self.child(fd, Some(permit))?;
        check(node.kind())?;
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
        self.make(name, FileKind::Directory, new.security, |directory| {
            creating(caller, new.umask, || {
                mkdirat(directory, name.as_bytes(), mode(new.permissions))
            })
        })
    }

    pub(crate) fn make_symlink(
        &self,
        caller: &Caller,
        name: Name<'_>,
        target: LinkTarget<'_>,
        new: NewInode<'_>,
    ) -> Result<Entry> {
        self.make(name, FileKind::Symlink, new.security, |directory| {
            creating(caller, 0, || {
                symlinkat(target.as_bytes(), directory, name.as_bytes())
            })
        })
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
        if device && !whiteout && !self.share().options.device_nodes {
            return Err(Errno::PERM);
        }
        let number = match device {
            true => makedev(new.device.major, new.device.minor),
            false => 0,
        };
        self.make(name, new.kind, new.inode.security, |directory| {
            creating(caller, new.inode.umask, || {
                let mode = mode(new.inode.permissions);
                mknodat(directory, name.as_bytes(), kind, mode, number)
            })
        })
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
            let fd = match self.open_path(directory.as_fd(), name, Wait::Allowed) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let (node, _) = self.child(fd, None)?;
            // Whether the caller may keep set-id bits is not known here, so they go.
            let kill = self.share().options.kill_privileges;
            let opened = match node.kind() {
                FileKind::Regular => node.open_file(flags, kill, Wait::Allowed)?,
                FileKind::Directory => return Err(Errno::ISDIR),
                FileKind::Symlink => return Err(Errno::LOOP),
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
        let permits = Permits::take(self.share())?;
        let fd = match wanted.new.security {
            Some(label) => self.create_labelled(directory, wanted, label)?,
            None => self.create_plain(directory, wanted)?,
        };
        self.created(fd, permits, wanted.flags)
    }

    fn create_plain(&self, directory: BorrowedFd<'_>, wanted: Wanted<'_>) -> Result<OwnedFd> {
        let flags = host_flags(&self.share().options, wanted.flags);
        creating(wanted.caller, wanted.new.umask, || {
            self.share().open_child(
                directory,
                wanted.name,
                flags | OFlags::CREATE | OFlags::EXCL,
                mode(wanted.new.permissions),
                Wait::Allowed,
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
        let flags = host_flags(&self.share().options, wanted.flags);
        let unnamed = creating(wanted.caller, wanted.new.umask, || {
            open_unnamed(directory, flags, mode(wanted.new.permissions))
        });
        match unnamed {
            Ok(fd) => {
                self.share().label(fd.as_fd(), label)?;
                self.share()
                    .proc_fd
                    .link(fd.as_fd(), directory, wanted.name)?;
                Ok(fd)
            }
            Err(Errno::OPNOTSUPP | Errno::INVAL) => {
                let fd = self.create_plain(directory, wanted)?;
                if let Err(errno) = self.share().label(fd.as_fd(), label) {
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
        let permits = Permits::take(self.share())?;
        let mut host_flags = host_flags(&self.share().options, flags);
        if flags.contains(OpenFlags::EXCLUSIVE) {
            host_flags |= OFlags::EXCL;
        }
        let opened = creating(caller, new.umask, || {
            open_unnamed(directory.as_fd(), host_flags, mode(new.permissions))
        });
        let fd = opened.map_err(|errno| match errno {
            // ext4 says so in a directory that was removed.
            Errno::PERM if is_removed(directory.as_fd()) => Errno::NOENT,
            other => other,
        })?;
        if let Some(label) = new.security {
            self.share().label(fd.as_fd(), label)?;
        }
        self.created(fd, permits, flags)
    }

    /// The node and the open file of a descriptor that has made its file.
    fn created(&self, fd: OwnedFd, permits: Permits<'_>, flags: OpenFlags) -> Result<Created> {
        let path = self
            .share()
            .proc_fd
            .reopen_path(fd.as_fd())
            .map_err(no_descriptor)?;
        let (node, stat) = self.child(path, Some(permits.node))?;
        let file = OpenFile::new(node.clone(), permits.file.hold(fd), flags);
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
        self.share()
            .proc_fd
            .link(file.as_fd(), directory.as_fd(), name)?;
        let stat = Stat::of(file.as_fd())?;
        Ok(target.this().ok_or(Errno::STALE)?.entry(&stat))
    }

    pub(crate) fn remove(&self, name: Name<'_>, flags: AtFlags) -> Result<()> {
        let directory = self.directory()?;
        // Open, and in use until the name is gone; where that is not possible the name goes all the same.
        let node = self.loose_node(directory.as_fd(), name);
        let _kept = node.as_deref().map(Inode::descriptor);
        unlinkat(&directory, name.as_bytes(), flags)
    }

    pub(crate) fn move_name(
        &self,
        caller: &Caller,
        rename: vfsd_backend::Rename<'_>,
    ) -> Result<()> {
        let from = self.directory()?;
        let new_parent = self.of(rename.new_parent)?;
        let to = new_parent.directory()?;
        let mut flags = rustix::fs::RenameFlags::empty();
        for (asked, host) in [
            (RenameFlags::NOREPLACE, rustix::fs::RenameFlags::NOREPLACE),
            (RenameFlags::EXCHANGE, rustix::fs::RenameFlags::EXCHANGE),
            (RenameFlags::WHITEOUT, rustix::fs::RenameFlags::WHITEOUT),
        ] {
            flags.set(host, rename.flags.contains(asked));
        }
        let replaces = !rename
            .flags
            .intersects(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE);
        let moved = self.listed_node(from.as_fd(), rename.name);
        let other = match replaces {
            true => new_parent.loose_node(to.as_fd(), rename.new_name),
            false => new_parent.listed_node(to.as_fd(), rename.new_name),
        };
        let _kept = [&moved, &other].map(|node| node.as_deref().map(Inode::descriptor));
        let work = || {
            renameat_with(
                &from,
                rename.name.as_bytes(),
                &to,
                rename.new_name.as_bytes(),
                flags,
            )
        };
        // Only a whiteout is a new inode that has to belong to somebody.
        match rename.flags.contains(RenameFlags::WHITEOUT) {
            true => creating(caller, 0, work),
            false => work(),
        }
    }
}

fn is_removed(directory: BorrowedFd<'_>) -> bool {
    Stat::of(directory).is_ok_and(|stat| stat.attributes.links == 0)
}

/// Opens a new file without a name in `directory`.
fn open_unnamed(directory: BorrowedFd<'_>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(directory, c".", flags, mode).map_err(no_descriptor)
}
