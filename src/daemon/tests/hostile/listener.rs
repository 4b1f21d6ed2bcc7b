//! A daemon that serves one front end after the other.

use vfsd_testkit::frontend::connection::Connection;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::{Error, Result};

use crate::daemon::{Census, Daemon, Launch};
use crate::scene::{Ground, MEMORY_SLACK, assert_holds, guest_on};

/// A daemon with `--reconnect` and, between rows, no front end.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) daemon: Daemon,
    ground: Ground,
    pid: u32,
    idle: Census,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let ground = Ground::new();
        let daemon = ground.start(&Launch::with(&["--reconnect"]));
        serve(&daemon);
        serve(&daemon);
        // Whatever the daemon closes after the second front end left is closed by the third.
        serve(&daemon);
        let idle = daemon.census();
        Self {
            pid: daemon.pid(),
            daemon,
            ground,
            idle,
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.daemon.socket()).unwrap()
    }

    pub(crate) fn device(&self) -> Device {
        Device::connect(self.daemon.socket(), &Options::default()).unwrap()
    }

    /// Asserts that the daemon lives, serves the next front end, and kept nothing of the last.
    pub(crate) fn check(&mut self, row: &str) {
        self.daemon.assert_alive(self.pid, row);
        serve(&self.daemon);
        assert_holds(&self.daemon, &self.idle, MEMORY_SLACK, row);
        self.ground.assert_outside_unchanged(row);
    }
}

/// Plays a well-behaved front end that comes, asks and leaves.
fn serve(daemon: &Daemon) {
    let device = Device::connect(daemon.socket(), &Options::default()).unwrap();
    let mut guest = guest_on(&device, 1);
    guest.init().unwrap();
    let file = guest.lookup(1, "file").unwrap().node;
    assert_eq!(guest.get(file, 64).unwrap(), b"inside");
}

/// What a refusal looks like: an acknowledgement that is not zero, or a closed connection.
pub(crate) fn assert_refused(row: &str, outcome: Result<()>) {
    let refused = matches!(outcome, Err(Error::Refused { .. } | Error::Closed));
    assert!(refused, "{row}: {outcome:?}");
}
