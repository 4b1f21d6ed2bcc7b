//! A reader's wait for a session that is given enough requests already.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vfsd_server::RequestWorker;

use crate::device::Device;
use crate::exchange::KernelExchange;

/// What wakes a reader that waits.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// EMFILE.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Waits until the session takes more requests, or the file system was unmounted. What the host's
    /// kernel wants meanwhile waits in its own queue.
    pub(crate) fn wait_for_room(
        self: &Arc<Self>,
        device: &Device,
        worker: &dyn RequestWorker<KernelExchange>,
    ) {
        if worker.has_room() {
            return;
        }
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        let mut room = worker.room();
        while Pin::new(&mut room).poll(&mut context).is_pending() {
            // Of the device nothing but its end, which poll always reports.
            let mut fds = [
                PollFd::new(device, PollFlags::empty()),
                PollFd::new(&self.0, PollFlags::IN),
            ];
            let woken = poll(&mut fds, None);
            let [device, rung] = fds.map(|fd| fd.revents());
            if woken.is_ok() && !device.is_empty() {
                return;
            }
            if !rung.is_empty() {
                let _ = rustix::io::read(&self.0, &mut [0; 8]);
            }
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // An eventfd that is full is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use vfsd_server::{Incoming, Submitted};

    use super::*;

    /// Has room from the look after next on, and wakes who waits.
    #[derive(Default)]
    struct Busy {
        looks: AtomicUsize,
        waker: Mutex<Option<Waker>>,
    }

    impl RequestWorker<KernelExchange> for &Busy {
        fn submit(&mut self, _: Incoming<KernelExchange>) -> Submitted {
            Submitted::Deferred
        }

        fn has_room(&self) -> bool {
            false
        }

        fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::poll_fn(|context| {
                *self.waker.lock() = Some(context.waker().clone());
                match self.looks.fetch_add(1, Ordering::SeqCst) {
                    0 => std::task::Poll::Pending,
                    _ => std::task::Poll::Ready(()),
                }
            }))
        }
    }

    #[test]
    fn a_reader_waits_until_it_is_woken_or_the_connection_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let device = Device::from(OwnedFd::from(ours));
        let busy = Busy::default();
        std::thread::scope(|scope| {
            let waits = || Arc::new(Bell::new().unwrap()).wait_for_room(&device, &&busy);
            let reader = scope.spawn(waits);
            while busy.looks.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            busy.waker.lock().take().unwrap().wake();
            reader.join().unwrap();
            assert_eq!(busy.looks.load(Ordering::SeqCst), 2);

            busy.looks.store(0, Ordering::SeqCst);
            let reader = scope.spawn(waits);
            drop(theirs);
            reader.join().unwrap();
            assert_eq!(busy.looks.load(Ordering::SeqCst), 1, "the connection ended");
        });
    }
}
