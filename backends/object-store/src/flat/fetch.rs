//! One request for blocks, from the disk or from the service.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::blocks::{BLOCK, Block, Blocks, Outcome, Piece, Shared, given_up};
use super::content::{Content, Failure};
use super::disk::{Group, TOGETHER, group_of};

/// Blocks after the first one of a request that tells how fast they come.
const LONG: u32 = 7;

/// What blocks are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A read in sequence waits for them, or will.
    Sequence,
    /// A read waits for them that jumped.
    Jump,
    /// They lie around what reads jumped to: nobody waits for them.
    Around,
}

/// Blocks on their way, in their order. What has not come when it is dropped is given up.
pub(super) struct Fetch {
    pub(super) shared: Arc<Shared>,
    pub(super) content: Arc<Content>,
    /// The number of the first.
    pub(super) next: u64,
    /// `None` for one that comes along.
    pub(super) senders: VecDeque<Option<watch::Sender<Option<Outcome>>>>,
    pub(super) purpose: Purpose,
    /// Blocks before the next one that shall be written to the disk together.
    pub(super) unkept: Vec<Bytes>,
    /// That they may be.
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

impl Fetch {
    pub(super) async fn run(self) {
        let Some(mut this) = self.look_at_disk().await else {
            return;
        };
        this.look_around();
        if let Err(failure) = this.receive().await {
            if failure == Failure::Replaced {
                this.content.replace();
            }
            this.fail(&failure);
        }
    }

    /// Asks for what lies around a block that a read jumped to, where enough of them did.
    fn look_around(&self) {
        let content = &self.content;
        if self.purpose == Purpose::Jump && content.size <= self.shared.stays() {
            let blocks = content.size.div_ceil(BLOCK);
            let singles = self.shared.pace.lock().singles();
            let region = content.regions.lock().single(self.next, blocks, singles);
            if let Some(region) = region {
                self.shared.ask_around(content, &region);
            }
        }
    }

    /// Takes what the disk has, and leaves the rest without what lies around it, if there is a rest.
    async fn look_at_disk(mut self) -> Option<Self> {
        let groups = self.kept();
        if !groups.is_empty() {
            // One thread goes through all of them: the disk would wait while they are handed from one to another.
            let looked = tokio::task::spawn_blocking(move || {
                for (group, blocks) in groups {
                    self.load(&group, &blocks);
                }
                self
            });
            self = looked.await.ok()?;
        }
        while let Some(None) = self.senders.front() {
            self.senders.pop_front();
            self.next = self.next.saturating_add(1);
        }
        while let Some(None) = self.senders.back() {
            self.senders.pop_back();
        }
        (!self.senders.is_empty()).then_some(self)
    }

    /// The files of the disk that may have some of the blocks.
    fn kept(&self) -> Vec<(Arc<Group>, Blocks)> {
        let mut groups = Vec::new();
        let (Some(disk), Some(name)) = (&self.shared.disk, self.content.kept_as()) else {
            return groups;
        };
        let mut blocks = self.next..self.end();
        while !blocks.is_empty() {
            let end = group_of(blocks.start)
                .saturating_add(1)
                .saturating_mul(TOGETHER);
            let part = blocks.start..end.min(blocks.end);
            blocks.start = part.end;
            if let Some(group) = disk.find(name, part.start)
                && part.clone().any(|block| group.may_have(block))
            {
                groups.push((group, part));
            }
        }
        groups
    }

    /// The number after the last.
    fn end(&self) -> u64 {
        let count = u64::try_from(self.senders.len()).unwrap_or(u64::MAX);
        self.next.saturating_add(count)
    }

    /// The sender for a block.
    fn sender(&mut self, block: u64) -> Option<&mut Option<watch::Sender<Option<Outcome>>>> {
        let place = usize::try_from(block.checked_sub(self.next)?).ok()?;
        self.senders.get_mut(place)
    }

    /// Takes of these blocks what a file of the disk has. Waits for the disk.
    fn load(&mut self, group: &Arc<Group>, blocks: &Blocks) {
        let is_wanted = |block: &u64| self.sender(*block).is_some_and(|sender| sender.is_some());
        let wanted: Vec<u64> = blocks.clone().filter(is_wanted).collect();
        let disk = self.shared.disk.as_ref();
        let direct = || disk?.direct(self.content.kept_as()?, blocks.start);
        let memory = |length| self.shared.state.lock().pages(length);
        for (block, bytes) in group.load(&wanted, direct, memory) {
            let Some(sender) = self.sender(block).and_then(Option::take) else {
                continue;
            };
            self.shared.found(1);
            match bytes {
                Some(bytes) => self.place(block, &sender, bytes),
                None => {
                    let mut state = self.shared.state.lock();
                    if state.blocks.remove(&(self.content.id, block)).is_some() {
                        state.used = state.used.saturating_sub(1);
                    }
                    drop(state);
                    sender.send_replace(Some(Ok(Piece::Disk(group.clone()))));
                }
            }
        }
        self.shared.moved.notify_waiters();
    }

    /// Takes the next block, and keeps it on the disk, with others of its group: if that is too busy what somebody may wait for
    /// is not kept, and the rest waits.
    async fn take(&mut self, bytes: Bytes) {
        let asked = matches!(self.senders.front(), Some(Some(_)));
        if let Some(disk) = self.shared.disk.as_ref().filter(|_| asked) {
            disk.missed();
        }
        let kept = asked && self.shared.disk.is_some() && self.content.kept_as().is_some();
        let keeps = kept && (self.purpose == Purpose::Around || self.take_turn());
        if !keeps {
            self.keep().await;
            return self.there(bytes);
        }
        self.there(bytes.clone());
        self.unkept.push(bytes);
        if self.next.is_multiple_of(TOGETHER) || self.senders.is_empty() {
            self.keep().await;
        }
    }

    /// Whether one more block may be on its way to the disk.
    fn take_turn(&mut self) -> bool {
        let Ok(turn) = self.shared.keeping.clone().try_acquire_owned() else {
            return false;
        };
        match &mut self.turn {
            Some(taken) => taken.merge(turn),
            None => self.turn = Some(turn),
        }
        true
    }

    /// Writes what shall be kept to the disk, where nobody waits for it.
    async fn keep(&mut self) {
        let blocks = std::mem::take(&mut self.unkept);
        let (Some(disk), Some(name)) = (self.shared.disk.clone(), self.content.kept_as()) else {
            return;
        };
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let turn = match self.turn.take() {
            Some(turn) => Some(turn),
            None => {
                let keeping = self.shared.keeping.clone();
                keeping.acquire_many_owned(count).await.ok()
            }
        };
        let (name, first) = (name.clone(), self.next.saturating_sub(u64::from(count)));
        tokio::task::spawn_blocking(move || {
            disk.put(&name, first, &blocks);
            drop((blocks, turn));
        });
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        let content = self.content.clone();
        let from = self.next.saturating_mul(BLOCK);
        let to = self.end().saturating_mul(BLOCK).min(content.size);
        let (asked, blocks) = (Instant::now(), self.senders.len());
        let mut first = None;
        let mut waited = Duration::ZERO;
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
        let mut block = BytesMut::new();
        loop {
            let before = Instant::now();
            let Some(chunk) = body.next().await else {
                break;
            };
            waited = waited.saturating_add(before.elapsed());
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                let size = usize::try_from(left.min(BLOCK)).unwrap_or(0);
                if block.is_empty() {
                    block = self.shared.state.lock().memory(size);
                }
                let part = chunk.split_to(chunk.len().min(size.saturating_sub(block.len())));
                if part.is_empty() {
                    return Err(given_up());
                }
                block.extend_from_slice(&part);
                if block.len() == size {
                    left = left.saturating_sub(left.min(BLOCK));
                    first.get_or_insert_with(|| (asked.elapsed(), waited));
                    self.take(std::mem::take(&mut block).freeze()).await;
                }
            }
        }
        if left > 0 {
            return Err(given_up());
        }
        if let Some((took, before)) = first {
            self.learn(blocks, took, waited.saturating_sub(before));
        }
        Ok(())
    }

    /// Notes how long so many blocks took: the first one, and the time that was waited for the others.
    fn learn(&self, blocks: usize, first: Duration, others: Duration) {
        let mut pace = self.shared.pace.lock();
        match u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX) {
            0 => pace.single(first),
            count if count >= LONG => pace.blocks(count, others),
            _ => {}
        }
    }

    /// The next block has come.
    fn there(&mut self, bytes: Bytes) {
        let sender = self.senders.pop_front();
        let block = self.next;
        self.next = self.next.saturating_add(1);
        if let Some(Some(sender)) = sender {
            self.place(block, &sender, bytes);
            self.shared.moved.notify_waiters();
        }
    }

    /// A block is in memory.
    fn place(&self, block: u64, sender: &watch::Sender<Option<Outcome>>, bytes: Bytes) {
        let key = (self.content.id, block);
        let mut state = self.shared.state.lock();
        if let Some(block) = state.blocks.get(&key) {
            *block = Block::There(bytes.clone());
        }
        // One receiver is the block's own: what nobody has asked for goes before what was read.
        if self.purpose == Purpose::Around && sender.receiver_count() <= 1 {
            state.blocks.make_oldest(&key);
        }
        drop(state);
        sender.send_replace(Some(Ok(Piece::Memory(bytes))));
    }

    /// The rest does not come.
    fn fail(&mut self, failure: &Failure) {
        let mut state = self.shared.state.lock();
        for (sender, number) in self.senders.drain(..).zip(self.next..) {
            let Some(sender) = sender else {
                continue;
            };
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
