//! The first page of a group's file: which blocks are there, and the checksum of each of their pages.
//!
//! A header says whose block it is. What it says of the bytes is looked at page by page, so that who needs one page reads
//! no more than that.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use rustix::io::pread;
use sha2::{Digest as _, Sha256};

use super::super::blocks::BLOCK;
use super::group::TOGETHER;

/// What a checksum is about; the last one of a content may be shorter.
pub(super) const PAGE: u64 = 4096;
/// Pages of a block.
pub(super) const PAGES: usize = 32;
/// Where the first block begins: behind the headers.
pub(super) const FIRST: u64 = PAGE;
/// Blocks of a file.
pub(super) const BLOCKS: usize = 8;
const _: () = assert!(BLOCK / PAGE == 32 && TOGETHER == 8);

/// Begins each header; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"vfsdblk4";
/// Magic, name of the content, number of the block.
const OWNER: usize = 8 + 32 + 8;
/// From one header to the next: the owner, and checksums.
const STRIDE: usize = OWNER + PAGES * 8;
const _: () = assert!(STRIDE * BLOCKS <= 4096);

/// Of each page of a block; of pages that it does not have anything.
pub(super) type Checksums = [u64; PAGES];

/// What is known to be in a file, by the place of a block in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers([Option<Checksums>; BLOCKS]);

/// The name of a content in headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner([u8; 32]);

impl Owner {
    pub(super) fn new(content: &str) -> Self {
        Self(Sha256::digest(content.as_bytes()).into())
    }

    /// How the header of a block begins.
    fn begins(&self, block: u64) -> Vec<u8> {
        [&MAGIC[..], &self.0, &block.to_le_bytes()].concat()
    }
}

impl Headers {
    /// Of the file's blocks that are this content's, the first of which has this number.
    pub(super) fn read(file: &OwnedFd, owner: &Owner, first: u64) -> Self {
        let mut bytes = [0; STRIDE * BLOCKS];
        let filled = pread(file, &mut bytes, 0).unwrap_or(0);
        Self::parse(bytes.get(..filled).unwrap_or_default(), owner, first)
    }

    /// The same of a file that begins with these bytes.
    pub(super) fn parse(begins: &[u8], owner: &Owner, first: u64) -> Self {
        let mut headers = Self::default();
        for (block, header) in (first..).zip(begins.chunks_exact(STRIDE).take(BLOCKS)) {
            if let Some((begin, checksums)) = header.split_at_checked(OWNER)
                && begin == owner.begins(block)
            {
                let mut words = checksums.chunks_exact(8);
                let word = |word: &[u8]| word.try_into().map_or(0, u64::from_le_bytes);
                let checksums = std::array::from_fn(|_| words.next().map_or(0, word));
                headers.set(block, checksums);
            }
        }
        headers
    }

    pub(super) fn get(&self, block: u64) -> Option<&Checksums> {
        self.0.get(place(block))?.as_ref()
    }

    pub(super) fn set(&mut self, block: u64, checksums: Checksums) {
        if let Some(header) = self.0.get_mut(place(block)) {
            *header = Some(checksums);
        }
    }
}

/// The headers of blocks in a row, where they begin in the file, and the checksums of each block.
pub(super) fn written(owner: &Owner, first: u64, blocks: &[Bytes]) -> Written {
    let mut bytes = Vec::with_capacity(blocks.len().saturating_mul(STRIDE));
    let mut all = Vec::with_capacity(blocks.len());
    for (block, content) in (first..).zip(blocks) {
        let mut pages = content.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX));
        let checksums: Checksums = std::array::from_fn(|_| pages.next().map_or(0, checksum));
        bytes.extend(owner.begins(block));
        bytes.extend(checksums.iter().flat_map(|word| word.to_le_bytes()));
        all.push(checksums);
    }
    Written {
        bytes,
        at: u64::try_from(place(first).saturating_mul(STRIDE)).unwrap_or(u64::MAX),
        checksums: all,
    }
}

/// What is written into the first page along with blocks.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) at: u64,
    pub(super) checksums: Vec<Checksums>,
}

/// Whether these are the bytes of so many pages of a block, from this one on.
pub(super) fn are_right(checksums: &Checksums, from: usize, bytes: &[u8]) -> bool {
    let pages = bytes.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let expected = checksums.get(from..).unwrap_or_default();
    pages.len() <= expected.len()
        && pages
            .zip(expected)
            .all(|(page, sum)| checksum(page) == *sum)
}

fn checksum(page: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(page);
    digest.finalize()
}

/// The place of a block in its file.
pub(super) fn place(block: u64) -> usize {
    usize::try_from(block % TOGETHER).unwrap_or(0)
}
