//! Replies: what a handler gives back, and the guarantee that each request gets exactly one.

use vfsd_backend::{Errno, ReadSink, WriteSource};
use vfsd_fuse::wire::OutHeader;
use vfsd_fuse::{REPLY_HEADER, ReplyKind};
use zerocopy::{Immutable, IntoBytes};

use crate::exchange::{Body, Delivery, Exchange};
use crate::handles::HandleGrant;
use crate::nodes::Grant;

/// The longest reply body that needs no allocation: CREATE's.
const FIXED: usize = 144;

/// A successful reply, with what it grants. What is granted is taken back unless the reply is sent.
#[derive(Debug)]
pub(crate) struct Reply {
    body: ReplyBody,
    grants: Vec<Grant>,
    handle: Option<HandleGrant>,
}

#[derive(Debug)]
enum ReplyBody {
    Fixed { bytes: [u8; FIXED], length: usize },
    Owned(Vec<u8>),
    Sunk(usize),
}

impl Reply {
    /// A header alone.
    pub(crate) fn empty() -> Self {
        Self::with(ReplyBody::Owned(Vec::new()))
    }

    /// One structure.
    pub(crate) fn structure(value: &(impl IntoBytes + Immutable)) -> Self {
        Self::two(value, &[0u8; 0])
    }

    /// Two structures, one after the other.
    pub(crate) fn two(
        first: &(impl IntoBytes + Immutable),
        second: &(impl IntoBytes + Immutable),
    ) -> Self {
        let (first, second) = (first.as_bytes(), second.as_bytes());
        let mut bytes = [0; FIXED];
        let length = first.len().saturating_add(second.len());
        match bytes
            .get_mut(..length)
            .and_then(|all| all.split_at_mut_checked(first.len()))
        {
            Some((head, tail)) => {
                head.copy_from_slice(first);
                tail.copy_from_slice(second);
                Self::with(ReplyBody::Fixed { bytes, length })
            }
            None => Self::bytes([first, second].concat()),
        }
    }

    /// As many bytes as there are.
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Self::with(ReplyBody::Owned(bytes))
    }

    /// What the sink has taken.
    pub(crate) fn sunk(length: usize) -> Self {
        Self::with(ReplyBody::Sunk(length))
    }

    fn with(body: ReplyBody) -> Self {
        Self {
            body,
            grants: Vec::new(),
            handle: None,
        }
    }

    /// Tells the guest of a file.
    pub(crate) fn granting(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// Tells the guest of several files.
    pub(crate) fn granting_all(mut self, grants: Vec<Grant>) -> Self {
        self.grants = grants;
        self
    }

    /// Tells the guest of an open file.
    pub(crate) fn opening(mut self, handle: HandleGrant) -> Self {
        self.handle = Some(handle);
        self
    }
}

/// The way back of one request. Dropped without a reply, as by a panic, it answers EIO by itself.
#[derive(Debug)]
pub(crate) struct Responder<E: Exchange> {
    exchange: Option<E>,
    unique: u64,
    kind: ReplyKind,
}

impl<E: Exchange> Responder<E> {
    pub(crate) fn new(exchange: E, unique: u64, kind: ReplyKind) -> Self {
        Self {
            exchange: Some(exchange),
            unique,
            kind,
        }
    }

    /// Changes what kind of reply the request has.
    pub(crate) fn expect(&mut self, kind: ReplyKind) {
        self.kind = kind;
    }

    /// Bytes that the body of the reply may have.
    pub(crate) fn room(&self) -> usize {
        self.exchange
            .as_ref()
            .map_or(0, |own| own.capacity().saturating_sub(REPLY_HEADER))
    }

    /// Where a reader puts what it read.
    ///
    /// # Errors
    /// EIO after the reply.
    pub(crate) fn sink(&mut self) -> Result<&mut dyn ReadSink, Errno> {
        self.exchange.as_mut().map(Exchange::sink).ok_or(Errno::IO)
    }

    /// What a writer was given.
    ///
    /// # Errors
    /// EIO after the reply.
    pub(crate) fn payload(&mut self) -> Result<&mut dyn WriteSource, Errno> {
        self.exchange
            .as_mut()
            .map(Exchange::payload)
            .ok_or(Errno::IO)
    }

    /// Sends a reply, or what it has to be instead: an error if it does not fit, nothing if the
    /// request has no reply. A reply that is not sent takes back what it granted.
    pub(crate) fn finish(mut self, result: Result<Reply, Errno>) -> Sent {
        self.end(result)
    }

    fn end(&mut self, result: Result<Reply, Errno>) -> Sent {
        let Some(exchange) = self.exchange.take() else {
            return Sent::default();
        };
        if self.kind == ReplyKind::Nothing || exchange.capacity() < REPLY_HEADER {
            let failed = result.is_err() || self.kind != ReplyKind::Nothing;
            exchange.discard();
            return Sent {
                failed,
                lost: false,
            };
        }
        let room = exchange.capacity().saturating_sub(REPLY_HEADER);
        let (errno, reply) = match result {
            Ok(reply) if reply.length() <= room => (None, Some(reply)),
            // The guest left no room for what it asked: nothing was told, nothing is granted.
            Ok(_) => (Some(Errno::IO), None),
            Err(errno) => (Some(errno), None),
        };
        let delivery = match (&reply, errno) {
            (Some(reply), _) => {
                let header = OutHeader::success(self.unique, reply.length()).to_bytes();
                exchange.reply(header, reply.body())
            }
            (None, errno) => {
                let errno = errno.unwrap_or(Errno::IO);
                exchange.reply(
                    OutHeader::error(self.unique, errno).to_bytes(),
                    Body::Bytes(&[]),
                )
            }
        };
        if delivery == Delivery::Sent
            && let Some(Reply { grants, handle, .. }) = reply
        {
            grants.into_iter().for_each(Grant::keep);
            if let Some(handle) = handle {
                handle.keep();
            }
        }
        Sent {
            failed: errno.is_some(),
            lost: delivery == Delivery::Lost,
        }
    }
}

impl Reply {
    fn length(&self) -> usize {
        match &self.body {
            ReplyBody::Fixed { length, .. } | ReplyBody::Sunk(length) => *length,
            ReplyBody::Owned(bytes) => bytes.len(),
        }
    }

    fn body(&self) -> Body<'_> {
        match &self.body {
            ReplyBody::Fixed { bytes, length } => {
                Body::Bytes(bytes.get(..*length).unwrap_or_default())
            }
            ReplyBody::Owned(bytes) => Body::Bytes(bytes),
            ReplyBody::Sunk(length) => Body::Sunk(*length),
        }
    }
}

impl<E: Exchange> Drop for Responder<E> {
    fn drop(&mut self) {
        self.end(Err(Errno::IO));
    }
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// It was an error.
    pub(crate) failed: bool,
    /// It did not reach the guest.
    pub(crate) lost: bool,
}
