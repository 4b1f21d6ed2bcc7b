//! What a request costs that goes to another process, beside the same storage in this one: a directory of the host,
//! one caller, microseconds for each: the mean of the fastest batch, which other work on the host disturbs least, and the median
//! of all batches. `cargo bench -p vfsd-plugin-host`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::path::Path;
use std::time::Instant;

use vfsd_backend::{Backend, OpenFlags};
use vfsd_passthrough::{Options, Passthrough};
use vfsd_plugin_host::{Confinement, Plugin, Program};
use vfsd_testkit::place::Place;

const AS_PLUGIN: &str = "--serve-directory";
const BATCHES: usize = 200;
const BATCH: u32 = 100;

fn storage(directory: &Path) -> Passthrough {
    Passthrough::open(directory, Options::default()).unwrap()
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_PLUGIN) {
        let directory = arguments.next().unwrap();
        vfsd_plugin::serve(storage(directory.as_ref())).unwrap();
        return;
    }
    // Where files are the kernel's own, so that they are handed over.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(directory.path().join("file"), vec![7; 1 << 20]).unwrap();
    let this = std::env::current_exe().unwrap();
    let program = Program::new(
        this,
        [AS_PLUGIN.into(), directory.path().into()],
        Confinement::default(),
    );
    let plugin = Plugin::new(program, vfsd_plugin_host::Options::default()).unwrap();
    let (inside, outside) = (storage(directory.path()), plugin);
    println!("{:<16} {:>18} {:>18}", "", "in process", "plugin");
    let inside = measure(&Place(inside.root()));
    let outside = measure(&Place(outside.root()));
    for ((name, inside), (_, outside)) in inside.into_iter().zip(outside) {
        let [a, b] = inside;
        let [c, d] = outside;
        println!("{name:<16} {a:>9.1} {b:>8.1} {c:>9.1} {d:>8.1}");
    }
}

fn measure(root: &Place) -> Vec<(&'static str, [f64; 2])> {
    let file = root.lookup("file").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    let read = |length: usize| {
        handle.read(0, length).unwrap();
    };
    vec![
        ("LOOKUP", time(&|| drop(root.lookup("file").unwrap()))),
        (
            "GETATTR",
            time(&|| {
                file.attributes().unwrap();
            }),
        ),
        ("READ 4 KiB", time(&|| read(4 << 10))),
        ("READ 128 KiB", time(&|| read(128 << 10))),
        ("READ 1 MiB", time(&|| read(1 << 20))),
    ]
}

/// The fastest batch, and the one in the middle.
fn time(work: &dyn Fn()) -> [f64; 2] {
    let batch = |_| {
        let begin = Instant::now();
        (0..BATCH).for_each(|_| work());
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH)
    };
    let mut batches: Vec<f64> = (0..BATCHES).map(batch).collect();
    batches.sort_by(f64::total_cmp);
    [batches[0], batches[BATCHES / 2]]
}
