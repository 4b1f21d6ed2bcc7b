//! The behaviour that every storage shows, one row for each: what POSIX asks and ext4 does.
//!
//! A backend runs the suite as a test of its own (with `harness = false`):
//!
//! ```no_run
//! # use std::{process::ExitCode, sync::Arc};
//! # use vfsd_testkit::conformance::{self, Features, Fixture};
//! # fn backend() -> Arc<dyn vfsd_backend::Backend> { unimplemented!() }
//! fn main() -> ExitCode {
//!     conformance::main(|| Fixture::new(backend(), Features::all()))
//! }
//! ```
//!
//! Each row is a test with a name, a fresh file system and arguments as `cargo test` has them. A row
//! that needs what the backend does not have is reported as ignored, with what it needs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a row fails by a panic"
)]

mod acl;
mod allocation;
mod attributes;
mod content;
mod creation;
mod inode_flags;
mod links;
mod listing;
mod locators;
mod locks;
mod names;
mod privileges;
mod removal;
mod rename;
mod tmpfile;
mod xattr;

use std::any::Any;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use vfsd_backend::{Backend, Capabilities, Errno};

use crate::place::{Outcome, Place};

bitflags::bitflags! {
    /// What a row needs of a backend, and of the machine that it runs on.
    ///
    /// The first seven follow from [`Capabilities`]; a fixture need not name them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Extended attributes.
        const XATTR = 1 << 0;
        /// POSIX ACLs.
        const ACL = 1 << 1;
        /// Labels given with a new file.
        const LABELS = 1 << 2;
        /// Byte-range locks.
        const POSIX_LOCKS = 1 << 3;
        /// Locks of whole open files.
        const FLOCK = 1 << 4;
        /// Set-id bits are cleared on request.
        const KILL_PRIVILEGES = 1 << 5;
        /// Nodes can be opened whenever they are alive.
        const REOPEN = 1 << 6;

        /// Owners can be set at will, and `trusted.*` attributes kept: the backend runs as root.
        const PRIVILEGED = 1 << 8;
        /// Device nodes can be made.
        const DEVICE_NODES = 1 << 9;
        /// FIFOs and sockets can be made.
        const SPECIAL_FILES = 1 << 10;
        /// A file can have several names.
        const HARD_LINKS = 1 << 11;
        /// Files without a name can be made.
        const TMPFILE = 1 << 12;
        /// Names can be exchanged.
        const EXCHANGE = 1 << 13;
        /// A rename can leave an overlay whiteout.
        const WHITEOUT = 1 << 14;
        /// Holes take no space and can be found.
        const HOLES = 1 << 15;
        /// Space can be allocated, punched out and made zero, in blocks of 4096 bytes.
        const ALLOCATION = 1 << 16;
        /// Ranges of blocks can be taken out and inserted.
        const SHIFT_RANGES = 1 << 17;
        /// Ranges can be copied inside the storage.
        const COPY_RANGE = 1 << 18;
        /// Files can be made immutable or append-only.
        const INODE_FLAGS = 1 << 19;
        /// Access times follow reads as the mount option `relatime` says.
        const RELATIME = 1 << 20;
        /// The time of creation is kept.
        const BIRTH_TIME = 1 << 21;
        /// The link count of a directory counts its subdirectories.
        const DIRECTORY_LINKS = 1 << 22;
        /// The limits of ext4 with blocks of 4096 bytes: files of up to 2^32 - 1 blocks.
        const EXT4_LIMITS = 1 << 23;
        /// Entries and changed attributes tell the time of creation too: the FUSE wire format has it in STATX alone.
        const BIRTH_TIME_IN_ENTRIES = 1 << 24;
        /// Files can be found again after a restart: follows from [`Fixture::reopening`].
        const LOCATORS = 1 << 25;
    }
}

impl Features {
    fn of(capabilities: Capabilities) -> Self {
        [
            (Capabilities::XATTR, Self::XATTR),
            (Capabilities::POSIX_ACL, Self::ACL),
            (Capabilities::SECURITY_CONTEXT, Self::LABELS),
            (Capabilities::POSIX_LOCKS, Self::POSIX_LOCKS),
            (Capabilities::FLOCK, Self::FLOCK),
            (Capabilities::KILL_PRIVILEGES, Self::KILL_PRIVILEGES),
            (Capabilities::REOPEN, Self::REOPEN),
        ]
        .into_iter()
        .filter(|(capability, _)| capabilities.contains(*capability))
        .fold(Self::empty(), |features, (_, feature)| features | feature)
    }
}

/// An empty, writable file system to run one row on.
pub struct Fixture {
    /// There but while it is opened anew.
    backend: Option<Arc<dyn Backend>>,
    features: Features,
    reopen: Option<Reopen>,
    held: Option<Box<dyn Any + Send>>,
}

/// Gives up a backend and opens its storage anew.
type Reopen = Box<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send>;

impl Fixture {
    /// A backend whose root is empty, with permissions 0755, and what it can do beside what its
    /// capabilities say.
    pub fn new(backend: Arc<dyn Backend>, features: Features) -> Self {
        let derived = Features::XATTR
            | Features::ACL
            | Features::LABELS
            | Features::POSIX_LOCKS
            | Features::FLOCK
            | Features::KILL_PRIVILEGES
            | Features::REOPEN
            | Features::LOCATORS;
        let features = (features - derived) | Features::of(backend.capabilities());
        Self {
            backend: Some(backend),
            features,
            reopen: None,
            held: None,
        }
    }

    /// A storage that outlives its backend, and whose files have locators.
    #[must_use]
    pub fn reopening(
        mut self,
        reopen: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + 'static,
    ) -> Self {
        self.features |= Features::LOCATORS;
        self.reopen = Some(Box::new(reopen));
        self
    }

    /// Opens the storage anew. Nobody uses its nodes any more.
    fn reopen(&mut self) {
        let reopen = self.reopen.as_ref().unwrap();
        let old = self.backend.take().unwrap();
        self.backend = Some(reopen(old));
    }

    /// Keeps `guard` until the row has ended, for instance a directory that is removed by its drop.
    #[must_use]
    pub fn holding(mut self, guard: impl Any + Send) -> Self {
        self.held = Some(Box::new(guard));
        self
    }

    /// What it can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        self.backend.as_ref().unwrap()
    }
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture")
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// One behaviour.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    needs: Features,
    run: Run,
}

/// What a row is run on.
#[derive(Debug, Clone, Copy)]
enum Run {
    Root(fn(&Place)),
    Fixture(fn(Fixture)),
}

/// A table of rows: names of functions, each with what it needs.
macro_rules! rows {
    ($($name:ident $(needs $first:ident $(+ $more:ident)*)?,)*) => {
        &[$($crate::conformance::Row {
            name: stringify!($name),
            needs: $crate::conformance::Features::empty()
                $(.union($crate::conformance::Features::$first)
                  $(.union($crate::conformance::Features::$more))*)?,
            run: $crate::conformance::Run::Root($name),
        }),*]
    };
}
use rows;

const GROUPS: [(&str, &[Row]); 16] = [
    ("acl", acl::ROWS),
    ("allocation", allocation::ROWS),
    ("attributes", attributes::ROWS),
    ("content", content::ROWS),
    ("creation", creation::ROWS),
    ("inode_flags", inode_flags::ROWS),
    ("links", links::ROWS),
    ("listing", listing::ROWS),
    ("locators", locators::ROWS),
    ("locks", locks::ROWS),
    ("names", names::ROWS),
    ("privileges", privileges::ROWS),
    ("removal", removal::ROWS),
    ("rename", rename::ROWS),
    ("tmpfile", tmpfile::ROWS),
    ("xattr", xattr::ROWS),
];

/// Runs the suite with the arguments of the process, each row on a file system of its own.
pub fn main(build: impl Fn() -> Fixture + Send + Sync + 'static) -> ExitCode {
    let arguments = Arguments::from_args();
    let build = Arc::new(build);
    let features = build().features();
    let trials = GROUPS
        .iter()
        .flat_map(|(group, rows)| rows.iter().map(move |row| (group, *row)))
        .map(|(group, row)| {
            let build = build.clone();
            let missing = row.needs - features;
            let trial = Trial::test(format!("{group}::{}", row.name), move || {
                let fixture = build();
                match row.run {
                    Run::Root(run) => run(&Place(fixture.backend().root())),
                    Run::Fixture(run) => run(fixture),
                }
                Ok(())
            });
            if missing.is_empty() {
                trial
            } else {
                trial
                    .with_kind(format!("needs {}", words(missing)))
                    .with_ignored_flag(true)
            }
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn words(features: Features) -> String {
    let names: Vec<_> = features.iter_names().map(|(name, _)| name).collect();
    names.join(" and ")
}

/// Fails the row unless the call was refused in this way.
#[track_caller]
fn refused<T>(outcome: Outcome<T>, errno: Errno) {
    assert_eq!(outcome.map(drop), Err(errno));
}

/// Lets clocks of a file system go on: ext4 tells times apart only every few milliseconds.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(12));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut seen = HashSet::new();
        for (group, rows) in GROUPS {
            for row in rows {
                assert!(seen.insert((group, row.name)), "{group}::{}", row.name);
            }
        }
        assert!(seen.len() >= 150, "{}", seen.len());
    }
}
