//! What the control socket tells of storages.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use vfsd_testkit::frontend::channel::Channel;
use vfsd_testkit::frontend::device::{Device, Options};
use vfsd_testkit::frontend::guest::Guest;

use crate::images::{LOGIN, layout, private_registry};
use crate::process::{Daemon, Place, ask, text, vfsd};

/// The figure of a storage that is called `name`, with its labels but for the storage.
pub(crate) fn figure(metrics: &str, storage: &str, name: &str) -> u64 {
    let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
    let labels = match labels {
        "}" => "}".to_owned(),
        labels => format!(",{labels}"),
    };
    let beginning = format!("{name}{{storage={storage:?}{labels} ");
    let lines = metrics.lines();
    let found: Vec<&str> = lines.filter_map(|it| it.strip_prefix(&beginning)).collect();
    assert_eq!(found.len(), 1, "{beginning}: {metrics}");
    found[0].parse().unwrap()
}

/// A daemon that serves an image of a private registry.
struct Served {
    place: Place,
    image: String,
    control: PathBuf,
    daemon: Daemon,
}

/// Where a layout has the blob of an image's only layer.
fn blob(blobs: &Path) -> PathBuf {
    let files = std::fs::read_dir(blobs).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

impl Served {
    fn new() -> Self {
        let place = Place::new();
        let folder = place.path("layout");
        layout(&folder, &"content ".repeat(1000));
        let address = private_registry(&folder);
        let auth = place.path("auth.json");
        let logins = serde_json::json!({"auths": {&address: {"auth": LOGIN}}});
        std::fs::write(&auth, logins.to_string()).unwrap();
        let image = format!("docker://{address}/a/b:t");
        let (socket, control) = (place.socket(), place.path("control"));
        let cache = place.path("cache");
        let words = [
            "serve",
            "--socket-path",
            text(&socket),
            "--control",
            text(&control),
            "--cache-dir",
            text(&cache),
            "--registry-auth-file",
            text(&auth),
            "--no-background-fill",
            &image,
        ];
        let daemon = Daemon::listening(&mut vfsd(words), &socket);
        Self {
            image,
            control,
            daemon,
            place,
        }
    }

    fn figures<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let metrics = ask(&self.control, "metrics");
        names.map(|name| figure(&metrics, &self.image, name))
    }

    fn blobs(&self, of: &str) -> PathBuf {
        self.place.path(of).join("blobs/sha256")
    }
}

const REQUESTS: [&str; 4] = [
    "vfsd_image_requests_total{kind=\"manifest\"}",
    "vfsd_image_requests_total{kind=\"blob\"}",
    "vfsd_image_request_bytes_total{kind=\"manifest\"}",
    "vfsd_image_request_bytes_total{kind=\"blob\"}",
];

const READS: [&str; 4] = [
    "vfsd_image_reads_total{outcome=\"cached\"}",
    "vfsd_image_reads_total{outcome=\"fetched\"}",
    "vfsd_image_fills_total",
    "vfsd_image_verification_failures_total",
];

#[test]
fn the_control_socket_tells_what_an_image_costs_and_how_much_of_it_is_here() {
    let mut served = Served::new();
    let device = Device::connect(&served.place.socket(), &Options::default()).unwrap();
    let channel = Channel::new(device.ring(1).unwrap(), 1 << 40);
    let mut guest = Guest::new(channel);
    guest.init().unwrap();
    let layout = served.blobs("layout");
    let sizes = std::fs::read_dir(&layout).unwrap();
    let all: u64 = sizes
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let layer = blob(&layout).metadata().unwrap().len();
    // Before the sandbox the manifest, refused and given, and the configuration; in it the layer, refused and given.
    let requests = served.figures(REQUESTS);
    assert_eq!(requests[..2], [2, 3]);
    assert_eq!(requests[2] + requests[3], all);
    assert_eq!(served.figures(READS), [0, 0, 0, 0]);
    let fill = [
        "vfsd_image_bytes",
        "vfsd_image_local_bytes",
        "vfsd_image_cached_bytes",
    ];
    // The tar is not compressed.
    assert_eq!(served.figures(fill), [layer, layer, 0]);

    let file = guest.lookup(1, "file").unwrap();
    // The guest opens nothing: an image never changes.
    let mut read = || {
        let bytes = guest.read(file.node, 0, 0, 8000).unwrap();
        assert!(bytes == "content ".repeat(1000).as_bytes());
    };
    read();
    assert_eq!(served.figures(READS), [0, 1, 1, 0]);
    read();
    assert_eq!(served.figures(READS), [1, 1, 1, 0]);
    assert_eq!(served.figures(REQUESTS), requests);
    let [all, here, cached] = served.figures(fill);
    assert!(all == here && 0 < cached, "{all} {here} {cached}");
    let nothing = ["retries", "failures"].map(|what| {
        let name = format!("vfsd_image_request_{what}_total{{kind=\"blob\"}}");
        served.figures([&name])[0]
    });
    assert_eq!(nothing, [0, 0]);
    served.daemon.stop(Signal::TERM);
}

#[test]
fn a_wrong_span_is_a_verification_failure_on_the_control_socket() {
    let mut served = Served::new();
    let device = Device::connect(&served.place.socket(), &Options::default()).unwrap();
    let channel = Channel::new(device.ring(1).unwrap(), 1 << 40);
    let mut guest = Guest::new(channel);
    guest.init().unwrap();
    let requests = served.figures(REQUESTS);
    let kept = blob(&served.blobs("cache"));
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let file = guest.lookup(1, "file").unwrap();
    let bytes = guest.read(file.node, 0, 0, 8).unwrap();
    assert_eq!(bytes, b"content ");
    // What the cache has is wrong, and the registry is asked for it.
    assert_eq!(served.figures(READS), [0, 1, 1, 1]);
    let after = served.figures(REQUESTS);
    assert!(after[1] > requests[1] && after[3] > requests[3]);
    served.daemon.stop(Signal::TERM);
}
