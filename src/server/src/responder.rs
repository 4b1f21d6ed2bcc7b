//! Replies: what a handler gives back, and the guarantee that each request gets exactly one.

use vfsd_backend::{Errno, ReadSink, WriteSource};
use vfsd_fuse::wire::{OutHeader, Unique};
use vfsd_fuse::{REPLY_HEADER, ReplyKind};
use zerocopy::{Immutable, IntoBytes};

use crate::exchange::{Body, Delivery, Exchange};
use crate::handles::HandleGrant;
use crate::nodes::Grant;

/// The longest reply body that needs no allocation: CREATE's.
const FIXED: usize = 144;

/// A successful reply, with what it grants.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) body: ReplyBody,
    pub(crate) grants: Grants<'a>,
}

/// What a reply says.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Fixed { bytes: [u8; FIXED], length: u8 },
    Owned(Vec<u8>),
    Sunk(usize),
}

/// What a reply grants. It is taken back unless the reply is sent.
#[derive(Debug, Default)]
pub(crate) struct Grants<'a> {
    nodes: NodeGrants<'a>,
    handle: Option<HandleGrant<'a>>,
}

/// Most replies tell of one file at most.
#[derive(Debug, Default)]
enum NodeGrants<'a> {
    #[default]
    None,
    One(Grant<'a>),
    Many(Vec<Grant<'a>>),
}

impl<'a> Reply<'a> {
    /// A header alone.
    pub(crate) fn empty() -> Self {
        Self::with(ReplyBody::Sunk(0))
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
            .zip(u8::try_from(length).ok())
        {
            Some(((head, tail), length)) => {
                head.copy_from_slice(first);
                tail.copy_from_slice(second);
                Self::with(ReplyBody::Fixed { bytes, length })
            }
            None => Self::bytes([first, second].concat()),
        }
    }

    /// Whether it is a header alone.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.body {
            ReplyBody::Fixed { length, .. } => *length == 0,
            ReplyBody::Owned(bytes) => bytes.is_empty(),
            ReplyBody::Sunk(length) => *length == 0,
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

    /// What is said, and what is granted with it.
    pub(crate) fn split(result: Result<Self, Errno>) -> (Result<ReplyBody, Errno>, Grants<'a>) {
        match result {
            Ok(Self { body, grants }) => (Ok(body), grants),
            Err(errno) => (Err(errno), Grants::default()),
        }
    }

    fn with(body: ReplyBody) -> Self {
        Self {
            body,
            grants: Grants::default(),
        }
    }

    /// Tells the guest of a file.
    pub(crate) fn granting(mut self, grant: Grant<'a>) -> Self {
        self.grants.nodes = NodeGrants::One(grant);
        self
    }

    /// Tells the guest of several files.
    pub(crate) fn granting_all(mut self, grants: Vec<Grant<'a>>) -> Self {
        self.grants.nodes = NodeGrants::Many(grants);
        self
    }

    /// Tells the guest of an open file.
    pub(crate) fn opening(mut self, handle: HandleGrant<'a>) -> Self {
        self.grants.handle = Some(handle);
        self
    }
}

impl ReplyBody {
    fn length(&self) -> usize {
        match self {
            Self::Fixed { length, .. } => usize::from(*length),
            Self::Sunk(length) => *length,
            Self::Owned(bytes) => bytes.len(),
        }
    }

    fn body(&self) -> Body<'_> {
        match self {
            Self::Fixed { bytes, length } => {
                Body::Bytes(bytes.get(..usize::from(*length)).unwrap_or_default())
            }
            Self::Owned(bytes) => Body::Bytes(bytes),
            Self::Sunk(0) => Body::Bytes(&[]),
            Self::Sunk(length) => Body::Sunk(*length),
        }
    }
}

impl Grants<'_> {
    /// Whether there is nothing to take back.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.nodes, NodeGrants::None) && self.handle.is_none()
    }

    /// The reply was sent.
    pub(crate) fn keep(self) {
        match self.nodes {
            NodeGrants::None => {}
            NodeGrants::One(grant) => grant.keep(),
            NodeGrants::Many(grants) => grants.into_iter().for_each(Grant::keep),
        }
        if let Some(handle) = self.handle {
            handle.keep();
        }
    }
}

/// The way back of one request. Dropped without a reply, as by a panic, it answers EIO by itself.
#[derive(Debug)]
pub(crate) struct Responder<E: Exchange> {
    exchange: Option<E>,
    unique: Unique,
    kind: ReplyKind,
}

impl<E: Exchange> Responder<E> {
    pub(crate) fn new(exchange: E, unique: Unique, kind: ReplyKind) -> Self {
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
    /// request has no reply. What it grants is only the guest's if the reply was sent.
    pub(crate) fn finish(mut self, result: Result<ReplyBody, Errno>) -> Sent {
        self.end(&result)
    }

    fn end(&mut self, result: &Result<ReplyBody, Errno>) -> Sent {
        let Some(exchange) = self.exchange.take() else {
            return Sent::Nothing { failed: true };
        };
        let Some(room) = exchange.capacity().checked_sub(REPLY_HEADER) else {
            exchange.discard();
            let failed = result.is_err() || self.kind != ReplyKind::Nothing;
            return Sent::Nothing { failed };
        };
        if self.kind == ReplyKind::Nothing {
            exchange.discard();
            return Sent::Nothing {
                failed: result.is_err(),
            };
        }
        let sent = match result {
            Ok(body) if body.length() <= room => Ok(body),
            // The guest left no room for what it asked: nothing is sent, nothing is granted.
            Ok(_) => Err(Errno::IO),
            Err(errno) => Err(*errno),
        };
        let (header, body) = match sent {
            Ok(body) => (OutHeader::success(self.unique, body.length()), body.body()),
            Err(errno) => (OutHeader::error(self.unique, errno), Body::Bytes(&[])),
        };
        match (exchange.reply(header.to_bytes(), body), sent) {
            (Delivery::Sent, Ok(_)) => Sent::Reply,
            (Delivery::Sent, Err(_)) => Sent::Error,
            (Delivery::Lost, sent) => Sent::Lost {
                failed: sent.is_err(),
            },
        }
    }
}

impl<E: Exchange> Drop for Responder<E> {
    fn drop(&mut self) {
        if self.exchange.is_some() {
            self.end(&Err(Errno::IO));
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A reply with what was asked for.
    Reply,
    /// A reply with an errno.
    Error,
    /// No reply: the request has none, or the guest left no room.
    Nothing { failed: bool },
    /// A reply that did not reach the guest.
    Lost { failed: bool },
}

impl Sent {
    /// The request was not done.
    pub(crate) fn failed(self) -> bool {
        match self {
            Self::Reply => false,
            Self::Error => true,
            Self::Nothing { failed } | Self::Lost { failed } => failed,
        }
    }
}
