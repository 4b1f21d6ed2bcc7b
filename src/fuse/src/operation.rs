//! The opcode table: one row per opcode, from which decoder, names and policy come.

use vfsd_backend::{Errno, LinkTarget, Name, XattrName};

use crate::arguments::{
    Argument, Arguments, ForgetList, IoctlArgument, SetxattrArgument, UnusedName,
};
use crate::extensions::Extensions;
use crate::init::InitIn;
use crate::wire;

/// What a request gets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// Nothing at all, not even an error.
    Nothing,
    /// A header.
    Empty,
    /// A header and a structure.
    Fixed,
    /// A header and as many bytes as there are.
    Variable,
}

/// Whether a request changes the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does not.
    Reads,
    /// It does: EROFS on a read-only export.
    Changes,
    /// Its arguments decide.
    ByArguments,
}

macro_rules! operations {
    (
        <$life:lifetime>
        $( $number:literal $name:ident { $($field:ident: $type:ty),* } $reply:ident $effect:ident; )*
        unsupported
        $( $other_number:literal $other:ident $other_reply:ident; )*
    ) => {
        /// An opcode of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the opcodes are documented where the protocol is")]
        pub enum Opcode { $($name,)* $($other,)* }

        impl Opcode {
            /// Every opcode, in the table's order.
            pub const ALL: &'static [Opcode] = &[$(Opcode::$name,)* $(Opcode::$other,)*];

            /// The opcode that the number stands for.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    $($other_number => Some(Self::$other),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                    $(Self::$other => $other_number,)*
                }
            }

            /// The name, for logs and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    $(Self::$other => stringify!($other),)*
                }
            }

            /// What a request of this kind gets back.
            pub fn reply(self) -> ReplyKind {
                match self {
                    $(Self::$name => ReplyKind::$reply,)*
                    $(Self::$other => ReplyKind::$other_reply,)*
                }
            }

            /// Whether a request of this kind changes the tree.
            pub fn effect(self) -> Effect {
                match self {
                    $(Self::$name => Effect::$effect,)*
                    $(Self::$other => Effect::Reads,)*
                }
            }
        }

        /// A decoded request: every field is checked.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "the arguments are documented where the protocol is")]
        pub enum Operation<$life> {
            $($name { $($field: $type),* },)*
            /// An opcode that is known and knowingly not served: ENOSYS.
            Unsupported(Opcode),
        }

        impl<$life> Operation<$life> {
            /// Decodes the arguments of an opcode.
            pub(crate) fn decode(
                opcode: Opcode,
                arguments: &mut Arguments<$life>,
            ) -> Result<Self, Errno> {
                let operation = match opcode {
                    $(Opcode::$name => Self::$name {
                        $($field: <$type as Argument<$life>>::take(arguments)?),*
                    },)*
                    $(Opcode::$other => Self::Unsupported(Opcode::$other),)*
                };
                arguments.finish()?;
                Ok(operation)
            }
        }
    };
}

operations! {
    <'a>
    1  Lookup { name: Name<'a> } Fixed Reads;
    2  Forget { arg: wire::ForgetIn } Nothing Reads;
    3  Getattr { arg: wire::GetattrIn } Fixed Reads;
    4  Setattr { arg: wire::SetattrIn } Fixed Changes;
    5  Readlink {} Variable Reads;
    6  Symlink { name: Name<'a>, target: LinkTarget<'a>, extensions: Extensions<'a> } Fixed Changes;
    8  Mknod { arg: wire::MknodIn, name: Name<'a>, extensions: Extensions<'a> } Fixed Changes;
    9  Mkdir { arg: wire::MkdirIn, name: Name<'a>, extensions: Extensions<'a> } Fixed Changes;
    10 Unlink { name: Name<'a> } Empty Changes;
    11 Rmdir { name: Name<'a> } Empty Changes;
    12 Rename { arg: wire::RenameIn, name: Name<'a>, new_name: Name<'a> } Empty Changes;
    13 Link { arg: wire::LinkIn, name: Name<'a> } Fixed Changes;
    14 Open { arg: wire::OpenIn } Fixed ByArguments;
    15 Read { arg: wire::ReadIn } Variable Reads;
    16 Write { arg: wire::WriteIn } Fixed Changes;
    17 Statfs {} Fixed Reads;
    18 Release { arg: wire::ReleaseIn } Empty Reads;
    20 Fsync { arg: wire::FsyncIn } Empty Reads;
    21 Setxattr { arg: SetxattrArgument<'a> } Empty Changes;
    22 Getxattr { arg: wire::GetxattrIn, name: XattrName<'a> } Variable Reads;
    23 Listxattr { arg: wire::GetxattrIn } Variable Reads;
    24 Removexattr { name: XattrName<'a> } Empty Changes;
    25 Flush { arg: wire::FlushIn } Empty Reads;
    26 Init { arg: InitIn } Fixed Reads;
    27 Opendir { arg: wire::OpenIn } Fixed Reads;
    28 Readdir { arg: wire::ReadIn } Variable Reads;
    29 Releasedir { arg: wire::ReleaseIn } Empty Reads;
    30 Fsyncdir { arg: wire::FsyncIn } Empty Reads;
    31 Getlk { arg: wire::LkIn } Fixed Reads;
    32 Setlk { arg: wire::LkIn } Empty Reads;
    33 Setlkw { arg: wire::LkIn } Empty Reads;
    34 Access { arg: wire::AccessIn } Empty ByArguments;
    35 Create { arg: wire::CreateIn, name: Name<'a>, extensions: Extensions<'a> } Fixed Changes;
    36 Interrupt { arg: wire::InterruptIn } Nothing Reads;
    38 Destroy {} Empty Reads;
    39 Ioctl { arg: IoctlArgument<'a> } Variable ByArguments;
    42 BatchForget { list: ForgetList<'a> } Nothing Reads;
    43 Fallocate { arg: wire::FallocateIn } Empty Changes;
    44 Readdirplus { arg: wire::ReadIn } Variable Reads;
    45 Rename2 { arg: wire::Rename2In, name: Name<'a>, new_name: Name<'a> } Empty Changes;
    46 Lseek { arg: wire::LseekIn } Fixed Reads;
    47 CopyFileRange { arg: wire::CopyFileRangeIn } Fixed Changes;
    50 Syncfs {} Empty Reads;
    51 Tmpfile { arg: wire::CreateIn, name: UnusedName, extensions: Extensions<'a> } Fixed Changes;
    52 Statx { arg: wire::StatxIn } Fixed Reads;
    53 CopyFileRange64 { arg: wire::CopyFileRangeIn } Fixed Changes;

    unsupported
    37 Bmap Fixed;
    40 Poll Fixed;
    41 NotifyReply Nothing;
    48 Setupmapping Empty;
    49 Removemapping Empty;
}
