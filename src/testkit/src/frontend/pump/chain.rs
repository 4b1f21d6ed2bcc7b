//! Chains that are laid out once and sent again and again.

use vm_memory::{Bytes, VolatileSlice};

use super::super::memory::Memory;
use super::super::ring::{DESC_INDIRECT, DESC_NEXT, DESC_SIZE, DESC_WRITE, Descriptor};
use super::super::wire::{IN_HEADER_SIZE, OUT_HEADER_SIZE};
use super::super::{Error, Result};

const PAGE: u32 = 4096;

/// Buffers start at multiples of this, as what a kernel allocates does.
const ALIGN: u64 = 64;

/// A kind of request: its number and how large its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Number of the request.
    pub opcode: u32,
    /// Bytes between the header and the data.
    pub arguments: u32,
    /// Bytes of the reply between the header and the data; nothing if there is no reply.
    pub reply: Option<u32>,
    /// What travels in pages.
    pub data: Data,
}

/// The payload of a request or of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// There is none.
    None,
    /// That many bytes go to the device.
    Sent(u32),
    /// The device may return that many bytes.
    Received(u32),
}

impl Form {
    /// A request whose reply has a body of `reply` bytes, both without data.
    pub fn new(opcode: u32, arguments: u32, reply: u32) -> Self {
        Self {
            opcode,
            arguments,
            reply: Some(reply),
            data: Data::None,
        }
    }

    /// The same with data.
    #[must_use]
    pub fn with(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// The same without a reply.
    #[must_use]
    pub fn unanswered(mut self) -> Self {
        self.reply = None;
        self
    }

    /// Pages of the data.
    fn pages(&self) -> u32 {
        let (Data::Sent(len) | Data::Received(len)) = self.data else {
            return 0;
        };
        len.div_ceil(PAGE)
    }

    /// Guest memory that one chain takes, a multiple of the page size.
    pub(super) fn footprint(&self) -> u64 {
        let table = DESC_SIZE * (4 + u64::from(self.pages()));
        let parts = [
            table,
            IN_HEADER_SIZE as u64,
            u64::from(self.arguments),
            OUT_HEADER_SIZE as u64,
            u64::from(self.reply.unwrap_or(0)),
        ];
        let head: u64 = parts.iter().map(|len| len.next_multiple_of(ALIGN)).sum();
        head.next_multiple_of(u64::from(PAGE)) + u64::from(self.pages()) * u64::from(PAGE)
    }
}

/// Where the parts of one chain lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    /// The descriptor that points to its table.
    pub(super) head: u16,
    form: Form,
    header: u64,
    arguments: u64,
    out_header: u64,
    reply: u64,
    pages: u64,
}

impl Chain {
    /// Lays a chain out at `start`, where [`Form::footprint`] bytes are free, behind descriptor
    /// `head` of the table at `descriptors`.
    ///
    /// The layout is that of Linux's virtiofs: header, arguments and pages to read, header,
    /// arguments and pages to write, each in a descriptor of its own, behind one indirect
    /// descriptor. Pages that follow each other in the data do not in memory.
    ///
    /// # Errors
    /// [`Error::Memory`] if it does not lie in guest memory.
    pub(super) fn lay_out(
        memory: &Memory,
        form: Form,
        start: u64,
        descriptors: u64,
        head: u16,
    ) -> Result<Self> {
        let mut next = start + (DESC_SIZE * (4 + u64::from(form.pages()))).next_multiple_of(ALIGN);
        let mut take = |len: u64| {
            let at = next;
            next += len.next_multiple_of(ALIGN);
            at
        };
        let mut chain = Self {
            head,
            form,
            header: take(IN_HEADER_SIZE as u64),
            arguments: take(form.arguments.into()),
            out_header: take(OUT_HEADER_SIZE as u64),
            reply: take(form.reply.unwrap_or(0).into()),
            pages: 0,
        };
        chain.pages = next.next_multiple_of(PAGE.into());
        let table = chain.table();
        for (at, descriptor) in (start..).step_by(DESC_SIZE as usize).zip(&table) {
            memory.write(at, &descriptor.bytes())?;
        }
        let pointer = Descriptor {
            address: start,
            len: table.len() as u32 * DESC_SIZE as u32,
            flags: DESC_INDIRECT,
            next: 0,
        };
        memory.write(descriptors + u64::from(head) * DESC_SIZE, &pointer.bytes())?;
        chain.write_header(memory)?;
        if let Data::Sent(_) = form.data {
            let page = [0x5a; PAGE as usize];
            for index in 0..form.pages() {
                memory.write(chain.page(index), &page)?;
            }
        }
        Ok(chain)
    }

    fn table(&self) -> Vec<Descriptor> {
        let form = self.form;
        let mut parts = vec![(self.header, IN_HEADER_SIZE as u32, 0)];
        if form.arguments > 0 {
            parts.push((self.arguments, form.arguments, 0));
        }
        if let Data::Sent(len) = form.data {
            parts.extend(self.data(len).map(|(at, len)| (at, len, 0)));
        }
        if let Some(reply) = form.reply {
            parts.push((self.out_header, OUT_HEADER_SIZE as u32, DESC_WRITE));
            if reply > 0 {
                parts.push((self.reply, reply, DESC_WRITE));
            }
        }
        if let Data::Received(len) = form.data {
            parts.extend(self.data(len).map(|(at, len)| (at, len, DESC_WRITE)));
        }
        let last = parts.len() - 1;
        (0_u16..)
            .zip(parts)
            .map(|(index, (address, len, flags))| {
                let more = usize::from(index) < last;
                Descriptor {
                    address,
                    len,
                    flags: flags | if more { DESC_NEXT } else { 0 },
                    next: if more { index + 1 } else { 0 },
                }
            })
            .collect()
    }

    /// The pieces of `len` bytes of data, in the order of the data.
    fn data(&self, len: u32) -> impl Iterator<Item = (u64, u32)> {
        (0..self.form.pages()).map(move |index| (self.page(index), (len - index * PAGE).min(PAGE)))
    }

    /// Where page `index` of the data lies: the first one last.
    fn page(&self, index: u32) -> u64 {
        self.pages + u64::from(self.form.pages() - 1 - index) * u64::from(PAGE)
    }

    fn write_header(&self, memory: &Memory) -> Result<()> {
        let sent = match self.form.data {
            Data::Sent(len) => len,
            _ => 0,
        };
        let len = IN_HEADER_SIZE as u32 + self.form.arguments + sent;
        memory.write(self.header, &len.to_le_bytes())?;
        memory.write(self.header + 4, &self.form.opcode.to_le_bytes())?;
        // The caller is process 1 of root; unique and node are written for each request.
        memory.write(self.header + 8, &[0; 24])?;
        memory.write(self.header + 32, &1_u64.to_le_bytes())
    }

    /// Writes what differs from request to request.
    #[inline]
    pub(super) fn fill(
        &self,
        view: &View<'_>,
        unique: u64,
        node: u64,
        arguments: &[u8],
    ) -> Result<()> {
        if arguments.len() != self.form.arguments as usize {
            return Err(Error::Layout(format!(
                "{} bytes of arguments where {} were announced",
                arguments.len(),
                self.form.arguments
            )));
        }
        view.write(self.header + 8, &unique.to_le_bytes())?;
        view.write(self.header + 16, &node.to_le_bytes())?;
        view.write(self.arguments, arguments)
    }

    /// What the device answered, with the used length it told.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the header does not fit the request or the used length.
    #[inline]
    pub(super) fn answer<'a>(
        &self,
        view: &'a View<'a>,
        unique: u64,
        used: u32,
    ) -> Result<Answer<'a>> {
        let mut answer = Answer {
            view,
            chain: *self,
            errno: 0,
            len: 0,
        };
        if self.form.reply.is_none() {
            return Ok(answer);
        }
        let head: [u8; OUT_HEADER_SIZE] = view.read(self.out_header)?;
        let [a, b, c, d, e, f, g, h, own @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        let errno = i32::from_le_bytes([e, f, g, h]);
        if u64::from_le_bytes(own) != unique || len != used || len < OUT_HEADER_SIZE as u32 {
            return Err(Error::Protocol(format!(
                "request {unique} came back with length {len}, used length {used} and unique {}",
                u64::from_le_bytes(own)
            )));
        }
        answer.errno = errno.wrapping_neg();
        answer.len = len - OUT_HEADER_SIZE as u32;
        Ok(answer)
    }
}

/// The answer to one request.
#[derive(Debug)]
pub struct Answer<'a> {
    view: &'a View<'a>,
    chain: Chain,
    errno: i32,
    len: u32,
}

impl Answer<'_> {
    /// The errno, 0 for success.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Bytes after the header.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of a successful answer.
    ///
    /// # Errors
    /// [`Error::Errno`] if it is none.
    #[inline]
    pub fn success(&self) -> Result<u32> {
        match self.errno {
            0 => Ok(self.len),
            errno => Err(Error::Errno(errno)),
        }
    }

    /// `N` bytes of the body, from `at` on.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the body is shorter.
    #[inline]
    pub fn bytes<const N: usize>(&self, at: u32) -> Result<[u8; N]> {
        if u64::from(at) + N as u64 > u64::from(self.len) {
            return Err(Error::Protocol(format!("a reply of {} bytes", self.len)));
        }
        let fixed = self.chain.form.reply.unwrap_or(0);
        if at < fixed {
            return self.view.read(self.chain.reply + u64::from(at));
        }
        let at = at - fixed;
        let (index, within) = (at / PAGE, at % PAGE);
        let here = ((PAGE - within) as usize).min(N);
        let start = self.chain.page(index) + u64::from(within);
        if here == N {
            return self.view.read(start);
        }
        let mut bytes = [0; N];
        let (first, rest) = bytes.split_at_mut(here);
        self.view.read_into(start, first)?;
        self.view.read_into(self.chain.page(index + 1), rest)?;
        Ok(bytes)
    }

    /// The number of 8 bytes at `at`.
    ///
    /// # Errors
    /// As [`Answer::bytes`].
    #[inline]
    pub fn u64(&self, at: u32) -> Result<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    /// The number of 4 bytes at `at`.
    ///
    /// # Errors
    /// As [`Answer::bytes`].
    #[inline]
    pub fn u32(&self, at: u32) -> Result<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }
}

/// One region of guest memory, without the locks of [`Memory`].
#[derive(Debug)]
pub(super) struct View<'a> {
    bytes: VolatileSlice<'a>,
    start: u64,
}

impl<'a> View<'a> {
    /// The region that starts at guest address `start`.
    pub(super) fn new(bytes: VolatileSlice<'a>, start: u64) -> Self {
        Self { bytes, start }
    }

    #[inline]
    fn at(&self, address: u64) -> usize {
        // An address below the region wraps, and is then past its end.
        address.wrapping_sub(self.start) as usize
    }

    #[inline]
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.bytes
            .write_slice(bytes, self.at(address))
            .map_err(outside)
    }

    #[inline]
    pub(super) fn read<const N: usize>(&self, address: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(address, &mut bytes)?;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn read_into(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.bytes
            .read_slice(bytes, self.at(address))
            .map_err(outside)
    }

    /// Stores a u16 after everything written before.
    #[inline]
    pub(super) fn store(&self, address: u64, value: u16) -> Result<()> {
        let order = std::sync::atomic::Ordering::Release;
        self.bytes
            .store(value.to_le(), self.at(address), order)
            .map_err(outside)
    }

    /// Loads a u16 before everything read after.
    #[inline]
    pub(super) fn load(&self, address: u64) -> Result<u16> {
        let order = std::sync::atomic::Ordering::Acquire;
        self.bytes
            .load(self.at(address), order)
            .map(u16::from_le)
            .map_err(outside)
    }
}

fn outside(error: vm_memory::VolatileMemoryError) -> Error {
    Error::Layout(error.to_string())
}
