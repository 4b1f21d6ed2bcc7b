//! A folder with a million files, and a guest that knows them all.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{StatxFlags, statx};
use vfsd_testkit::frontend::pump::{Answer, Form, Request, Work};
use vfsd_testkit::frontend::wire::{ENTRY_SIZE, opcode};
use vfsd_testkit::frontend::{Error, Result as DeviceResult};

use super::{DAEMONS, DEPTH, record};
use crate::bench::Plan;
use crate::bench::native::bare;
use crate::bench::native::folder::{Folder, MANY};
use crate::bench::native::operation::Operation;
use crate::bench::native::session::{Purpose, Session};
use crate::bench::native::work::Job;
use crate::bench::progress::Progress;
use crate::bench::row::{Board, Level, Measure, Side};

pub(super) const NAMES: [&str; 6] = [
    "LOOKUP of a million files",
    "READDIRPLUS entry of a million",
    "memory of a known node",
    "descriptors",
    "LOOKUP hit, known nodes",
    "GETATTR, known nodes",
];

const LOOKUP: &str = NAMES[0];
const READDIRPLUS: &str = NAMES[1];
const MEMORY: &str = NAMES[2];
const DESCRIPTORS: &str = NAMES[3];

/// Operations on known nodes, and their rows.
const KNOWN: [(Operation, &str); 2] = [
    (Operation::LookupHit, NAMES[4]),
    (Operation::Getattr, NAMES[5]),
];

/// Looking up, listing, and the operations on few and on many known nodes, of each daemon; looking
/// up and listing without.
pub(super) const SAMPLES: u64 = (DAEMONS.len() * (2 + 2 * KNOWN.len()) + 2) as u64;

/// Files in the folder, beside the entries that every such folder has.
const FILES: u32 = 1_000_000;

const FEW: &str = "1,000 nodes";
const ALL: &str = "1,000,000 nodes";
const COLD: &str = "depth 8, each once";
const ONCE: &str = "depth 1, once";

/// How long a daemon works before a sample of known nodes.
const WARM_UP: Duration = Duration::from_millis(50);

/// Longer than anything here takes: the work ends by itself.
const TO_THE_END: Duration = Duration::from_secs(3600);

/// Measures every row of [`NAMES`].
pub(super) fn run(
    plan: &Plan,
    folder: &Folder,
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    progress.note("making a million files");
    let many = folder.path().join(MANY);
    for index in 0..FILES {
        let path = many.join(name_of(index));
        File::create(&path).with_context(|| format!("make {}", path.display()))?;
    }
    let mut run = Run {
        plan,
        folder,
        board,
        progress,
    };
    for _ in 0..plan.pairs {
        for side in DAEMONS {
            run.lookups(side).with_context(|| side.name())?;
            run.listing(side).with_context(|| side.name())?;
        }
        run.without_daemon(&many)?;
    }
    Ok(())
}

struct Run<'a> {
    plan: &'a Plan,
    folder: &'a Folder,
    board: &'a mut Board,
    progress: &'a mut Progress,
}

impl Run<'_> {
    fn start(&self, side: Side, operation: Operation) -> Result<(Session, tempfile::TempDir)> {
        let program = self.plan.program(side).context("no program")?;
        let place = tempfile::tempdir().context("make a folder for sockets")?;
        let purpose = Purpose {
            operation,
            queues: 1,
            alone: true,
        };
        let session = Session::start(&program, self.folder, place.path(), purpose)?;
        Ok((session, place))
    }

    /// Looks every file up once; before and after that, how fast known nodes are, and what memory
    /// and descriptors the daemon has.
    fn lookups(&mut self, side: Side) -> Result<()> {
        let (mut session, _place) = self.start(side, Operation::Getattr)?;
        self.known(&mut session, side, FEW)?;
        self.progress.note(&format!("{LOOKUP}, {}", side.name()));
        let before = session.family().resident()?;
        let parent = session.scene().many;
        let mut lanes = session.lanes_of(1, DEPTH, |_| Walk::new(parent))?;
        let sample = session.sample(&mut lanes, TO_THE_END)?;
        drop(lanes);
        sample.record(self.board, (Level::Scale, LOOKUP, COLD), side);
        let grown = session.family().resident()?.saturating_sub(before) as f64;
        let node = grown / f64::from(FILES);
        record(self.board, (MEMORY, ALL), Measure::Bytes, side, node);
        let descriptors = session.family().descriptors()? as f64;
        let row = (DESCRIPTORS, ALL);
        record(self.board, row, Measure::Count, side, descriptors);
        self.progress.advance();
        self.known(&mut session, side, ALL)?;
        session.end()
    }

    /// A thousand known nodes, again and again.
    fn known(&mut self, session: &mut Session, side: Side, setting: &str) -> Result<()> {
        for (operation, name) in KNOWN {
            self.progress
                .note(&format!("{name}, {setting}, {}", side.name()));
            let mut lanes = session.lanes(operation, DEPTH)?;
            session.sample(&mut lanes, WARM_UP)?;
            let sample = session.sample(&mut lanes, self.plan.sample)?;
            sample.record(self.board, (Level::Scale, name, setting), side);
            self.progress.advance();
        }
        Ok(())
    }

    /// Lists the folder once.
    fn listing(&mut self, side: Side) -> Result<()> {
        self.progress
            .note(&format!("{READDIRPLUS}, {}", side.name()));
        let (mut session, _place) = self.start(side, Operation::Readdirplus)?;
        let scene = session.scene();
        let mut lanes = session.lanes_of(1, 1, |queue| {
            let job = Job::new(Operation::Readdirplus, scene, queue, 1);
            (job.forms(), Once { job, over: false })
        })?;
        let sample = session.sample(&mut lanes, TO_THE_END)?;
        drop(lanes);
        sample.record(self.board, (Level::Scale, READDIRPLUS, ONCE), side);
        self.progress.advance();
        session.end()
    }

    /// The same system calls.
    fn without_daemon(&mut self, many: &Path) -> Result<()> {
        self.progress.note(Side::Bare.name());
        let folder = File::open(many).context("open the large folder")?;
        let names: Vec<String> = (0..FILES).map(name_of).collect();
        let mut batches = names.chunks(1000);
        let sample = bare::timed(1, |_| {
            let Some(batch) = batches.next() else {
                return Ok(None);
            };
            for name in batch {
                statx(&folder, name, bare::BY_NAME, StatxFlags::BASIC_STATS)?;
            }
            Ok(Some(batch.len() as u64))
        })?;
        let row = (Level::Scale, LOOKUP, COLD);
        sample.record(self.board, row, Side::Bare);
        self.progress.advance();
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut listed = false;
        let sample = bare::timed(1, |_| {
            if std::mem::replace(&mut listed, true) {
                return Ok(None);
            }
            bare::list(folder.as_fd(), &mut buffer).map(Some)
        })?;
        let row = (Level::Scale, READDIRPLUS, ONCE);
        sample.record(self.board, row, Side::Bare);
        self.progress.advance();
        Ok(())
    }
}

fn name_of(index: u32) -> String {
    format!("m-{index:07}")
}

/// Looks every file up once.
#[derive(Debug)]
struct Walk {
    parent: u64,
    next: u32,
    name: Vec<u8>,
}

impl Walk {
    fn new(parent: u64) -> (Vec<Form>, Self) {
        let mut name = name_of(0).into_bytes();
        name.push(0);
        let form = Form::new(opcode::LOOKUP, name.len() as u32, ENTRY_SIZE as u32);
        let walk = Self {
            parent,
            next: 0,
            name,
        };
        (vec![form], walk)
    }
}

impl Work for Walk {
    fn request(&mut self, _slot: usize) -> Option<Request<'_>> {
        if self.next == FILES {
            return None;
        }
        let mut left = self.next;
        self.next += 1;
        // The digits, without what formatting costs.
        for digit in self.name.iter_mut().skip(2).take(7).rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        Some(Request {
            form: 0,
            node: self.parent,
            arguments: &self.name,
        })
    }

    fn answer(&mut self, _slot: usize, answer: &Answer<'_>) -> DeviceResult<u64> {
        answer.success()?;
        match answer.u64(0)? {
            0 => Err(Error::Protocol("a file that is there was not found".into())),
            _ => Ok(1),
        }
    }
}

/// A listing that ends after the last entry.
#[derive(Debug)]
struct Once {
    job: Job,
    over: bool,
}

impl Work for Once {
    fn request(&mut self, slot: usize) -> Option<Request<'_>> {
        if self.over {
            return None;
        }
        self.job.request(slot)
    }

    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> DeviceResult<u64> {
        let entries = self.job.answer(slot, answer)?;
        self.over = answer.is_empty();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_asks_for_every_name_in_turn() {
        let (forms, mut walk) = Walk::new(7);
        for index in [0, 1, 2, 3] {
            let request = walk.request(0).unwrap();
            assert_eq!(request.arguments.len(), forms[0].arguments as usize);
            assert_eq!(
                request.arguments,
                format!("{}\0", name_of(index)).as_bytes()
            );
        }
        walk.next = 765_432;
        assert_eq!(walk.request(0).unwrap().arguments, b"m-0765432\0");
        walk.next = FILES;
        assert!(walk.request(0).is_none());
    }
}
