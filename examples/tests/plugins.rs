//! The examples that are plugins, started and read as the daemon does it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use vfsd_backend::{Backend, Errno};
use vfsd_plugin_host::{Confinement, Options, Plugin, Program};
use vfsd_testkit::place::Place;

fn main() -> ExitCode {
    let python = works(
        "python3",
        &["-c", "import sys; sys.exit(sys.version_info < (3, 9))"],
    );
    let tar = python && works("tar", &["--version"]);
    let trials = vec![
        trial("facts_come_from_a_plugin_in_rust", true, "", facts),
        trial(
            "an_archive_is_read_through_a_plugin_in_python",
            tar,
            "Python 3.9 and tar",
            archive,
        ),
        trial(
            "the_plugins_in_python_pass_their_tests",
            python,
            "Python 3.9",
            own_tests,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, there: bool, needs: &str, run: fn()) -> Trial {
    let trial = Trial::test(name, move || {
        run();
        Ok(())
    });
    match there {
        true => trial,
        false => trial
            .with_kind(format!("needs {needs}"))
            .with_ignored_flag(true),
    }
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("plugins")
        .join(name)
}

fn start(program: &Path, arguments: &[OsString]) -> Plugin {
    let program = Program::new(program, arguments.iter().cloned(), Confinement::default());
    Plugin::new(program, Options::default()).unwrap()
}

fn facts() {
    let plugin = start(Path::new(env!("CARGO_BIN_EXE_facts_plugin")), &[]);
    let root = Place(plugin.root());
    assert_eq!(root.names().unwrap(), ["load", "memory", "uptime"]);
    let memory = root.lookup("memory").unwrap().content().unwrap();
    assert!(memory.starts_with(b"MemTotal:"));
    assert_eq!(root.lookup("no-fact").map(drop), Err(Errno::NOENT));
    assert!(root.mkdir("new").is_err());
}

fn archive() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let content: Vec<u8> = (0..3_000_000_u32)
        .flat_map(u32::to_ne_bytes)
        .take(3_000_000)
        .collect();
    std::fs::create_dir(directory.path().join("dir")).unwrap();
    std::fs::write(directory.path().join("dir/data"), &content).unwrap();
    let tar = directory.path().join("archive.tar");
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(directory.path())
        .arg("-cf")
        .arg(&tar)
        .arg("dir");
    assert!(command.status().unwrap().success());
    let plugin = start(&script("archive.py"), &[tar.into()]);
    let root = Place(plugin.root());
    assert_eq!(root.names().unwrap(), ["dir"]);
    let data = root.lookup("dir").unwrap().lookup("data").unwrap();
    assert_eq!(data.attributes().unwrap().size, 3_000_000);
    // From the archive itself, by a descriptor that the plugin has handed over.
    assert!(data.content().unwrap() == content);
    assert_eq!(root.mkdir("new").map(drop), Err(Errno::ROFS));
    assert_eq!(root.lookup("nothing").map(drop), Err(Errno::NOENT));
}

fn own_tests() {
    let output = Command::new("python3")
        .arg(script("test_examples.py"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
}
