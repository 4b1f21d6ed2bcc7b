//! What the control socket tells of what is kept on this host of a bucket, and of a volume in one, and that this stays within
//! its size.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::wire::opcode;
use vfsd_testkit::servers::{RunningStore, request};

use crate::figures::figure;
use crate::opening::{make_volume, store};
use crate::process::{Daemon, Place, ask, text, vfsd, wait_until};

const FILES: u8 = 64;
const FILE: usize = 1 << 20;
const LIMIT: u64 = 16 << 20;
/// A sixteenth is when the cache is looked through again, and what is being read comes on top.
const MOST: u64 = LIMIT + LIMIT / 16 + (2 << 20);
/// Bytes of a request.
const PART: usize = 64 << 10;

/// A daemon that keeps so much, and the guest that it serves.
struct Served {
    place: Place,
    source: &'static str,
    control: PathBuf,
    daemon: Daemon,
    guest: Guest,
    _device: Device,
}

impl Served {
    fn new(place: Place, store: &RunningStore, source: &'static str) -> Self {
        let (socket, control) = (place.socket(), place.path("control"));
        let (cache, state) = (place.path("cache"), place.path("state"));
        let mut words = vec!["serve", "--socket-path", text(&socket), "--control"];
        words.extend([text(&control), "--cache-size", "16M"]);
        match source.starts_with("volume:") {
            true => words.extend(["--state-dir", text(&state)]),
            false => words.extend(["--cache-dir", text(&cache)]),
        }
        words.push(source);
        let mut command = vfsd(words);
        let daemon = Daemon::listening(command.envs(store.environment()), &socket);
        let device = Device::connect(&socket, &Options::default()).unwrap();
        let mut guest = Guest::new(Channel::new(device.ring(1).unwrap(), 1 << 40));
        guest.init().unwrap();
        Self {
            place,
            source,
            control,
            daemon,
            guest,
            _device: device,
        }
    }

    fn figures<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let metrics = ask(&self.control, "metrics");
        names.map(|name| figure(&metrics, self.source, name))
    }

    /// Reads all files. `open` is how: a guest that opens nothing has them all open.
    fn read_all(&mut self, open: impl Fn(&mut Guest, u64) -> u64) {
        for number in 0..FILES {
            let node = self.guest.lookup(1, &name(number)).unwrap().node;
            let handle = open(&mut self.guest, node);
            for offset in (0..FILE).step_by(PART) {
                let size = u32::try_from(PART).unwrap();
                let read = self.guest.read(node, handle, offset as u64, size).unwrap();
                assert!(read == [number + 1; PART], "{number} at {offset}");
            }
        }
    }
}

fn name(number: u8) -> String {
    format!("file{number}")
}

/// Bytes that files below a path take on the disk.
fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let of = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => taken(&entry.path()),
        _ => entry.metadata().map_or(0, |found| found.blocks() * 512),
    };
    entries.flatten().map(of).sum()
}

#[test]
fn a_bucket_keeps_no_more_than_it_may_and_tells_what_it_was_good_for() {
    let Some(store) = store() else { return };
    for number in 0..FILES {
        let (path, body) = (format!("/data/{}", name(number)), vec![number + 1; FILE]);
        let made = request(store.address(), "PUT", &path, &[], &body).unwrap();
        assert_eq!(made.status, 200);
    }
    let mut served = Served::new(Place::new(), &store, "s3://data");
    let names = [
        "vfsd_store_cache_blocks_total{outcome=\"hit\"}",
        "vfsd_store_cache_blocks_total{outcome=\"miss\"}",
        "vfsd_store_cache_written_bytes_total",
        "vfsd_store_cache_evicted_bytes_total",
        "vfsd_store_cache_limit_bytes",
    ];
    assert_eq!(served.figures(names), [0, 0, 0, 0, LIMIT]);
    served.read_all(|guest, node| guest.open(node, 0).unwrap().fh);
    let cache = served.place.path("cache/objects");
    wait_until("a cache within its size", || taken(&cache) <= MOST);
    let [_, misses, written, evicted, _] = served.figures(names);
    assert!(misses > 0 && written >= LIMIT, "{misses} {written}");
    assert!(evicted > 0 && evicted <= written, "{evicted} of {written}");
    let [kept] = served.figures(["vfsd_store_cache_bytes"]);
    assert!(0 < kept && kept <= MOST, "{kept}");
    let sent = served.figures(["vfsd_store_bytes_total{direction=\"read\"}"]);
    assert!(sent[0] >= u64::from(FILES) * FILE as u64, "{sent:?}");
    served.daemon.stop(Signal::TERM);
}

#[test]
fn a_volume_keeps_no_more_than_it_may_of_files_that_the_guest_knows() {
    let Some(store) = store() else { return };
    let source = "volume:s3://data/volume";
    make_volume(&store, source);
    let mut served = Served::new(Place::new(), &store, source);
    // Nobody else has the volume, and so the guest opens nothing.
    for number in 0..FILES {
        let guest = &mut served.guest;
        let node = guest.mknod(1, &name(number), 0o100_644, 0).unwrap().node;
        for offset in (0..FILE).step_by(PART) {
            let written = guest.write(node, 0, offset as u64, &[number + 1; PART]);
            assert_eq!(written.unwrap() as usize, PART);
        }
    }
    served.guest.call(opcode::SYNCFS, 1, vec![0; 8]).unwrap();
    let state = served.place.path("state");
    let data = std::fs::read_dir(state.join("volumes")).unwrap();
    let data = data.map(|volume| volume.unwrap().path().join("data"));
    let data = data.last().unwrap();
    wait_until("content that was written to make room", || {
        taken(&data) <= MOST
    });
    served.read_all(|_, _| 0);
    wait_until("content that was read to make room", || {
        taken(&data) <= MOST
    });
    let names = [
        "vfsd_volume_cache_reads_total{outcome=\"hit\"}",
        "vfsd_volume_cache_reads_total{outcome=\"miss\"}",
        "vfsd_volume_fetched_bytes_total",
        "vfsd_volume_evicted_bytes_total",
        "vfsd_volume_lag_bytes",
    ];
    let [hits, misses, fetched, evicted, lag] = served.figures(names);
    let all = u64::from(FILES) * FILE as u64;
    assert!(hits > 0 && misses > 0, "{hits} {misses}");
    assert!(fetched >= all - MOST, "{fetched}");
    // What was written, and what was read.
    assert!(evicted >= 2 * (all - MOST), "{evicted}");
    assert_eq!(lag, 0);
    served.daemon.stop(Signal::TERM);
}
