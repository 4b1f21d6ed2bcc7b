//! Chains as no driver builds them.

use vfsd_testkit::frontend::channel::{FILL, Request, Returned};
use vfsd_testkit::frontend::ring::{DESC_INDIRECT, DESC_NEXT, DESC_SIZE, DESC_WRITE, Descriptor};

use crate::answer::Answer;
use crate::scene::Scene;

/// Where a descriptor leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// Nowhere.
    End,
    /// To the descriptor at this position of the same list.
    To(usize),
    /// To this entry of the table, whatever it holds.
    Entry(u16),
}

/// A descriptor before it has a place in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: Next,
}

/// A buffer the device reads.
pub(crate) fn readable(address: u64, len: u32) -> Link {
    Link {
        address,
        len,
        flags: 0,
        next: Next::End,
    }
}

/// A buffer the device writes.
pub(crate) fn writable(address: u64, len: u32) -> Link {
    Link {
        address,
        len,
        flags: DESC_WRITE,
        next: Next::End,
    }
}

/// A table of `len` bytes.
pub(crate) fn indirect(address: u64, len: u32) -> Link {
    Link {
        address,
        len,
        flags: DESC_INDIRECT,
        next: Next::End,
    }
}

impl Link {
    pub(crate) fn to(mut self, next: Next) -> Self {
        self.next = next;
        self
    }

    pub(crate) fn flag(mut self, flag: u16) -> Self {
        self.flags |= flag;
        self
    }

    fn descriptor(&self, entry_of: impl Fn(usize) -> u16) -> Descriptor {
        let (more, next) = match self.next {
            Next::End => (0, 0),
            Next::To(position) => (DESC_NEXT, entry_of(position)),
            Next::Entry(entry) => (DESC_NEXT, entry),
        };
        Descriptor {
            address: self.address,
            len: self.len,
            flags: self.flags | more,
            next,
        }
    }
}

/// Links in the order given, each leading to the one after it.
pub(crate) fn line(links: impl IntoIterator<Item = Link>) -> Vec<Link> {
    let mut links: Vec<Link> = links.into_iter().collect();
    let last = links.len().saturating_sub(1);
    for (position, link) in links.iter_mut().enumerate() {
        if position < last {
            link.next = Next::To(position + 1);
        }
    }
    links
}

/// A request in guest memory, and room for its reply.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) unique: u64,
    pub(crate) request: u64,
    pub(crate) request_len: u32,
    pub(crate) reply: u64,
    pub(crate) reply_len: u32,
    taken: bool,
}

impl Placed {
    /// Both parts as well-formed links.
    pub(crate) fn links(&self) -> [Link; 2] {
        [
            readable(self.request, self.request_len),
            writable(self.reply, self.reply_len),
        ]
    }
}

impl Scene {
    /// Writes a request and room for its reply into fresh guest memory.
    pub(crate) fn place(&mut self, request: &Request) -> Placed {
        let memory = self.device.memory();
        let len = request.bytes(0).len() as u64;
        let reply = u64::from(request.room.unwrap_or(0)) + 16;
        let at = (
            memory.allocate(len, 64).unwrap(),
            memory.allocate(reply, 64).unwrap(),
        );
        Placed {
            taken: true,
            ..self.place_at(request, at.0, at.1)
        }
    }

    /// The same at given addresses.
    pub(crate) fn place_at(&mut self, request: &Request, at: u64, reply: u64) -> Placed {
        let unique = self.guest.channel.unique();
        let bytes = request.bytes(unique);
        let reply_len = request.room.unwrap_or(0) + 16;
        let memory = self.device.memory();
        memory.write(at, &bytes).unwrap();
        memory
            .write(reply, &vec![FILL; reply_len as usize])
            .unwrap();
        let request_len = u32::try_from(bytes.len()).unwrap();
        Placed {
            unique,
            request: at,
            request_len,
            reply,
            reply_len,
            taken: false,
        }
    }

    /// Writes a table for an indirect descriptor. It stays until the scene ends.
    pub(crate) fn table(&mut self, links: &[Link]) -> u64 {
        let memory = self.device.memory();
        let address = memory.allocate(links.len() as u64 * DESC_SIZE, 16).unwrap();
        let bytes: Vec<u8> = links
            .iter()
            .flat_map(|link| link.descriptor(|at| u16::try_from(at).unwrap()).bytes())
            .collect();
        memory.write(address, &bytes).unwrap();
        address
    }

    /// Hands `links` to the device as one chain that starts at the first.
    pub(crate) fn send(&mut self, links: &[Link]) -> u16 {
        let ring = &mut self.guest.channel.ring;
        let slots = ring.take_descriptors(links.len()).unwrap();
        for (slot, link) in slots.iter().zip(links) {
            ring.write_descriptor(*slot, link.descriptor(|at| slots[at]))
                .unwrap();
        }
        let head = slots[0];
        ring.claim(head, slots);
        ring.publish(head).unwrap();
        head
    }

    /// What came back for the chain at `head`, read from where `placed` has its reply.
    pub(crate) fn receive(&mut self, row: &str, placed: &Placed, head: u16) -> Returned {
        let used = self
            .guest
            .channel
            .ring
            .wait()
            .unwrap_or_else(|error| panic!("{row}: {error}"));
        assert_eq!(used.head, head, "{row}");
        let memory = self.device.memory();
        let bytes = memory
            .read(placed.reply, placed.reply_len as usize)
            .unwrap();
        if placed.taken {
            memory.release(placed.request, u64::from(placed.request_len));
            memory.release(placed.reply, u64::from(placed.reply_len));
        }
        Returned {
            unique: placed.unique,
            used: used.len,
            bytes,
        }
    }

    /// Plays one chain and all checks after it.
    pub(crate) fn play_chain(
        &mut self,
        row: &str,
        placed: &Placed,
        links: &[Link],
        answer: Answer,
    ) {
        let head = self.send(links);
        let returned = self.receive(row, placed, head);
        answer.judge(row, &returned);
        self.check_served(row);
    }
}
