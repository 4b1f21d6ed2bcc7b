//! The ioctls that are the file system's own: inode flags. All others are ENOTTY.

use vfsd_backend::{Errno, FileKind, FsXattr};
use vfsd_fuse::IoctlArgument;
use vfsd_fuse::wire::{FsXattrArgument, IoctlOut};
use zerocopy::{FromBytes, IntoBytes};

use super::{Call, Outcome};
use crate::responder::Reply;

/// `FUSE_IOCTL_UNRESTRICTED`: the server may ask for any of the caller's memory. Only the kernel's
/// interface for character devices (CUSE) has it.
const UNRESTRICTED: u32 = 1 << 1;

/// The numbers of linux/fs.h. Those for flags say `long` and mean `int`.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_GETFLAGS: u32 = 0x8004_6601;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

impl<'a> Call<'a> {
    pub(super) async fn ioctl(&self, arg: IoctlArgument<'_>, room: usize) -> Outcome<'a> {
        let node = self.node()?;
        // The kernel opens the file for the call; a handle of another file is a lie.
        let implied = match node.node.kind() {
            FileKind::Directory => self.is_implied_directory(arg.head.fh),
            _ => self.is_implied(arg.head.fh),
        };
        if !implied {
            self.epoch.handles.get(node.id, arg.head.fh)?;
        }
        if arg.head.flags & UNRESTRICTED != 0 {
            return Err(Errno::PERM.into());
        }
        let sets = matches!(
            arg.head.cmd,
            FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS | FS_IOC_FSSETXATTR
        );
        if sets && self.export(&node).readonly {
            return Err(Errno::ROFS.into());
        }
        let wanted = usize::try_from(arg.head.out_size).unwrap_or(usize::MAX);
        let answer = |bytes: &[u8]| {
            let fits = room
                .checked_sub(size_of::<IoctlOut>())
                .is_some_and(|room| wanted <= room);
            if bytes.len() > wanted || !fits {
                return Err(Errno::INVAL);
            }
            let head = IoctlOut {
                result: 0,
                flags: 0,
                in_iovs: 0,
                out_iovs: 0,
            };
            let mut body = [head.as_bytes(), bytes].concat();
            body.resize(wanted.saturating_add(size_of::<IoctlOut>()), 0);
            Ok(Reply::bytes(body))
        };
        match arg.head.cmd {
            FS_IOC_GETFLAGS | FS_IOC32_GETFLAGS => {
                Ok(answer(node.node.getflags().await?.as_bytes())?)
            }
            FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS => {
                let (flags, _) = u32::read_from_prefix(arg.input).map_err(|_| Errno::INVAL)?;
                node.node.setflags(flags).await?;
                self.close_implied_file(node.id).await;
                Ok(answer(&[])?)
            }
            FS_IOC_FSGETXATTR => {
                let found = node.node.getfsxattr().await?;
                let argument = FsXattrArgument {
                    xflags: found.xflags,
                    extsize: found.extent_size,
                    nextents: found.extents,
                    projid: found.project,
                    cowextsize: found.cow_extent_size,
                    pad: [0; 8],
                };
                Ok(answer(argument.as_bytes())?)
            }
            FS_IOC_FSSETXATTR => {
                let (argument, _) =
                    FsXattrArgument::read_from_prefix(arg.input).map_err(|_| Errno::INVAL)?;
                node.node
                    .setfsxattr(FsXattr {
                        xflags: argument.xflags,
                        extent_size: argument.extsize,
                        extents: 0,
                        project: argument.projid,
                        cow_extent_size: argument.cowextsize,
                    })
                    .await?;
                self.close_implied_file(node.id).await;
                Ok(answer(&[])?)
            }
            _ => Err(Errno::NOTTY.into()),
        }
    }
}
