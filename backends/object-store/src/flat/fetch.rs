//! One request for blocks, from the disk or from the service.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::blocks::{BLOCK, Block, Outcome, Shared, given_up};
use super::content::{Content, Failure};

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
    pub(super) senders: std::vec::IntoIter<Option<watch::Sender<Option<Outcome>>>>,
    pub(super) purpose: Purpose,
}

impl Fetch {
    pub(super) async fn run(mut self) {
        self.read_disk().await;
        if self.senders.len() == 0 {
            return;
        }
        self.look_around();
        if let Err(failure) = self.receive().await {
            if failure == Failure::Replaced {
                self.content.replace();
            }
            self.fail(&failure);
        }
    }

    /// Asks for what lies around a block that a read jumped to, where enough of them did.
    fn look_around(&self) {
        let content = &self.content;
        if self.purpose == Purpose::Jump && content.size <= self.shared.stays() {
            let blocks = content.size.div_ceil(BLOCK);
            let region = content.regions.lock().single(self.next, blocks);
            if let Some(region) = region {
                self.shared.ask_around(content, &region);
            }
        }
    }

    /// Takes what the disk has of the beginning.
    async fn read_disk(&mut self) {
        let Some(disk) = self.shared.disk.clone() else {
            return;
        };
        while let Some(sender) = self.senders.as_slice().first()
            && let Some(name) = self.content.block_name(self.next)
        {
            if sender.is_none() {
                self.there(Bytes::new());
                continue;
            }
            let from = self.next.saturating_mul(BLOCK);
            let length = self.content.size.saturating_sub(from).min(BLOCK);
            let length = usize::try_from(length).unwrap_or(0);
            let disk = disk.clone();
            let memory = self.shared.state.lock().memory(length);
            let read = tokio::task::spawn_blocking(move || disk.get(&name, length, memory));
            match read.await {
                Ok(Ok(bytes)) => self.there(bytes),
                Ok(Err(memory)) => return self.shared.state.lock().give_back(memory),
                Err(_) => return,
            }
        }
    }

    /// Takes the next block, and keeps it on the disk: if that is too busy what somebody may wait for is not kept, and the
    /// rest waits.
    async fn take(&mut self, bytes: Bytes) {
        let asked = matches!(self.senders.as_slice().first(), Some(Some(_)));
        let name = self.content.block_name(self.next).filter(|_| asked);
        self.there(bytes.clone());
        let (Some(disk), Some(name)) = (self.shared.disk.clone(), name) else {
            return;
        };
        let keeping = self.shared.keeping.clone();
        let turn = match self.purpose {
            Purpose::Around => keeping.acquire_owned().await.ok(),
            Purpose::Sequence | Purpose::Jump => keeping.try_acquire_owned().ok(),
        };
        if let Some(turn) = turn {
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
        let mut block = BytesMut::new();
        while let Some(chunk) = body.next().await {
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
                    self.take(std::mem::take(&mut block).freeze()).await;
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
        let sender = self.senders.next();
        let key = (self.content.id, self.next);
        self.next = self.next.saturating_add(1);
        let Some(Some(sender)) = sender else {
            return;
        };
        let mut state = self.shared.state.lock();
        if let Some(block) = state.blocks.get(&key) {
            *block = Block::There(bytes.clone());
        }
        // One receiver is the block's own: what nobody has asked for goes before what was read.
        if self.purpose == Purpose::Around && sender.receiver_count() <= 1 {
            state.blocks.make_oldest(&key);
        }
        drop(state);
        sender.send_replace(Some(Ok(bytes)));
        self.shared.moved.notify_waiters();
    }

    /// The rest does not come.
    fn fail(&mut self, failure: &Failure) {
        let mut state = self.shared.state.lock();
        for (sender, number) in self.senders.by_ref().zip(self.next..) {
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
