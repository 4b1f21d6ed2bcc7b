//! The stage every row plays on: a share with a tree outside it, the daemon under test with a
//! hostile and a well-behaved queue, and a second daemon with a guest of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vfsd_testkit::frontend::LIMIT;
use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::guest::Guest;

use crate::daemon::{Census, Daemon, Launch};
use crate::traffic::Traffic;
use crate::tree::fingerprint;

/// The ring rows misbehave on.
pub(crate) const HOSTILE: u16 = 1;
/// The ring of the well-behaved guest on the same device.
pub(crate) const NEIGHBOUR: u16 = 2;

/// Anonymous memory a daemon may keep over what it had at the start, in KiB: caches of the
/// allocator, one per thread.
pub(crate) const MEMORY_SLACK: u64 = 24 << 10;

/// Share, tree outside it and sockets, in one temporary directory.
#[derive(Debug)]
pub(crate) struct Ground {
    dir: TempDir,
    outside: u64,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        fs::create_dir(dir.path().join("sockets")).unwrap();
        fs::create_dir(dir.path().join("second")).unwrap();
        let share = dir.path().join("share");
        fs::create_dir_all(share.join("dir/inner")).unwrap();
        fs::write(share.join("file"), b"inside").unwrap();
        fs::write(share.join("dir/file"), b"inside a directory").unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), b"outside").unwrap();
        fs::write(outside.join("dir/file"), b"outside a directory").unwrap();
        std::os::unix::fs::symlink(&outside, share.join("link-out")).unwrap();
        std::os::unix::fs::symlink("../outside/file", share.join("link-up")).unwrap();
        let outside = fingerprint(&outside);
        Self { dir, outside }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.path().join("share")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.path().join("outside")
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.path().join("sockets")
    }

    pub(crate) fn start(&self, launch: &Launch) -> Daemon {
        Daemon::start(launch, &self.share(), &self.sockets(), "first")
    }

    pub(crate) fn assert_outside_unchanged(&self, row: &str) {
        let now = fingerprint(&self.outside());
        assert_eq!(
            now, self.outside,
            "{row}: the tree outside the share changed"
        );
    }
}

/// What a scene is like, beyond the usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    pub(crate) launch: Launch,
    pub(crate) device: Options,
    /// Put everything on tmpfs, for trees that a disk would take minutes to make.
    pub(crate) in_memory: bool,
}

impl Setting {
    pub(crate) fn launched_with(arguments: &[&str]) -> Self {
        Self {
            launch: Launch::with(arguments),
            ..Self::default()
        }
    }
}

/// The whole stage. INIT is done; [`Scene::guest`] is on [`HOSTILE`].
#[derive(Debug)]
pub(crate) struct Scene {
    // Fields are dropped in this order: guests before daemons before their directory.
    second: Traffic,
    neighbour: Option<Traffic>,
    /// The misbehaving guest.
    pub(crate) guest: Guest,
    pub(crate) device: Device,
    second_device: Device,
    pub(crate) daemon: Daemon,
    second_daemon: Daemon,
    pub(crate) ground: Ground,
    pid: u32,
    second_pid: u32,
    start: Census,
    options: Options,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::set(Setting::default())
    }

    /// A scene whose device has at least the rings [`HOSTILE`] and [`NEIGHBOUR`].
    pub(crate) fn set(setting: Setting) -> Self {
        let ground = if setting.in_memory {
            Ground::within(Path::new("/dev/shm"))
        } else {
            Ground::new()
        };
        let mut options = setting.device;
        options.request_queues = options.request_queues.max(2);
        let daemon = ground.start(&setting.launch);
        let second_daemon = Daemon::start(
            &Launch::default(),
            &ground.path().join("second"),
            &ground.sockets(),
            "second",
        );
        let device = Device::connect(daemon.socket(), &options).unwrap();
        let second_device = Device::connect(second_daemon.socket(), &Options::default()).unwrap();
        let mut bystander = guest_on(&second_device, 1);
        bystander.init().unwrap();
        let mut guest = guest_on(&device, HOSTILE);
        let (neighbour, start) = settle(
            &daemon,
            &mut guest,
            guest_on(&device, NEIGHBOUR),
            &setting.launch,
        );
        Self {
            second: Traffic::start("second", bystander),
            neighbour,
            guest,
            pid: daemon.pid(),
            second_pid: second_daemon.pid(),
            device,
            second_device,
            daemon,
            second_daemon,
            ground,
            start,
            options,
        }
    }

    /// A guest on a further ring of the device.
    pub(crate) fn guest_on(&self, ring: u16) -> Guest {
        let mut guest = guest_on(&self.device, ring);
        guest.agreed = self.guest.agreed;
        guest
    }

    /// Checks what holds after every row: both daemons live, everyone else is served, nothing
    /// outside the share changed, no memory piles up.
    pub(crate) fn check(&mut self, row: &str) {
        self.check_others(row);
        let (now, start) = (self.daemon.census().memory, self.start.memory);
        assert!(
            now <= start + MEMORY_SLACK,
            "{row}: {now} KiB, {start} at the start"
        );
    }

    /// What the daemon has open that it had not at the start.
    pub(crate) fn opened_since_start(&self) -> Vec<String> {
        self.daemon.census().new_since(&self.start)
    }

    /// Asserts that the daemon comes back to the descriptors it had at `start`, and to its memory
    /// within `slack` KiB.
    pub(crate) fn assert_returns_to(&self, start: &Census, slack: u64, row: &str) {
        assert_holds(&self.daemon, start, slack, row);
    }

    /// The same but for memory, for rows that make the daemon remember much.
    pub(crate) fn check_others(&mut self, row: &str) {
        self.daemon.assert_alive(self.pid, row);
        self.second_daemon.assert_alive(self.second_pid, row);
        if let Some(neighbour) = &self.neighbour {
            neighbour.assert_served(row);
        }
        self.second.assert_served(row);
        self.ground.assert_outside_unchanged(row);
    }

    /// The same, and that the hostile ring itself still works.
    pub(crate) fn check_served(&mut self, row: &str) {
        self.check(row);
        let attr = self.guest.getattr(1);
        assert!(
            attr.is_ok(),
            "{row}: the ring does not serve any more: {attr:?}"
        );
    }

    /// Stops the well-behaved guest of the same device, for rows that end the session.
    pub(crate) fn pause_neighbour(&mut self) -> Guest {
        self.neighbour
            .take()
            .expect("the neighbour was not paused before")
            .stop()
    }

    /// Lets it go on.
    pub(crate) fn resume_neighbour(&mut self, guest: Guest) {
        self.neighbour = Some(Traffic::start("neighbour", guest));
    }

    /// Sets the hostile ring up again after the device stopped serving it.
    pub(crate) fn revive_ring(&mut self, row: &str) {
        self.device
            .stop_ring(HOSTILE)
            .unwrap_or_else(|error| panic!("{row}: {error}"));
        self.guest.channel.reset().unwrap();
        self.device
            .start_ring(HOSTILE)
            .unwrap_or_else(|error| panic!("{row}: {error}"));
        self.check_served(row);
    }

    /// Leaves and comes back as a new front end; the daemon runs with `--reconnect`.
    pub(crate) fn reconnect(&mut self) {
        let neighbour = self.neighbour.take().map(Traffic::stop);
        drop(neighbour);
        self.device
            .connection
            .socket()
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        self.device = Device::connect(self.daemon.socket(), &self.options).unwrap();
        self.guest = guest_on(&self.device, HOSTILE);
        self.guest.init().unwrap();
        let mut neighbour = guest_on(&self.device, NEIGHBOUR);
        neighbour.agreed = self.guest.agreed;
        self.neighbour = Some(Traffic::start("neighbour", neighbour));
    }

    /// Ends the session and asserts that the daemon holds what it held at the start.
    pub(crate) fn finish(self) {
        self.finish_within(MEMORY_SLACK);
    }

    /// The same with another slack for memory, in KiB.
    pub(crate) fn finish_within(mut self, slack: u64) {
        self.check_others("at the end");
        if let Some(neighbour) = self.neighbour.take() {
            neighbour.stop();
        }
        self.guest.destroy().unwrap();
        assert_holds(&self.daemon, &self.start, slack, "at the end");
        self.second_device.synchronise().unwrap();
    }
}

/// Lets every part of the daemon run once, so that what it makes on first use is there, and takes
/// the census that later ones are held against.
fn settle(
    daemon: &Daemon,
    guest: &mut Guest,
    mut neighbour: Guest,
    launch: &Launch,
) -> (Option<Traffic>, Census) {
    neighbour.agreed = guest.init().unwrap().flags;
    let writable = !launch
        .arguments
        .iter()
        .any(|argument| argument == "--readonly");
    if writable {
        let traffic = Traffic::start("neighbour", neighbour);
        traffic.assert_served("before all rows");
        neighbour = traffic.stop();
        warm_up(guest);
    }
    guest.destroy().unwrap();
    let start = daemon.census();
    guest.init().unwrap();
    (
        writable.then(|| Traffic::start("neighbour", neighbour)),
        start,
    )
}

fn warm_up(guest: &mut Guest) {
    let entry = guest.put(1, "warm", &vec![1; 1 << 20]).unwrap();
    guest.get(entry.node, 1 << 20).unwrap();
    guest.list(1).unwrap();
    guest.unlink(1, "warm").unwrap();
    guest.forget(entry.node, 1).unwrap();
}

pub(crate) fn guest_on(device: &Device, ring: u16) -> Guest {
    Guest::new(Channel::new(
        device.ring(ring).unwrap(),
        u64::from(ring) << 40,
    ))
}

/// Waits until `daemon` holds no more descriptors and memory than at `start`. What closes them
/// may run after the reply, so it is given time; a leak stays.
pub(crate) fn assert_holds(daemon: &Daemon, start: &Census, slack: u64, row: &str) {
    let deadline = Instant::now() + LIMIT / 3;
    loop {
        let now = daemon.census();
        let fine = now.descriptor_count() <= start.descriptor_count()
            && now.memory <= start.memory + slack;
        if fine {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{row}: {} descriptors and {} KiB, at the start {} and {}; new: {:#?}",
            now.descriptor_count(),
            now.memory,
            start.descriptor_count(),
            start.memory,
            now.new_since(start),
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
