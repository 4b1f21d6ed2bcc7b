//! What comes from the daemon: one request after the other.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vfsd_fuse::Opcode;
use vfsd_fuse::wire::WriteIn;
use vfsd_plugin_protocol::{AreaIn, MAX_ARGUMENTS, Poller, Receiver, WRITE_AREA};
use vfsd_server::{HEADER_LENGTH, Incoming, inline_length};
use zerocopy::{FromBytes, IntoBytes};

use crate::area::{Area, Range};
use crate::connection::{Connection, ConnectionError};
use crate::exchange::{Data, PluginExchange, Request};

/// Requests that follow within this are waited for without sleeping.
const NEXT: Duration = Duration::from_micros(50);

/// What comes from the daemon.
#[derive(Debug)]
pub(crate) struct Requests {
    receiver: Receiver<UnixStream>,
    poller: Poller,
    connection: Arc<Connection>,
    /// Bytes that a reply may have behind its header, and a WRITE behind its arguments.
    room: usize,
    area: Shared,
}

/// Memory for the data of WRITEs.
#[derive(Debug)]
enum Shared {
    /// All data come with their requests.
    Nothing,
    /// So many bytes of it come with the first request.
    Announced(u32),
    Here(Arc<Area>),
}

impl Shared {
    fn of(bytes: u32) -> Self {
        match bytes {
            0 => Self::Nothing,
            bytes => Self::Announced(bytes),
        }
    }
}

impl Requests {
    /// Those of a connection, whose data of WRITEs come in `area` bytes of memory, if in any.
    pub(crate) fn new(
        receiver: Receiver<UnixStream>,
        connection: Arc<Connection>,
        room: usize,
        area: u32,
    ) -> Self {
        Self {
            receiver,
            poller: Poller::new(NEXT, NEXT),
            connection,
            room,
            area: Shared::of(area),
        }
    }

    /// Where they come from, and their replies go.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits for the next request; its bytes that are no data go into `inline`, which is empty. `None` when the daemon has
    /// left.
    ///
    /// # Errors
    /// When the daemon does not speak the protocol, or the socket fails.
    pub(crate) fn next(
        &mut self,
        mut inline: Vec<u8>,
    ) -> Result<Option<Incoming<PluginExchange>>, ConnectionError> {
        let header = self
            .receiver
            .header_soon::<HEADER_LENGTH>(&mut self.poller)?;
        let Some(header) = header else {
            return Ok(None);
        };
        if let Shared::Announced(bytes) = self.area {
            let descriptor = self.receiver.descriptor();
            let area = descriptor.and_then(|descriptor| Area::map(&descriptor, bytes));
            self.area = Shared::Here(area.ok_or(ConnectionError::Area)?);
        }
        let request = Request::of(&header);
        let length = request.length;
        if length < HEADER_LENGTH || length > self.room.saturating_add(MAX_ARGUMENTS) {
            return Err(ConnectionError::Length(length));
        }
        let split = inline_length(&header, length).max(HEADER_LENGTH);
        inline.extend_from_slice(&header);
        inline.resize(split, 0);
        self.receiver
            .exactly(inline.get_mut(HEADER_LENGTH..).unwrap_or_default())?;
        let mut payload = vec![0; length.saturating_sub(split)];
        self.receiver.exactly(&mut payload)?;
        // A request that other transports would have cut: only a WRITE has a payload.
        debug_assert!(payload.is_empty() || request.opcode == Some(Opcode::Write));
        let shared = match request.opcode {
            Some(Opcode::Write) => self.shared(&mut inline, &payload)?,
            _ => None,
        };
        let data = shared.map_or(Data::Sent(payload), Data::Shared);
        if request.opcode == Some(Opcode::Setlkw) {
            self.connection.lock_wait_begins(request.unique);
        }
        let connection = Arc::clone(&self.connection);
        Ok(Some(Incoming {
            readable: split.saturating_add(data.bytes().len()),
            inline,
            exchange: PluginExchange::new(connection, request, data, self.room),
        }))
    }

    /// The data of a WRITE, if they are in the area. Its header and arguments then say what they would if the data had come with
    /// them.
    fn shared(&self, inline: &mut [u8], payload: &[u8]) -> Result<Option<Range>, ConnectionError> {
        let length = inline.len();
        let (Shared::Here(area), Some((header, arguments))) =
            (&self.area, inline.split_at_mut_checked(HEADER_LENGTH))
        else {
            return Ok(None);
        };
        let Ok(arg) = WriteIn::read_from_bytes(arguments) else {
            return Ok(None);
        };
        if arg.write_flags & WRITE_AREA == 0 {
            return Ok(None);
        }
        let place = AreaIn::read_from_bytes(payload);
        let range = place.ok().and_then(|at| area.range(at.offset, arg.size));
        let range = range.ok_or(ConnectionError::Area)?;
        let write_flags = arg.write_flags & !WRITE_AREA;
        let arg = WriteIn { write_flags, ..arg };
        arguments.copy_from_slice(arg.as_bytes());
        let length = u32::try_from(length).map_or(u32::MAX, |split| split.saturating_add(arg.size));
        if let Some(place) = header.first_chunk_mut() {
            *place = length.to_ne_bytes();
        }
        Ok(Some(range))
    }
}
