//! The vhost-user messages of one front end.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error as VhostError, GpuBackend, Result as VhostResult, VhostUserBackendReqHandlerMut,
};

use crate::config_space::ConfigSpace;
use crate::counters::Counters;
use crate::memory::{Extent, MAX_REGIONS, MemoryError, MemoryMap, Region};
use crate::notifier::{Call, Kick};
use crate::queue::{Queue, Surroundings};
use crate::queue_thread::Service;
use crate::ring::Addresses;
use crate::shutdown::ShutdownHandle;

/// VIRTIO_F_INDIRECT_DESC.
const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// How long requests may take to finish that nobody waits for any more.
const GRACE: Duration = Duration::from_secs(5);

/// How long a front end that removes memory is kept waiting for requests that use it. A correct
/// driver has none; those of another keep the mapping, and must not hold the front end up.
const REMOVAL_WAIT: Duration = Duration::from_secs(1);

/// Why a front end's message was refused, which ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the front end uses queue {queue}, but this device has the high-priority queue and \
         {request_queues} request queues: give the VM at most {request_queues} request queues, \
         or start the daemon with --queues {queue}"
    )]
    NoSuchQueue { queue: u32, request_queues: usize },
    #[error("queue size {0} is not a power of two up to 32768")]
    QueueSize(u32),
    #[error("available index {0} is beyond 65535")]
    Base(u32),
    #[error("the set-up of {0} cannot change while it runs")]
    Running(String),
    #[error("{0} does not lie within a memory region, aligned")]
    RingOutsideMemory(String),
    #[error("the front end wants a queue polled that it gives no kick for")]
    NoKick,
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("the thread of a queue cannot be started")]
    Thread(#[source] io::Error),
    #[error("a kick or call descriptor cannot be used")]
    Notifier(#[source] io::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the front end left while a queue was drained")]
    Abandoned,
    #[error("the front end sent {0}, which was not offered")]
    NotOffered(&'static str),
}

impl From<Refusal> for VhostError {
    fn from(refusal: Refusal) -> Self {
        Self::ReqHandlerError(io::Error::other(refusal))
    }
}

/// The device as one front end sets it up.
#[derive(Debug)]
pub(crate) struct Connection {
    config_space: Option<ConfigSpace>,
    service: Service,
    memory: Arc<MemoryMap>,
    queues: Vec<Queue>,
    features: u64,
    front_end: FrontEnd,
}

/// Who set the device up, and waits for what it asked.
#[derive(Debug)]
pub(crate) struct FrontEnd {
    stream: UnixStream,
    shutdown: ShutdownHandle,
    /// Since when it waits no more.
    left_at: Cell<Option<Instant>>,
}

impl FrontEnd {
    /// Whether a wait for its sake is in vain: it left, or the device is to end, and enough time was given.
    pub(crate) fn is_gone(&self) -> bool {
        if self.left_at.get().is_none() {
            let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
            let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
            let left = match poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            ) {
                Ok(_) => fds.iter().any(|fd| fd.revents().intersects(gone)),
                Err(_) => false,
            };
            if left || self.shutdown.requested() {
                self.left_at.set(Some(Instant::now()));
            }
        }
        self.left_at
            .get()
            .is_some_and(|since| since.elapsed() > GRACE)
    }
}

impl Connection {
    /// A device that nobody has set up yet.
    pub(crate) fn new(
        stream: UnixStream,
        shutdown: ShutdownHandle,
        config_space: Option<ConfigSpace>,
        service: Service,
        counters: &Counters,
    ) -> Self {
        let queues = counters
            .queues()
            .iter()
            .enumerate()
            .map(|(index, counters)| Queue::new(index, Arc::clone(counters)))
            .collect();
        Self {
            config_space,
            service,
            memory: Arc::new(MemoryMap::default()),
            queues,
            features: 0,
            front_end: FrontEnd {
                stream,
                shutdown,
                left_at: Cell::new(None),
            },
        }
    }

    /// Stops everything, however the connection ended: drains the rings, and lets go of memory.
    pub(crate) fn close(&mut self) {
        // A front end that was refused something need not wait for the requests of its rings to know.
        let _ = self.front_end.stream.shutdown(Shutdown::Both);
        self.front_end.left_at.set(Some(Instant::now()));
        for_each(self, |queue, around| {
            // Whether requests were abandoned was logged.
            let _ = queue.reset(around);
            Ok(())
        })
        .ok();
        if Arc::strong_count(&self.memory) > 1 || self.memory.is_used() {
            self.memory.take_away();
        }
        self.memory = Arc::new(MemoryMap::default());
    }

    fn offered_features() -> u64 {
        VERSION_1 | EVENT_IDX | INDIRECT_DESC | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Does something with the queue that a message names.
    fn with_queue<T>(
        &mut self,
        index: u32,
        action: impl FnOnce(&mut Queue, &Surroundings<'_>) -> Result<T, Refusal>,
    ) -> VhostResult<T> {
        let request_queues = self.queues.len().saturating_sub(1);
        let (around, queues) = split(self);
        let queue = usize::try_from(index)
            .ok()
            .and_then(|index| queues.get_mut(index))
            .ok_or(Refusal::NoSuchQueue {
                queue: index,
                request_queues,
            })?;
        Ok(action(queue, &around)?)
    }

    /// Replaces the map of memory. No thread takes chains meanwhile; requests in flight keep the
    /// regions that they use, and the front end is kept waiting for those that it removes.
    fn change_memory(&mut self, memory: MemoryMap) -> VhostResult<()> {
        for_each(self, |queue, around| queue.pause(around))?;
        let removed = self.memory.removed_in(&memory);
        self.memory = Arc::new(memory);
        for_each(self, |queue, around| {
            queue.rebind(around.memory);
            queue.refresh(around)
        })?;
        let start = Instant::now();
        for region in &removed {
            Region::wait_for_users(region, REMOVAL_WAIT.saturating_sub(start.elapsed()));
        }
        Ok(())
    }
}

fn split(connection: &mut Connection) -> (Surroundings<'_>, &mut [Queue]) {
    let around = Surroundings {
        memory: &connection.memory,
        service: &connection.service,
        event_idx: connection.features & EVENT_IDX != 0,
        indirect: connection.features & INDIRECT_DESC != 0,
        front_end: &connection.front_end,
    };
    (around, &mut connection.queues)
}

fn for_each(
    connection: &mut Connection,
    mut action: impl FnMut(&mut Queue, &Surroundings<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (around, queues) = split(connection);
    queues
        .iter_mut()
        .try_for_each(|queue| action(queue, &around))
}

fn extent(region: &VhostUserMemoryRegion) -> Extent {
    Extent {
        guest_address: region.guest_phys_addr,
        user_address: region.user_addr,
        file_offset: region.mmap_offset,
        length: region.memory_size,
    }
}

fn call(file: Option<File>) -> Result<Option<Call>, Refusal> {
    file.map(Call::new).transpose().map_err(Refusal::Notifier)
}

impl VhostUserBackendReqHandlerMut for Connection {
    fn set_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    /// Deprecated; disables all rings, as the specification recommends.
    fn reset_owner(&mut self) -> VhostResult<()> {
        Ok(for_each(self, |queue, around| {
            queue.set_enabled(false, around)
        })?)
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        for_each(self, |queue, around| queue.reset(around))?;
        self.features = 0;
        self.service.session.reset();
        Ok(())
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(Self::offered_features())
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        let unknown = features & !Self::offered_features();
        if unknown != 0 {
            return Err(Refusal::Features(unknown).into());
        }
        self.features = features;
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            // Without protocol features there is no SET_VRING_ENABLE: rings begin enabled.
            for_each(self, |queue, around| queue.set_enabled(true, around))?;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        let regions = regions.iter().map(extent).zip(files);
        let memory = self.memory.replaced_by(regions).map_err(Refusal::Memory)?;
        self.change_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        self.with_queue(index, |queue, _| queue.set_size(num))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostResult<()> {
        let addresses = Addresses {
            descriptors: descriptor,
            available,
            used,
        };
        self.with_queue(index, |queue, around| {
            queue.set_addresses(addresses, around)
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        self.with_queue(index, |queue, _| queue.set_base(base))
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        let next = self.with_queue(index, |queue, around| queue.stop(around))?;
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        let kick = Kick::new(fd.ok_or(Refusal::NoKick)?).map_err(Refusal::Notifier)?;
        self.with_queue(u32::from(index), |queue, around| {
            queue.set_kick(kick, around)
        })
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        let call = call(fd)?;
        self.with_queue(u32::from(index), |queue, _| {
            queue.set_call(call);
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> VhostResult<()> {
        let error = call(fd)?;
        self.with_queue(u32::from(index), |queue, _| {
            queue.set_error(error);
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        let always = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE;
        Ok(match self.config_space {
            Some(_) => always | VhostUserProtocolFeatures::CONFIG,
            None => always,
        })
    }

    fn set_protocol_features(&mut self, features: u64) -> VhostResult<()> {
        let unknown = features & !self.get_protocol_features()?.bits();
        if unknown == 0 {
            Ok(())
        } else {
            Err(Refusal::Features(unknown).into())
        }
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(u64::try_from(self.queues.len()).unwrap_or(u64::MAX))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        self.with_queue(index, |queue, around| queue.set_enabled(enable, around))
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<Vec<u8>> {
        let space = self
            .config_space
            .as_ref()
            .ok_or(Refusal::NotOffered("GET_CONFIG"))?;
        Ok(space.read(offset, size))
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<()> {
        // The device has no field that a driver may write (virtio 1.3, section 5.11.4).
        Err(Refusal::NotOffered("SET_CONFIG").into())
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> VhostResult<()> {
        Err(Refusal::NotOffered("GPU_SET_SOCKET").into())
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        Err(Refusal::NotOffered("GET_SHARED_OBJECT").into())
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> VhostResult<(VhostUserInflight, File)> {
        Err(Refusal::NotOffered("GET_INFLIGHT_FD").into())
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        Err(Refusal::NotOffered("SET_INFLIGHT_FD").into())
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        Ok(u64::try_from(MAX_REGIONS).unwrap_or(u64::MAX))
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy_listening: Option<bool>,
    ) -> VhostResult<Option<vhost::VhostUserMemoryRegionBase>> {
        let region = Region::map(extent(region), fd).map_err(Refusal::Memory)?;
        let memory = self.memory.with(region).map_err(Refusal::Memory)?;
        self.change_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        let memory = self
            .memory
            .without(extent(region))
            .map_err(Refusal::Memory)?;
        self.change_memory(memory)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> VhostResult<Option<File>> {
        Err(Refusal::NotOffered("SET_DEVICE_STATE_FD").into())
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        Err(Refusal::NotOffered("CHECK_DEVICE_STATE").into())
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        Err(Refusal::NotOffered("GET_SHMEM_CONFIG").into())
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        Err(Refusal::NotOffered("SET_LOG_BASE").into())
    }
}
