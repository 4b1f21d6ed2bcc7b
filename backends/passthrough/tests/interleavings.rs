//! The slots of descriptors, in many orders of the steps of the threads that use them, always the same ones.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, MaxSteps, Runner, sync, thread};

#[path = "../src/descriptor_slot.rs"]
mod descriptor_slot;

use descriptor_slot::DescriptorSlot;

/// Orders that are tried of each scene.
const ORDERS: usize = 2_000;

/// A slot, and the descriptors that were taken out of it, which stay open here.
#[derive(Debug)]
struct Scene {
    slot: DescriptorSlot,
    taken: Mutex<Vec<OwnedFd>>,
    /// Descriptors that the slot was given.
    given: AtomicUsize,
}

impl Scene {
    fn empty() -> Self {
        Self {
            slot: DescriptorSlot::empty(),
            taken: Mutex::default(),
            given: AtomicUsize::new(0),
        }
    }

    fn full() -> Self {
        Self {
            slot: DescriptorSlot::of(descriptor()),
            given: AtomicUsize::new(1),
            ..Self::empty()
        }
    }

    fn look(&self) {
        if let Some(in_use) = self.slot.get() {
            thread::yield_now();
            let number = in_use.as_fd().as_raw_fd();
            let taken = self.taken.lock().unwrap();
            assert!(taken.iter().all(|fd| fd.as_raw_fd() != number));
        }
    }

    fn take(&self) {
        if let Some(fd) = self.slot.take_unused() {
            self.taken.lock().unwrap().push(fd);
        }
    }

    fn put(&self) {
        if self.slot.put(descriptor()) {
            self.given.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn replace(&self) {
        self.take();
        self.put();
    }
}

fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Does all that at once in many orders, after which no descriptor is lost.
fn in_orders(scene: fn() -> Scene, actions: &'static [fn(&Scene)]) {
    let test = move || {
        let scene = Arc::new(scene());
        let threads: Vec<_> = actions
            .iter()
            .map(|action| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || action(&scene))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        scene.look();
        let Scene {
            mut slot,
            taken,
            given,
        } = Arc::into_inner(scene).unwrap();
        let open = slot.is_open();
        let left = slot.take();
        assert_eq!(left.is_some(), open);
        let mut all = taken.into_inner().unwrap();
        all.extend(left);
        assert_eq!(all.len(), given.into_inner());
    };
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(1_000);
    Runner::new(RandomScheduler::new_from_seed(7, ORDERS), config).run(test);
}

#[test]
fn a_descriptor_is_not_taken_out_while_it_is_in_use() {
    in_orders(Scene::full, &[Scene::look, Scene::take]);
    in_orders(Scene::full, &[Scene::look, Scene::look, Scene::take]);
}

#[test]
fn of_two_descriptors_one_is_put_in_while_others_look() {
    in_orders(Scene::empty, &[Scene::put, Scene::put, Scene::look]);
}

#[test]
fn a_descriptor_is_taken_out_once_and_its_slot_used_again() {
    in_orders(Scene::full, &[Scene::take, Scene::replace]);
    in_orders(Scene::full, &[Scene::look, Scene::replace, Scene::take]);
}
