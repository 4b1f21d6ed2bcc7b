//! A negotiated virtio-fs device: features agreed, memory announced, rings running.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::connection::{Connection, feature, protocol, request};
use super::memory::{Extent, Memory, Region};
use super::ring::{Events, Layout, Ring};
use super::{Error, Result};

/// What the virtual machine is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Request queues; the high-priority queue is not counted.
    pub request_queues: u16,
    /// Descriptors of each ring.
    pub queue_size: u16,
    /// Whether to accept EVENT_IDX.
    pub event_idx: bool,
    /// Whether to accept INDIRECT_DESC.
    pub indirect: bool,
    /// Whether to ask for an acknowledgement of each message, if the device can.
    pub acknowledge: bool,
    /// Guest memory.
    pub regions: Vec<Extent>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_queues: 1,
            queue_size: 128,
            event_idx: true,
            indirect: true,
            acknowledge: true,
            regions: vec![Extent {
                start: 0x10_0000,
                size: 16 << 20,
            }],
        }
    }
}

/// The front end's end of one connection.
#[derive(Debug)]
pub struct Device {
    /// The connection, for messages this type has no method for.
    pub connection: Connection,
    memory: Arc<Memory>,
    rings: Vec<(Layout, Events)>,
    features: u64,
    protocol_features: u64,
}

impl Device {
    /// Connects, negotiates, announces memory and starts the high-priority ring and all request
    /// rings. The socket may still be missing when this is called.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the device lacks what virtio-fs needs, otherwise what the messages
    /// give.
    pub fn connect(socket: &Path, options: &Options) -> Result<Self> {
        Self::negotiate(Connection::open(socket)?, options)
    }

    /// The same over a connection that is open already.
    ///
    /// # Errors
    /// As [`Device::connect`].
    pub fn negotiate(connection: Connection, options: &Options) -> Result<Self> {
        let mut device = Self::prepare(connection, options)?;
        for index in 0..=options.request_queues {
            device.start_ring(index)?;
        }
        Ok(device)
    }

    /// Negotiates and announces memory, but leaves all rings stopped.
    ///
    /// # Errors
    /// As [`Device::connect`].
    pub fn prepare(mut connection: Connection, options: &Options) -> Result<Self> {
        connection.set(request::SET_OWNER, &[], &[])?;
        let offered = connection.get_u64(request::GET_FEATURES)?;
        let needed = feature::VERSION_1 | feature::PROTOCOL_FEATURES;
        if offered & needed != needed {
            return Err(Error::Protocol(format!(
                "features {offered:#x} lack {needed:#x}"
            )));
        }
        let mut wanted = needed;
        if options.event_idx {
            wanted |= feature::EVENT_IDX;
        }
        if options.indirect {
            wanted |= feature::INDIRECT_DESC;
        }
        let features = offered & wanted;

        let offered = connection.get_u64(request::GET_PROTOCOL_FEATURES)?;
        let mut wanted = protocol::MQ
            | protocol::CONFIG
            | protocol::CONFIGURE_MEM_SLOTS
            | protocol::RESET_DEVICE;
        if options.acknowledge {
            wanted |= protocol::REPLY_ACK;
        }
        let protocol_features = offered & wanted;
        connection.set(
            request::SET_PROTOCOL_FEATURES,
            &protocol_features.to_le_bytes(),
            &[],
        )?;
        connection.acknowledged = protocol_features & protocol::REPLY_ACK != 0;
        connection.set(request::SET_FEATURES, &features.to_le_bytes(), &[])?;

        let memory = Memory::new(&options.regions)?;
        connection.set_mem_table(&memory.regions())?;
        let rings = (0..=options.request_queues)
            .map(|_| {
                Ok((
                    Layout::allocate(&memory, options.queue_size)?,
                    Events::new()?,
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            connection,
            memory,
            rings,
            features,
            protocol_features,
        })
    }

    /// Guest memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The virtio features agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features agreed on.
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// Number of rings, the high-priority ring included.
    pub fn ring_count(&self) -> usize {
        self.rings.len()
    }

    /// The driver's half of ring `index` as it is before any traffic.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there is no such ring.
    pub fn ring(&self, index: u16) -> Result<Ring> {
        let (layout, events) = self.ring_parts(index)?;
        let event_idx = self.features & feature::EVENT_IDX != 0;
        Ok(Ring::new(
            Arc::clone(&self.memory),
            layout,
            events,
            event_idx,
        ))
    }

    /// The place and the eventfds of ring `index`.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there is no such ring.
    pub fn ring_parts(&self, index: u16) -> Result<(Layout, Events)> {
        self.rings
            .get(usize::from(index))
            .cloned()
            .ok_or(Error::Exhausted("the rings"))
    }

    /// Sets ring `index` up from index 0 and enables it. The rings in memory must be zeroed.
    ///
    /// # Errors
    /// What the messages give.
    pub fn start_ring(&mut self, index: u16) -> Result<()> {
        self.start_ring_at(index, 0)
    }

    /// Sets ring `index` up so that the device goes on at available index `base`.
    ///
    /// # Errors
    /// What the messages give.
    pub fn start_ring_at(&mut self, index: u16, base: u16) -> Result<()> {
        let (layout, events) = self.ring_parts(index)?;
        let wide = u32::from(index);
        let narrow = u8::try_from(index).map_err(|_| Error::Exhausted("the rings"))?;
        let connection = &mut self.connection;
        connection.set_vring_state(request::SET_VRING_NUM, wide, u32::from(layout.size))?;
        connection.set_vring_state(request::SET_VRING_BASE, wide, u32::from(base))?;
        connection.set_vring_addr(wide, &layout)?;
        connection.set_vring_fd(request::SET_VRING_CALL, narrow, events.call.as_fd())?;
        connection.set_vring_fd(request::SET_VRING_ERR, narrow, events.error.as_fd())?;
        connection.set_vring_fd(request::SET_VRING_KICK, narrow, events.kick.as_fd())?;
        connection.set_vring_state(request::SET_VRING_ENABLE, wide, 1)
    }

    /// Stops ring `index` and returns the available index at which the device stopped.
    ///
    /// # Errors
    /// What the message gives.
    pub fn stop_ring(&mut self, index: u16) -> Result<u16> {
        let base = self.connection.get_vring_base(u32::from(index))?;
        u16::try_from(base).map_err(|_| Error::Protocol(format!("vring base {base}")))
    }

    /// Resets the device and tells it features and memory again; all rings are stopped after it.
    ///
    /// # Errors
    /// What the messages give.
    pub fn reset(&mut self) -> Result<()> {
        let connection = &mut self.connection;
        connection.set(request::RESET_DEVICE, &[], &[])?;
        connection.set(request::SET_FEATURES, &self.features.to_le_bytes(), &[])?;
        connection.set_mem_table(&self.memory.regions())
    }

    /// Adds a region to the running device.
    ///
    /// # Errors
    /// What the message gives.
    pub fn add_region(&mut self, extent: Extent) -> Result<()> {
        let region = Region::new(extent, 0)?;
        self.connection.add_mem_region(&region)?;
        self.memory.add(region)
    }

    /// Takes the region that starts at `start` from the running device.
    ///
    /// # Errors
    /// What the message gives.
    pub fn remove_region(&mut self, start: u64) -> Result<()> {
        let region = self.memory.remove(start)?;
        self.connection.remove_mem_region(&region)
    }

    /// Waits until the device has worked off every message sent so far.
    ///
    /// # Errors
    /// What the message gives.
    pub fn synchronise(&mut self) -> Result<()> {
        self.connection.get_u64(request::GET_FEATURES).map(drop)
    }
}
