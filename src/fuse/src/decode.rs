//! From the bytes of a request to an [`Operation`].

use vfsd_backend::Errno;
use zerocopy::FromBytes;

use crate::arguments::Arguments;
use crate::operation::{Opcode, Operation};
use crate::wire::{InHeader, NodeId, Unique, WriteIn};
use crate::{Layout, MAX_TRANSFER};

/// The header of every request, in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// What the request is known by to whoever sent it.
    pub unique: Unique,
    /// The opcode, if the protocol has it.
    pub opcode: Option<Opcode>,
    /// The number of the opcode.
    pub opcode_number: u32,
    /// The file that is meant.
    pub node: NodeId,
    /// User; `u32::MAX` for none.
    pub uid: u32,
    /// Group; `u32::MAX` for none.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

impl RequestHeader {
    /// Bytes of the header on the wire.
    pub const SIZE: usize = size_of::<InHeader>();
}

/// A request that was understood.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its header.
    pub header: RequestHeader,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// Why a request was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// There is no whole header, so nobody to reply to.
    Unanswerable,
    /// It gets this errno, if its opcode has replies.
    Reject {
        /// The request's header.
        header: RequestHeader,
        /// ENOSYS for an unknown opcode, EINVAL or what the offending argument asks for.
        errno: Errno,
    },
}

/// The largest inline part of a request that is not a list of nodes to forget: the longest value of an
/// extended attribute, and as much again for names, labels and fixed parts.
const MAX_INLINE: usize = 2 * crate::XATTR_SIZE_MAX + 4096;

/// How many bytes of a request, from its start, hold its header and arguments: all of it, except
/// for the data of a WRITE. `readable` is the length of the request as it was received.
pub fn inline_length(header: &[u8; RequestHeader::SIZE], readable: usize) -> usize {
    let Ok((header, _)) = InHeader::read_from_prefix(header) else {
        return 0;
    };
    let most = match Opcode::from_number(header.opcode) {
        Some(Opcode::Write) => RequestHeader::SIZE.saturating_add(size_of::<WriteIn>()),
        Some(Opcode::BatchForget) => usize::try_from(MAX_TRANSFER).unwrap_or(MAX_INLINE),
        _ => MAX_INLINE,
    };
    readable
        .min(usize::try_from(header.len).unwrap_or(usize::MAX))
        .min(most)
}

/// Decodes a request. `inline` is its header and arguments, `readable` the length of the whole
/// request as it was received.
///
/// # Errors
/// [`DecodeError`] says whether and how the request is to be refused; there is no input for which
/// anything else happens.
pub fn decode(inline: &[u8], readable: usize, layout: Layout) -> Result<Request<'_>, DecodeError> {
    let (head, body) = InHeader::read_from_prefix(inline).map_err(|_| DecodeError::Unanswerable)?;
    let header = RequestHeader {
        unique: head.unique,
        opcode: Opcode::from_number(head.opcode),
        opcode_number: head.opcode,
        node: head.nodeid,
        uid: head.uid,
        gid: head.gid,
        pid: head.pid,
    };
    let reject = |errno| DecodeError::Reject { header, errno };
    let length = usize::try_from(head.len).map_err(|_| reject(Errno::INVAL))?;
    if length < RequestHeader::SIZE || length > readable {
        return Err(reject(Errno::INVAL));
    }
    let opcode = header.opcode.ok_or(reject(Errno::NOSYS))?;
    // What the transport received beyond the length that the request claims is not looked at.
    let body_length = length.saturating_sub(RequestHeader::SIZE);
    let body = body.get(..body_length).unwrap_or(body);
    let payload = body_length.saturating_sub(body.len());
    match opcode {
        Opcode::Write => {}
        _ if payload == 0 => {}
        // Nothing else is as long but a value that is too long.
        Opcode::Setxattr => return Err(reject(Errno::TOOBIG)),
        _ => return Err(reject(Errno::INVAL)),
    }
    let extension_length = usize::from(head.total_extlen).saturating_mul(8);
    let mut arguments = Arguments::new(body, layout, extension_length, payload);
    let operation = Operation::decode(opcode, &mut arguments).map_err(reject)?;
    Ok(Request { header, operation })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
