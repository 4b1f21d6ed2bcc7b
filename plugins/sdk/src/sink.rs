//! Where the data of a read go: into the reply, or nowhere, because the daemon reads them itself.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vfsd_backend::{BufferSink, ReadSink, Result, Wait};

use crate::connection::Connection;

/// Shorter pieces are sent: reading them here costs less than the daemon's system call.
const WORTH_IT: usize = 16 << 10;

/// Takes the data of one reply.
#[derive(Debug)]
pub(crate) struct Sink {
    connection: Arc<Connection>,
    capacity: usize,
    by_descriptor: bool,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Bytes(Vec<u8>),
    Extent {
        number: Arc<u32>,
        offset: u64,
        length: usize,
    },
}

/// What was taken.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    Bytes(&'a [u8]),
    Extent {
        /// Held until the reply is sent, so that the number is not taken back before.
        number: &'a Arc<u32>,
        offset: u64,
    },
}

impl Sink {
    pub(crate) fn new(connection: Arc<Connection>, capacity: usize, by_descriptor: bool) -> Self {
        Self {
            connection,
            capacity,
            by_descriptor,
            data: Data::Bytes(Vec::new()),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first `length` bytes of what was taken.
    pub(crate) fn taken(&self, length: usize) -> Taken<'_> {
        match &self.data {
            Data::Bytes(bytes) => {
                Taken::Bytes(bytes.get(..length.min(bytes.len())).unwrap_or_default())
            }
            Data::Extent { number, offset, .. } => Taken::Extent {
                number,
                offset: *offset,
            },
        }
    }

    fn filled(&self) -> usize {
        match &self.data {
            Data::Bytes(bytes) => bytes.len(),
            Data::Extent { length, .. } => *length,
        }
    }

    /// The bytes, for more of them to come. Those of an extent are read after all.
    fn bytes(&mut self) -> Result<&mut Vec<u8>> {
        if let Data::Extent {
            number,
            offset,
            length,
        } = &self.data
        {
            let mut bytes = vec![0; *length];
            let numbers = &self.connection.numbers;
            let read = numbers.read(number, &mut bytes, *offset)?;
            bytes.truncate(read);
            self.data = Data::Bytes(bytes);
        }
        match &mut self.data {
            Data::Bytes(bytes) => Ok(bytes),
            Data::Extent { .. } => Err(vfsd_backend::Errno::IO.into()),
        }
    }
}

impl ReadSink for Sink {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.filled())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = bytes.len().min(self.room());
        let taken = bytes.get(..count).unwrap_or_default();
        self.bytes()?.extend_from_slice(taken);
        Ok(count)
    }

    fn put_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        wait: Wait,
    ) -> Result<usize> {
        let length = length.min(self.room());
        if self.by_descriptor
            && length >= WORTH_IT
            && self.filled() == 0
            && let Some((number, size)) = self.connection.numbers.of(file, &self.connection)
        {
            let rest = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let length = length.min(rest);
            if length >= WORTH_IT {
                self.data = Data::Extent {
                    number,
                    offset,
                    length,
                };
                return Ok(length);
            }
        }
        let bytes = self.bytes()?;
        let start = bytes.len();
        bytes.resize(start.saturating_add(length), 0);
        let mut sink = BufferSink::new(bytes.get_mut(start..).unwrap_or_default());
        let result = sink.put_from(file, offset, length, wait);
        let read = result.as_ref().map_or(0, |read| *read);
        bytes.truncate(start.saturating_add(read));
        result
    }
}
