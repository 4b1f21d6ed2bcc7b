//! The user namespace of a daemon that was not started as root.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::child::{self, Child};
use super::id_range::IdRange;
use crate::exit::Failure;

/// A process outside the user namespace that is about to be entered: only from there can it be
/// said which ids exist inside.
#[derive(Debug)]
pub(super) struct MapWriter {
    helper: Child,
    entered: std::io::PipeWriter,
}

impl MapWriter {
    /// Readies it. Without ranges, the caller's own user and group are all that exist inside.
    ///
    /// # Errors
    /// When the helper cannot be started.
    pub(super) fn start(uids: &[IdRange], gids: &[IdRange]) -> Result<Self, Failure> {
        let failed = |error| Failure::run(format!("cannot prepare the user namespace: {error}"));
        let (mut entering, entered) = std::io::pipe().map_err(failed)?;
        let process = std::process::id();
        let uids = Map::new("uid", uids, rustix::process::geteuid().as_raw());
        let gids = Map::new("gid", gids, rustix::process::getegid().as_raw());
        let parents_end = entered.try_clone().map_err(failed)?;
        let helper = child::spawn(move || {
            drop(entered);
            let mut byte = [0];
            match entering.read_exact(&mut byte) {
                Ok(()) => write_maps(process, &uids, &gids),
                // The namespace was not entered after all, which its owner tells.
                Err(_) => Ok(()),
            }
        })
        .map_err(failed)?;
        Ok(Self {
            helper,
            entered: parents_end,
        })
    }

    /// Writes the maps of the namespace, which this process has entered.
    ///
    /// # Errors
    /// When they are not permitted; the helper has said why.
    pub(super) fn write(mut self) -> Result<(), Failure> {
        let failed = |error| Failure::run(format!("cannot map ids into the sandbox: {error}"));
        self.entered.write_all(&[1]).map_err(failed)?;
        if self.helper.succeeded().map_err(failed)? {
            Ok(())
        } else {
            Err(Failure::run(
                "cannot map ids into the sandbox: check --uid-map and --gid-map against \
                 /etc/subuid and /etc/subgid",
            ))
        }
    }
}

/// The ids of one kind that exist inside.
#[derive(Debug)]
struct Map {
    kind: &'static str,
    ranges: Vec<IdRange>,
    /// The operator has chosen them, so that more than the caller's privileges may be needed.
    chosen: bool,
}

impl Map {
    fn new(kind: &'static str, chosen: &[IdRange], own: u32) -> Self {
        let ranges = if chosen.is_empty() {
            vec![IdRange::unchanged(own)]
        } else {
            chosen.to_vec()
        };
        Self {
            kind,
            ranges,
            chosen: !chosen.is_empty(),
        }
    }

    fn write(&self, process: u32) -> Result<(), Failure> {
        if self.chosen {
            self.write_with_program(process)
        } else {
            self.write_file(process)
        }
    }

    fn write_file(&self, process: u32) -> Result<(), Failure> {
        let path = format!("/proc/{process}/{}_map", self.kind);
        let lines: String = self
            .ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
            .collect();
        std::fs::write(&path, lines)
            .map_err(|error| Failure::run(format!("cannot write {path}: {error}")))
    }

    /// newuidmap(1) and newgidmap(1) are set-uid, and permit what /etc/subuid and /etc/subgid do.
    fn write_with_program(&self, process: u32) -> Result<(), Failure> {
        let program = format!("new{}map", self.kind);
        let numbers = self
            .ranges
            .iter()
            .flat_map(|range| [range.inside, range.outside, range.count])
            .map(|number| number.to_string());
        let status = Command::new(&program)
            .arg(process.to_string())
            .args(numbers)
            .stdin(Stdio::null())
            .status()
            .map_err(|error| {
                Failure::run(format!(
                    "cannot run {program}: {error}; install the package uidmap"
                ))
            })?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::run(format!("{program} refused the map")))
        }
    }
}

fn write_maps(process: u32, uids: &Map, gids: &Map) -> Result<(), Failure> {
    uids.write(process)?;
    if !gids.chosen {
        // Without privileges a group map is permitted only once groups can no longer be dropped
        // (user_namespaces(7)).
        let path = format!("/proc/{process}/setgroups");
        std::fs::write(&path, "deny")
            .map_err(|error| Failure::run(format!("cannot write {path}: {error}")))?;
    }
    gids.write(process)
}
