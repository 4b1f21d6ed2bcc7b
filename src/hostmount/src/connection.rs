//! A connection to the kernel, and the threads that serve it.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use vfsd_server::{HEADER_LENGTH, Incoming, RequestWorker, Session, inline_length};

use crate::buffers::Buffers;
use crate::device::Device;
use crate::exchange::{KernelExchange, Payload, SourceDevice};
use crate::readers::Readers;
use crate::room::Bell;

/// A connection to the kernel on which requests for one mount arrive.
#[derive(Debug)]
pub struct Connection {
    devices: Vec<Device>,
}

impl Connection {
    pub(crate) fn new(device: Device) -> Self {
        Self {
            devices: vec![device],
        }
    }

    /// Readies the connection for `threads` threads, each with a queue of its own in the kernel
    /// where that is possible.
    ///
    /// It opens `/dev/fuse`, so it comes before a sandbox is entered.
    ///
    /// # Errors
    /// EMFILE.
    pub fn spread(&mut self, threads: NonZeroUsize) -> io::Result<()> {
        while self.devices.len() < threads.get() {
            let Some(first) = self.devices.first() else {
                break;
            };
            let next = match first.clone_connection() {
                Ok(device) => device,
                Err(errno) => {
                    tracing::debug!(%errno, "the connection cannot be cloned, threads share it");
                    first.duplicate()?
                }
            };
            self.devices.push(next);
        }
        Ok(())
    }

    /// Answers requests until the file system is unmounted, with one thread for each that
    /// [`spread`](Self::spread) has prepared.
    ///
    /// # Errors
    /// When a thread cannot be started, or the device fails for good.
    pub fn serve(self, session: &Arc<Session>) -> io::Result<()> {
        let buffers = Buffers::new(self.devices.len().saturating_mul(2));
        let devices: Arc<[Device]> = self.devices.into();
        let threads = Readers::new(devices.len());
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for index in 0..devices.len() {
                let source = SourceDevice {
                    devices: Arc::clone(&devices),
                    index,
                };
                let (buffers, threads) = (&buffers, &threads);
                let reader = thread::Builder::new()
                    .name(format!("fuse-{index}"))
                    .spawn_scoped(scope, move || {
                        vfsd_exec::register(threads.worker());
                        read_requests(&source, buffers, session)
                    })?;
                readers.push(reader);
            }
            readers.into_iter().try_for_each(|reader| {
                reader
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
            })
        })
    }
}

fn read_requests(
    source: &SourceDevice,
    buffers: &Buffers,
    session: &Arc<Session>,
) -> io::Result<()> {
    let Some(device) = source.device() else {
        return Ok(());
    };
    take_requests(source, device, buffers, session.worker().as_mut())
}

fn take_requests(
    source: &SourceDevice,
    device: &Device,
    buffers: &Buffers,
    worker: &mut dyn RequestWorker<KernelExchange>,
) -> io::Result<()> {
    let mut buffer = buffers.take();
    let bell = Arc::new(Bell::new()?);
    loop {
        worker.pause();
        bell.wait_for_room(device, worker);
        let length = match device.receive(&mut buffer) {
            Ok(length) => length,
            // Unmounted; or cut off while a request was read.
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(()),
            // Taken back before it was read, or a signal.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let Some(header) = buffer.get(..length).and_then(|bytes| bytes.first_chunk()) else {
            tracing::error!(length, "a request without a whole header from the kernel");
            continue;
        };
        debug_assert_eq!(header.len(), HEADER_LENGTH);
        let split = inline_length(header, length).min(length);
        let mut inline = worker.buffer();
        inline.extend_from_slice(buffer.get(..split).unwrap_or_default());
        let payload = if split < length {
            // The data are served from where they are; the next request gets another buffer.
            let full = std::mem::replace(&mut buffer, buffers.take());
            Payload::new(full, split, length)
        } else {
            Payload::none()
        };
        let exchange = KernelExchange::new(source.clone(), payload, buffers.clone());
        worker.submit(Incoming {
            inline,
            readable: length,
            exchange,
        });
    }
}
