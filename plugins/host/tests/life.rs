//! Plugins that are killed, stopped and lied about while they are used: whoever waits gets EIO, others go on, and what was open is
//! open again afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test"
)]

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::process::{Pid, Signal, kill_process};
use vfsd_backend::{Backend, Errno, OpenFlags};
use vfsd_memory::{Memory, Settings};
use vfsd_passthrough::Passthrough;
use vfsd_plugin_host::{
    Broker, Confinement, Deadlines, Options, Plugin, Program, StartError, serve_broker,
};
use vfsd_testkit::place::{Outcome, Place};

/// The argument with which this program is a plugin: that serves the directory in the next one.
const AS_PLUGIN: &str = "--serve-directory";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_PLUGIN) {
        let directory = arguments.next().unwrap();
        let storage = Passthrough::open(directory, vfsd_passthrough::Options::default()).unwrap();
        vfsd_plugin::serve(storage).unwrap();
        return ExitCode::SUCCESS;
    }
    let trial = |(name, run): &(&'static str, fn())| {
        let run = *run;
        Trial::test(*name, move || {
            run();
            Ok(())
        })
    };
    let trials = TESTS.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The tests of this file.
const TESTS: &[(&str, fn())] = &[
    (
        "a_plugin_that_is_killed_under_load_comes_back_and_files_stay_open",
        a_plugin_that_is_killed_under_load_comes_back_and_files_stay_open,
    ),
    (
        "a_plugin_that_is_stopped_under_load_is_replaced",
        a_plugin_that_is_stopped_under_load_is_replaced,
    ),
    (
        "files_are_found_again_by_their_path_and_others_are_stale",
        files_are_found_again_by_their_path_and_others_are_stale,
    ),
    (
        "a_program_starts_with_its_socket_and_nothing_else",
        a_program_starts_with_its_socket_and_nothing_else,
    ),
    (
        "a_plugin_is_reached_through_a_broker_too",
        a_plugin_is_reached_through_a_broker_too,
    ),
    (
        "nothing_is_left_of_a_plugin_that_is_not_used_any_more",
        nothing_is_left_of_a_plugin_that_is_not_used_any_more,
    ),
    (
        "a_program_that_is_no_plugin_is_refused_with_a_reason",
        a_program_that_is_no_plugin_is_refused_with_a_reason,
    ),
    (
        "forgotten_files_are_forgotten_by_the_plugin_too",
        forgotten_files_are_forgotten_by_the_plugin_too,
    ),
];

/// A plugin that serves a directory.
fn program(directory: &Path) -> Program {
    let this = std::env::current_exe().unwrap();
    Program::new(
        this,
        [AS_PLUGIN.into(), directory.into()],
        Confinement::default(),
    )
}

struct Served {
    directory: tempfile::TempDir,
    plugin: Plugin,
}

impl Served {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let plugin = Plugin::new(program(directory.path()), options).unwrap();
        Self { directory, plugin }
    }

    fn root(&self) -> Place {
        Place(self.plugin.root())
    }

    /// The plugin's process: the one that has the directory as its argument.
    fn process(&self) -> Option<Pid> {
        let path = self.directory.path().to_str().unwrap().to_owned();
        let processes = std::fs::read_dir("/proc").unwrap();
        let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut found = numbers.filter(|pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0);
            words.any(|word| word == path.as_bytes())
        });
        found.next().and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) -> Pid {
        let mut process = None;
        patiently("a process", || {
            process = self.process();
            process.is_some()
        });
        let process = process.unwrap();
        kill_process(process, signal).unwrap();
        process
    }
}

fn short() -> Options {
    let short = Duration::from_millis(1500);
    Options {
        deadlines: Deadlines {
            greeting: Duration::from_secs(5),
            metadata: short,
            data: short,
            durability: short,
        },
        ..Options::default()
    }
}

fn patiently(what: &str, mut come: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !come() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a caller may see while a plugin goes and comes.
fn allowed<T>(outcome: &Outcome<T>) -> bool {
    matches!(outcome, Ok(_) | Err(Errno::IO))
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Works on the plugin with several threads, and on another storage, until `disturb` is over.
fn under_load(served: &Served, disturb: impl FnOnce()) {
    let root = served.root();
    let file = root.put("file", &vec![7; 100_000]).unwrap();
    let handle = file.open_both().unwrap();
    let over = AtomicBool::new(false);
    let (done, failed, other) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (root, handle, over, done, failed) = (&root, &handle, &over, &done, &failed);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let outcomes = [
                        root.lookup("file").map(drop),
                        handle.read(worker, 50_000).map(drop),
                        handle.write(worker, b"7").map(drop),
                        root.list().map(drop),
                        root.attributes().map(drop),
                    ];
                    for outcome in outcomes {
                        assert!(allowed(&outcome), "{outcome:?}");
                        let counter = if outcome.is_ok() { done } else { failed };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let memory = Memory::new(Settings::default()).unwrap();
            let root = Place(memory.root());
            while !over.load(Ordering::Acquire) {
                root.put("other", b"storage").unwrap();
                root.unlink("other").unwrap();
                other.fetch_add(1, Ordering::Release);
            }
        });
        let _over = Over(&over);
        patiently("work", || done.load(Ordering::Relaxed) > 100);
        disturb();
        let before = other.load(Ordering::Acquire);
        patiently("the other storage goes on", || {
            other.load(Ordering::Acquire) > before
        });
        let before = done.load(Ordering::Relaxed);
        patiently("the plugin is back", || {
            done.load(Ordering::Relaxed) > before + 200
        });
    });
    // What was open all the time is open still.
    assert_eq!(handle.read(99_000, 2000).unwrap(), vec![7; 1000]);
    assert_eq!(file.attributes().unwrap().size, 100_000);
}

fn a_plugin_that_is_killed_under_load_comes_back_and_files_stay_open() {
    let served = Served::new(short());
    under_load(&served, || {
        for _ in 0..3 {
            let killed = served.signal(Signal::KILL);
            patiently("another process", || {
                served.process().is_some_and(|new| new != killed)
            });
        }
    });
}

fn a_plugin_that_is_stopped_under_load_is_replaced() {
    let served = Served::new(short());
    under_load(&served, || {
        let stopped = served.signal(Signal::STOP);
        patiently("another process", || {
            served.process().is_some_and(|new| new != stopped)
        });
    });
}

fn files_are_found_again_by_their_path_and_others_are_stale() {
    let served = Served::new(Options::default());
    let root = served.root();
    let deep = root.mkdir("a").unwrap().mkdir("b").unwrap();
    let kept = deep.put("kept", b"content").unwrap();
    let moved = deep.put("moved", b"moved").unwrap();
    deep.rename("moved", &root, "new").unwrap();
    let gone = deep.put("gone", b"").unwrap();
    let replaced = deep.put("replaced", b"first").unwrap();
    let open = kept.open(OpenFlags::READ).unwrap();
    let listed = root.opendir().unwrap();
    let on_host = served.directory.path().join("a/b");
    std::fs::remove_file(on_host.join("gone")).unwrap();
    std::fs::write(on_host.join("second"), "second").unwrap();
    std::fs::rename(on_host.join("second"), on_host.join("replaced")).unwrap();
    let killed = served.signal(Signal::KILL);
    patiently("another process", || {
        served.process().is_some_and(|new| new != killed)
    });
    patiently("back", || root.attributes().is_ok());
    assert_eq!(kept.attributes().unwrap().size, 7);
    assert_eq!(open.content().unwrap(), b"content");
    assert_eq!(moved.content().unwrap(), b"moved");
    assert_eq!(gone.attributes(), Err(Errno::STALE));
    assert_eq!(replaced.attributes(), Err(Errno::STALE));
    assert_eq!(
        deep.lookup("replaced").unwrap().content().unwrap(),
        b"second"
    );
    let again = deep.lookup("kept").unwrap();
    assert_eq!(again.identity(), kept.identity(), "the same file as before");
    let names = vfsd_testkit::place::read_some(listed.as_ref(), 0, 100).unwrap();
    let names: BTreeSet<Vec<u8>> = names.into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&b"new"[..]) && names.contains(&b"a"[..]));
}

fn a_program_starts_with_its_socket_and_nothing_else() {
    let kept = std::fs::File::open("/proc/self/status").unwrap();
    let leaky = rustix::io::fcntl_dupfd_cloexec(&kept, 100).unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::CLOEXEC).unwrap();
    let served = Served::new(Options::default());
    let process = served.process().unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(u64::from_str_radix(&field("CapEff:"), 16), Ok(0));
    assert_eq!(u64::from_str_radix(&field("CapBnd:"), 16), Ok(0));
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert!(files.contains("1024"), "{files}");
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
    assert!(!environment.windows(6).any(|word| word == b"CARGO_"));
    for link in std::fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let Ok(target) = std::fs::read_link(link.unwrap().path()) else {
            continue;
        };
        assert!(!target.ends_with("status"), "{target:?} was inherited");
    }
}

fn a_plugin_is_reached_through_a_broker_too() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(directory.path().join("file"), "content").unwrap();
    let program = program(directory.path());
    let (inside, outside) = UnixStream::pair().unwrap();
    let broker = std::thread::spawn(move || serve_broker(program, &outside));
    let connector = Broker::new(inside, "the plugin").unwrap();
    let plugin = Plugin::new(connector, Options::default()).unwrap();
    let file = Place(plugin.root()).lookup("file").unwrap();
    assert_eq!(file.content().unwrap(), b"content");
    let served = Served { directory, plugin };
    let killed = served.signal(Signal::KILL);
    patiently("another process", || {
        served.process().is_some_and(|new| new != killed)
    });
    patiently("back", || file.content().is_ok());
    drop(served);
    broker.join().unwrap().unwrap();
}

fn nothing_is_left_of_a_plugin_that_is_not_used_any_more() {
    let served = Served::new(Options::default());
    let root = served.root();
    root.put("file", b"").unwrap();
    let process = served.process().unwrap();
    drop(served.plugin);
    assert_eq!(root.attributes(), Err(Errno::IO));
    let process = format!("/proc/{}", process.as_raw_nonzero());
    patiently("the process ends", || !Path::new(&process).exists());
}

fn a_program_that_is_no_plugin_is_refused_with_a_reason() {
    let start = |program: &str| {
        Plugin::new(
            Program::new(program, [], Confinement::default()),
            Options::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(start("/no/such/program"), StartError::Connect(_)));
    // Whether it ends before it is greeted or afterwards.
    assert!(matches!(start("true"), StartError::Left));
}

fn forgotten_files_are_forgotten_by_the_plugin_too() {
    let served = Served::new(Options::default());
    let root = served.root();
    for round in 0..20 {
        let names: Vec<String> = (0..40).map(|file| format!("{round}-{file}")).collect();
        let files: Vec<Place> = names
            .iter()
            .map(|name| root.put(name, b"x").unwrap())
            .collect();
        drop(files);
    }
    let process = served.process().unwrap().as_raw_nonzero();
    let count = || {
        std::fs::read_dir(format!("/proc/{process}/fd"))
            .unwrap()
            .count()
    };
    // 800 files would each hold a descriptor of the plugin.
    patiently("descriptors are given back", || count() < 300);
    let _: Arc<dyn vfsd_backend::Node> = served.plugin.root();
}
