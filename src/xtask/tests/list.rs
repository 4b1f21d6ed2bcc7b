//! `cargo xtask test --list`, as who only wants to see a part of it runs it.

use std::process::{Command, Stdio};

#[test]
fn who_reads_a_part_of_the_list_gets_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["test", "--list"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}
