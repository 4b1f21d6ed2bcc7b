//! What a transport gives the server with each request, and how the reply goes back.

use vfsd_backend::{ReadSink, WriteSource};

/// A request as a transport took it in.
#[derive(Debug)]
pub struct Incoming<E> {
    /// Header and arguments, copied once into memory of our own: [`inline_length`] bytes.
    pub inline: Vec<u8>,
    /// Length of the whole request as the transport received it, payload included.
    pub readable: usize,
    /// The way back, and the payload.
    pub exchange: E,
}

/// One request's way back to whoever sent it.
///
/// Each exchange is ended exactly once: by [`reply`](Self::reply), by [`discard`](Self::discard), or by being
/// dropped, which a transport answers with EIO where that can be, and else treats as `discard`.
pub trait Exchange: Send + 'static {
    /// Bytes that a reply may have, its header of 16 bytes included.
    fn capacity(&self) -> usize;

    /// What follows the inline part of the request: the data of a write.
    fn payload(&mut self) -> &mut dyn WriteSource;

    /// Takes data into the reply, right behind the place of its header. What it holds is sent only with
    /// [`Body::Sunk`].
    fn sink(&mut self) -> &mut dyn ReadSink;

    /// Sends a reply. The caller has made sure that it fits into [`capacity`](Self::capacity), and
    /// that the length in `header` is that of header and body.
    ///
    /// Says whether it went out: when not, what it granted must be taken back.
    fn reply(self, header: [u8; 16], body: Body<'_>) -> Delivery;

    /// Ends the exchange without a reply.
    fn discard(self);
}

/// What follows the header of a reply.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This many bytes that the sink has taken.
    Sunk(usize),
}

/// Whether a reply reached its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// It did, as far as the transport can know.
    Sent,
    /// It did not: the receiver went away, took the memory with it, or was interrupted.
    Lost,
}

/// How many bytes of a request a transport copies into [`Incoming::inline`]: everything but the data
/// of a write, and never more than any well-formed request has.
///
/// `header` is the beginning of the request, `readable` its whole length.
pub fn inline_length(header: &[u8; vfsd_fuse::RequestHeader::SIZE], readable: usize) -> usize {
    vfsd_fuse::inline_length(header, readable)
}

/// The length of a request's header: what a transport reads before it asks for [`inline_length`].
pub const HEADER_LENGTH: usize = vfsd_fuse::RequestHeader::SIZE;
