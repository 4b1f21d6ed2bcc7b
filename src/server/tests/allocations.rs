//! A request costs the server no allocation, unless there is something new to remember; and that
//! is small.

// UNSAFETY: an allocator can only be counted by one in front of it.
#![allow(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic
)]

mod still;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use still::{REQUESTS, Scene};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that are allocated.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all that is asked is asked of the system's allocator, and its answers are given back.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: what the caller was given came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn requests_that_are_ready_at_once_allocate_nothing() {
    const ROUNDS: u64 = 1_000;
    Scene::with(|scene| {
        scene.learn(10);
        for (name, request) in REQUESTS {
            // What the scene's own storage and the tables keep is there from the second time on.
            (0..10).for_each(|_| request(scene));
            let before = ALLOCATIONS.get();
            (0..ROUNDS).for_each(|_| request(scene));
            let each = (ALLOCATIONS.get() - before) as f64 / ROUNDS as f64;
            // A file that is made is one more to know.
            let expected = if name.starts_with("create") { 1.0 } else { 0.0 };
            assert_eq!(each, expected, "allocations of {name}");
        }
    });
}

#[test]
fn a_file_that_is_known_takes_little_memory() {
    const FILES: usize = 200_000;
    /// The storage's part of each here: a number, with two counts before it.
    const STORAGE: usize = 24;
    Scene::with(|scene| {
        let before = HELD.get();
        scene.learn(FILES as u64);
        let each = (HELD.get() - before) / FILES - STORAGE;
        assert!(each <= 100, "{each} bytes each");
    });
}
