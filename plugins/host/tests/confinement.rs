//! Plugins that tell what they can see and reach of the host.

// UNSAFETY: system calls that nobody makes otherwise.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::process::{Pid, Signal, kill_process};
use vfsd_backend::Backend;
use vfsd_memory::{Memory, Settings};
use vfsd_plugin_host::{Confinement, Options, Plugin, Program, enter_namespaces};
use vfsd_testkit::place::Place;

/// The argument with which this program is a plugin. It serves one file, which says what it sees.
const TELL: &str = "--tell";
/// The argument with which it is a plugin that does not end when the daemon has left. What follows tells it apart.
const STAY: &str = "--stay";
/// The argument with which it has such a plugin, until it is killed.
const HOLD: &str = "--hold";
/// The argument with which it is an ordinary user's daemon, and prints what its plugin says.
const ORDINARY: &str = "--ordinary";

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(TELL) => tell(),
        Some(STAY) => stay(),
        Some(HOLD) => hold(&words[1]),
        Some(ORDINARY) => ordinary(),
        _ => return test(),
    }
    ExitCode::SUCCESS
}

fn test() -> ExitCode {
    let root = rustix::process::geteuid().is_root();
    let trial = |(name, run): &(&'static str, fn())| {
        let run = *run;
        let trial = Trial::test(*name, move || {
            run();
            Ok(())
        });
        match root {
            true => trial,
            false => trial.with_kind("needs root").with_ignored_flag(true),
        }
    };
    let trials = TESTS.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The tests of this file.
const TESTS: &[(&str, fn())] = &[
    (
        "a_plugin_of_roots_daemon_sees_itself_and_nothing_else",
        a_plugin_of_roots_daemon_sees_itself_and_nothing_else,
    ),
    (
        "a_plugin_may_be_another_user_and_keep_the_network",
        a_plugin_may_be_another_user_and_keep_the_network,
    ),
    (
        "a_plugin_of_an_ordinary_user_sees_itself_and_nothing_else",
        a_plugin_of_an_ordinary_user_sees_itself_and_nothing_else,
    ),
    (
        "a_plugin_is_killed_with_the_process_that_has_started_it",
        a_plugin_is_killed_with_the_process_that_has_started_it,
    ),
];

/// A plugin with one file, `report`: a line for each thing that it sees.
fn tell() {
    let storage = Memory::new(Settings::default()).unwrap();
    Place(storage.root())
        .put("report", report().as_bytes())
        .unwrap();
    vfsd_plugin::serve(storage).unwrap();
}

fn report() -> String {
    let mut report = String::new();
    let mut line = |name: &str, value: &str| writeln!(report, "{name} {value}").unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for (name, value) in status.lines().filter_map(|line| line.split_once(':')) {
        let words: Vec<&str> = value.split_whitespace().collect();
        line(name, &words.join(" "));
    }
    // The listing's own descriptor is the last, and gone when it is asked about.
    let descriptors: Vec<String> = numbers("/proc/self/fd")
        .into_iter()
        .filter(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok())
        .map(|number| number.to_string())
        .collect();
    line("descriptors", &descriptors.join(" "));
    let processes = numbers("/proc").into_iter().map(|pid| pid.to_string());
    line("processes", &processes.collect::<Vec<_>>().join(" "));
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let interfaces = interfaces.lines().filter_map(|line| line.split_once(':'));
    let names: Vec<&str> = interfaces.map(|(name, _)| name.trim()).collect();
    line("interfaces", &names.join(" "));
    for kind in KINDS {
        line(kind, &namespace(kind));
    }
    let session = rustix::process::getsid(None).unwrap() == rustix::process::getpid();
    line("leads_session", &session.to_string());
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    for name in ["Max core file size", "Max open files", "Max processes"] {
        let limit = limits.lines().find_map(|line| line.strip_prefix(name));
        let words: Vec<&str> = limit.unwrap().split_whitespace().take(2).collect();
        line(&name.replace(' ', "_"), &words.join(" "));
    }
    for (name, call, arguments) in CALLS {
        line(name, &outcome(*call, *arguments).to_string());
    }
    let child = Command::new("true").status();
    line(
        "starts_others",
        &child.is_ok_and(|status| status.success()).to_string(),
    );
    report
}

/// Calls, with arguments with which they are something else than EPERM to whoever may make them.
const CALLS: &[(&str, libc::c_long, [libc::c_long; 3])] = &[
    ("bpf", libc::SYS_bpf, [-1, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [0, -3, 0]),
    ("mount", libc::SYS_mount, [1, 1, 1]),
    ("open_tree", libc::SYS_open_tree, [-1, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1]),
    ("ptrace", libc::SYS_ptrace, [0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0]),
    ("setns", libc::SYS_setns, [-1, 0, 0]),
    (
        "terminal",
        libc::SYS_ioctl,
        [0, libc::TIOCSTI as libc::c_long, 0],
    ),
    (
        "user_namespace",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as libc::c_long, 0, 0],
    ),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("ptrace_x32", 0x4000_0000 | libc::SYS_ptrace, [0, 0, 0]),
    ("cryptography", libc::SYS_socket, [AF_ALG, SEQPACKET, 0]),
    // These are refused in another way, or not always, or not at all.
    ("clone3", libc::SYS_clone3, [0, 0, 0]),
    ("guests", libc::SYS_socket, [AF_VSOCK, STREAM, 0]),
    ("network", libc::SYS_socket, [AF_INET, STREAM, 0]),
];

const AF_ALG: libc::c_long = libc::AF_ALG as libc::c_long;
const AF_INET: libc::c_long = libc::AF_INET as libc::c_long;
const AF_VSOCK: libc::c_long = libc::AF_VSOCK as libc::c_long;
const SEQPACKET: libc::c_long = libc::SOCK_SEQPACKET as libc::c_long;
const STREAM: libc::c_long = libc::SOCK_STREAM as libc::c_long;

/// The errno, or 0.
fn outcome(call: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> i32 {
    // SAFETY: the arguments are numbers, or pointers that lead nowhere.
    let answer = unsafe { libc::syscall(call, a, b, c, 0, 0, 0) };
    match answer {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

/// Namespaces, as /proc/self/ns names them.
const KINDS: [&str; 6] = ["pid", "mnt", "ipc", "uts", "net", "user"];

fn namespace(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// What a plugin has told.
struct Told(BTreeMap<String, String>);

impl Told {
    fn read(report: &str) -> Self {
        let lines = report.lines().map(|line| line.split_once(' ').unwrap());
        Self(
            lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// By a plugin that this process starts.
    fn by_plugin_of(confinement: Confinement) -> String {
        let program = Program::new(std::env::current_exe().unwrap(), [TELL.into()], confinement);
        let plugin = Plugin::new(program, Options::default()).unwrap();
        let report = Place(plugin.root()).lookup("report").unwrap();
        String::from_utf8(report.content().unwrap()).unwrap()
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap()
    }

    /// What holds for every plugin.
    fn is_confined(&self) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(self.get(set), 16), Ok(0), "{set}");
        }
        assert_eq!(self.get("NoNewPrivs"), "1");
        assert_eq!(self.get("descriptors"), "0 1 2");
        assert_eq!(self.get("processes"), "1", "it sees others");
        assert_eq!(self.get("leads_session"), "true");
        assert_eq!(self.get("Max_core_file_size"), "0 0");
        assert_eq!(self.get("Max_open_files"), "1024 1024");
        assert_eq!(self.get("Max_processes"), "4096 4096");
        for kind in ["pid", "mnt", "ipc", "uts"] {
            assert_ne!(self.get(kind), namespace(kind));
        }
        assert_eq!(self.get("Seccomp"), "2");
        let refused = libc::EPERM.to_string();
        for (name, ..) in CALLS.split_last_chunk::<3>().unwrap().0 {
            assert_eq!(self.get(name), refused, "{name}");
        }
        assert_eq!(self.get("clone3"), libc::ENOSYS.to_string());
        assert_eq!(self.get("network"), "0");
        assert_eq!(self.get("starts_others"), "true");
    }
}

/// A descriptor that a careless program has left open for its children, as long as this is there.
fn leak() -> std::os::fd::OwnedFd {
    let file = fs::File::open("/proc/self/status").unwrap();
    let leak = rustix::io::fcntl_dupfd_cloexec(&file, 100).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    leak
}

fn a_plugin_of_roots_daemon_sees_itself_and_nothing_else() {
    let _leak = leak();
    let told = Told::read(&Told::by_plugin_of(Confinement::default()));
    told.is_confined();
    assert_eq!(told.get("Uid"), "0 0 0 0");
    assert_eq!(told.get("interfaces"), "lo");
    assert_ne!(told.get("net"), namespace("net"));
    assert_eq!(told.get("guests"), libc::EPERM.to_string());
}

fn a_plugin_may_be_another_user_and_keep_the_network() {
    let _leak = leak();
    let readable = Readable::new();
    // Its first word is this program's, from where another user can reach it.
    let program = Program::new(
        &readable.program,
        [TELL.into()],
        Confinement {
            user: Some((NOBODY, NOBODY)),
            network: true,
            ..Confinement::default()
        },
    );
    let plugin = Plugin::new(program, Options::default()).unwrap();
    let report = Place(plugin.root()).lookup("report").unwrap();
    let told = Told::read(str::from_utf8(&report.content().unwrap()).unwrap());
    told.is_confined();
    let ids = [NOBODY; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(told.get("Uid"), ids);
    assert_eq!(told.get("Gid"), ids);
    assert_eq!(told.get("Groups"), "");
    assert_eq!(told.get("net"), namespace("net"));
    assert_ne!(told.get("guests"), libc::EPERM.to_string());
}

fn a_plugin_of_an_ordinary_user_sees_itself_and_nothing_else() {
    let _leak = leak();
    let readable = Readable::new();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&readable.program)
        .arg(ORDINARY)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told = Told::read(str::from_utf8(&output.stdout).unwrap());
    told.is_confined();
    assert_eq!(
        told.get("Uid"),
        [NOBODY; 4].map(|id| id.to_string()).join(" ")
    );
    assert_eq!(told.get("interfaces"), "lo");
    assert_ne!(told.get("user"), namespace("user"));
}

/// An ordinary user's daemon.
fn ordinary() {
    enter_namespaces().unwrap();
    let report = Told::by_plugin_of(Confinement::default());
    std::io::stdout().write_all(report.as_bytes()).unwrap();
}

/// This program where every user can run it.
struct Readable {
    _folder: tempfile::TempDir,
    program: std::path::PathBuf,
}

impl Readable {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).unwrap();
        let program = folder.path().join("program");
        // By another process: one that is forked meanwhile must not have the program open to write it.
        let mut copy = Command::new("cp");
        copy.arg(std::env::current_exe().unwrap()).arg(&program);
        assert!(copy.status().unwrap().success());
        Self {
            _folder: folder,
            program,
        }
    }
}

/// A plugin that takes no notice of the daemon's end.
fn stay() {
    let _ = vfsd_plugin::serve(Memory::new(Settings::default()).unwrap());
    std::thread::sleep(LIMIT);
}

/// Has a plugin until it is killed.
fn hold(mark: &str) {
    let program = Program::new(
        std::env::current_exe().unwrap(),
        [STAY.into(), mark.into()],
        Confinement::default(),
    );
    let _plugin = Plugin::new(program, Options::default()).unwrap();
    std::io::stdout().write_all(b"\n").unwrap();
    std::thread::sleep(LIMIT);
}

/// Killed at the end of the test, whatever becomes of it.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_plugin_is_killed_with_the_process_that_has_started_it() {
    let mark = format!("mark-{}", std::process::id());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([HOLD, &mark]).stdout(Stdio::piped());
    let mut holder = Holder(command.spawn().unwrap());
    let mut ready = [0];
    holder
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let plugin = staying(&mark).unwrap();
    drop(holder);
    let begin = Instant::now();
    while staying(&mark).is_some() {
        if begin.elapsed() > LIMIT / 2 {
            kill_process(plugin, Signal::KILL).unwrap();
            panic!("it outlives who has started it");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The plugin that has this mark.
fn staying(mark: &str) -> Option<Pid> {
    let wanted = [STAY.as_bytes(), mark.as_bytes()];
    let mut found = numbers("/proc").into_iter().filter(|pid| {
        let path = format!("/proc/{pid}/cmdline");
        let words = fs::read(Path::new(&path)).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).skip(1).take(2).collect();
        words == wanted
    });
    found.next().and_then(Pid::from_raw)
}
