//! FUSE requests as bytes over one ring, and the rules every reply has to keep.

use std::sync::Arc;

use super::memory::Memory;
use super::ring::{DESC_SIZE, Ring, Segment};
use super::wire::{self, OUT_HEADER_SIZE};
use super::{Error, Result};

/// A request before it is put into guest memory.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub opcode: u32,
    /// The node it concerns.
    pub node: u64,
    /// User of the caller.
    pub uid: u32,
    /// Group of the caller.
    pub gid: u32,
    /// Length of the extensions at the end of the body, in units of 8 bytes.
    pub extension_words: u16,
    /// What the header claims as length; the true one if `None`.
    pub len: Option<u32>,
    /// What follows the header.
    pub body: Vec<u8>,
    /// Bytes the reply's body may take; `None` gives the device nothing to write at all.
    pub room: Option<u32>,
}

impl Request {
    /// A request by root with room for a reply body of 4 KiB.
    pub fn new(opcode: u32, node: u64, body: Vec<u8>) -> Self {
        Self {
            opcode,
            node,
            uid: 0,
            gid: 0,
            extension_words: 0,
            len: None,
            body,
            room: Some(4096),
        }
    }

    /// The same with room for a reply body of `room` bytes.
    #[must_use]
    pub fn with_room(mut self, room: u32) -> Self {
        self.room = Some(room);
        self
    }

    /// The same without anything for the device to write.
    #[must_use]
    pub fn without_reply(mut self) -> Self {
        self.room = None;
        self
    }

    /// The same by another user and group.
    #[must_use]
    pub fn by(mut self, uid: u32, gid: u32) -> Self {
        self.uid = uid;
        self.gid = gid;
        self
    }

    /// The same with extensions appended to the body; padded to a multiple of 8.
    #[must_use]
    pub fn with_extensions(mut self, extensions: &[u8]) -> Self {
        self.body.extend_from_slice(extensions);
        let padded = extensions.len().next_multiple_of(8);
        self.body
            .resize(self.body.len() + padded - extensions.len(), 0);
        self.extension_words = u16::try_from(padded / 8).unwrap_or(u16::MAX);
        self
    }

    /// Header and body as they go into guest memory.
    pub fn bytes(&self, unique: u64) -> Vec<u8> {
        let true_len = u32::try_from(self.body.len() + wire::IN_HEADER_SIZE).unwrap_or(u32::MAX);
        let mut bytes = wire::Encoder::new()
            .u32(self.len.unwrap_or(true_len))
            .u32(self.opcode)
            .u64(unique)
            .u64(self.node)
            .u32(self.uid)
            .u32(self.gid)
            .u32(1)
            .u16(self.extension_words)
            .u16(0)
            .bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What came back for a chain, before anything is judged.
#[derive(Debug, Clone)]
pub struct Returned {
    /// `unique` of the request.
    pub unique: u64,
    /// The used length.
    pub used: u32,
    /// The whole writable part, also what the device did not write.
    pub bytes: Vec<u8>,
}

impl Returned {
    /// The header at the start of the writable part: length, error and unique.
    fn header(&self) -> Option<(u32, i32, u64)> {
        let mut header = wire::Decoder::new(self.bytes.get(..OUT_HEADER_SIZE)?);
        Some((header.u32()?, header.i32()?, header.u64()?))
    }

    /// Checks what Linux 7.1 and later check (`virtio_fs_verify_response`) and more: used length
    /// at least 16 and equal to the header's, the same unique, an errno from 0 to 511, and no
    /// body beside an errno.
    ///
    /// # Errors
    /// [`Error::Errno`] if that is the device's answer, [`Error::Protocol`] if a rule is broken.
    pub fn reply(&self) -> Result<&[u8]> {
        let broken = |what: String| Err(Error::Protocol(what));
        if (self.used as usize) < OUT_HEADER_SIZE {
            return broken(format!(
                "used length {} for a request with a reply",
                self.used
            ));
        }
        let Some((len, error, unique)) = self.header() else {
            return broken(format!(
                "used length {} over {} bytes",
                self.used,
                self.bytes.len()
            ));
        };
        if len != self.used || unique != self.unique {
            return broken(format!(
                "header says length {len}, unique {unique}; used length {}, request {}",
                self.used, self.unique
            ));
        }
        if !(-511..=0).contains(&error) {
            return broken(format!("error field {error}"));
        }
        let Some(body) = self.bytes.get(OUT_HEADER_SIZE..len as usize) else {
            return broken(format!("length {len} over {} bytes", self.bytes.len()));
        };
        if error == 0 {
            return Ok(body);
        }
        if !body.is_empty() {
            return broken(format!(
                "errno {} with {} bytes of body",
                -error,
                body.len()
            ));
        }
        Err(Error::Errno(-error))
    }

    /// Checks that the chain came back without a reply: used length 0, nothing written.
    ///
    /// # Errors
    /// [`Error::Protocol`] if there is one.
    pub fn silence(&self) -> Result<()> {
        if self.used == 0 && self.bytes.iter().all(|byte| *byte == FILL) {
            return Ok(());
        }
        Err(Error::Protocol(format!(
            "used length {} where no reply is due",
            self.used
        )))
    }
}

/// What every reply buffer holds before the device gets it.
pub const FILL: u8 = 0xa5;

/// A request the device has.
#[derive(Debug)]
struct Pending {
    head: u16,
    unique: u64,
    request: (u64, u64),
    reply: (u64, u64),
}

/// Requests over one ring.
#[derive(Debug)]
pub struct Channel {
    /// The ring below, for a test to meddle with.
    pub ring: Ring,
    /// Whether requests go out as indirect tables.
    pub indirect: bool,
    memory: Arc<Memory>,
    next_unique: u64,
    pending: Vec<Pending>,
}

impl Channel {
    /// Requests over `ring`, their unique numbers starting above `first_unique`. Rings of one
    /// device get starts far apart.
    pub fn new(ring: Ring, first_unique: u64) -> Self {
        let memory = Arc::clone(ring.memory());
        Self {
            ring,
            indirect: false,
            memory,
            next_unique: first_unique,
            pending: Vec::new(),
        }
    }

    /// A unique number not used before. Linux counts in steps of 2.
    pub fn unique(&mut self) -> u64 {
        self.next_unique += 2;
        self.next_unique
    }

    /// Number of requests the device has.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Hands a request to the device and returns its unique number.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if ring or memory are full.
    pub fn submit(&mut self, request: &Request) -> Result<u64> {
        let unique = self.unique();
        self.submit_as(request, unique)?;
        Ok(unique)
    }

    /// The same with a given unique number.
    ///
    /// # Errors
    /// As [`Channel::submit`].
    pub fn submit_as(&mut self, request: &Request, unique: u64) -> Result<()> {
        let bytes = request.bytes(unique);
        let request_len = bytes.len() as u64;
        let reply_len = request
            .room
            .map_or(0, |room| u64::from(room) + OUT_HEADER_SIZE as u64);
        let table_len = 2 * DESC_SIZE;
        let total = request_len.next_multiple_of(16) + table_len;
        let request_at = self.memory.allocate(total, 16)?;
        let reply_at = match self.memory.allocate(reply_len, 16) {
            Ok(address) => address,
            Err(error) => {
                self.memory.release(request_at, total);
                return Err(error);
            }
        };
        let pending = Pending {
            head: 0,
            unique,
            request: (request_at, total),
            reply: (reply_at, reply_len),
        };
        match self.place(&bytes, &pending) {
            Ok(head) => {
                self.pending.push(Pending { head, ..pending });
                Ok(())
            }
            Err(error) => {
                self.free(&pending);
                Err(error)
            }
        }
    }

    fn place(&mut self, bytes: &[u8], pending: &Pending) -> Result<u16> {
        let (request_at, total) = pending.request;
        let (reply_at, reply_len) = pending.reply;
        self.memory.write(request_at, bytes)?;
        let mut chain = vec![Segment::readable(request_at, u32_of(bytes.len() as u64)?)];
        if reply_len > 0 {
            self.memory
                .write(reply_at, &vec![FILL; reply_len as usize])?;
            chain.push(Segment::writable(reply_at, u32_of(reply_len)?));
        }
        if self.indirect {
            let table = request_at + total - 2 * DESC_SIZE;
            return self.ring.submit_indirect(table, &chain);
        }
        self.ring.submit(&chain)
    }

    /// The next request the device is done with, whichever it is.
    ///
    /// # Errors
    /// As [`Ring::wait`].
    pub fn wait_any(&mut self) -> Result<Returned> {
        let used = self.ring.wait()?;
        let position = self
            .pending
            .iter()
            .position(|pending| pending.head == used.head)
            .ok_or_else(|| Error::Protocol(format!("head {} is no request", used.head)))?;
        let pending = self.pending.swap_remove(position);
        let (reply_at, reply_len) = pending.reply;
        let bytes = self.memory.read(reply_at, reply_len as usize)?;
        self.free(&pending);
        if u64::from(used.len) > reply_len {
            return Err(Error::Protocol(format!(
                "used length {} over {reply_len} writable bytes",
                used.len
            )));
        }
        Ok(Returned {
            unique: pending.unique,
            used: used.len,
            bytes,
        })
    }

    /// Hands one request to the device and waits for it alone.
    ///
    /// # Errors
    /// As [`Ring::wait`]; [`Error::Protocol`] also if another request comes back instead.
    pub fn exchange(&mut self, request: &Request) -> Result<Returned> {
        let unique = self.submit(request)?;
        let returned = self.wait_any()?;
        if returned.unique != unique {
            return Err(Error::Protocol("a request came back out of turn".into()));
        }
        Ok(returned)
    }

    /// The body of a successful reply to one request.
    ///
    /// # Errors
    /// [`Error::Errno`] for the device's refusal, otherwise as [`Channel::exchange`].
    pub fn call(&mut self, request: &Request) -> Result<Vec<u8>> {
        self.exchange(request)?.reply().map(<[u8]>::to_vec)
    }

    /// Sends a request that has no reply and checks that it has none.
    ///
    /// # Errors
    /// As [`Channel::exchange`] and [`Returned::silence`].
    pub fn tell(&mut self, request: &Request) -> Result<()> {
        self.exchange(request)?.silence()
    }

    /// Forgets everything in flight and starts over on zeroed rings, after the device stopped
    /// the ring.
    ///
    /// # Errors
    /// As [`Ring::reset`].
    pub fn reset(&mut self) -> Result<()> {
        for pending in std::mem::take(&mut self.pending) {
            self.free(&pending);
        }
        self.ring.reset()
    }

    fn free(&self, pending: &Pending) {
        self.memory.release(pending.request.0, pending.request.1);
        self.memory.release(pending.reply.0, pending.reply.1);
    }
}

fn u32_of(len: u64) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::Exhausted("a buffer"))
}
