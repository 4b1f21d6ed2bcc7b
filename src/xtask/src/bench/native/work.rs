//! The requests of each operation.

use vfsd_testkit::frontend::bodies::{read_body, write_body};
use vfsd_testkit::frontend::pump::{Answer, Data, Form, Request, Work};
use vfsd_testkit::frontend::wire::{ENTRY_SIZE, Encoder, ROOT, opcode};
use vfsd_testkit::frontend::{Error, Result};

use super::bare::offset;
use super::folder::{BIG_BYTES, FILES, RENAMED, XATTR, XATTR_VALUE, entry_name, file, missing};
use super::operation::Operation;
use super::session::Scene;

/// Room for the names and handles of entries; the flags of an OPEN that reads.
const ENTRY: u32 = ENTRY_SIZE as u32;
const OPENED: u32 = 16;
const ATTRIBUTES: u32 = 104;
const XATTR_ROOM: u32 = 64;
const LISTING: u32 = 32 << 10;
const O_LARGEFILE: u32 = 0o100_000;
const O_RDWR: u32 = 2;
const ENOENT: i32 = 2;

/// Bytes of `fuse_dirent` before the name.
const DIRENT: u32 = 24;

/// The work of one queue.
#[derive(Debug)]
pub(crate) enum Job {
    /// The same request on one object after the other.
    Repeat(Repeat),
    /// A few requests that belong together.
    Cycle(Cycle),
    /// A folder from its first to its last entry, again and again.
    Listing(Listing),
}

impl Job {
    /// The work of `operation` for queue `queue` with `depth` slots.
    pub(crate) fn new(operation: Operation, scene: &Scene, queue: usize, depth: usize) -> Self {
        match operation {
            Operation::OpenRelease
            | Operation::CreateUnlink
            | Operation::MkdirRmdir
            | Operation::Rename => Self::Cycle(Cycle::new(operation, scene, queue, depth)),
            Operation::Readdirplus => Self::Listing(Listing::new(scene, queue, depth)),
            Operation::LookupHit
            | Operation::LookupMiss
            | Operation::Getattr
            | Operation::Getxattr
            | Operation::Read(_)
            | Operation::Write(_) => Self::Repeat(Repeat::new(operation, scene)),
        }
    }

    /// The forms of its requests.
    pub(crate) fn forms(&self) -> Vec<Form> {
        match self {
            Self::Repeat(repeat) => vec![repeat.form],
            Self::Cycle(cycle) => cycle.forms(),
            Self::Listing(_) => {
                vec![Form::new(opcode::READDIRPLUS, 40, 0).with(Data::Received(LISTING))]
            }
        }
    }
}

impl Work for Job {
    #[inline]
    fn request(&mut self, slot: usize) -> Option<Request<'_>> {
        Some(match self {
            Self::Repeat(repeat) => repeat.request(),
            Self::Cycle(cycle) => cycle.request(slot),
            Self::Listing(listing) => listing.request(slot),
        })
    }

    #[inline]
    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        match self {
            Self::Repeat(repeat) => repeat.answer(answer),
            Self::Cycle(cycle) => cycle.answer(slot, answer),
            Self::Listing(listing) => listing.answer(slot, answer),
        }
    }
}

/// What makes an answer right.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Entry,
    NoEntry,
    Bytes(u32),
    Written(u32),
}

/// See [`Job::Repeat`].
#[derive(Debug)]
pub(crate) struct Repeat {
    form: Form,
    nodes: Vec<u64>,
    /// The arguments for each node, one after the other.
    arguments: Vec<u8>,
    turn: usize,
    expected: Expected,
}

impl Repeat {
    fn new(operation: Operation, scene: &Scene) -> Self {
        let nul = |name: String| Encoder::new().name(name.as_bytes()).bytes();
        let mut nodes = scene.files.clone();
        let mut arguments = Vec::new();
        let transfers = |bytes: u32| (0..).take((BIG_BYTES / u64::from(bytes)) as usize);
        let (form, expected) = match operation {
            Operation::LookupHit | Operation::LookupMiss => {
                let hit = operation == Operation::LookupHit;
                let name = if hit { file } else { missing };
                nodes = vec![ROOT; FILES];
                arguments.extend((0..FILES).flat_map(|index| nul(name(index))));
                let expected = if hit {
                    Expected::Entry
                } else {
                    Expected::NoEntry
                };
                (Form::new(opcode::LOOKUP, 0, ENTRY), expected)
            }
            Operation::Getxattr => {
                let one = Encoder::new()
                    .u32(XATTR_ROOM)
                    .u32(0)
                    .name(XATTR.as_bytes())
                    .bytes();
                arguments = one.repeat(FILES);
                let expected = Expected::Bytes(XATTR_VALUE.len() as u32);
                (Form::new(opcode::GETXATTR, 0, XATTR_ROOM), expected)
            }
            Operation::Read(bytes) => {
                for turn in transfers(bytes) {
                    arguments.extend(read_body(scene.handle, offset(turn, bytes), bytes));
                }
                nodes = vec![scene.big; transfers(bytes).count()];
                let form = Form::new(opcode::READ, 0, 0).with(Data::Received(bytes));
                (form, Expected::Bytes(bytes))
            }
            Operation::Write(bytes) => {
                for turn in transfers(bytes) {
                    arguments.extend(write_body(scene.handle, offset(turn, bytes), bytes, &[]));
                }
                nodes = vec![scene.big; transfers(bytes).count()];
                let form = Form::new(opcode::WRITE, 0, 8).with(Data::Sent(bytes));
                (form, Expected::Written(bytes))
            }
            _ => {
                arguments = vec![0; 16 * FILES];
                let form = Form::new(opcode::GETATTR, 0, ATTRIBUTES);
                (form, Expected::Bytes(ATTRIBUTES))
            }
        };
        let form = Form {
            arguments: (arguments.len() / nodes.len()) as u32,
            ..form
        };
        Self {
            form,
            nodes,
            arguments,
            turn: 0,
            expected,
        }
    }

    #[inline]
    fn request(&mut self) -> Request<'_> {
        let turn = self.turn;
        self.turn = if turn + 1 == self.nodes.len() {
            0
        } else {
            turn + 1
        };
        let len = self.form.arguments as usize;
        Request {
            form: 0,
            node: self.nodes[turn],
            arguments: &self.arguments[turn * len..(turn + 1) * len],
        }
    }

    #[inline]
    fn answer(&self, answer: &Answer<'_>) -> Result<u64> {
        match self.expected {
            Expected::NoEntry if answer.errno() == ENOENT => return Ok(1),
            Expected::NoEntry if answer.success()? == ENTRY && answer.u64(0)? == 0 => {
                return Ok(1);
            }
            Expected::Entry if answer.success()? == ENTRY && answer.u64(0)? != 0 => return Ok(1),
            Expected::Bytes(bytes) if answer.success()? == bytes => return Ok(1),
            Expected::Written(bytes) if answer.success()? == 8 && answer.u32(0)? == bytes => {
                return Ok(1);
            }
            _ => {}
        }
        Err(Error::Protocol(format!(
            "expected {:?}, got {answer:?}",
            self.expected
        )))
    }
}

/// One slot of a [`Cycle`].
#[derive(Debug)]
struct Slot {
    step: usize,
    names: [String; 2],
    /// Filled for each request.
    arguments: Vec<u8>,
    node: u64,
    handle: u64,
}

/// See [`Job::Cycle`].
#[derive(Debug)]
pub(crate) struct Cycle {
    operation: Operation,
    parent: u64,
    files: Vec<u64>,
    turn: usize,
    slots: Vec<Slot>,
}

impl Cycle {
    fn new(operation: Operation, scene: &Scene, queue: usize, depth: usize) -> Self {
        let kinds = match operation {
            Operation::Rename => RENAMED,
            _ => ["a", "b"],
        };
        let slots = (0..depth)
            .map(|slot| Slot {
                step: 0,
                names: kinds.map(|kind| entry_name(kind, slot)),
                arguments: Vec::with_capacity(64),
                node: 0,
                handle: 0,
            })
            .collect();
        Self {
            operation,
            parent: scene.scratch[queue],
            files: scene.files.clone(),
            turn: 0,
            slots,
        }
    }

    fn forms(&self) -> Vec<Form> {
        let name = entry_name("a", 0).len() as u32 + 1;
        let forget = Form::new(opcode::FORGET, 8, 0).unanswered();
        let release = Form::new(opcode::RELEASE, 24, 0);
        match self.operation {
            Operation::OpenRelease => vec![Form::new(opcode::OPEN, 8, OPENED), release],
            Operation::CreateUnlink => vec![
                Form::new(opcode::CREATE, 16 + name, ENTRY + OPENED),
                release,
                Form::new(opcode::UNLINK, name, 0),
                forget,
            ],
            Operation::MkdirRmdir => vec![
                Form::new(opcode::MKDIR, 8 + name, ENTRY),
                Form::new(opcode::RMDIR, name, 0),
                forget,
            ],
            _ => vec![Form::new(opcode::RENAME, 8 + 2 * name, 0)],
        }
    }

    #[inline]
    fn request(&mut self, slot: usize) -> Request<'_> {
        let slot = &mut self.slots[slot];
        let bytes = &mut slot.arguments;
        bytes.clear();
        let words = |bytes: &mut Vec<u8>, words: &[u32]| {
            words
                .iter()
                .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        };
        let name = |bytes: &mut Vec<u8>, name: &str| {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        };
        let mut node = self.parent;
        match (self.operation, slot.step) {
            (Operation::OpenRelease, 0) => {
                self.turn = (self.turn + 1) % FILES;
                slot.node = self.files[self.turn];
                node = slot.node;
                words(bytes, &[O_LARGEFILE, 0]);
            }
            (Operation::CreateUnlink, 0) => {
                words(bytes, &[O_LARGEFILE | O_RDWR, 0o100_644, 0o022, 0]);
                name(bytes, &slot.names[0]);
            }
            (Operation::OpenRelease | Operation::CreateUnlink, 1) => {
                node = slot.node;
                bytes.extend_from_slice(&slot.handle.to_le_bytes());
                words(bytes, &[O_LARGEFILE, 0, 0, 0]);
            }
            (Operation::MkdirRmdir, 0) => {
                words(bytes, &[0o755, 0o022]);
                name(bytes, &slot.names[0]);
            }
            (Operation::CreateUnlink, 2) | (Operation::MkdirRmdir, 1) => {
                name(bytes, &slot.names[0]);
            }
            (Operation::CreateUnlink | Operation::MkdirRmdir, _) => {
                node = slot.node;
                bytes.extend_from_slice(&1_u64.to_le_bytes());
            }
            (_, step) => {
                bytes.extend_from_slice(&self.parent.to_le_bytes());
                name(bytes, &slot.names[step]);
                name(bytes, &slot.names[1 - step]);
            }
        }
        let form = match self.operation {
            Operation::Rename => 0,
            _ => slot.step,
        };
        Request {
            form,
            node,
            arguments: bytes,
        }
    }

    #[inline]
    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        let slot = &mut self.slots[slot];
        answer.success()?;
        let last = match (self.operation, slot.step) {
            (Operation::OpenRelease, 0) => {
                slot.handle = answer.u64(0)?;
                false
            }
            (Operation::CreateUnlink, 0) => {
                slot.node = answer.u64(0)?;
                slot.handle = answer.u64(ENTRY)?;
                false
            }
            (Operation::MkdirRmdir, 0) => {
                slot.node = answer.u64(0)?;
                false
            }
            (Operation::OpenRelease | Operation::Rename, 1) => true,
            (Operation::MkdirRmdir, 2) | (Operation::CreateUnlink, 3) => true,
            _ => false,
        };
        if !last {
            slot.step += 1;
            return Ok(0);
        }
        slot.step = 0;
        Ok(if self.operation == Operation::Rename {
            2
        } else {
            1
        })
    }
}

/// See [`Job::Listing`].
#[derive(Debug)]
pub(crate) struct Listing {
    node: u64,
    handles: Vec<u64>,
    offsets: Vec<u64>,
    arguments: Vec<u8>,
}

impl Listing {
    fn new(scene: &Scene, queue: usize, depth: usize) -> Self {
        let first = queue * Operation::MOST_SLOTS;
        Self {
            node: scene.many,
            handles: scene.listings[first..first + depth].to_vec(),
            offsets: vec![0; depth],
            arguments: Vec::new(),
        }
    }

    fn request(&mut self, slot: usize) -> Request<'_> {
        self.arguments = read_body(self.handles[slot], self.offsets[slot], LISTING);
        Request {
            form: 0,
            node: self.node,
            arguments: &self.arguments,
        }
    }

    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        let len = answer.success()?;
        if len == 0 {
            self.offsets[slot] = 0;
            return Ok(0);
        }
        let mut at = 0;
        let mut count = 0;
        while at < len {
            let name = answer.u32(at + ENTRY + 16)?;
            self.offsets[slot] = answer.u64(at + ENTRY + 8)?;
            at += ENTRY + (DIRENT + name).next_multiple_of(8);
            count += 1;
        }
        Ok(count)
    }
}
