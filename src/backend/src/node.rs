//! A file of a storage, open or not.

use std::any::Any;
use std::sync::Arc;

use crate::{
    AccessMask, Answer, AttributeChanges, Attributes, Caller, Created, Directory, Entry, FileKind,
    FsStatistics, FsXattr, LinkTarget, Locator, Lookup, Name, NewDevice, NewInode, OpenFlags,
    Opened, Rename, XattrFlags, XattrName,
};

/// What makes two nodes of one backend the same file. Two nodes that are alive at the same time are
/// the same file exactly when their identities are equal; the server then keeps the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeIdentity {
    /// The file system inside the backend; 0 where there is only one.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// Tells apart files that had the inode number one after the other.
    pub generation: u64,
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    /// Mode and flags; `EXCLUSIVE` is not among them.
    pub flags: OpenFlags,
    /// With `TRUNCATE`: clear set-id bits and `security.capability`, because the caller is not
    /// privileged.
    pub kill_privileges: bool,
}

/// A file of a storage: regular, directory, symbolic link or special.
///
/// The server keeps a node as long as the guest knows it. Nodes given as arguments are always of
/// the same backend, so that a downcast through [`Any`] succeeds.
///
/// Only [`identity`](Self::identity), [`kind`](Self::kind) and [`getattr`](Self::getattr) have to be
/// there; what is not implemented tells the guest so.
pub trait Node: Any + Send + Sync {
    /// Tells whether two nodes are the same file. Constant, and asked while tables are locked: it
    /// waits for nothing.
    fn identity(&self) -> NodeIdentity;

    /// The file's type. Constant.
    fn kind(&self) -> FileKind;

    /// What leads to this file again in [`Backend::resolve`](crate::Backend::resolve), whatever becomes of this process.
    /// Two nodes of one file may give different ones.
    fn locator(&self) -> Answer<'_, Locator> {
        Answer::not_supported()
    }

    /// The attributes.
    fn getattr(&self) -> Answer<'_, Attributes>;

    /// Changes attributes, all or none, and answers the new ones.
    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        let _ = changes;
        Answer::not_supported()
    }

    /// Resolves a name in this directory. ENOTDIR where this is none.
    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        let _ = name;
        Answer::not_supported()
    }

    /// The target of this symbolic link: 1 to 4095 bytes.
    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        Answer::not_supported()
    }

    /// Opens this regular file. EBADF for a special file, which a guest opens in its own kernel.
    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        let _ = request;
        Answer::not_supported()
    }

    /// Opens this directory for listing.
    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::not_supported()
    }

    /// Makes and opens a regular file, or opens the one that has the name unless `EXCLUSIVE`.
    fn create<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        let _ = (caller, name, flags, inode);
        Answer::not_supported()
    }

    /// Makes and opens a file without a name (`O_TMPFILE`). With `EXCLUSIVE` it never gets one.
    fn tmpfile<'a>(
        &'a self,
        caller: Caller,
        flags: OpenFlags,
        inode: NewInode<'a>,
    ) -> Answer<'a, Created> {
        let _ = (caller, flags, inode);
        Answer::not_supported()
    }

    /// Makes a directory.
    fn mkdir<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        let _ = (caller, name, inode);
        Answer::not_supported()
    }

    /// Makes a regular file, FIFO, socket or device node. EPERM for a device that the export does not allow.
    fn mknod<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        new: NewDevice<'a>,
    ) -> Answer<'a, Entry> {
        let _ = (caller, name, new);
        Answer::not_supported()
    }

    /// Makes a symbolic link; `inode.permissions` mean nothing here.
    fn symlink<'a>(
        &'a self,
        caller: Caller,
        name: Name<'a>,
        target: LinkTarget<'a>,
        inode: NewInode<'a>,
    ) -> Answer<'a, Entry> {
        let _ = (caller, name, target, inode);
        Answer::not_supported()
    }

    /// Gives `target` another name, in this directory.
    fn link<'a>(&'a self, target: &'a dyn Node, name: Name<'a>) -> Answer<'a, Entry> {
        let _ = (target, name);
        Answer::not_supported()
    }

    /// Removes a name that is not a directory's.
    fn unlink<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let _ = name;
        Answer::not_supported()
    }

    /// Removes an empty directory.
    fn rmdir<'a>(&'a self, name: Name<'a>) -> Answer<'a, ()> {
        let _ = name;
        Answer::not_supported()
    }

    /// Moves a name of this directory. `caller` owns the whiteout, if one is left.
    fn rename<'a>(&'a self, caller: Caller, rename: Rename<'a>) -> Answer<'a, ()> {
        let _ = (caller, rename);
        Answer::not_supported()
    }

    /// Whether `caller` may do what `mask` says. Rarely asked: guests decide by the attributes.
    fn access(&self, caller: Caller, mask: AccessMask) -> Answer<'_, ()> {
        let _ = (caller, mask);
        Answer::not_supported()
    }

    /// The value of an extended attribute: at most 64 KiB. ENODATA when there is none.
    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        let _ = name;
        Answer::not_supported()
    }

    /// The names of all extended attributes, each ended by a NUL: at most 64 KiB.
    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        Answer::not_supported()
    }

    /// Sets an extended attribute; `value` is at most 64 KiB.
    fn setxattr<'a>(
        &'a self,
        name: XattrName<'a>,
        value: &'a [u8],
        flags: XattrFlags,
    ) -> Answer<'a, ()> {
        let _ = (name, value, flags);
        Answer::not_supported()
    }

    /// Removes an extended attribute. ENODATA when there is none.
    fn removexattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, ()> {
        let _ = name;
        Answer::not_supported()
    }

    /// The inode flags of chattr(1) (`FS_IOC_GETFLAGS`, `FS_*_FL` bits).
    fn getflags(&self) -> Answer<'_, u32> {
        Answer::not_supported()
    }

    /// Sets the inode flags of chattr(1).
    fn setflags(&self, flags: u32) -> Answer<'_, ()> {
        let _ = flags;
        Answer::not_supported()
    }

    /// The extended inode flags and the project (`FS_IOC_FSGETXATTR`).
    fn getfsxattr(&self) -> Answer<'_, FsXattr> {
        Answer::not_supported()
    }

    /// Sets the extended inode flags and the project.
    fn setfsxattr(&self, value: FsXattr) -> Answer<'_, ()> {
        let _ = value;
        Answer::not_supported()
    }

    /// The figures of the file system that holds this node.
    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::ok(FsStatistics {
            block_size: 4096,
            fragment_size: 4096,
            name_max: 255,
            ..FsStatistics::default()
        })
    }

    /// Makes everything durable that was written to the file system that holds this node.
    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::not_supported()
    }
}
