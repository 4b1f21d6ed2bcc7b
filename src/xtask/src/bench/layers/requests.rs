//! What the front end asks: each thing once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::Result;
use vfsd_testkit::frontend::bodies::{read_body, write_body};
use vfsd_testkit::frontend::pump::{Answer, Data, Form, Request, Work};
use vfsd_testkit::frontend::wire::{ENTRY_SIZE, Encoder, ROOT, opcode};

const ENTRY: u32 = ENTRY_SIZE as u32;
const ATTRIBUTES: u32 = 104;
const OPENED: u32 = 16;
const LISTING: u32 = 32 << 10;
/// Bytes of `fuse_dirent` before the name.
const DIRENT: u32 = 24;
const O_LARGEFILE: u32 = 0o100_000;
const O_RDWR: u32 = 2;

/// Nodes that were looked up, in the order of their names.
pub(super) type Nodes = Arc<Mutex<Vec<u64>>>;

/// The nodes, which are whole whoever panicked.
pub(super) fn locked(nodes: &Nodes) -> MutexGuard<'_, Vec<u64>> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request for each of many nodes, once.
#[derive(Debug)]
pub(super) struct Once {
    nodes: Vec<u64>,
    /// The arguments for each node, one after the other.
    arguments: Vec<u8>,
    each: usize,
    next: usize,
    /// The number of the request that each slot has made last.
    asked: Vec<usize>,
    found: Nodes,
    reply: u32,
}

impl Once {
    /// Looks up a name, all of one length, in each of `parents`. What is found is there when the work is done.
    pub(super) fn lookups(
        parents: Vec<u64>,
        names: impl Iterator<Item = String>,
    ) -> ((Vec<Form>, Self), Nodes) {
        let arguments: Vec<u8> = names
            .flat_map(|name| Encoder::new().name(name.as_bytes()).bytes())
            .collect();
        let work = Self::of(parents, arguments, ENTRY);
        let found = work.found.clone();
        *locked(&found) = vec![0; work.nodes.len()];
        let form = Form::new(opcode::LOOKUP, work.each as u32, ENTRY);
        ((vec![form], work), found)
    }

    /// Asks for the attributes of each node.
    pub(super) fn getattr(nodes: Vec<u64>) -> (Vec<Form>, Self) {
        let arguments = vec![0; 16 * nodes.len()];
        let form = Form::new(opcode::GETATTR, 16, ATTRIBUTES);
        (vec![form], Self::of(nodes, arguments, ATTRIBUTES))
    }

    fn of(nodes: Vec<u64>, arguments: Vec<u8>, reply: u32) -> Self {
        Self {
            each: arguments.len() / nodes.len().max(1),
            nodes,
            arguments,
            next: 0,
            asked: Vec::new(),
            found: Nodes::default(),
            reply,
        }
    }
}

impl Work for Once {
    fn request(&mut self, slot: usize) -> Option<Request<'_>> {
        let number = self.next;
        let node = *self.nodes.get(number)?;
        self.next += 1;
        if self.asked.len() <= slot {
            self.asked.resize(slot + 1, 0);
        }
        self.asked[slot] = number;
        let begin = number * self.each;
        Some(Request {
            form: 0,
            node,
            arguments: &self.arguments[begin..begin + self.each],
        })
    }

    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        let wrong = || Error::Protocol(format!("a file that is there: {answer:?}"));
        if answer.success()? != self.reply {
            return Err(wrong());
        }
        if self.reply == ENTRY {
            let node = answer.u64(0)?;
            let mut found = locked(&self.found);
            match found.get_mut(self.asked[slot]) {
                Some(found) if node != 0 => *found = node,
                _ => return Err(wrong()),
            }
        }
        Ok(1)
    }
}

/// Where a slot is in a directory.
#[derive(Debug, Clone, Copy)]
struct At {
    node: u64,
    handle: Option<u64>,
    offset: u64,
    ended: bool,
}

/// Lists directories with attributes, each once.
#[derive(Debug)]
pub(super) struct Walk {
    left: Vec<u64>,
    slots: Vec<Option<At>>,
    arguments: Vec<u8>,
}

impl Walk {
    const OPEN: usize = 0;
    const READ: usize = 1;
    const RELEASE: usize = 2;

    pub(super) fn of(directories: Vec<u64>, depth: usize) -> (Vec<Form>, Self) {
        let forms = vec![
            Form::new(opcode::OPENDIR, 8, OPENED),
            Form::new(opcode::READDIRPLUS, 40, 0).with(Data::Received(LISTING)),
            Form::new(opcode::RELEASEDIR, 24, 0),
        ];
        let work = Self {
            left: directories,
            slots: vec![None; depth],
            arguments: Vec::new(),
        };
        (forms, work)
    }
}

impl Work for Walk {
    fn request(&mut self, slot: usize) -> Option<Request<'_>> {
        let slot = &mut self.slots[slot];
        let at = match slot {
            Some(at) => *at,
            None => *slot.insert(At {
                node: self.left.pop()?,
                handle: None,
                offset: 0,
                ended: false,
            }),
        };
        let form = match at.handle {
            None => {
                self.arguments = vec![0; 8];
                Self::OPEN
            }
            Some(handle) if at.ended => {
                self.arguments = Encoder::new().u64(handle).u64(0).u64(0).bytes();
                Self::RELEASE
            }
            Some(handle) => {
                self.arguments = read_body(handle, at.offset, LISTING);
                Self::READ
            }
        };
        Some(Request {
            form,
            node: at.node,
            arguments: &self.arguments,
        })
    }

    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        let length = answer.success()?;
        let slot = &mut self.slots[slot];
        let Some(at) = slot else {
            return Err(Error::Protocol("an answer that nobody waits for".into()));
        };
        if at.handle.is_none() {
            at.handle = Some(answer.u64(0)?);
            return Ok(0);
        }
        if at.ended {
            *slot = None;
            return Ok(0);
        }
        at.ended = length == 0;
        let (mut from, mut entries) = (0, 0);
        while from < length {
            let name = answer.u32(from + ENTRY + 16)?;
            at.offset = answer.u64(from + ENTRY + 8)?;
            from += ENTRY + (DIRENT + name).next_multiple_of(8);
            entries += 1;
        }
        Ok(entries)
    }
}

/// Looks a file of the root up, opens it and writes one byte.
#[derive(Debug)]
pub(super) struct Change {
    step: usize,
    node: u64,
    handle: u64,
    name: &'static str,
    arguments: Vec<u8>,
}

impl Change {
    pub(super) fn of(name: &'static str) -> (Vec<Form>, Self) {
        let forms = vec![
            Form::new(opcode::LOOKUP, name.len() as u32 + 1, ENTRY),
            Form::new(opcode::OPEN, 8, OPENED),
            Form::new(opcode::WRITE, 40, 8).with(Data::Sent(1)),
            Form::new(opcode::RELEASE, 24, 0),
        ];
        let work = Self {
            step: 0,
            node: ROOT,
            handle: 0,
            name,
            arguments: Vec::new(),
        };
        (forms, work)
    }
}

impl Work for Change {
    fn request(&mut self, _slot: usize) -> Option<Request<'_>> {
        self.arguments = match self.step {
            0 => Encoder::new().name(self.name.as_bytes()).bytes(),
            1 => Encoder::new().u32(O_LARGEFILE | O_RDWR).u32(0).bytes(),
            2 => write_body(self.handle, 0, 1, &[]),
            3 => Encoder::new().u64(self.handle).u64(0).u64(0).bytes(),
            _ => return None,
        };
        Some(Request {
            form: self.step,
            node: self.node,
            arguments: &self.arguments,
        })
    }

    fn answer(&mut self, _slot: usize, answer: &Answer<'_>) -> Result<u64> {
        answer.success()?;
        match self.step {
            0 => self.node = answer.u64(0)?,
            1 => self.handle = answer.u64(0)?,
            _ => {}
        }
        self.step += 1;
        Ok(u64::from(self.step == 4))
    }
}
