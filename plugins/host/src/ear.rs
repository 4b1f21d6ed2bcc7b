//! Who takes in what a plugin says.
//!
//! Each link has a thread that sleeps until something comes. Until it has woken up, and then whoever waits for that
//! reply, more time goes by than most plugins need for it. So who has just asked looks for the reply itself
//! for a moment ([`Poller`] says when), and takes in whatever comes; the thread stands back meanwhile. Who takes
//! in a message has the receiver, so all come one after another and in their order.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vfsd_fuse::REPLY_HEADER;
use vfsd_plugin_protocol::{Arrival, Poller, Receiver};

use crate::link::Link;
use crate::receive::{Broken, take_message};

/// Replies that come within this are waited for on the spot.
const SOON: Duration = Duration::from_micros(30);

/// How long is looked for one at most: as long as it may take a plugin to wake up.
const LIMIT: Duration = Duration::from_micros(100);

/// How long the thread stands back before it looks whether it still has to.
const ASIDE: Duration = Duration::from_millis(2);

/// The receiving end of a link.
#[derive(Debug)]
pub(crate) struct Ear {
    stream: UnixStream,
    receiver: Mutex<Receiver<UnixStream>>,
    /// Held by the one who looks: more of them would be in each other's way.
    poller: Mutex<Poller>,
    /// How often somebody has looked.
    looks: AtomicU64,
    /// Those who sleep until a reply comes.
    sleepers: AtomicUsize,
    listener: OnceLock<Thread>,
}

/// Somebody sleeps until the thread has taken in a reply.
#[derive(Debug)]
pub(crate) struct Sleeping<'a>(&'a Ear);

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        self.0.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ear {
    pub(crate) fn new(stream: UnixStream, receiver: Receiver<UnixStream>) -> Self {
        Self {
            stream,
            receiver: Mutex::new(receiver),
            poller: Mutex::new(Poller::new(SOON, LIMIT)),
            looks: AtomicU64::new(0),
            sleepers: AtomicUsize::new(0),
            listener: OnceLock::new(),
        }
    }

    /// Takes messages until the plugin leaves. The work of a thread.
    ///
    /// # Errors
    /// When the plugin does not keep to the protocol, or the socket fails.
    pub(crate) fn listen(&self, link: &Link) -> Result<(), Broken> {
        let _ = self.listener.set(std::thread::current());
        let mut looks = 0;
        loop {
            // Who looks does it again soon, and is not in need of the thread.
            let now = self.looks.load(Ordering::Relaxed);
            if std::mem::replace(&mut looks, now) != now
                && self.sleepers.load(Ordering::SeqCst) == 0
            {
                std::thread::park_timeout(ASIDE);
                continue;
            }
            let mut readable = [PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN)];
            match poll(&mut readable, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => Err(vfsd_plugin_protocol::ReceiveError::Socket(errno.into()))?,
            }
            let mut receiver = self.receiver.lock();
            if let Arrival::End = receiver.receive_now().map_err(Broken::from)?
                && receiver.ahead().is_empty()
            {
                return Ok(());
            }
            // The rest of a message is waited for; its beginning is here.
            while !receiver.ahead().is_empty() {
                take_message(link, &mut receiver)?;
            }
        }
    }

    /// Nothing is received any more.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Looks for what `ready` waits for, if that is worth it, and takes in what comes meanwhile.
    pub(crate) fn look<T>(&self, link: &Link, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let mut poller = self.poller.try_lock()?;
        self.looks.fetch_add(1, Ordering::Relaxed);
        poller
            .poll(|| {
                if let Some(found) = ready() {
                    return Some(Some(found));
                }
                match self.take_in(link) {
                    Ok(true) => ready().map(Some),
                    // It cannot come this way.
                    Ok(false) => Some(None),
                    Err(broken) => {
                        link.fail(&broken.to_string());
                        Some(None)
                    }
                }
            })
            .flatten()
    }

    /// The caller sleeps from now on.
    pub(crate) fn sleep(&self) -> Sleeping<'_> {
        if self.sleepers.fetch_add(1, Ordering::SeqCst) == 0
            && let Some(listener) = self.listener.get()
        {
            listener.unpark();
        }
        Sleeping(self)
    }

    /// Takes in the messages that are there as a whole, without waiting. Says whether more can be taken in so.
    fn take_in(&self, link: &Link) -> Result<bool, Broken> {
        let Some(mut receiver) = self.receiver.try_lock() else {
            // The thread does.
            return Ok(true);
        };
        loop {
            let arrival = receiver.receive_now()?;
            while is_whole(receiver.ahead()) {
                take_message(link, &mut receiver)?;
            }
            match arrival {
                Arrival::Bytes => {}
                // One that is longer than there is room.
                Arrival::Nothing => return Ok(receiver.ahead().len() <= REPLY_HEADER),
                // The thread sees it, too.
                Arrival::End => return Ok(false),
            }
        }
    }
}

/// Whether a message is there, with all its bytes.
fn is_whole(ahead: &[u8]) -> bool {
    ahead.first_chunk().is_some_and(|length| {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        ahead.len() >= length.max(REPLY_HEADER)
    })
}
