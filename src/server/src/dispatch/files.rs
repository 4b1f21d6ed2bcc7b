//! Open files: content, space and durability.

use std::sync::Arc;

use rustix::fs::OFlags;
use vfsd_backend::{
    Capabilities, CopyRange, Errno, FallocateMode, FallocateRequest, File, FileCaching, LockOwner,
    OpenFlags, OpenRequest, ReadRequest, SeekFrom, WriteRequest,
};
use vfsd_fuse::wire::{
    CopyFileRangeIn, CopyFileRangeOut, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, HandleId,
    LseekIn, LseekOut, OPEN_KILL_SUIDGID, OpenIn, OpenOut, RELEASE_FLUSH, ReadIn, ReleaseIn,
    WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut, fopen,
};
use vfsd_fuse::{InitFlags, MAX_TRANSFER, Opcode};

use super::implied::{Need, check_openable};
use super::{Call, Outcome, range_end};
use crate::exchange::Exchange;
use crate::handles::{HandleKind, Open};
use crate::nodes::NodeRecord;
use crate::options::CacheMode;
use crate::responder::{Reply, Responder};

/// The most that one copy moves: a ring full of them has to end before it can be stopped. A guest asks
/// for the rest.
const MAX_COPY: u64 = 64 << 20;

/// `O_DSYNC` of asm-generic/fcntl.h. In rustix it stands for `O_SYNC` on Linux.
const O_DSYNC: OFlags = OFlags::from_bits_retain(0o10_000);

/// `__FMODE_EXEC` of include/linux/fs.h: execve(2) opens a program with it.
const FMODE_EXEC: u32 = 0x20;

impl<'a> Call<'a> {
    pub(super) async fn open(&self, arg: OpenIn) -> Outcome<'a> {
        let node = self.node()?;
        check_openable(node.node.kind())?;
        let flags = open_flags(arg.flags)?.difference(OpenFlags::EXCLUSIVE);
        if flags.modifies() && self.export(&node).readonly {
            return Err(Errno::ROFS.into());
        }
        // Linux asks whether a file is run before an open to write, but only after one to read that
        // truncates: the program would be gone, and whoever runs it dead (`do_open` of fs/namei.c).
        if flags.contains(OpenFlags::TRUNCATE)
            && !flags.contains(OpenFlags::WRITE)
            && self.epoch.handles.is_run(node.id)
        {
            return Err(Errno::TXTBSY.into());
        }
        let kill_privileges = arg.open_flags & OPEN_KILL_SUIDGID != 0 && self.kills_privileges();
        let truncate_later =
            flags.contains(OpenFlags::TRUNCATE) && self.must(Capabilities::ATOMIC_TRUNCATE, &node);
        let request = OpenRequest {
            flags: match truncate_later {
                true => flags.difference(OpenFlags::TRUNCATE),
                false => flags,
            },
            kill_privileges,
        };
        let open = node.node.open(request);
        let opened = match flags.contains(OpenFlags::TRUNCATE) {
            true => open.await?,
            false => self.interruptible(open).await?,
        };
        if kill_privileges {
            self.content_changes(node.id).await?;
        }
        if truncate_later {
            Box::pin(self.truncate_opened(&node, kill_privileges)).await?;
        }
        let open_flags = self.opened_flags(&node, opened.caching);
        let open = match arg.flags & FMODE_EXEC {
            0 => Open::File(opened.file),
            _ => Open::Program(opened.file),
        };
        let handle = self.epoch.handles.grant(node, open)?;
        let out = open_out(handle.id(), open_flags);
        Ok(Reply::structure(&out).opening(handle))
    }

    /// How the guest may use an open file of a node (`FOPEN_*`).
    pub(super) fn opened_flags(&self, node: &NodeRecord, caching: FileCaching) -> u32 {
        let export = self.export(node);
        let mut flags = match (export.caching(caching), self.cache_mode()) {
            (FileCaching::Policy, CacheMode::Auto) => 0,
            (FileCaching::Keep, _) | (FileCaching::Policy, CacheMode::Always) => fopen::KEEP_CACHE,
            (FileCaching::Direct, _)
            | (FileCaching::Policy, CacheMode::Never | CacheMode::Metadata) => fopen::DIRECT_IO,
        };
        flags |= fopen::PARALLEL_DIRECT_WRITES;
        // A close that has nothing to say here: no lock of others' depends on it.
        if export.steady && !self.epoch.agreed(InitFlags::POSIX_LOCKS) {
            flags |= fopen::NOFLUSH;
        }
        flags
    }

    pub(super) async fn read<E: Exchange>(
        &self,
        arg: ReadIn,
        responder: &mut Responder<E>,
    ) -> Outcome<'a> {
        let file = self.file_for(arg.fh, Need::Read).await?;
        let asked = usize::try_from(arg.size.min(MAX_TRANSFER)).unwrap_or(usize::MAX);
        let length = asked.min(responder.room());
        let end = u64::try_from(length)
            .ok()
            .and_then(|length| range_end(arg.offset, length));
        if end.is_none() {
            return Err(Errno::INVAL.into());
        }
        let request = ReadRequest {
            offset: arg.offset,
            length,
        };
        let read = self
            .interruptible(file.read(request, responder.sink()?))
            .await?;
        Ok(Reply::sunk(read.min(length)))
    }

    pub(super) async fn write<E: Exchange>(
        &self,
        arg: WriteIn,
        responder: &mut Responder<E>,
    ) -> Outcome<'a> {
        let file = self.file_to_write(&arg).await?;
        if range_end(arg.offset, u64::from(arg.size)).is_none() {
            return Err(Errno::FBIG.into());
        }
        let kill_privileges = arg.write_flags & WRITE_KILL_SUIDGID != 0 && self.kills_privileges();
        let request = WriteRequest {
            offset: arg.offset,
            kill_privileges,
            cached: arg.write_flags & WRITE_CACHE != 0,
        };
        if kill_privileges {
            self.content_changes(self.header.node).await?;
        }
        let written = file.write(request, responder.payload()?).await?;
        if self.is_implied(arg.fh) {
            self.sync_written(&arg, file.as_ref()).await?;
        }
        let size = u32::try_from(written).unwrap_or(u32::MAX).min(arg.size);
        Ok(Reply::structure(&WriteOut { size, padding: 0 }))
    }

    async fn file_to_write(&self, arg: &WriteIn) -> Outcome<'a, Arc<dyn File>> {
        match self.file_for(arg.fh, Need::Write).await {
            Err(error)
                if error.is(Errno::PERM)
                    && self.is_implied(arg.fh)
                    && open_flags(arg.flags)?.contains(OpenFlags::APPEND) =>
            {
                Box::pin(self.file_to_append()).await
            }
            file => file,
        }
    }

    /// A file that no OPEN told to be written through (`O_SYNC`, `O_DSYNC`) is told so by each write.
    async fn sync_written(&self, arg: &WriteIn, file: &dyn File) -> Outcome<'a, ()> {
        let flags = open_flags(arg.flags)?;
        if !flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC) {
            return Ok(());
        }
        file.fsync(!flags.contains(OpenFlags::SYNC)).await
    }

    pub(super) async fn flush(&self, arg: FlushIn) -> Outcome<'a> {
        self.file(arg.fh)?.flush(LockOwner(arg.lock_owner)).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn release(&self, arg: ReleaseIn) -> Outcome<'a> {
        // A file that was made without a name has one to release, though none was opened.
        if self.is_implied(arg.fh) {
            return Ok(Reply::empty());
        }
        let handle = self
            .epoch
            .handles
            .release(self.header.node, arg.fh, HandleKind::File)?;
        if let Open::File(file) | Open::Program(file) = &handle.open {
            if arg.release_flags & RELEASE_FLUSH != 0 {
                file.flush(LockOwner(arg.lock_owner)).await?;
            }
            file.release().await?;
        }
        Ok(Reply::empty())
    }

    pub(super) async fn fsync(&self, arg: FsyncIn) -> Outcome<'a> {
        let file = self.file_for(arg.fh, Need::Read).await?;
        let data_only = arg.fsync_flags & FSYNC_FDATASYNC != 0;
        self.interruptible_sync(file.fsync(data_only)).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn fallocate(&self, arg: FallocateIn) -> Outcome<'a> {
        let file = match self.file_for(arg.fh, Need::Write).await {
            // More space is no harm to what can only be appended to; the rest the file refuses.
            Err(error) if error.is(Errno::PERM) && self.is_implied(arg.fh) => {
                Box::pin(self.file_to_append()).await?
            }
            file => file?,
        };
        let mode = FallocateMode::from_bits(arg.mode).ok_or(Errno::OPNOTSUPP)?;
        let punches = mode.contains(FallocateMode::PUNCH_HOLE);
        if punches && !mode.contains(FallocateMode::KEEP_SIZE) {
            return Err(Errno::OPNOTSUPP.into());
        }
        if arg.length == 0 || i64::try_from(arg.offset).is_err() {
            return Err(Errno::INVAL.into());
        }
        if range_end(arg.offset, arg.length).is_none() {
            return Err(Errno::FBIG.into());
        }
        let request = FallocateRequest {
            mode,
            offset: arg.offset,
            length: arg.length,
            kill_privileges: self.caller_may_lose_privileges(),
        };
        if request.kill_privileges && self.kills_privileges() {
            self.content_changes(self.header.node).await?;
        }
        file.fallocate(request).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn lseek(&self, arg: LseekIn) -> Outcome<'a> {
        /// `SEEK_DATA` and `SEEK_HOLE` of linux/fs.h. All else is decided in the guest.
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let file = self.file_for(arg.fh, Need::Read).await?;
        let from = match arg.whence {
            SEEK_DATA => SeekFrom::Data,
            SEEK_HOLE => SeekFrom::Hole,
            _ => return Err(Errno::INVAL.into()),
        };
        if i64::try_from(arg.offset).is_err() {
            return Err(Errno::NXIO.into());
        }
        let offset = self.interruptible(file.seek(from, arg.offset)).await?;
        Ok(Reply::structure(&LseekOut { offset }))
    }

    pub(super) async fn copy_file_range(&self, arg: CopyFileRangeIn) -> Outcome<'a> {
        let node = self.node()?;
        let target_node = self.other_node(&node, arg.nodeid_out)?;
        let source = self.file_for(arg.fh_in, Need::Read).await?;
        let target = self
            .file_of(target_node.id, arg.fh_out, Need::Write)
            .await?;
        if arg.flags != 0 {
            return Err(Errno::INVAL.into());
        }
        let share = self.epoch.admission.copy(arg.len.min(MAX_COPY));
        let length = share.length;
        if range_end(arg.off_in, length).is_none() {
            return Err(Errno::INVAL.into());
        }
        if range_end(arg.off_out, length).is_none() {
            return Err(Errno::FBIG.into());
        }
        let copy = CopyRange {
            offset: arg.off_in,
            target: target.as_ref(),
            target_offset: arg.off_out,
            length,
            kill_privileges: self.caller_may_lose_privileges(),
        };
        if copy.kill_privileges && self.kills_privileges() {
            self.content_changes(target_node.id).await?;
        }
        let copied = source.copy_range(copy).await?.min(length);
        Ok(match self.opcode {
            Opcode::CopyFileRange64 => Reply::structure(&CopyFileRangeOut {
                bytes_copied: copied,
            }),
            _ => {
                let size = u32::try_from(copied).unwrap_or(u32::MAX);
                Reply::structure(&WriteOut { size, padding: 0 })
            }
        })
    }

    /// An open file of the request's node.
    pub(super) fn file(&self, handle: HandleId) -> Result<Arc<dyn File>, Errno> {
        self.epoch.handles.file(self.header.node, handle)
    }

    /// Whether a request that does not say it comes from a caller who may not keep set-id bits: from
    /// anybody but root.
    fn caller_may_lose_privileges(&self) -> bool {
        self.header.uid != 0
    }

    pub(super) fn kills_privileges(&self) -> bool {
        self.epoch.agreed(InitFlags::HANDLE_KILLPRIV_V2)
    }
}

/// What the guest is told of an open file.
pub(super) fn open_out(handle: HandleId, open_flags: u32) -> OpenOut {
    OpenOut {
        fh: handle,
        open_flags,
        backing_id: 0,
    }
}

/// The flags of open(2). Guest and host are of one architecture, so its numbers are ours. Flags
/// that concern only the guest are dropped.
///
/// # Errors
/// EINVAL for an access mode that is none.
pub(super) fn open_flags(flags: u32) -> Result<OpenFlags, Errno> {
    let raw = OFlags::from_bits_retain(flags);
    let mut open = match raw & OFlags::RWMODE {
        OFlags::RDONLY => OpenFlags::READ,
        OFlags::WRONLY => OpenFlags::WRITE,
        OFlags::RDWR => OpenFlags::READ | OpenFlags::WRITE,
        _ => return Err(Errno::INVAL),
    };
    for (bit, flag) in [
        (OFlags::APPEND, OpenFlags::APPEND),
        (OFlags::TRUNC, OpenFlags::TRUNCATE),
        (OFlags::DIRECT, OpenFlags::DIRECT),
        // O_SYNC has O_DSYNC's bit as well.
        (O_DSYNC, OpenFlags::DSYNC),
        (OFlags::SYNC, OpenFlags::SYNC),
        (OFlags::NOATIME, OpenFlags::NOATIME),
        (OFlags::EXCL, OpenFlags::EXCLUSIVE),
    ] {
        if raw.contains(bit) {
            open |= flag;
        }
    }
    Ok(open)
}
