//! Takes typed arguments from the bytes of a request.

use vfsd_backend::{Errno, LinkTarget, Name, XattrName};
use zerocopy::FromBytes;

use crate::{InitFlags, Layout};

/// The arguments of a request that were not taken yet, and what decides their layout.
#[derive(Debug)]
pub(crate) struct Arguments<'a> {
    bytes: &'a [u8],
    layout: Layout,
    /// `fuse_in_header.total_extlen`, in bytes.
    extension_length: usize,
    /// Bytes of the request that the transport kept for itself.
    payload: usize,
    /// Whether a string was taken.
    strings: bool,
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(
        bytes: &'a [u8],
        layout: Layout,
        extension_length: usize,
        payload: usize,
    ) -> Self {
        Self {
            bytes,
            layout,
            extension_length,
            payload,
            strings: false,
        }
    }

    /// A structure of the wire.
    pub(crate) fn structure<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.bytes).map_err(|_| Errno::INVAL)?;
        self.bytes = rest;
        Ok(value)
    }

    /// The bytes before the next NUL.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Errno> {
        let end = self
            .bytes
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(Errno::INVAL)?;
        let (string, rest) = self.bytes.split_at_checked(end).ok_or(Errno::INVAL)?;
        self.bytes = rest.get(1..).ok_or(Errno::INVAL)?;
        self.strings = true;
        Ok(string)
    }

    /// To be called when all arguments are taken.
    ///
    /// # Errors
    /// EINVAL when something follows a string: it had a NUL inside, and is not what was taken for
    /// it. What follows a structure may be what a later version of the protocol added.
    pub(crate) fn finish(&self) -> Result<(), Errno> {
        match self.strings && !self.bytes.is_empty() {
            true => Err(Errno::INVAL),
            false => Ok(()),
        }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Bytes of the request that follow its inline part.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    pub(crate) fn flags(&self) -> InitFlags {
        self.layout.flags
    }

    /// The bytes of the extensions, which follow the last name and end the request. If the header
    /// announces them, there are as many.
    pub(crate) fn extension_bytes(&mut self) -> Result<&'a [u8], Errno> {
        let rest = self.rest();
        match self.extension_length {
            0 => Ok(rest),
            announced if announced == rest.len() => Ok(rest),
            _ => Err(Errno::INVAL),
        }
    }

    /// Whether the header announces extensions.
    pub(crate) fn announces_extensions(&self) -> bool {
        self.extension_length != 0
    }
}

/// A type that can be an argument in the opcode table.
pub(crate) trait Argument<'a>: Sized {
    /// Takes the argument, checked.
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno>;
}

impl<'a> Argument<'a> for Name<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        Name::new(arguments.string()?)
    }
}

/// A string that is sent but means nothing: TMPFILE carries the name `/`.
#[derive(Debug, Clone, Copy)]
pub struct UnusedName;

impl<'a> Argument<'a> for UnusedName {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        arguments.string().map(|_| Self)
    }
}

impl<'a> Argument<'a> for LinkTarget<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        LinkTarget::new(arguments.string()?)
    }
}

impl<'a> Argument<'a> for XattrName<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        XattrName::new(arguments.string()?)
    }
}

macro_rules! structures {
    ($($name:ident)*) => {$(
        impl<'a> Argument<'a> for crate::wire::$name {
            fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
                arguments.structure()
            }
        }
    )*};
}
structures! {
    ForgetIn GetattrIn SetattrIn MknodIn MkdirIn RenameIn Rename2In LinkIn OpenIn ReadIn ReleaseIn
    FsyncIn GetxattrIn FlushIn LkIn AccessIn CreateIn InterruptIn FallocateIn LseekIn
    CopyFileRangeIn StatxIn
}

/// The argument of WRITE. Its data stay with the transport.
impl<'a> Argument<'a> for crate::wire::WriteIn {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let head: Self = arguments.structure()?;
        let size = usize::try_from(head.size).map_err(|_| Errno::INVAL)?;
        if size != arguments.payload() || head.size > crate::MAX_TRANSFER {
            return Err(Errno::INVAL);
        }
        Ok(head)
    }
}

/// The nodes of a BATCH_FORGET: as many as the count says, or as fit if that is fewer.
#[derive(Debug, Clone, Copy)]
pub struct ForgetList<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> ForgetList<'a> {
    /// Node ids, and how often each is forgotten.
    pub fn iter(&self) -> impl Iterator<Item = (crate::wire::NodeId, u64)> + 'a {
        let each = size_of::<crate::wire::ForgetOne>();
        self.bytes
            .chunks_exact(each)
            .take(self.count)
            .filter_map(|chunk| {
                let one = crate::wire::ForgetOne::read_from_bytes(chunk).ok()?;
                Some((one.nodeid, one.nlookup))
            })
    }
}

impl<'a> Argument<'a> for ForgetList<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let head: crate::wire::BatchForgetIn = arguments.structure()?;
        let count = usize::try_from(head.count).map_err(|_| Errno::INVAL)?;
        Ok(Self {
            bytes: arguments.rest(),
            count,
        })
    }
}

/// What SETXATTR sets.
#[derive(Debug, Clone, Copy)]
pub struct SetxattrArgument<'a> {
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    pub flags: u32,
    /// `FUSE_SETXATTR_*`; 0 unless negotiated.
    pub setxattr_flags: u32,
    /// The attribute.
    pub name: XattrName<'a>,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Argument<'a> for SetxattrArgument<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let head = if arguments.flags().contains(InitFlags::SETXATTR_EXT) {
            arguments.structure()?
        } else {
            let short: crate::wire::SetxattrCompatIn = arguments.structure()?;
            let (size, flags) = (short.size, short.flags);
            crate::wire::SetxattrIn {
                size,
                flags,
                setxattr_flags: 0,
                padding: 0,
            }
        };
        let size = usize::try_from(head.size).map_err(|_| Errno::INVAL)?;
        if size > crate::XATTR_SIZE_MAX {
            return Err(Errno::TOOBIG);
        }
        let name = XattrName::take(arguments)?;
        let value = arguments.rest();
        if value.len() != size {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            flags: head.flags,
            setxattr_flags: head.setxattr_flags,
            name,
            value,
        })
    }
}

/// An ioctl with its input.
#[derive(Debug, Clone, Copy)]
pub struct IoctlArgument<'a> {
    /// The fixed part.
    pub head: crate::wire::IoctlIn,
    /// `in_size` bytes.
    pub input: &'a [u8],
}

impl<'a> Argument<'a> for IoctlArgument<'a> {
    fn take(arguments: &mut Arguments<'a>) -> Result<Self, Errno> {
        let head: crate::wire::IoctlIn = arguments.structure()?;
        let size = usize::try_from(head.in_size).map_err(|_| Errno::INVAL)?;
        let input = arguments.rest().get(..size).ok_or(Errno::INVAL)?;
        Ok(Self { head, input })
    }
}
