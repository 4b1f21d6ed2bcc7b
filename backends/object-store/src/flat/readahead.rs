//! How much of a file is asked for before it is read.

use std::ops::Range;

use super::blocks::{BLOCK, Wanted};
use super::disk::TOGETHER;

/// The first window: with the read itself one request.
const FIRST: u64 = 1 << 20;
/// A read this near to where the last one ended is still taken for the next one: a guest sends several at
/// once, and they come in any order.
const NEAR: u64 = 1 << 20;
/// Requests that share a window.
const REQUESTS: u64 = 4;
/// What the disk's cache keeps in one file. Requests end where such a file does, so that each is of whole ones.
const GROUP: u64 = TOGETHER * BLOCK;
/// The largest request.
const LARGEST_REQUEST: u64 = 8 << 20;

/// What one open file was read like so far.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    /// Where the reads in sequence have come to.
    position: u64,
    /// Bytes to be asked for in advance; 0 while reads jump.
    window: u64,
    /// Up to where was asked already.
    asked: u64,
}

impl Readahead {
    /// What a read of `range`, within the file's `size`, shall ask for. `most` bounds the window, in bytes.
    pub(super) fn read(&mut self, range: Range<u64>, size: u64, most: u64) -> Wanted {
        let begins = range.start == 0 && self.position == 0;
        let near = self.position.saturating_sub(NEAR)..=self.position.saturating_add(NEAR);
        let goes_on = self.position > 0 && near.contains(&range.start);
        if !begins && !goes_on {
            self.window = 0;
            self.asked = 0;
            // The next one may go on from here.
            self.position = range.end;
            let wanted = wanted(range.clone(), range.end..range.end, size, BLOCK);
            return Wanted {
                jumps: true,
                ..wanted
            };
        }
        let passes = range.end > self.position;
        self.position = self.position.max(range.end);
        if self.window == 0 {
            self.window = FIRST.min(most);
            self.asked = self.position;
        }
        let left = self.asked.saturating_sub(self.position);
        let end = if passes && left <= self.window / 2 {
            let end = self.position.saturating_add(self.window);
            let before = end.saturating_sub(end % GROUP);
            let end = if before > self.position.saturating_add(self.window / 2) {
                before
            } else {
                end.checked_next_multiple_of(GROUP).unwrap_or(end)
            };
            self.window = self.window.saturating_mul(2).min(most);
            self.asked = self.asked.max(end);
            end
        } else {
            range.end
        };
        let request = (self.window / REQUESTS).clamp(FIRST, LARGEST_REQUEST);
        wanted(range.clone(), range.end..end.max(range.end), size, request)
    }

    /// Blocks that were asked for in advance were forgotten before they were read: less would have been more.
    pub(super) fn too_much(&mut self) {
        self.window = (self.window / 4).max(FIRST);
        self.asked = self.position;
    }

    /// Whether a read that begins here was asked for in advance.
    pub(super) fn was_asked(&self, offset: u64) -> bool {
        self.window > 0 && (self.position..self.asked).contains(&offset)
    }
}

/// In blocks.
fn wanted(now: Range<u64>, ahead: Range<u64>, size: u64, request: u64) -> Wanted {
    let block = |offset: u64| offset / BLOCK;
    let end = |offset: u64| offset.min(size).div_ceil(BLOCK);
    let now = block(now.start)..end(now.end);
    let needed = now.end.saturating_sub(now.start);
    let at_once = (request / BLOCK).max(1).saturating_add(needed);
    Wanted {
        ahead: now.end..end(ahead.end).max(now.end),
        at_once: at_once
            .checked_next_multiple_of(TOGETHER)
            .unwrap_or(at_once),
        jumps: false,
        now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_file_read_from_its_beginning_is_asked_for_in_growing_windows() {
        let mut ahead = Readahead::default();
        let size = 1 << 30;
        let first = ahead.read(0..BLOCK, size, 32 * MIB);
        assert_eq!((first.now.clone(), first.ahead.clone()), (0..1, 1..8));
        assert!(first.at_once >= 8, "one request");
        let mut asked = first.ahead.end;
        let mut requests = 0;
        for number in 1..2000 {
            let next = ahead.read(number * BLOCK..(number + 1) * BLOCK, size, 32 * MIB);
            if !next.ahead.is_empty() {
                requests += 1;
                assert!(next.ahead.end > asked);
                let ends = [next.ahead.end, next.at_once];
                assert_eq!(
                    ends.map(|it| it % TOGETHER),
                    [0, 0],
                    "whole files of the cache"
                );
                asked = next.ahead.end;
            }
            assert!(asked > number, "read {number} waits");
            assert!((asked - number) * BLOCK <= 33 * MIB, "{asked} {number}");
        }
        assert!(requests < 40, "{requests}");
    }

    #[test]
    fn jumping_reads_ask_for_no_more_than_they_need() {
        let mut ahead = Readahead::default();
        for offset in [500 * MIB, 3 * MIB, 900 * MIB, 40 * MIB] {
            let wanted = ahead.read(offset..offset + 4096, 1 << 30, 32 * MIB);
            assert_eq!(wanted.now.end - wanted.now.start, 1);
            assert!(wanted.ahead.is_empty());
        }
    }

    #[test]
    fn reads_out_of_order_are_still_a_sequence() {
        let mut ahead = Readahead::default();
        let mut grown = false;
        for pair in 0..50 {
            for number in [2 * pair + 1, 2 * pair] {
                let wanted = ahead.read(number * BLOCK..(number + 1) * BLOCK, 1 << 30, 32 * MIB);
                grown |= wanted.ahead.end > wanted.now.end + 32;
            }
        }
        assert!(grown);
    }

    #[test]
    fn nothing_is_asked_for_behind_the_end() {
        let mut ahead = Readahead::default();
        let wanted = ahead.read(0..100, 100, 32 * MIB);
        assert_eq!((wanted.now, wanted.ahead), (0..1, 1..1));
    }
}
