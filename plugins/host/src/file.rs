//! An open file of a plugin.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vfsd_backend::{
    Answer, AttributeChanges, Attributes, CopyRange, Errno, FallocateRequest, File, HeldLock,
    LockKind, LockOwner, LockRequest, LockStyle, ReadRequest, ReadSink, Result, SeekFrom, Wait,
    WriteRequest, WriteSource,
};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    CopyFileRangeIn, FSYNC_FDATASYNC, FallocateIn, FileLock, FlushIn, FsyncIn, HandleId, LK_FLOCK,
    LkIn, LseekIn, LseekOut, NodeId, ReadIn, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};
use vfsd_plugin_protocol::WRITE_AREA;
use zerocopy::FromZeros;

use crate::attributes::{ask_attributes, set_attributes};
use crate::handle::{Handle, Open};
use crate::link::{Link, Reply};
use crate::receive::release;
use crate::reply::{self, Breach, structure};
use crate::request::{Expected, Request, Undo};

pub(crate) struct PluginFile(pub(crate) Handle);

impl PluginFile {
    /// The connection, and the numbers by which the plugin knows the file.
    async fn at(&self) -> Result<(Arc<Link>, Open)> {
        let link = self.0.record.shared.link()?;
        let open = self.0.at(&link).await?;
        Ok((link, open))
    }
}

/// The most that is asked for, or sent, at once.
fn piece(length: usize, link: &Link) -> (usize, u32) {
    let length = length.min(link.agreed.max_data);
    (length, u32::try_from(length).unwrap_or(0))
}

fn far(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Reads from a descriptor into the guest's memory; on a thread that may wait only if the disk has to be asked.
fn read_extent(
    sink: &mut dyn ReadSink,
    descriptor: &OwnedFd,
    offset: u64,
    length: usize,
) -> Result<usize> {
    let mut done = 0_usize;
    let mut wait = Wait::Refused;
    while done < length {
        let (at, rest) = (
            offset.saturating_add(far(done)),
            length.saturating_sub(done),
        );
        let read = match wait {
            Wait::Refused => sink.put_from(descriptor.as_fd(), at, rest, wait),
            Wait::Allowed => {
                tokio::task::block_in_place(|| sink.put_from(descriptor.as_fd(), at, rest, wait))
            }
        };
        match read {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) if wait == Wait::Refused && is_about_waiting(&error) => {
                wait = Wait::Allowed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A WRITE with all data of the source that one takes: in the area, or behind its arguments.
fn write_request(
    link: &Link,
    node: NodeId,
    arg: WriteIn,
    source: &mut dyn WriteSource,
) -> Result<Request> {
    let request = Request::new(Opcode::Write, node).fixed::<WriteOut>();
    if let Some(range) = link.range(source.remaining()) {
        range.fill(source)?;
        let write_flags = arg.write_flags | WRITE_AREA;
        let arg = WriteIn { write_flags, ..arg };
        return Ok(request.arg(&arg).data_in(range));
    }
    let (asked, _) = piece(source.remaining(), link);
    let mut request = request.arg(&arg).weighs(asked);
    let start = request.bytes.len();
    request.bytes.resize(start.saturating_add(asked), 0);
    let taken = source.take(request.bytes.get_mut(start..).unwrap_or_default())?;
    match taken == asked {
        true => Ok(request),
        false => Err(Errno::FAULT.into()),
    }
}

fn is_about_waiting(error: &vfsd_backend::Error) -> bool {
    error.is(Errno::AGAIN) || error.is(Errno::OPNOTSUPP)
}

impl File for PluginFile {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let mut done = 0_usize;
            while done < request.length {
                let (asked, size) = piece(request.length.saturating_sub(done), &link);
                let arg = ReadIn {
                    fh: open.handle,
                    offset: request.offset.saturating_add(far(done)),
                    size,
                    ..ReadIn::new_zeroed()
                };
                let request = Request::new(Opcode::Read, open.node)
                    .arg(&arg)
                    .expects(Expected::Data(asked))
                    .weighs(asked);
                let read = match link.call(request).await? {
                    Reply::Bytes(bytes) => sink.put(&bytes)?,
                    Reply::Extent {
                        descriptor,
                        offset,
                        length,
                    } => read_extent(sink, &descriptor, offset, length)?,
                };
                done = done.saturating_add(read);
                if read < asked {
                    break;
                }
            }
            Ok(done)
        })
    }

    fn write<'a>(
        &'a self,
        request: WriteRequest,
        source: &'a mut dyn WriteSource,
    ) -> Answer<'a, usize> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let mut write_flags = 0;
            if request.cached {
                write_flags |= WRITE_CACHE;
            }
            if request.kill_privileges {
                write_flags |= WRITE_KILL_SUIDGID;
            }
            let mut done = 0_usize;
            while source.remaining() > 0 || done == 0 {
                let (asked, size) = piece(source.remaining(), &link);
                let arg = WriteIn {
                    fh: open.handle,
                    offset: request.offset.saturating_add(far(done)),
                    size,
                    write_flags,
                    ..WriteIn::new_zeroed()
                };
                let request = write_request(&link, open.node, arg, source)?;
                let body = link.ask(request).await?;
                let (out, _) = link.checked(structure::<WriteOut>(&body))?;
                let written = link.checked(reply::count(u64::from(out.size), far(asked)))?;
                let written = usize::try_from(written).unwrap_or(asked);
                done = done.saturating_add(written);
                if written < asked || asked == 0 {
                    break;
                }
            }
            Ok(done)
        })
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            ask_attributes(&self.0.record, &link, open.node, Some(open.handle)).await
        })
    }

    fn setattr(&self, changes: AttributeChanges) -> Answer<'_, Attributes> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            set_attributes(
                &self.0.record,
                &link,
                open.node,
                Some(open.handle),
                &changes,
            )
            .await
        })
    }

    fn flush(&self, owner: LockOwner) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = FlushIn {
                fh: open.handle,
                lock_owner: owner.0,
                ..FlushIn::new_zeroed()
            };
            match link
                .ask(Request::new(Opcode::Flush, open.node).arg(&arg))
                .await
            {
                // A plugin that has nothing to do.
                Err(vfsd_backend::Error::NotSupported) => Ok(()),
                result => result.map(drop),
            }
        })
    }

    fn fsync(&self, data_only: bool) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = FsyncIn {
                fh: open.handle,
                fsync_flags: if data_only { FSYNC_FDATASYNC } else { 0 },
                padding: 0,
            };
            link.ask(Request::new(Opcode::Fsync, open.node).arg(&arg))
                .await
                .map(drop)
        })
    }

    /// What a plugin has open that is gone is closed.
    fn release(&self) -> Answer<'_, ()> {
        Answer::later(async move {
            let Ok(link) = self.0.record.shared.link() else {
                return Ok(());
            };
            match self.0.take(&link) {
                Some(open) => link
                    .ask(release(open.node, false, open.handle))
                    .await
                    .map(drop),
                None => Ok(()),
            }
        })
    }

    fn fallocate(&self, request: FallocateRequest) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = FallocateIn {
                fh: open.handle,
                offset: request.offset,
                length: request.length,
                mode: request.mode.bits(),
                padding: 0,
            };
            let message = Request::new(Opcode::Fallocate, open.node)
                .kills_privileges(request.kill_privileges)
                .arg(&arg);
            link.ask(message).await.map(drop)
        })
    }

    fn seek(&self, from: SeekFrom, offset: u64) -> Answer<'_, u64> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = LseekIn {
                fh: open.handle,
                offset,
                // SEEK_DATA and SEEK_HOLE of linux/fs.h.
                whence: match from {
                    SeekFrom::Data => 3,
                    SeekFrom::Hole => 4,
                },
                padding: 0,
            };
            let request = Request::new(Opcode::Lseek, open.node)
                .arg(&arg)
                .fixed::<LseekOut>();
            let body = link.ask(request).await?;
            let (out, _) = link.checked(structure::<LseekOut>(&body))?;
            let there = out.offset >= offset && i64::try_from(out.offset).is_ok();
            let found = there.then_some(out.offset);
            link.checked(found.ok_or(Breach("data are found where they are not")))
        })
    }

    fn copy_range<'a>(&'a self, copy: CopyRange<'a>) -> Answer<'a, u64> {
        Answer::later(async move {
            let target: &dyn Any = copy.target;
            let target = target.downcast_ref::<Self>().ok_or(Errno::XDEV)?;
            let (link, open) = self.at().await?;
            let to = target.0.at(&link).await?;
            // What a reply can tell.
            let length = copy.length.min(0x7fff_f000);
            let arg = CopyFileRangeIn {
                fh_in: open.handle,
                off_in: copy.offset,
                nodeid_out: to.node,
                fh_out: to.handle,
                off_out: copy.target_offset,
                len: length,
                flags: 0,
            };
            let request = Request::new(Opcode::CopyFileRange, open.node)
                .kills_privileges(copy.kill_privileges)
                .arg(&arg)
                .fixed::<WriteOut>();
            let body = link.ask(request).await?;
            let (out, _) = link.checked(structure::<WriteOut>(&body))?;
            link.checked(reply::count(u64::from(out.size), length))
        })
    }

    fn getlk(&self, request: LockRequest) -> Answer<'_, Option<HeldLock>> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = lock_in(open.handle, &request);
            let request = Request::new(Opcode::Getlk, open.node)
                .arg(&arg)
                .fixed::<FileLock>();
            let body = link.ask(request).await?;
            link.checked(reply::lock(&body))
        })
    }

    fn setlk(&self, request: LockRequest) -> Answer<'_, ()> {
        Answer::later(async move {
            let (link, open) = self.at().await?;
            let arg = lock_in(open.handle, &request);
            let (opcode, undo) = match request.wait {
                true => {
                    let (node, lock) = (open.node, arg);
                    (Opcode::Setlkw, Undo::Lock { node, lock })
                }
                false => (Opcode::Setlk, Undo::Nothing),
            };
            let request = Request::new(opcode, open.node).arg(&arg).undo(undo);
            link.ask(request).await.map(drop)
        })
    }
}

fn lock_in(handle: HandleId, request: &LockRequest) -> LkIn {
    LkIn {
        fh: handle,
        owner: request.owner.0,
        lk: FileLock {
            start: request.range.start,
            end: request.range.end,
            // F_RDLCK, F_WRLCK and F_UNLCK of asm-generic/fcntl.h.
            r#type: match request.kind {
                Some(LockKind::Read) => 0,
                Some(LockKind::Write) => 1,
                None => 2,
            },
            pid: request.pid,
        },
        lk_flags: match request.style {
            LockStyle::Flock => LK_FLOCK,
            LockStyle::Posix => 0,
        },
        padding: 0,
    }
}
