//! Layers to stack, in memory and in directories of the host.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use vfsd_backend::Backend;
use vfsd_memory::{Memory, Settings};
use vfsd_overlay::{Namespace, Options, Overlay, Upper};
use vfsd_passthrough::Passthrough;
use vfsd_testkit::block_on;
use vfsd_testkit::conformance::{Features, Fixture};
use vfsd_testkit::place::Place;

/// Where layers are stored.
pub(crate) struct Store {
    pub(crate) namespace: Namespace,
    /// The host's directory that the layers are in; otherwise they are in memory.
    host: Option<TempDir>,
}

/// Fills a layer.
pub(crate) type Fill<'a> = &'a dyn Fn(&Place, &Store);

impl Store {
    pub(crate) fn memory(namespace: Namespace) -> Self {
        Self {
            namespace,
            host: None,
        }
    }

    pub(crate) fn host(namespace: Namespace) -> Self {
        Self {
            namespace,
            host: Some(tempfile::tempdir_in("/var/tmp").expect("a directory")),
        }
    }

    /// The name of one of the overlay's attributes.
    pub(crate) fn own(&self, mark: &str) -> String {
        match self.namespace {
            Namespace::Trusted => format!("trusted.overlay.{mark}"),
            Namespace::User => format!("user.overlay.{mark}"),
        }
    }

    /// An empty tree.
    pub(crate) fn tree(&self, name: &str) -> Arc<dyn Backend> {
        match &self.host {
            None => memory(),
            Some(host) => {
                let path = host.path().join(name);
                std::fs::create_dir(&path).expect("a directory");
                passthrough(&path)
            }
        }
    }

    /// Read-only layers, the topmost first.
    pub(crate) fn lowers(&self, fill: &[Fill<'_>]) -> Vec<Arc<dyn Backend>> {
        let mut lowers = Vec::new();
        for (number, fill) in fill.iter().enumerate() {
            let tree = self.tree(&format!("lower-{number}"));
            fill(&Place(tree.root()), self);
            lowers.push(tree);
        }
        lowers
    }

    pub(crate) fn open(&self, fill: &[Fill<'_>]) -> Arc<Overlay> {
        let options = Options {
            namespace: self.namespace,
            ..Options::new(self.lowers(fill))
        };
        block_on(Overlay::open(options)).expect("an overlay")
    }

    /// The root of read-only layers over one another, the topmost first.
    pub(crate) fn overlay(&self, fill: &[Fill<'_>]) -> Place {
        Place(self.open(fill).root())
    }
}

pub(crate) fn memory() -> Arc<dyn Backend> {
    Arc::new(Memory::new(Settings::default()).expect("an empty file system"))
}

pub(crate) fn passthrough(path: &Path) -> Arc<dyn Backend> {
    let options = vfsd_passthrough::Options {
        posix_acl: true,
        security_labels: true,
        kill_privileges: true,
        preserve_noatime: true,
        ..Default::default()
    };
    Arc::new(Passthrough::open(path, options).expect("share the directory"))
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a test in memory and on the host, with either namespace that this process may write.
pub(crate) fn every_store(test: impl Fn(&Store)) {
    for namespace in [Namespace::Trusted, Namespace::User] {
        test(&Store::memory(namespace));
        if namespace == Namespace::User || is_root() {
            test(&Store::host(namespace));
        }
    }
}

/// A writable layer over others, and what keeps their directories.
pub(crate) struct Writable {
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) host: Option<TempDir>,
}

/// The upper of a tree that has the directories `upper` and `work`.
pub(crate) fn upper_of(tree: &Arc<dyn Backend>) -> Upper {
    let root = Place(tree.root());
    let directory = |name: &str| match root.lookup(name) {
        Ok(directory) => directory.0,
        Err(_) => root.mkdir(name).expect("a directory").0,
    };
    Upper {
        root: directory("upper"),
        work: directory("work"),
        backend: tree.clone(),
    }
}

impl Store {
    /// A writable layer, empty or as `upper` fills it, over read-only ones.
    pub(crate) fn writable(self, fill: &[Fill<'_>]) -> Writable {
        let lowers = self.lowers(fill);
        let tree = self.tree("writable");
        let options = self.options(lowers, &tree);
        let overlay = block_on(Overlay::open(options)).expect("an overlay");
        Writable {
            overlay,
            host: self.host,
        }
    }

    pub(crate) fn options(
        &self,
        lowers: Vec<Arc<dyn Backend>>,
        tree: &Arc<dyn Backend>,
    ) -> Options {
        Options {
            namespace: self.namespace,
            upper: Some(upper_of(tree)),
            ..Options::new(lowers)
        }
    }
}

/// As a fixture, with what the host's file system can do.
pub(crate) fn fixture(writable: Writable) -> Fixture {
    let features = match &writable.host {
        Some(host) => vfsd_testkit::host::features(host.path()),
        None => Features::all(),
    };
    Fixture::new(writable.overlay, features).holding(writable.host)
}

/// The namespace that this process may write on the host.
pub(crate) fn host_namespace() -> Namespace {
    match is_root() {
        true => Namespace::Trusted,
        false => Namespace::User,
    }
}
