//! Checks of the source: formatting, lints, documentation, and cargo's tests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, run, tail};
use crate::progress::Step;
use crate::verdict::{Tally, Verdict};
use crate::workspace::Workspace;

/// How long one check may take, a first compilation included.
const LIMIT: Duration = Duration::from_secs(2400);

/// A check by one cargo command.
#[derive(Debug)]
pub(crate) struct Check {
    /// What holds when it passes, as a sentence.
    pub(crate) name: &'static str,
    arguments: &'static [&'static str],
    /// An environment variable that turns warnings into errors.
    environment: Option<(&'static str, &'static str)>,
    /// The rustup component it needs.
    component: Option<&'static str>,
}

/// Every check, the quick ones first.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "cargo fmt finds nothing to change",
        arguments: &["fmt", "--all", "--check"],
        environment: None,
        component: Some("rustfmt"),
    },
    Check {
        name: "cargo clippy has no warning",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        environment: None,
        component: Some("clippy"),
    },
    Check {
        name: "cargo doc has no warning",
        arguments: &["doc", "--workspace", "--no-deps"],
        environment: Some(("RUSTDOCFLAGS", "-D warnings")),
        component: None,
    },
];

/// The name of the step that runs cargo's tests.
pub(crate) const CARGO_TEST: &str = "cargo test, every crate";

impl Check {
    /// Runs the check.
    ///
    /// # Errors
    /// cargo cannot be started.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        if let Some(missing) = self
            .component
            .and_then(|component| provide(component).err())
        {
            return Ok(Verdict::Skipped(format!("{missing:#}")));
        }
        let mut step = Step::begin(self.name);
        let mut command = cargo(workspace);
        command.args(self.arguments);
        if let Some((key, value)) = self.environment {
            command.env(key, value);
        }
        let finished = run(&command, LIMIT, &mut |line| step.note(line))?;
        if finished.status.success() {
            return Ok(Verdict::Passed(String::new()));
        }
        Ok(Verdict::Failed(tail(&finished.output, 60)))
    }
}

/// What cargo's tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CargoTests {
    /// Single tests, as the test programs counted them.
    pub(crate) tally: Tally,
    /// The names of those that failed; a crate that does not compile counts as one.
    pub(crate) failed: Vec<String>,
    /// The names of those that were ignored, with their reasons.
    pub(crate) skipped: Vec<String>,
    /// The end of the output, when something failed.
    pub(crate) detail: String,
}

/// Runs the unit, integration and documentation tests of every crate. `environment` tells them
/// where programs are that they compare with.
///
/// # Errors
/// cargo cannot be started, or the tests take too long.
pub(crate) fn cargo_test(
    workspace: &Workspace,
    environment: Vec<(String, String)>,
) -> Result<CargoTests> {
    let mut step = Step::begin(CARGO_TEST);
    let mut command = cargo(workspace);
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .envs(environment);
    let finished = run(&command, LIMIT, &mut |line| step.note(line))?;
    step.done();
    let mut tests = CargoTests::read(&finished.output);
    if !finished.status.success() {
        tests.detail = failures(&finished.output);
        if tests.tally.failed == 0 {
            tests.tally.failed = 1;
            tests
                .failed
                .push(format!("cargo test itself ({})", finished.status));
        }
    }
    Ok(tests)
}

impl CargoTests {
    fn read(output: &str) -> Self {
        let mut tests = Self::default();
        for line in output.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                tests.tally += read_counts(counts);
            } else if let Some(rest) = line.strip_prefix("test ") {
                let Some((name, result)) = rest.rsplit_once(" ... ") else {
                    continue;
                };
                if result == "FAILED" {
                    tests.failed.push(name.to_owned());
                } else if let Some(reason) = result.strip_prefix("ignored") {
                    let reason = reason.trim_start_matches(", ");
                    let reason = if reason.is_empty() {
                        "marked as ignored"
                    } else {
                        reason
                    };
                    tests.skipped.push(format!("{name}: {reason}"));
                }
            }
        }
        tests
    }
}

/// Reads `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`.
fn read_counts(counts: &str) -> Tally {
    let count = |word: &str| {
        counts
            .split([';', '.'])
            .filter_map(|part| part.trim().split_once(' '))
            .find(|(_, what)| *what == word)
            .and_then(|(number, _)| number.parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: count("passed"),
        failed: count("failed"),
        skipped: count("ignored"),
    }
}

/// The parts of cargo's output that tell what failed.
fn failures(output: &str) -> String {
    let mut kept = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        if line == "failures:" || line.starts_with("error") {
            inside = true;
        } else if line.starts_with("test result:") || line.starts_with("     Running ") {
            inside = false;
        }
        if inside {
            kept.push(line);
        }
    }
    tail(&kept.join("\n"), 200)
}

/// Makes a rustup component available.
fn provide(component: &str) -> Result<()> {
    let program = if component == "clippy" {
        "cargo-clippy"
    } else {
        "cargo-fmt"
    };
    // rustup's own stand-in exists even where the component does not.
    let works = Command::new(program).arg("--version").output();
    if works.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    if !process::installed("rustup") {
        anyhow::bail!("{component} is not installed, and there is no rustup to install it");
    }
    let mut command = Command::new("rustup");
    command.args(["component", "add", component]);
    process::run_ok(&command, Duration::from_secs(300), &mut |_| {})
        .with_context(|| format!("{component} is not installed, and rustup cannot install it"))?;
    Ok(())
}

fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(workspace.root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a::holds ... ok
test a::fails ... FAILED
test a::later ... ignored, needs a tape drive
test src/lib.rs - x (line 3) ... ignored

failures:

---- a::fails stdout ----
assertion failed

failures:
    a::fails

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running tests/other.rs
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.50s
";

    #[test]
    fn cargo_tests_are_counted_from_their_own_summaries() {
        let tests = CargoTests::read(OUTPUT);
        assert_eq!(
            tests.tally,
            Tally {
                passed: 5,
                failed: 1,
                skipped: 2
            }
        );
        assert_eq!(tests.failed, ["a::fails"]);
        assert_eq!(
            tests.skipped,
            [
                "a::later: needs a tape drive",
                "src/lib.rs - x (line 3): marked as ignored"
            ]
        );
    }

    #[test]
    fn the_detail_of_a_failure_is_its_own_output() {
        let detail = failures(OUTPUT);
        assert!(detail.contains("assertion failed"), "{detail}");
        assert!(!detail.contains("running 3 tests"), "{detail}");
    }
}
