//! Readahead: what a sequential reader will ask for is fetched while it reads what is here.

use std::sync::Arc;

use parking_lot::Mutex;
use vfsd_backend::ReadRequest;

use super::ranges::BLOCK;
use crate::inode::Inode;

/// The first window; it doubles as long as the reads go on one after the other.
const FIRST: u64 = 512 << 10;
const LONGEST: u64 = 8 << 20;
/// A guest's own readahead may ask in another order by as much.
const SLACK: u64 = 256 << 10;

/// Of one open file.
#[derive(Debug, Default)]
pub(crate) struct Readahead(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Where the last read ended.
    next: u64,
    window: u64,
    /// What was asked for ends here.
    asked: u64,
}

impl Readahead {
    /// Takes note of a read of a file of which something is in the bucket alone.
    pub(crate) fn read(&self, inode: &Arc<Inode>, request: ReadRequest) {
        let length = u64::try_from(request.length).unwrap_or(u64::MAX);
        let end = request.offset.saturating_add(length);
        let range = {
            let mut state = self.0.lock();
            let goes_on =
                request.offset.abs_diff(state.next) <= SLACK && end > BLOCK.saturating_mul(2);
            state.next = end;
            if !goes_on {
                state.window = 0;
                state.asked = 0;
                return;
            }
            state.asked = state.asked.max(end);
            let left = state.asked.saturating_sub(end);
            if left > state.window / 2 {
                return;
            }
            state.window = state.window.saturating_mul(2).clamp(FIRST, LONGEST);
            let until = end.saturating_add(state.window);
            let range = state.asked..until;
            state.asked = until;
            range
        };
        let size = inode.state.read().row.size;
        if range.start < size {
            inode.fetch_ahead(&(range.start..range.end.min(size)));
        }
    }
}
