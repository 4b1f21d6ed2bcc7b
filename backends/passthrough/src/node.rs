//! What the server asks of a file: each method says where and when the work is done.
//!
//! What the host answers from memory is done on the thread that asks: in a blocking section where that is not
//! sure, or where a file system asks another machine or program, which may not answer at all. What may wait
//! for a disk is tried without waiting where the kernel has such a call, and otherwise done elsewhere, unless disks
//! turn out not to be waited for.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags, fstatvfs, readlinkat, syncfs};
use vfsd_backend::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Created, Directory, Entry, Errno,
    FileKind, FsStatistics, FsXattr, LinkTarget, Locator, Lookup, Name, NewDevice, NewInode, Node,
    NodeIdentity, OpenFlags, OpenRequest, Opened, Rename, Wait, XattrFlags, XattrName,
    blocking_section,
};

use crate::cold_calls::ColdCalls;
use crate::inode::Inode;
use crate::share::no_descriptor;

fn brief<'a, T>(work: impl FnOnce() -> Result<T, Errno> + Send + 'a) -> Answer<'a, T> {
    Answer::brief(move || Ok(work()?))
}

/// Does at once what needs no disk, as the host says or as [`ColdCalls`] expects, and the rest elsewhere. Only what is
/// `sure` to end is done outside of a blocking section.
fn cached_first<'a, T>(
    cold: &ColdCalls,
    sure: bool,
    work: impl Fn(Wait) -> Result<T, Errno> + Send + 'a,
) -> Answer<'a, T> {
    let make_cold = || {
        cold.make(|| work(Wait::Allowed))
            .unwrap_or(Err(Errno::AGAIN))
    };
    let cached_or_cold = || match work(Wait::Refused) {
        Err(Errno::AGAIN) => make_cold(),
        done => done,
    };
    let tried = match sure {
        true => match work(Wait::Refused) {
            Err(Errno::AGAIN) => blocking_section(make_cold).ok(),
            done => Some(done),
        },
        false => blocking_section(cached_or_cold).ok(),
    };
    match tried {
        None | Some(Err(Errno::AGAIN)) => Answer::blocking(move || Ok(work(Wait::Allowed)?)),
        Some(done) => Answer::ready(done.map_err(Into::into)),
    }
}

impl Node for Inode {
    fn identity(&self) -> NodeIdentity {
        Self::identity(self)
    }

    fn kind(&self) -> FileKind {
        Self::kind(self)
    }

    fn locator(&self) -> Answer<'_, Locator> {
        brief(|| {
            let (this, root) = (self.this(), self.share().root());
            this.zip(root)
                .map_or(Err(Errno::STALE), |(this, root)| this.locator(&root))
        })
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        match self.answers_at_once() {
            true => Answer::now(|| Ok(self.attributes()?)),
            false => brief(|| self.attributes()),
        }
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        brief(move || self.change(&changes))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        // The name may be that of another mount, or have left the host's memory.
        cached_first(&self.share().cold_calls, false, move |wait| {
            self.find(name, wait)
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        Answer::brief(|| {
            if self.kind() != FileKind::Symlink {
                return Err(Errno::INVAL.into());
            }
            let descriptor = self.descriptor()?;
            Ok(readlinkat(&descriptor, c"", Vec::with_capacity(256))?.into_bytes())
        })
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        // What is dropped may take a while.
        if request.flags.contains(OpenFlags::TRUNCATE) {
            return brief(move || self.open_request(request, Wait::Allowed));
        }
        let sure = self.answers_at_once();
        cached_first(&self.share().cold_calls, sure, move |wait| {
            self.open_request(request, wait)
        })
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        brief(move || self.open_directory())
    }

    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        brief(move || self.create_file(&caller, name, flags, inode))
    }

    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        brief(move || self.create_unnamed(&caller, flags, inode))
    }

    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        brief(move || self.make_directory(&caller, name, inode))
    }

    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        brief(move || self.make_node(&caller, name, new))
    }

    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        brief(move || self.make_symlink(&caller, name, target, inode))
    }

    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        brief(move || self.make_link(target, name))
    }

    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        brief(move || self.remove(name, AtFlags::empty()))
    }

    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        brief(move || self.remove(name, AtFlags::REMOVEDIR))
    }

    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        brief(move || self.move_name(&caller, rename))
    }

    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        brief(move || self.check_access(&caller, mask))
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        Answer::brief(move || self.xattr(name))
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        Answer::brief(move || self.xattr_names())
    }

    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        Answer::brief(move || self.set_xattr(name, value, flags))
    }

    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        Answer::brief(move || self.remove_xattr(name))
    }

    fn getflags(&self) -> Answer<'_, u32> {
        brief(move || self.inode_flags())
    }

    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        brief(move || self.set_inode_flags(flags))
    }

    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        brief(move || self.fs_xattr())
    }

    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        brief(move || self.set_fs_xattr(value))
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::brief(|| {
            let host = fstatvfs(&self.descriptor()?)?;
            let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            Ok(FsStatistics {
                blocks: host.f_blocks,
                blocks_free: host.f_bfree,
                blocks_available: host.f_bavail,
                files: host.f_files,
                files_free: host.f_ffree,
                block_size: narrow(host.f_bsize),
                fragment_size: narrow(host.f_frsize),
                name_max: narrow(host.f_namemax),
            })
        })
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::blocking(move || {
            if !matches!(self.kind(), FileKind::Regular | FileKind::Directory) {
                return Err(Errno::BADF.into());
            }
            let descriptor = self.descriptor()?;
            let file = self
                .share()
                .proc_fd
                .reopen(descriptor.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)
                .map_err(no_descriptor)?;
            Ok(syncfs(file)?)
        })
    }
}
