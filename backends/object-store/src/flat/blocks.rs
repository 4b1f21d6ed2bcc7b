//! Content in memory: in blocks, under one budget, each asked for once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use super::FlatOptions;
use super::content::{Content, Failure};
use super::disk::DiskCache;
use super::known::Bounded;
use crate::store::Store;

/// The unit in which content is kept: what a guest reads ahead at least.
pub(super) const BLOCK: u64 = 128 << 10;
/// The smallest budget: several of the largest reads of a guest.
const LEAST_BLOCKS: u64 = 64;
/// Blocks that are written to the disk at once: one that comes while it is busy is not kept.
const KEPT_AT_ONCE: usize = 32;

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
}

/// Blocks of all contents. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct BlockCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    runtime: Handle,
    most: u64,
    state: Mutex<State>,
    /// A block came or was given up: there may be room.
    moved: Notify,
    disk: Option<DiskCache>,
    /// Blocks on their way to the disk.
    keeping: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    blocks: Bounded<(u64, u64), Block>,
    /// Blocks that are there or on their way.
    used: u64,
}

type Outcome = Result<Bytes, Failure>;

#[derive(Debug)]
enum Block {
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
                keeping: Arc::new(Semaphore::new(KEPT_AT_ONCE)),
            }),
        }
    }

    /// How many blocks there may be.
    pub(super) fn most(&self) -> u64 {
        self.shared.most
    }

    /// The blocks that are needed now, if they are all there. Then what may follow is asked for as well.
    pub(super) fn at_once(&self, content: &Arc<Content>, wanted: &Wanted) -> Option<Vec<Bytes>> {
        let mut state = self.shared.state.lock();
        let mut there = Vec::new();
        for number in wanted.now.clone() {
            match state.blocks.get(&(content.id, number))? {
                Block::There(bytes) => there.push(bytes.clone()),
                Block::Coming(_) => return None,
            }
        }
        if !wanted.ahead.is_empty() {
            self.shared.ask(&mut state, content, wanted);
        }
        Some(there)
    }

    /// Whether a block is on its way.
    pub(super) fn is_coming(&self, content: &Content, number: u64) -> bool {
        self.shared
            .state
            .lock()
            .blocks
            .contains(&(content.id, number))
    }

    /// The blocks that are needed now, once they are there.
    pub(super) async fn read(
        &self,
        content: &Arc<Content>,
        wanted: &Wanted,
    ) -> Result<Vec<Bytes>, Failure> {
        let mut there = Vec::new();
        loop {
            let moved = self.shared.moved.notified();
            let coming = self.ask(content, wanted);
            if let Some(coming) = coming {
                for block in coming {
                    there.push(block.bytes().await?);
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

    /// Waits until nothing is on its way to the disk.
    #[cfg(test)]
    pub(super) async fn kept(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let all = u32::try_from(KEPT_AT_ONCE).ok()?;
        let keeping = self.shared.keeping.clone();
        keeping.acquire_many_owned(all).await.ok()
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
    async fn bytes(self) -> Outcome {
        match self {
            Self::There(bytes) => Ok(bytes),
            Self::Coming(mut receiver) => match receiver.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Err(given_up())),
                Err(_) => Err(given_up()),
            },
        }
    }
}

fn given_up() -> Failure {
    Failure::Failed("a request was given up".to_owned())
}

impl State {
    /// Makes room for so many blocks by forgetting those used the longest time ago, except `kept`.
    fn make_room(&mut self, count: u64, most: u64, kept: (u64, &Blocks)) -> bool {
        let needed = self.used.saturating_add(count).saturating_sub(most);
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
            self.blocks.remove(&key);
            self.used = self.used.saturating_sub(1);
        }
        true
    }
}

impl Block {
    fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }
}

impl Shared {
    /// Sends requests for the blocks that are neither there nor on their way. False, and nothing done, when
    /// there is no room for those needed now; without room for what may follow that is left out.
    fn ask(self: &Arc<Self>, state: &mut State, content: &Arc<Content>, wanted: &Wanted) -> bool {
        let missing = |state: &State, range: &Blocks| -> Vec<u64> {
            let is_missing = |number: &u64| !state.blocks.contains(&(content.id, *number));
            range.clone().filter(is_missing).collect()
        };
        let count = |list: &[u64]| u64::try_from(list.len()).unwrap_or(u64::MAX);
        let mut numbers = missing(state, &wanted.now);
        let kept = wanted.now.start..wanted.ahead.end.max(wanted.now.end);
        if !state.make_room(count(&numbers), self.most, (content.id, &kept)) {
            return false;
        }
        let ahead = missing(state, &wanted.ahead);
        let both = count(&numbers).saturating_add(count(&ahead));
        if state.make_room(both, self.most, (content.id, &kept)) {
            numbers.extend(ahead);
        }
        let at_once = usize::try_from(wanted.at_once).unwrap_or(usize::MAX).max(1);
        for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            for part in run.chunks(at_once) {
                if let Some(first) = part.first() {
                    self.send(state, content, *first, part.len());
                }
            }
        }
        true
    }

    /// One request for consecutive blocks.
    fn send(self: &Arc<Self>, state: &mut State, content: &Arc<Content>, first: u64, count: usize) {
        let mut fetch = Fetch {
            shared: self.clone(),
            content: content.clone(),
            next: first,
            senders: Vec::with_capacity(count).into_iter(),
        };
        let mut senders = Vec::with_capacity(count);
        for number in (first..).take(count) {
            let (sender, receiver) = watch::channel(None);
            senders.push(sender);
            state
                .blocks
                .insert((content.id, number), Block::Coming(receiver));
            state.used = state.used.saturating_add(1);
        }
        fetch.senders = senders.into_iter();
        self.runtime.spawn(fetch.run());
    }
}

/// Blocks on their way, in their order. What has not come when it is dropped is given up.
struct Fetch {
    shared: Arc<Shared>,
    content: Arc<Content>,
    next: u64,
    senders: std::vec::IntoIter<watch::Sender<Option<Outcome>>>,
}

impl Fetch {
    async fn run(mut self) {
        self.read_disk().await;
        if self.senders.len() == 0 {
            return;
        }
        if let Err(failure) = self.receive().await {
            if failure == Failure::Replaced {
                self.content.replace();
            }
            self.fail(&failure);
        }
    }

    /// Takes what the disk has of the beginning.
    async fn read_disk(&mut self) {
        let Some(disk) = self.shared.disk.clone() else {
            return;
        };
        while self.senders.len() > 0
            && let Some(name) = self.content.block_name(self.next)
        {
            let from = self.next.saturating_mul(BLOCK);
            let length = self.content.size.saturating_sub(from).min(BLOCK);
            let length = usize::try_from(length).unwrap_or(0);
            let disk = disk.clone();
            let read = tokio::task::spawn_blocking(move || disk.get(&name, length));
            match read.await {
                Ok(Some(bytes)) => self.there(bytes),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Keeps a block on the disk, if that is not too busy.
    fn keep(&self, bytes: &Bytes) {
        if let Some(disk) = &self.shared.disk
            && let Some(name) = self.content.block_name(self.next)
            && let Ok(turn) = self.shared.keeping.clone().try_acquire_owned()
        {
            let (disk, bytes) = (disk.clone(), bytes.clone());
            tokio::task::spawn_blocking(move || {
                disk.put(&name, &bytes);
                drop(turn);
            });
        }
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        let content = self.content.clone();
        let count = u64::try_from(self.senders.len()).unwrap_or(u64::MAX);
        let from = self.next.saturating_mul(BLOCK);
        let to = self
            .next
            .saturating_add(count)
            .saturating_mul(BLOCK)
            .min(content.size);
        let objects = self.shared.store.objects().clone();
        let reply = objects
            .get_opts(&content.path, content.request(from, to))
            .await?;
        if !content.is(&reply.meta) {
            return Err(Failure::Replaced);
        }
        if reply.range != (from..to) {
            return Err(Failure::Failed("the reply is for another range".to_owned()));
        }
        let mut body = reply.into_stream();
        let mut left = to.saturating_sub(from);
        let mut block = Vec::new();
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                let size = usize::try_from(left.min(BLOCK)).unwrap_or(0);
                if block.capacity() == 0 {
                    block.reserve_exact(size);
                }
                let part = chunk.split_to(chunk.len().min(size.saturating_sub(block.len())));
                if part.is_empty() {
                    return Err(given_up());
                }
                block.extend_from_slice(&part);
                if block.len() == size {
                    left = left.saturating_sub(left.min(BLOCK));
                    let whole: Bytes = std::mem::take(&mut block).into();
                    self.keep(&whole);
                    self.there(whole);
                }
            }
        }
        match left {
            0 => Ok(()),
            _ => Err(given_up()),
        }
    }

    /// The next block has come.
    fn there(&mut self, bytes: Bytes) {
        let Some(sender) = self.senders.next() else {
            return;
        };
        let key = (self.content.id, self.next);
        self.next = self.next.saturating_add(1);
        let mut state = self.shared.state.lock();
        if let Some(block) = state.blocks.get(&key) {
            *block = Block::There(bytes.clone());
        }
        drop(state);
        sender.send_replace(Some(Ok(bytes)));
        self.shared.moved.notify_waiters();
    }

    /// The rest does not come.
    fn fail(&mut self, failure: &Failure) {
        let mut state = self.shared.state.lock();
        for (sender, number) in self.senders.by_ref().zip(self.next..) {
            if state.blocks.remove(&(self.content.id, number)).is_some() {
                state.used = state.used.saturating_sub(1);
            }
            sender.send_replace(Some(Err(failure.clone())));
        }
        drop(state);
        self.shared.moved.notify_waiters();
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.fail(&given_up());
    }
}
