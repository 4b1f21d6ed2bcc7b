//! The tests of the Python SDK, run by the Python that is there.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    let tests = folder.join("test_vfsd_plugin.py");
    let run = move || {
        let output = Command::new("python3").arg(&tests).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    };
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = Command::new("python3").args(["-c", new_enough]).output();
    let trial = Trial::test("the_python_sdk_passes_its_tests", run);
    let trial = match python.is_ok_and(|output| output.status.success()) {
        true => trial,
        false => trial.with_kind("needs Python 3.9").with_ignored_flag(true),
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}
