//! Advisory locks.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vfsd_backend::{Errno, LockKind, LockRange, LockRequest, OpenFlags, Result};

use super::{Row, refused, rows};
use crate::place::{Handle, Place, TO_THE_END, range_lock, whole_lock};
use crate::{block_on, runtime};

pub(super) const ROWS: &[Row] = rows! {
    a_write_lock_excludes_other_owners needs POSIX_LOCKS,
    read_locks_do_not_exclude_each_other needs POSIX_LOCKS,
    a_read_lock_excludes_writers needs POSIX_LOCKS,
    locks_of_one_owner_do_not_exclude_each_other needs POSIX_LOCKS,
    ranges_apart_do_not_exclude_each_other needs POSIX_LOCKS,
    locks_hold_across_open_files_of_one_file needs POSIX_LOCKS,
    a_lock_of_a_part_leaves_the_rest needs POSIX_LOCKS,
    release_of_the_middle_leaves_both_ends needs POSIX_LOCKS,
    a_lock_is_weakened_in_the_middle needs POSIX_LOCKS,
    adjoining_locks_become_one needs POSIX_LOCKS,
    a_lock_to_the_end_covers_what_is_written_later needs POSIX_LOCKS,
    the_lock_in_the_way_is_told needs POSIX_LOCKS,
    nothing_is_in_the_way_of_a_free_range needs POSIX_LOCKS,
    a_test_does_not_lock needs POSIX_LOCKS,
    release_of_what_is_not_held_succeeds needs POSIX_LOCKS,
    a_refused_lock_leaves_what_was_held needs POSIX_LOCKS,
    flush_releases_the_locks_of_its_owner needs POSIX_LOCKS,
    locks_end_with_the_last_open_file_of_their_owner needs POSIX_LOCKS,
    a_lock_set_anew_outlives_the_open_file_it_was_first_set_through needs POSIX_LOCKS,
    a_write_lock_needs_a_writable_handle needs POSIX_LOCKS,
    a_waiting_lock_comes_when_the_other_goes needs POSIX_LOCKS,
    a_wait_that_is_given_up_leaves_no_lock needs POSIX_LOCKS,
    many_waiters_all_come_to_their_turn needs POSIX_LOCKS,
    flock_excludes_other_open_files needs FLOCK,
    shared_flocks_do_not_exclude_each_other needs FLOCK,
    a_flock_is_converted needs FLOCK,
    a_refused_conversion_gives_the_old_flock_up needs FLOCK,
    a_flock_ends_with_its_open_file needs FLOCK,
    a_waiting_flock_comes_when_the_other_goes needs FLOCK,
    flock_and_byte_ranges_do_not_see_each_other needs FLOCK + POSIX_LOCKS,
};

const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;

fn file(root: &Place) -> (Place, Handle) {
    let (place, handle) = root.create("file").unwrap();
    handle.write_all(0, &[0; 100]).unwrap();
    (place, handle)
}

fn poll(future: &mut (impl Future<Output = Result<()>> + Unpin)) -> Poll<Result<()>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn waiting(request: LockRequest) -> LockRequest {
    LockRequest {
        wait: true,
        ..request
    }
}

fn a_write_lock_excludes_other_owners(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    refused(handle.lock(2, WRITE, (5, 14)), Errno::AGAIN);
    refused(handle.lock(2, READ, (9, 9)), Errno::AGAIN);
    handle.unlock(1, (0, 9)).unwrap();
    handle.lock(2, WRITE, (5, 14)).unwrap();
}

fn read_locks_do_not_exclude_each_other(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, READ, (0, 9)).unwrap();
    handle.lock(2, READ, (0, 9)).unwrap();
    handle.lock(3, READ, (5, TO_THE_END)).unwrap();
}

fn a_read_lock_excludes_writers(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, READ, (0, 9)).unwrap();
    refused(handle.lock(2, WRITE, (0, 0)), Errno::AGAIN);
}

fn locks_of_one_owner_do_not_exclude_each_other(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    handle.lock(1, WRITE, (5, 14)).unwrap();
    handle.lock(1, READ, (0, 20)).unwrap();
    handle.lock(2, READ, (0, 20)).unwrap();
}

fn ranges_apart_do_not_exclude_each_other(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    handle.lock(2, WRITE, (10, 19)).unwrap();
    refused(handle.lock(3, WRITE, (9, 10)), Errno::AGAIN);
}

fn locks_hold_across_open_files_of_one_file(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.lock(1, WRITE, (0, 9)).unwrap();
    refused(two.lock(2, WRITE, (0, 9)), Errno::AGAIN);
    // The owner is the same, whichever open file it uses.
    two.lock(1, WRITE, (0, 9)).unwrap();
    two.unlock(1, (0, 9)).unwrap();
    two.lock(2, WRITE, (0, 9)).unwrap();
}

fn a_lock_of_a_part_leaves_the_rest(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (10, 19)).unwrap();
    handle.lock(2, WRITE, (0, 9)).unwrap();
    handle.lock(2, WRITE, (20, TO_THE_END)).unwrap();
}

fn release_of_the_middle_leaves_both_ends(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 29)).unwrap();
    handle.unlock(1, (10, 19)).unwrap();
    handle.lock(2, WRITE, (10, 19)).unwrap();
    refused(handle.lock(2, WRITE, (9, 9)), Errno::AGAIN);
    refused(handle.lock(2, WRITE, (20, 20)), Errno::AGAIN);
}

fn a_lock_is_weakened_in_the_middle(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 29)).unwrap();
    handle.lock(1, READ, (10, 19)).unwrap();
    handle.lock(2, READ, (10, 19)).unwrap();
    refused(handle.lock(2, READ, (9, 9)), Errno::AGAIN);
    refused(handle.lock(2, READ, (20, 20)), Errno::AGAIN);
}

fn adjoining_locks_become_one(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    handle.lock(1, WRITE, (20, 29)).unwrap();
    handle.lock(1, WRITE, (10, 19)).unwrap();
    let held = handle.conflict(2, READ, (15, 15)).unwrap().unwrap();
    assert_eq!(held.range, LockRange { start: 0, end: 29 });
}

fn a_lock_to_the_end_covers_what_is_written_later(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (50, TO_THE_END)).unwrap();
    handle.write_all(10_000, b"x").unwrap();
    refused(handle.lock(2, READ, (10_000, 10_000)), Errno::AGAIN);
}

fn the_lock_in_the_way_is_told(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, READ, (5, 14)).unwrap();
    let held = handle.conflict(2, WRITE, (0, 99)).unwrap().unwrap();
    assert_eq!(held.kind, READ);
    assert_eq!(held.range, LockRange { start: 5, end: 14 });
    handle.lock(1, WRITE, (50, TO_THE_END)).unwrap();
    let held = handle.conflict(2, READ, (60, 60)).unwrap().unwrap();
    assert_eq!((held.kind, held.range.end), (WRITE, TO_THE_END));
}

fn nothing_is_in_the_way_of_a_free_range(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    assert_eq!(handle.conflict(2, WRITE, (10, 19)), Ok(None));
    assert_eq!(handle.conflict(1, WRITE, (0, 9)), Ok(None));
}

fn a_test_does_not_lock(root: &Place) {
    let (_, handle) = file(root);
    assert_eq!(handle.conflict(1, WRITE, (0, 9)), Ok(None));
    handle.lock(2, WRITE, (0, 9)).unwrap();
}

fn release_of_what_is_not_held_succeeds(root: &Place) {
    let (_, handle) = file(root);
    handle.unlock(1, (0, TO_THE_END)).unwrap();
    handle.lock(1, WRITE, (0, 9)).unwrap();
    handle.unlock(2, (0, TO_THE_END)).unwrap();
    refused(handle.lock(2, WRITE, (0, 9)), Errno::AGAIN);
}

fn a_refused_lock_leaves_what_was_held(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, READ, (0, 9)).unwrap();
    handle.lock(2, READ, (0, 9)).unwrap();
    refused(handle.lock(1, WRITE, (0, 9)), Errno::AGAIN);
    handle.unlock(2, (0, 9)).unwrap();
    refused(handle.lock(3, WRITE, (0, 9)), Errno::AGAIN);
}

fn flush_releases_the_locks_of_its_owner(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.lock(1, WRITE, (0, 9)).unwrap();
    one.lock(2, WRITE, (10, 19)).unwrap();
    // As POSIX has it, any descriptor of the file will do.
    two.flush(1).unwrap();
    one.lock(3, WRITE, (0, 9)).unwrap();
    refused(one.lock(3, WRITE, (10, 19)), Errno::AGAIN);
}

/// A lock of an open file description (`F_OFD_SETLK`) has an owner that is never flushed.
fn locks_end_with_the_last_open_file_of_their_owner(root: &Place) {
    let (place, one) = file(root);
    let (two, other) = (place.open_both().unwrap(), place.open_both().unwrap());
    one.lock(1, WRITE, (0, 9)).unwrap();
    two.lock(1, WRITE, (10, 19)).unwrap();
    two.lock(2, WRITE, (20, 29)).unwrap();
    drop(one);
    refused(other.lock(3, WRITE, (0, 9)), Errno::AGAIN);
    drop(two);
    other.lock(3, WRITE, (0, 29)).unwrap();
}

fn a_lock_set_anew_outlives_the_open_file_it_was_first_set_through(root: &Place) {
    let (place, one) = file(root);
    let (two, other) = (place.open_both().unwrap(), place.open_both().unwrap());
    one.lock(1, WRITE, (0, 9)).unwrap();
    one.flush(1).unwrap();
    two.lock(1, WRITE, (0, 9)).unwrap();
    // A guest's release of an open file comes some time after the flush.
    drop(one);
    refused(other.lock(2, WRITE, (0, 9)), Errno::AGAIN);
    two.unlock(1, (0, 9)).unwrap();
    other.lock(2, WRITE, (0, 9)).unwrap();
}

fn a_write_lock_needs_a_writable_handle(root: &Place) {
    let (place, _) = file(root);
    let reader = place.open(OpenFlags::READ).unwrap();
    refused(reader.lock(1, WRITE, (0, 9)), Errno::BADF);
    reader.lock(1, READ, (0, 9)).unwrap();
    let writer = place.open(OpenFlags::WRITE).unwrap();
    refused(writer.lock(1, READ, (20, 29)), Errno::BADF);
    writer.lock(1, WRITE, (20, 29)).unwrap();
}

fn a_waiting_lock_comes_when_the_other_goes(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    let other = handle.clone();
    let waiter = runtime().spawn(async move {
        let request = waiting(range_lock(2, Some(WRITE), (0, 9)));
        other.0.setlk(request).await
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    handle.unlock(1, (0, 9)).unwrap();
    block_on(waiter).unwrap().unwrap();
    refused(handle.lock(1, WRITE, (0, 9)), Errno::AGAIN);
}

fn a_wait_that_is_given_up_leaves_no_lock(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    {
        let _runtime = runtime().enter();
        let request = waiting(range_lock(2, Some(WRITE), (0, 9)));
        let mut wait = handle.0.setlk(request);
        assert!(poll(&mut wait).is_pending());
        assert!(poll(&mut wait).is_pending());
    }
    handle.unlock(1, (0, 9)).unwrap();
    handle.lock(3, WRITE, (0, 9)).unwrap();
}

fn many_waiters_all_come_to_their_turn(root: &Place) {
    let (_, handle) = file(root);
    handle.lock(1, WRITE, (0, 9)).unwrap();
    let waiters: Vec<_> = (2..12)
        .map(|owner| {
            let handle = handle.clone();
            runtime().spawn(async move {
                let range = (0, 9);
                let request = waiting(range_lock(owner, Some(WRITE), range));
                handle.0.setlk(request).await?;
                handle.0.setlk(range_lock(owner, None, range)).await
            })
        })
        .collect();
    handle.unlock(1, (0, 9)).unwrap();
    for waiter in waiters {
        block_on(waiter).unwrap().unwrap();
    }
    handle.lock(1, WRITE, (0, 9)).unwrap();
}

fn flock_excludes_other_open_files(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(WRITE)).unwrap();
    refused(two.flock(2, Some(WRITE)), Errno::AGAIN);
    refused(two.flock(2, Some(READ)), Errno::AGAIN);
    one.flock(1, None).unwrap();
    two.flock(2, Some(WRITE)).unwrap();
}

fn shared_flocks_do_not_exclude_each_other(root: &Place) {
    let (place, one) = file(root);
    // flock(2) does not ask how the file is open.
    let two = place.open(OpenFlags::READ).unwrap();
    one.flock(1, Some(READ)).unwrap();
    two.flock(2, Some(READ)).unwrap();
}

fn a_flock_is_converted(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(READ)).unwrap();
    one.flock(1, Some(WRITE)).unwrap();
    refused(two.flock(2, Some(READ)), Errno::AGAIN);
    one.flock(1, Some(READ)).unwrap();
    two.flock(2, Some(READ)).unwrap();
}

fn a_refused_conversion_gives_the_old_flock_up(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(READ)).unwrap();
    two.flock(2, Some(READ)).unwrap();
    refused(one.flock(1, Some(WRITE)), Errno::AGAIN);
    two.flock(2, Some(WRITE)).unwrap();
}

fn a_flock_ends_with_its_open_file(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(WRITE)).unwrap();
    drop(one);
    two.flock(2, Some(WRITE)).unwrap();
}

fn a_waiting_flock_comes_when_the_other_goes(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(WRITE)).unwrap();
    let other = two.clone();
    let waiter = runtime().spawn(async move {
        let request = waiting(whole_lock(2, Some(WRITE)));
        other.0.setlk(request).await
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    drop(one);
    block_on(waiter).unwrap().unwrap();
    let three = place.open_both().unwrap();
    refused(three.flock(3, Some(READ)), Errno::AGAIN);
}

fn flock_and_byte_ranges_do_not_see_each_other(root: &Place) {
    let (place, one) = file(root);
    let two = place.open_both().unwrap();
    one.flock(1, Some(WRITE)).unwrap();
    two.lock(2, WRITE, (0, TO_THE_END)).unwrap();
}
