//! A daemon with a front end on it.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::memory::Extent;
use vfsd_testkit::frontend::pump::{Done, Form, Position, Pump, Work};
use vfsd_testkit::frontend::wire::ROOT;

use super::driver::Driver;
use super::folder::{BIG, BIG_BYTES, FILES, Folder, MANY, file, scratch};
use super::operation::Operation;
use super::processors::Division;
use super::work::Job;
use crate::bench::row::{Board, Level, Measure, Side};
use crate::bench::usage::Family;
use crate::daemon::{self, Daemon, Program, Storage};

/// The daemons' options, the same for both.
pub(crate) const OPTIONS: daemon::Options = daemon::Options {
    posix_acl: false,
    writeback: false,
    open_files: None,
    drop_in: true,
    further: &["--cache", "auto", "--xattr"],
};

/// The same in vfsd's own words, which have more storages.
pub(crate) const OWN_OPTIONS: daemon::Options = daemon::Options {
    drop_in: false,
    ..OPTIONS
};

/// Descriptors of a ring: enough for four requests of each of 64 slots.
const QUEUE_SIZE: u16 = 256;

/// Guest memory. Only what chains lie in is ever touched.
const MEMORY: Extent = Extent {
    start: 0x10_0000,
    size: 512 << 20,
};

const O_RDWR: u32 = 2;

/// How long a daemon may take to end when its front end has left.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The nodes and handles that the work needs.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Node of each file.
    pub(crate) files: Vec<u64>,
    /// Node of the file to read and write, and a handle of it.
    pub(crate) big: u64,
    /// See [`Scene::big`].
    pub(crate) handle: u64,
    /// Node of the large folder, and handles of it: one for each slot of each queue.
    pub(crate) many: u64,
    /// See [`Scene::many`].
    pub(crate) listings: Vec<u64>,
    /// Nodes of the scratch folders, one for each queue.
    pub(crate) scratch: Vec<u64>,
}

impl Scene {
    fn prepare(guest: &mut Guest, operation: Operation, queues: usize) -> Result<Self, Error> {
        let mut scene = Self {
            files: Vec::new(),
            big: guest.lookup(ROOT, BIG)?.node,
            handle: 0,
            many: guest.lookup(ROOT, MANY)?.node,
            listings: Vec::new(),
            scratch: Vec::new(),
        };
        for index in 0..FILES {
            scene.files.push(guest.lookup(ROOT, &file(index))?.node);
        }
        for queue in 0..queues {
            scene
                .scratch
                .push(guest.lookup(ROOT, &scratch(queue))?.node);
        }
        scene.handle = guest.open(scene.big, O_RDWR)?.fh;
        if operation == Operation::Readdirplus {
            for _ in 0..queues * Operation::MOST_SLOTS {
                scene.listings.push(guest.opendir(scene.many)?.fh);
            }
        }
        Ok(scene)
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    /// The operation to prepare for.
    pub(crate) operation: Operation,
    /// Request queues.
    pub(crate) queues: u16,
    /// Whether the machine is divided between this session's driver and its daemon, as it can be
    /// when nothing else is measured at the same time.
    pub(crate) alone: bool,
}

/// What a daemon serves, and how.
#[derive(Debug)]
pub(crate) struct Offered<'a> {
    pub(crate) program: &'a Program,
    pub(crate) options: &'a daemon::Options,
    pub(crate) storage: Storage,
    /// There is nothing in it yet: the front end fills it.
    pub(crate) is_empty: bool,
}

/// A running daemon, connected and ready.
#[derive(Debug)]
pub(crate) struct Session {
    // The front end leaves before the daemon is asked to end.
    device: Device,
    positions: Vec<Position>,
    scene: Scene,
    family: Family,
    division: Option<Division>,
    driver: Driver,
    daemon: Daemon,
}

/// What a sample came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Operations a second, of all queues together.
    pub(crate) rate: f64,
    /// Processor time of the daemon for one request, in microseconds.
    pub(crate) cpu: f64,
}

impl Sample {
    /// Adds the sample to the rows of its two figures.
    pub(crate) fn record(
        self,
        board: &mut Board,
        (level, name, setting): (Level, &str, &str),
        side: Side,
    ) {
        for (measure, figure) in [
            (Measure::OperationsPerSecond, self.rate),
            (Measure::CpuMicrosecondsPerRequest, self.cpu),
        ] {
            board.row(level, name, setting, measure).push(side, figure);
        }
    }
}

impl Session {
    /// Starts `program` on `folder`. Its socket and log lie in `place`.
    ///
    /// # Errors
    /// The daemon does not start, or refuses what has to be prepared.
    pub(crate) fn start(
        program: &Program,
        folder: &Folder,
        place: &Path,
        purpose: Purpose,
    ) -> Result<Self> {
        let offered = Offered {
            program,
            options: &OPTIONS,
            storage: Storage::folder(folder.path()),
            is_empty: false,
        };
        Self::start_on(&offered, place, purpose)
    }

    /// Starts a daemon on what it is to serve. Its socket and log lie in `place`.
    ///
    /// # Errors
    /// The daemon does not start, or refuses what has to be prepared.
    pub(crate) fn start_on(offered: &Offered<'_>, place: &Path, purpose: Purpose) -> Result<Self> {
        let socket = place.join("socket");
        let log = place.join("daemon.log");
        std::fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
        let daemon = Daemon::serve(
            offered.program,
            offered.options,
            &offered.storage,
            &socket,
            &log,
        )?;
        let connected = connect(&socket, purpose, offered.is_empty);
        let (device, scene, first) = connected
            .map_err(|error| anyhow!("{error}\nthe end of the daemon's log:\n{}", daemon.log()))?;
        let mut positions = vec![Position::default(); purpose.queues.into()];
        positions[0] = first;
        let family = Family::of(daemon.pid())?;
        // More drivers than one leave no processor to the daemon alone.
        let division = if purpose.alone && purpose.queues == 1 {
            Division::of_one_driver()?
        } else {
            None
        };
        let mut session = Self {
            device,
            positions,
            scene,
            family,
            division,
            driver: Driver::Looks,
            daemon,
        };
        session.take_driver(Driver::Looks)?;
        Ok(session)
    }

    /// Chooses the driver of lanes that are made from now on, and of samples. False if this session
    /// has no processors to divide, and its driver is therefore one that [looks](Driver::Looks).
    ///
    /// # Errors
    /// What sched_setaffinity(2) gives.
    pub(crate) fn take_driver(&mut self, driver: Driver) -> Result<bool> {
        let Some(division) = &self.division else {
            return Ok(driver == Driver::Looks);
        };
        self.family
            .each_thread(|thread, _| division.place_daemon(thread, driver))?;
        self.driver = driver;
        Ok(true)
    }

    /// Gets ready for samples of `operation` at `depth`, which the session is prepared for.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there is no room for the chains.
    pub(crate) fn lanes(&self, operation: Operation, depth: usize) -> Result<Lanes<Job>> {
        self.lanes_of(operation.requests(), depth, |queue| {
            let job = Job::new(operation, &self.scene, queue, depth);
            (job.forms(), job)
        })
    }

    /// Gets ready for samples of any work, `requests` of which make an operation.
    ///
    /// # Errors
    /// As [`Session::lanes`].
    pub(crate) fn lanes_of<W: Work>(
        &self,
        requests: u32,
        depth: usize,
        mut work: impl FnMut(usize) -> (Vec<Form>, W),
    ) -> Result<Lanes<W>> {
        let waits = self.driver.waits(self.division.is_some());
        let mut lanes = Vec::new();
        for (queue, position) in self.positions.iter().enumerate() {
            let (forms, work) = work(queue);
            let index = u16::try_from(queue + 1).context("too many queues")?;
            let mut pump = Pump::new(&self.device, index, *position, &forms, depth)?;
            pump.waits = waits;
            lanes.push((pump, work));
        }
        Ok(Lanes { lanes, requests })
    }

    /// What the daemon takes from the machine.
    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// The nodes and handles it was prepared with.
    pub(crate) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Keeps every lane busy for `time`. Lanes that were made before a sample with others do not
    /// know where the rings are.
    ///
    /// # Errors
    /// The daemon answers wrongly or not at all.
    pub(crate) fn sample<W: Work + Send>(
        &mut self,
        lanes: &mut Lanes<W>,
        time: Duration,
    ) -> Result<Sample> {
        let driving = match &self.division {
            Some(division) => Some(division.drive(self.driver)?),
            None => None,
        };
        let before = self.family.processor_time()?;
        let (done, elapsed) = lanes
            .run(time)
            .with_context(|| format!("the end of the daemon's log:\n{}", self.daemon.log()))?;
        let cpu = self.family.processor_time()?.saturating_sub(before);
        drop(driving);
        for (position, (pump, _)) in self.positions.iter_mut().zip(&lanes.lanes) {
            *position = pump.position();
        }
        let operations = done.iter().map(|done| done.operations).sum::<u64>();
        ensure!(operations > 0, "no operation was completed in {time:?}");
        let requests = operations as f64 * f64::from(lanes.requests);
        Ok(Sample {
            rate: operations as f64 / elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / requests,
        })
    }

    /// Lets the front end leave, and waits until the daemon has ended.
    ///
    /// # Errors
    /// It does not end by itself, or not well.
    pub(crate) fn end(self) -> Result<()> {
        let Self {
            device, mut daemon, ..
        } = self;
        drop(device);
        let status = daemon.ended(END_LIMIT)?;
        ensure!(
            status.success(),
            "the daemon ended with {status}\n{}",
            daemon.log()
        );
        Ok(())
    }
}

fn connect(
    socket: &Path,
    purpose: Purpose,
    is_empty: bool,
) -> Result<(Device, Scene, Position), Error> {
    let Purpose {
        operation, queues, ..
    } = purpose;
    let options = Options {
        request_queues: queues,
        queue_size: QUEUE_SIZE,
        regions: vec![MEMORY],
        ..Options::default()
    };
    let device = Device::connect(socket, &options)?;
    let mut guest = Guest::new(Channel::new(device.ring(1)?, 0));
    let answer = guest.init()?;
    let wanted = match operation {
        Operation::Read(bytes) | Operation::Write(bytes) => bytes,
        _ => 0,
    };
    if answer.max_write < wanted {
        return Err(Error::Protocol(format!(
            "takes no more than {} bytes in a request",
            answer.max_write
        )));
    }
    if is_empty {
        fill(&mut guest, queues.into())?;
    }
    let scene = Scene::prepare(&mut guest, operation, queues.into())?;
    let position = Position::of(&guest.channel.ring)?;
    Ok((device, scene, position))
}

/// Makes what [`Folder`] has, as far as one file after the other needs it.
fn fill(guest: &mut Guest, queues: usize) -> Result<(), Error> {
    for index in 0..FILES {
        guest.put(ROOT, &file(index), b"content\n")?;
    }
    guest.mkdir(ROOT, MANY, 0o755)?;
    for queue in 0..queues {
        guest.mkdir(ROOT, &scratch(queue), 0o755)?;
    }
    let (big, opened) = guest.create(ROOT, BIG, 0o100_644, O_RDWR)?;
    let block = vec![0x33; 64 << 10];
    let mut offset = 0;
    while offset < BIG_BYTES {
        guest.write(big.node, opened.fh, offset, &block)?;
        offset += block.len() as u64;
    }
    guest.release(big.node, opened.fh)
}

/// A pump and its work for each queue.
#[derive(Debug)]
pub(crate) struct Lanes<W> {
    lanes: Vec<(Pump, W)>,
    /// Requests of an operation.
    requests: u32,
}

impl<W: Work + Send> Lanes<W> {
    /// One thread for each queue; what each has done, and how long it took all of them.
    fn run(&mut self, time: Duration) -> Result<(Vec<Done>, Duration), Error> {
        if let [(pump, work)] = &mut self.lanes[..] {
            let done = pump.run(work, time)?;
            return Ok((vec![done], done.elapsed));
        }
        let together = Barrier::new(self.lanes.len());
        let started = Instant::now();
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .lanes
                .iter_mut()
                .map(|(pump, work)| {
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        pump.run(work, time)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok((done, started.elapsed()))
    }
}
