//! Content in memory: in blocks, under one budget, each asked for once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use super::FlatOptions;
use super::content::{Content, Failure};
use super::disk::{DiskCache, Group, group_of};
use super::fetch::{Fetch, Purpose};
use super::known::Bounded;
use super::pace::Pace;
use crate::store::Store;

/// The unit in which content is kept: what a guest reads ahead at least.
pub(super) const BLOCK: u64 = 128 << 10;
/// The smallest budget: several of the largest reads of a guest.
const LEAST_BLOCKS: u64 = 64;
/// Blocks on their way to the disk at once: one that comes while it is busy is not kept.
const KEPT_AT_ONCE: usize = 64;

/// The numbers of a content's blocks.
pub(super) type Blocks = Range<u64>;

/// What a read needs, and what may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) now: Blocks,
    /// What may be asked for meanwhile: follows `now` or is empty.
    pub(super) ahead: Blocks,
    /// How many blocks one request shall ask for.
    pub(super) at_once: u64,
    /// Whether the read did not go on where one before it ended.
    pub(super) jumps: bool,
}

/// Blocks of all contents. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct BlockCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    runtime: Handle,
    most: u64,
    pub(super) state: Mutex<State>,
    /// A block came or was given up: there may be room.
    pub(super) moved: Notify,
    pub(super) disk: Option<DiskCache>,
    pub(super) pace: Mutex<Pace>,
    /// Blocks on their way to the disk.
    pub(super) keeping: Arc<Semaphore>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blocks: Bounded<(u64, u64), Block>,
    /// Blocks that are there or on their way.
    pub(super) used: u64,
    /// Memory of blocks that were forgotten, for those that come: what goes back and forth between threads and the
    /// allocator makes holes in the heap of each of them. Nothing is allocated while there is some, so that it never is
    /// more, with what is there, than there may be blocks.
    spare: Vec<BytesMut>,
}

/// A block that can be read.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Memory(Bytes),
    /// It is in the file, and was checked.
    Disk(Arc<Group>),
}

pub(super) type Outcome = Result<Piece, Failure>;

#[derive(Debug)]
pub(super) enum Block {
    There(Bytes),
    Coming(watch::Receiver<Option<Outcome>>),
}

impl BlockCache {
    /// At most the memory of the options, but never less than some 8 MiB. Requests are made on `runtime`.
    pub(super) fn new(store: Store, runtime: Handle, options: &FlatOptions) -> Self {
        let budget = options.memory;
        Self {
            shared: Arc::new(Shared {
                store,
                runtime,
                most: budget.checked_div(BLOCK).unwrap_or(0).max(LEAST_BLOCKS),
                state: Mutex::default(),
                moved: Notify::new(),
                disk: options.disk.clone(),
                pace: Mutex::default(),
                keeping: Arc::new(Semaphore::new(KEPT_AT_ONCE)),
            }),
        }
    }

    /// How many blocks there may be.
    pub(super) fn most(&self) -> u64 {
        self.shared.most
    }

    /// The blocks that these bytes are in, if they are all there. Then what may follow is asked for as well.
    pub(super) fn at_once(
        &self,
        content: &Arc<Content>,
        wanted: &Wanted,
        range: &Range<u64>,
    ) -> Option<Vec<Piece>> {
        let mut state = self.shared.state.lock();
        let mut there = Vec::new();
        let mut opened = None;
        for number in wanted.now.clone() {
            there.push(match state.blocks.get(&(content.id, number)) {
                Some(Block::There(bytes)) => Piece::Memory(bytes.clone()),
                Some(Block::Coming(_)) => return None,
                None => {
                    let is_in = |(group, _): &(u64, Arc<Group>)| *group == group_of(number);
                    if opened.as_ref().is_none_or(|opened| !is_in(opened)) {
                        opened = Some((group_of(number), self.shared.opened(content, number)?));
                    }
                    let (_, group) = opened.as_ref()?;
                    let block = number.saturating_mul(BLOCK);
                    let end = block.saturating_add(BLOCK).min(range.end);
                    match group.is_right(&(block.max(range.start)..end)) {
                        true => Piece::Disk(group.clone()),
                        false => return None,
                    }
                }
            });
        }
        if !wanted.ahead.is_empty() {
            self.shared.ask(&mut state, content, wanted);
        }
        drop(state);
        let on_disk = there.iter().filter(|it| matches!(it, Piece::Disk(_)));
        self.shared.found(on_disk.count());
        Some(there)
    }

    /// Whether a block was asked for and not forgotten since.
    pub(super) fn was_kept(&self, content: &Content, number: u64) -> bool {
        let state = self.shared.state.lock();
        state.blocks.contains(&(content.id, number))
            || self.shared.opened(content, number).is_some()
    }

    /// The file of the disk that a block may be in. It is not opened at the first poll, which a queue's thread does: that may
    /// have to wait for the disk.
    pub(super) async fn kept_in(&self, content: &Content, block: u64) -> Option<Arc<Group>> {
        let disk = self.shared.disk.as_ref()?;
        let name = content.kept_as()?;
        let found = match disk.opened(name, block) {
            Some(opened) => opened,
            None => {
                tokio::task::yield_now().await;
                disk.find(name, block)?
            }
        };
        found.may_have(block).then_some(found)
    }

    /// The blocks that are needed now, once they are there.
    pub(super) async fn read(
        &self,
        content: &Arc<Content>,
        wanted: &Wanted,
    ) -> Result<Vec<Piece>, Failure> {
        let mut there = Vec::new();
        loop {
            let moved = self.shared.moved.notified();
            let coming = self.ask(content, wanted);
            if let Some(coming) = coming {
                for block in coming {
                    there.push(block.piece().await?);
                }
                return Ok(there);
            }
            // All room is taken by blocks on their way to others.
            moved.await;
        }
    }

    /// Asks for what is missing. `None` when there is no room for what is needed now.
    fn ask(&self, content: &Arc<Content>, wanted: &Wanted) -> Option<Vec<Awaited>> {
        let mut state = self.shared.state.lock();
        if !self.shared.ask(&mut state, content, wanted) {
            return None;
        }
        wanted
            .now
            .clone()
            .map(|number| match state.blocks.get(&(content.id, number))? {
                Block::There(bytes) => Some(Awaited::There(bytes.clone())),
                Block::Coming(receiver) => Some(Awaited::Coming(receiver.clone())),
            })
            .collect()
    }

    /// A block was read that the disk had.
    pub(super) fn found_on_disk(&self) {
        self.shared.found(1);
    }

    /// Waits until nothing is on its way to the disk.
    #[cfg(test)]
    pub(super) async fn kept(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let all = u32::try_from(KEPT_AT_ONCE).ok()?;
        let keeping = self.shared.keeping.clone();
        keeping.acquire_many_owned(all).await.ok()
    }

    /// How many bytes of memory blocks have, those included that have none in it.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> u64 {
        let state = self.shared.state.lock();
        let is_there = |key: &&(u64, u64)| state.blocks.peek(*key).is_some_and(Block::is_there);
        let there = state.blocks.oldest().filter(is_there).count();
        let all = there.saturating_add(state.spare.len());
        u64::try_from(all).unwrap_or(u64::MAX).saturating_mul(BLOCK)
    }

    /// How many bytes are there or on their way.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.state.lock().used.saturating_mul(BLOCK)
    }
}

enum Awaited {
    There(Bytes),
    Coming(watch::Receiver<Option<Outcome>>),
}

impl Awaited {
    async fn piece(self) -> Outcome {
        match self {
            Self::There(bytes) => Ok(Piece::Memory(bytes)),
            Self::Coming(mut receiver) => match receiver.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Err(given_up())),
                Err(_) => Err(given_up()),
            },
        }
    }
}

pub(super) fn given_up() -> Failure {
    Failure::Failed("a request was given up".to_owned())
}

impl State {
    /// The blocks that are neither there nor on their way.
    fn missing(&self, content: &Content, blocks: &Blocks) -> Vec<u64> {
        let is_missing = |number: &u64| !self.blocks.contains(&(content.id, *number));
        blocks.clone().filter(is_missing).collect()
    }

    /// Makes room for so many blocks by forgetting those used the longest time ago, except `kept`.
    fn make_room(&mut self, wanted: u64, most: u64, kept: (u64, &Blocks)) -> bool {
        let needed = self.used.saturating_add(wanted).saturating_sub(most);
        if needed == 0 {
            return true;
        }
        let is_kept =
            |(content, number): &(u64, u64)| *content == kept.0 && kept.1.contains(number);
        let needed = usize::try_from(needed).unwrap_or(usize::MAX);
        let chosen: Vec<_> = self
            .blocks
            .oldest()
            .filter(|key| !is_kept(key) && self.blocks.peek(key).is_some_and(Block::is_there))
            .take(needed)
            .copied()
            .collect();
        if chosen.len() < needed {
            return false;
        }
        for key in chosen {
            let forgotten = self.blocks.remove(&key);
            self.used = self.used.saturating_sub(1);
            if let Some(Block::There(bytes)) = forgotten
                && let Ok(memory) = bytes.try_into_mut()
            {
                self.spare.push(memory);
            }
        }
        true
    }

    /// Empty memory for a block of this length.
    pub(super) fn memory(&mut self, length: usize) -> BytesMut {
        let mut memory = match self.spare.pop() {
            Some(memory) if memory.capacity() >= length => memory,
            _ => pages(length),
        };
        memory.clear();
        memory
    }

    /// Memory of this length for a block, which begins with a page, with any content.
    pub(super) fn pages(&mut self, length: usize) -> BytesMut {
        let mut memory = match self.spare.pop() {
            Some(memory) if memory.capacity() >= length && is_at_page(&memory) => memory,
            _ => pages(length),
        };
        memory.resize(length, 0);
        memory
    }
}

impl Block {
    fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }
}

impl Shared {
    /// So many blocks were read that the disk had.
    pub(super) fn found(&self, blocks: usize) {
        if let Some(disk) = self.disk.as_ref().filter(|_| blocks > 0) {
            disk.found(u64::try_from(blocks).unwrap_or(u64::MAX));
        }
    }

    /// The file of the disk that a block would be in, if it is open.
    fn opened(&self, content: &Content, number: u64) -> Option<Arc<Group>> {
        self.disk.as_ref()?.opened(content.kept_as()?, number)
    }

    /// Sends requests for the blocks that are neither there nor on their way. False, and nothing done, when
    /// there is no room for those needed now; without room for what may follow that is left out.
    fn ask(self: &Arc<Self>, state: &mut State, content: &Arc<Content>, wanted: &Wanted) -> bool {
        let mut numbers = state.missing(content, &wanted.now);
        let kept = wanted.now.start..wanted.ahead.end.max(wanted.now.end);
        if !state.make_room(count(&numbers), self.most, (content.id, &kept)) {
            return false;
        }
        let ahead = state.missing(content, &wanted.ahead);
        let both = count(&numbers).saturating_add(count(&ahead));
        if state.make_room(both, self.most, (content.id, &kept)) {
            numbers.extend(ahead);
        }
        let at_once = usize::try_from(wanted.at_once).unwrap_or(usize::MAX).max(1);
        let purpose = match wanted.jumps {
            true => Purpose::Jump,
            false => Purpose::Sequence,
        };
        for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            for part in run.chunks(at_once) {
                self.send(state, content, part, purpose);
            }
        }
        true
    }

    /// Sends one request for what is missing of a region, if there is room.
    pub(super) fn ask_around(self: &Arc<Self>, content: &Arc<Content>, region: &Blocks) {
        let mut state = self.state.lock();
        let numbers = state.missing(content, region);
        if state.make_room(count(&numbers), self.most, (content.id, region)) {
            self.send(&mut state, content, &numbers, Purpose::Around);
        }
    }

    /// One request for these blocks, whose numbers ascend. What lies between them comes along.
    fn send(
        self: &Arc<Self>,
        state: &mut State,
        content: &Arc<Content>,
        numbers: &[u64],
        purpose: Purpose,
    ) {
        let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else {
            return;
        };
        let mut senders = VecDeque::new();
        for number in first..=last {
            if numbers.binary_search(&number).is_err() {
                senders.push_back(None);
                continue;
            }
            let (sender, receiver) = watch::channel(None);
            senders.push_back(Some(sender));
            state
                .blocks
                .insert((content.id, number), Block::Coming(receiver));
            state.used = state.used.saturating_add(1);
        }
        let fetch = Fetch {
            shared: self.clone(),
            content: content.clone(),
            next: first,
            senders,
            purpose,
            unkept: Vec::new(),
            turn: None,
        };
        self.runtime.spawn(fetch.run());
    }

    /// The largest content that stays, in memory or on the disk, and leaves room for others.
    pub(super) fn stays(&self) -> u64 {
        match &self.disk {
            Some(disk) => disk.limit() / 4,
            None => self.most.saturating_mul(BLOCK) / 2,
        }
    }
}

/// What the largest devices read at least, and where.
const PAGE: usize = 4096;

/// Memory that begins with a page.
pub(super) fn pages(length: usize) -> BytesMut {
    let mut memory = BytesMut::zeroed(length.saturating_add(PAGE));
    let before = memory.as_ptr().align_offset(PAGE);
    memory.advance(before.min(PAGE));
    memory.truncate(length);
    memory
}

fn is_at_page(memory: &BytesMut) -> bool {
    memory.as_ptr().align_offset(PAGE) == 0
}

fn count<T>(things: &[T]) -> u64 {
    u64::try_from(things.len()).unwrap_or(u64::MAX)
}
