//! Lines in the log say which volume they are about, whichever thread writes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vfsd_backend::Backend;
use vfsd_object_store::store::{FaultStore, Faults};
use vfsd_testkit::place::wait;
use vfsd_volume::{Volume, VolumeOptions};

use crate::bench::{Hosts, impatient_store, root};
use crate::care::open_at;

const NAMED: &str = "named/in-the-log";
const LIMIT: Duration = Duration::from_secs(60);

/// What all tests of this program log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn has_line(&self, with: [&str; 2]) -> bool {
        let log = String::from_utf8_lossy(&self.0.lock()).into_owned();
        log.lines()
            .any(|line| with.iter().all(|words| line.contains(words)))
    }
}

#[test]
fn lines_of_a_volumes_threads_name_it() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing_subscriber::registry().with(lines).init();
    let faults = FaultStore::new(Arc::new(InMemory::new()), Faults::default());
    let faults = Arc::new(faults);
    let bucket = impatient_store(faults.clone());
    let options = VolumeOptions::default();
    let made = Volume::create_remote(&bucket, NAMED, &options);
    vfsd_testkit::block_on(made).unwrap();
    let mut hosts = Hosts::new();
    let volume = open_at(&bucket, NAMED, &hosts.fresh());
    faults.outage(true);
    root(&volume).put("file", b"content").unwrap();
    wait(volume.root().syncfs()).unwrap_err();
    faults.outage(false);
    let begun = Instant::now();
    while !log.has_line(["trying again", NAMED]) {
        assert!(begun.elapsed() < LIMIT, "no line names it");
        std::thread::sleep(Duration::from_millis(10));
    }
}
