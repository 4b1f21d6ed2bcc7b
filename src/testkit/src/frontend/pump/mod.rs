//! A driver that costs far less than the device: for measurement.
//!
//! [`channel`](super::channel) makes each request anew, which is what a test wants. A [`Pump`]
//! lays its chains out once, as Linux's virtiofs does, and afterwards writes of each request only
//! the unique number, the node, the arguments and the available index. Nothing is allocated and no
//! system call made for a request, unless the device asks for a kick or lets the driver wait.
//!
//! It asks for interrupts as Linux does, whenever it has nothing to take from the used ring. Then it
//! looks at the used ring for a while, like a processor that is not idle yet, or sleeps until the
//! interrupt, like a guest: see [`Waits`].

mod chain;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::connection::feature;
use super::device::Device;
use super::memory::Memory;
use super::ring::{Events, Layout, Ring};
use super::{Error, LIMIT, Result};

pub use chain::{Answer, Data, Form};
use chain::{Chain, View};

/// How often the clock is read while the driver spins: once in so many looks.
const LOOKS: u32 = 64;

/// What the requests are.
pub trait Work {
    /// The next request of `slot`, or nothing if it has no more. Requests of one slot follow each
    /// other; each waits for the answer to the one before.
    fn request(&mut self, slot: usize) -> Option<Request<'_>>;

    /// Takes the answer to the last request of `slot`. Returns how many operations are complete
    /// with it; 0 in the middle of one that takes several requests, which is never left there.
    ///
    /// # Errors
    /// What makes the answer a wrong one; the run ends with it.
    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64>;
}

/// How a driver waits when it has nothing to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Looks at the used ring for so long, then sleeps.
    Looking(Duration),
    /// Sleeps until the interrupt.
    Sleeping,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its place among the pump's forms.
    pub form: usize,
    /// The node it concerns.
    pub node: u64,
    /// Just as many bytes as its form announces.
    pub arguments: &'a [u8],
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Operations completed.
    pub operations: u64,
    /// Requests answered.
    pub requests: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// How often the device asked for a kick.
    pub kicks: u64,
    /// How often the driver went to sleep.
    pub sleeps: u64,
}

/// Where both sides are in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The available index.
    pub available: u16,
    /// The used index up to which chains were taken back.
    pub used: u16,
}

impl Position {
    /// Where `ring` is. It may not be used any more once a pump runs.
    ///
    /// # Errors
    /// [`Error::Layout`] if the device still has chains.
    pub fn of(ring: &Ring) -> Result<Self> {
        if ring.in_flight() > 0 {
            return Err(Error::Layout("the ring has chains in flight".into()));
        }
        Ok(Self {
            available: ring.available_index(),
            used: ring.next_used(),
        })
    }
}

/// A request of a slot that the device has.
#[derive(Debug, Clone, Copy)]
struct Pending {
    form: usize,
    unique: u64,
}

/// Drives one ring.
#[derive(Debug)]
pub struct Pump {
    /// What to do when there is nothing to take; at first looking for 50 microseconds.
    pub waits: Waits,
    memory: Arc<Memory>,
    map: GuestMemoryMmap,
    layout: Layout,
    events: Events,
    position: Position,
    /// Chains of slot 0 in the order of the forms, then those of slot 1, ...
    chains: Vec<Chain>,
    forms: usize,
    pending: Vec<Option<Pending>>,
    next_unique: u64,
    arena: (u64, u64),
}

impl Pump {
    /// Lays out chains of each of `forms` for `depth` slots on ring `index` of `device`, where the
    /// ring is at `position`.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if ring or guest memory are too small, [`Error::Protocol`] if the
    /// device takes no indirect descriptors or no EVENT_IDX.
    pub fn new(
        device: &Device,
        index: u16,
        position: Position,
        forms: &[Form],
        depth: usize,
    ) -> Result<Self> {
        let needed = feature::EVENT_IDX | feature::INDIRECT_DESC;
        if device.features() & needed != needed {
            return Err(Error::Protocol(
                "the device has no EVENT_IDX or no indirect descriptors".into(),
            ));
        }
        let mut pump = Self::over(
            Arc::clone(device.memory()),
            device.ring_parts(index)?,
            position,
            forms,
            depth,
        )?;
        // Numbers of one ring are far from those of the others.
        pump.next_unique = u64::from(index) << 48;
        Ok(pump)
    }

    fn over(
        memory: Arc<Memory>,
        (layout, events): (Layout, Events),
        position: Position,
        forms: &[Form],
        depth: usize,
    ) -> Result<Self> {
        let count = depth * forms.len();
        if count > usize::from(layout.size) {
            return Err(Error::Exhausted("the descriptor table"));
        }
        let footprint = |forms: &[Form]| forms.iter().map(Form::footprint).sum::<u64>();
        let size = footprint(forms) * depth as u64;
        let start = memory.allocate(size, 4096)?;
        let mut pump = Self {
            waits: Waits::Looking(Duration::from_micros(50)),
            map: memory.mapping(),
            memory,
            layout,
            events,
            position,
            chains: Vec::with_capacity(count),
            forms: forms.len(),
            pending: vec![None; depth],
            next_unique: 0,
            arena: (start, size),
        };
        let mut at = start;
        for (head, form) in (0_u16..).zip(forms.iter().cycle()).take(count) {
            let chain = Chain::lay_out(&pump.memory, *form, at, layout.descriptors, head)?;
            pump.chains.push(chain);
            at += form.footprint();
        }
        Ok(pump)
    }

    /// Where the ring is, for the next pump on it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Keeps every slot busy with `work` for `time`, then until each is at the end of an
    /// operation. Ends before when the work does.
    ///
    /// # Errors
    /// What [`Work::answer`] finds; [`Error::TimedOut`] if the device returns nothing;
    /// [`Error::Protocol`] if it breaks a rule. The ring is of no use after an error.
    pub fn run(&mut self, work: &mut impl Work, time: Duration) -> Result<Done> {
        let map = self.map.clone();
        let region = map
            .find_region(GuestAddress(self.arena.0))
            .ok_or_else(|| Error::Layout("the chains lie in no region".into()))?;
        let bytes = region.as_volatile_slice()?;
        let view = View::new(bytes, region.start_addr().0);
        let started = Instant::now();
        let deadline = started + time;
        let mut done = Done::default();
        let mut busy = 0_usize;
        for slot in 0..self.pending.len() {
            busy += usize::from(self.send(&view, work, slot, &mut done)?);
        }
        let mut over = false;
        while busy > 0 {
            self.wait(&view, &mut done)?;
            over = over || Instant::now() >= deadline;
            while let Some((slot, used)) = self.take(&view)? {
                let operations = self.judge(&view, work, slot, used)?;
                done.requests += 1;
                done.operations += operations;
                let ends = over && operations > 0;
                if ends || !self.send(&view, work, slot, &mut done)? {
                    busy -= 1;
                }
            }
        }
        done.elapsed = started.elapsed();
        Ok(done)
    }

    /// Sends the next request of `slot`; false if it has none.
    #[inline]
    fn send(
        &mut self,
        view: &View<'_>,
        work: &mut impl Work,
        slot: usize,
        done: &mut Done,
    ) -> Result<bool> {
        let Some(request) = work.request(slot) else {
            return Ok(false);
        };
        self.next_unique += 2;
        let unique = self.next_unique;
        let chain = self
            .chains
            .get(slot * self.forms + request.form)
            .ok_or(Error::Exhausted("the forms"))?;
        chain.fill(view, unique, request.node, request.arguments)?;
        self.pending[slot] = Some(Pending {
            form: request.form,
            unique,
        });
        let before = self.position.available;
        let after = before.wrapping_add(1);
        let place = before % self.layout.size;
        view.store(self.layout.available + 4 + 2 * u64::from(place), chain.head)?;
        view.store(self.layout.available + 2, after)?;
        self.position.available = after;
        // The device must see the index before this side looks at its wish.
        fence(Ordering::SeqCst);
        let event = view.load(self.layout.used + 4 + 8 * u64::from(self.layout.size))?;
        if event == before {
            done.kicks += 1;
            self.kick()?;
        }
        Ok(true)
    }

    fn kick(&self) -> Result<()> {
        match rustix::io::write(&self.events.kick, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The slot of the next used chain and its used length.
    #[inline]
    fn take(&mut self, view: &View<'_>) -> Result<Option<(usize, u32)>> {
        if view.load(self.layout.used + 2)? == self.position.used {
            return Ok(None);
        }
        let place = u64::from(self.position.used % self.layout.size);
        let [a, b, c, d, len @ ..] = view.read::<8>(self.layout.used + 4 + 8 * place)?;
        self.position.used = self.position.used.wrapping_add(1);
        let slot = u32::from_le_bytes([a, b, c, d]) as usize / self.forms;
        Ok(Some((slot, u32::from_le_bytes(len))))
    }

    #[inline]
    fn judge(
        &mut self,
        view: &View<'_>,
        work: &mut impl Work,
        slot: usize,
        used: u32,
    ) -> Result<u64> {
        let pending = self
            .pending
            .get_mut(slot)
            .and_then(Option::take)
            .ok_or_else(|| {
                Error::Protocol(format!("returned a chain of slot {slot}, which has none"))
            })?;
        let chain = self.chains[slot * self.forms + pending.form];
        let answer = chain.answer(view, pending.unique, used)?;
        work.answer(slot, &answer)
    }

    /// Waits until there is a used chain.
    #[inline]
    fn wait(&mut self, view: &View<'_>, done: &mut Done) -> Result<()> {
        let used_event = self.layout.available + 4 + 2 * u64::from(self.layout.size);
        view.store(used_event, self.position.used)?;
        // The device must see the wish before this side looks at the used index once more.
        fence(Ordering::SeqCst);
        let index = self.layout.used + 2;
        if let Waits::Looking(time) = self.waits
            && self.looks(view, time)?
        {
            return Ok(());
        }
        while view.load(index)? == self.position.used {
            done.sleeps += 1;
            if !sleep(&self.events.call)? {
                return Err(if view.load(index)? == self.position.used {
                    Error::TimedOut("a used chain")
                } else {
                    Error::LostInterrupt
                });
            }
        }
        Ok(())
    }

    /// Looks at the used ring for so long; whether there is a used chain.
    #[inline]
    fn looks(&self, view: &View<'_>, time: Duration) -> Result<bool> {
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if view.load(self.layout.used + 2)? != self.position.used {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            if started.elapsed() >= time {
                return Ok(false);
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.memory.release(self.arena.0, self.arena.1);
    }
}

/// Sleeps until the eventfd is signalled, and sets it back; false if it is not within [`LIMIT`].
fn sleep(call: &OwnedFd) -> Result<bool> {
    let limit = Timespec {
        tv_sec: LIMIT.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(call, PollFlags::IN)];
    match poll(&mut fds, Some(&limit)) {
        Ok(0) => return Ok(false),
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::io::read(call, &mut [0; 8]) {
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
