//! The digests of a blob, of what it decodes to, and of its spans, on a thread of its own; and how spans begin.
//!
//! Every byte is hashed twice, which takes more than half as long as to inflate it: the two are done at the same time.

use std::io;
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use sha2::{Digest as _, Sha256};

use super::checkpoint::{Checkpoint, Packer};
use super::{Blake3Digest, BlobError, Resume, Sha256Digest};

/// Bytes that are handed over at once, about.
const BATCH: usize = 256 * 1024;

/// Batches that may wait for the thread: what bounds memory.
const WAITING: usize = 8;

/// Gives the thread its work. Dropped, it ends the thread.
pub(super) struct Hashing {
    compressed: Vec<u8>,
    decoded: Vec<u8>,
    /// Whether what is decoded differs from the blob.
    decodes: bool,
    work: SyncSender<Work>,
    /// What the thread is done with, to be filled again.
    done: Receiver<Vec<u8>>,
    thread: JoinHandle<Result<Hashes, BlobError>>,
}

enum Work {
    Compressed(Vec<u8>),
    Decoded(Vec<u8>),
    /// A span ends. The next one begins with the byte, if there is one.
    Cut(Option<u8>),
    /// A checkpoint, with all that follows it and counts. They come in the order of their spans.
    Checkpoint(Checkpoint),
}

/// What came of it.
pub(super) struct Hashes {
    pub(super) blob: Sha256Digest,
    pub(super) decoded: Sha256Digest,
    /// For each span that was cut: its compressed and its decoded bytes.
    pub(super) spans: Vec<(Blake3Digest, Blake3Digest)>,
    /// For each checkpoint: how its span begins.
    pub(super) checkpoints: Vec<Resume>,
}

impl Hashing {
    /// Begins. `decodes` is false for a blob that is not compressed.
    pub(super) fn new(decodes: bool) -> io::Result<Self> {
        let (work, to_do) = sync_channel(WAITING);
        let (give_back, done) = sync_channel(WAITING);
        let thread = Builder::new()
            .name("layer-digests".to_owned())
            .spawn(move || hash(&to_do, &give_back, decodes))?;
        Ok(Self {
            compressed: Vec::new(),
            decoded: Vec::new(),
            decodes,
            work,
            done,
            thread,
        })
    }

    /// Bytes of the blob, and what they decode to.
    pub(super) fn update(&mut self, compressed: &[u8], decoded: &[u8]) -> Result<(), BlobError> {
        self.compressed.extend_from_slice(compressed);
        if self.compressed.len() >= BATCH {
            let batch = replace(&mut self.compressed, &self.done);
            self.send(Work::Compressed(batch))?;
        }
        if self.decodes {
            self.decoded.extend_from_slice(decoded);
            if self.decoded.len() >= BATCH {
                let batch = replace(&mut self.decoded, &self.done);
                self.send(Work::Decoded(batch))?;
            }
        }
        Ok(())
    }

    /// Ends a span; the next one begins with `shared`, a byte of this one.
    pub(super) fn cut(&mut self, shared: Option<u8>) -> Result<(), BlobError> {
        let compressed = replace(&mut self.compressed, &self.done);
        self.send(Work::Compressed(compressed))?;
        let decoded = replace(&mut self.decoded, &self.done);
        self.send(Work::Decoded(decoded))?;
        self.send(Work::Cut(shared))
    }

    /// A checkpoint is complete.
    pub(super) fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), BlobError> {
        self.send(Work::Checkpoint(checkpoint))
    }

    /// The hashes, now that the last span was cut.
    pub(super) fn finish(self) -> Result<Hashes, BlobError> {
        let Self { work, thread, .. } = self;
        drop(work);
        thread.join().map_err(|_| gone())?
    }

    fn send(&self, work: Work) -> Result<(), BlobError> {
        self.work.send(work).map_err(|_| gone())
    }
}

/// What was gathered. What is gathered next goes to where something was before, if the thread is done with any: fresh
/// memory costs more than to copy there.
fn replace(gathered: &mut Vec<u8>, done: &Receiver<Vec<u8>>) -> Vec<u8> {
    let next = done.try_recv().unwrap_or_default();
    mem::replace(gathered, next)
}

fn gone() -> BlobError {
    BlobError::Io(io::Error::other("the hashing thread is gone"))
}

fn hash(
    work: &Receiver<Work>,
    done: &SyncSender<Vec<u8>>,
    decodes: bool,
) -> Result<Hashes, BlobError> {
    let give_back = |mut bytes: Vec<u8>| {
        bytes.clear();
        // Those that nobody needs go.
        let _ = done.try_send(bytes);
    };
    let (mut blob, mut all_decoded) = (Sha256::new(), Sha256::new());
    let (mut compressed, mut decoded) = (blake3::Hasher::new(), blake3::Hasher::new());
    let (mut spans, mut checkpoints) = (Vec::new(), Vec::new());
    let mut packer = Packer::new()?;
    for work in work {
        match work {
            Work::Compressed(bytes) => {
                blob.update(&bytes);
                compressed.update(&bytes);
                give_back(bytes);
            }
            Work::Decoded(bytes) => {
                all_decoded.update(&bytes);
                decoded.update(&bytes);
                give_back(bytes);
            }
            Work::Cut(shared) => {
                let of_compressed = Blake3Digest::from(&compressed);
                spans.push(match decodes {
                    true => (of_compressed, Blake3Digest::from(&decoded)),
                    false => (of_compressed, of_compressed),
                });
                compressed.reset();
                decoded.reset();
                if let Some(byte) = shared {
                    compressed.update(&[byte]);
                }
            }
            Work::Checkpoint(checkpoint) => checkpoints.push(packer.resume(checkpoint)?),
        }
    }
    let blob = blob.into();
    Ok(Hashes {
        blob,
        decoded: if decodes { all_decoded.into() } else { blob },
        spans,
        checkpoints,
    })
}
