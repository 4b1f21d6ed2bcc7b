//! A writable layer over read-only ones: what it keeps, what it leaves, and what is there after a restart.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod copies;
mod moves;
mod opening;
mod removals;
#[path = "../stack/mod.rs"]
mod stack;

use std::sync::Arc;

use vfsd_backend::{Backend, Device, Errno, FileKind};
use vfsd_overlay::{Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place};

use stack::{Fill, Store};

fn refused<T>(outcome: Outcome<T>, errno: Errno) {
    assert_eq!(outcome.map(drop), Err(errno));
}

/// Layers that can be served again and again.
struct Stack<'a> {
    store: &'a Store,
    lowers: Vec<Arc<dyn Backend>>,
    tree: Arc<dyn Backend>,
}

impl<'a> Stack<'a> {
    fn new(store: &'a Store, fill: Fill<'_>) -> Self {
        Self {
            store,
            lowers: store.lowers(&[fill]),
            tree: store.tree("writable"),
        }
    }

    fn options(&self) -> Options {
        self.store.options(self.lowers.clone(), &self.tree)
    }

    /// Serves the layers while `work` is done.
    fn run<T>(&self, work: impl FnOnce(Place) -> T) -> T {
        let overlay = block_on(Overlay::open(self.options())).expect("an overlay");
        work(Place(overlay.root()))
    }

    /// The upper as it is.
    fn upper(&self) -> Place {
        Place(self.tree.root()).lookup("upper").unwrap()
    }

    /// The copies of files with several names, in the kernel's index and our own.
    fn indexed(&self) -> Vec<String> {
        let work = Place(self.tree.root()).lookup("work").unwrap();
        let directories = ["index", "vfsd-index"].map(|name| work.lookup(name));
        let names = directories
            .into_iter()
            .flatten()
            .map(|it| it.names().unwrap());
        names.flatten().collect()
    }

    fn lower(&self) -> Place {
        Place(self.lowers.first().unwrap().root())
    }
}

fn is_whiteout(directory: &Place, name: &str) -> bool {
    directory
        .lookup(name)
        .and_then(|place| place.attributes())
        .is_ok_and(|attributes| {
            attributes.kind == FileKind::CharDevice && attributes.device == Device::default()
        })
}
