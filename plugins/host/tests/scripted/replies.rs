//! What a plugin should answer: a root directory with a file, a directory and a link in it.

use vfsd_fuse::wire::{
    AttrOut, EntryOut, InitOut, NodeId, OpenOut, OutHeader, StatxOut, Unique, WriteOut,
};
use vfsd_fuse::{InitFlags, Opcode};
use zerocopy::{FromZeros, IntoBytes};

/// `st_mode` of a regular file.
pub(crate) const FILE: u32 = 0o100_644;
/// `st_mode` of a directory.
pub(crate) const DIRECTORY: u32 = 0o040_755;
/// `st_mode` of a symbolic link.
const LINK: u32 = 0o120_777;

/// A reply to a request, which has this behind its header.
pub(crate) fn good(opcode: Opcode, unique: u64, asked: &[u8]) -> Vec<u8> {
    let entry = |number, mode| entry(number, mode).as_bytes().to_vec();
    let body = match opcode {
        Opcode::Init => {
            let (low, high) = (InitFlags::POSIX_LOCKS | InitFlags::INIT_EXT).words();
            let out = InitOut {
                major: 7,
                minor: 45,
                flags: low,
                flags2: high,
                ..InitOut::new_zeroed()
            };
            out.as_bytes().to_vec()
        }
        Opcode::Getattr => {
            let mut out = AttrOut::new_zeroed();
            out.attr.mode = DIRECTORY;
            out.as_bytes().to_vec()
        }
        Opcode::Statx => {
            let mut out = StatxOut::new_zeroed();
            out.stat.mode = u16::try_from(DIRECTORY).unwrap();
            out.as_bytes().to_vec()
        }
        Opcode::Lookup if asked.starts_with(b"dir") => entry(3, DIRECTORY),
        Opcode::Lookup if asked.starts_with(b"link") => entry(4, LINK),
        Opcode::Lookup => entry(2, FILE),
        Opcode::Mkdir => entry(5, DIRECTORY),
        Opcode::Open | Opcode::Opendir => OpenOut::new_zeroed().as_bytes().to_vec(),
        Opcode::Readlink => b"target".to_vec(),
        Opcode::Write => {
            let out = WriteOut {
                size: 4,
                padding: 0,
            };
            out.as_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    message(unique, 0, &body)
}

/// An entry with a number and a mode.
pub(crate) fn entry(number: u64, mode: u32) -> EntryOut {
    let mut out = EntryOut::new_zeroed();
    out.nodeid = NodeId(number);
    out.attr.ino = number;
    out.attr.mode = mode;
    out
}

/// Any message whose length is right.
pub(crate) fn message(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let header = OutHeader {
        error,
        ..OutHeader::success(Unique(unique), body.len())
    };
    [header.as_bytes(), body].concat()
}
