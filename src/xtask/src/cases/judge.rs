//! From a script's exit status and output to a verdict.

use crate::guest::run::Outcome;
use crate::process::tail;
use crate::verdict::Verdict;

/// The exit status of a script that could not be tried.
const SKIPPED: i32 = 77;

/// What pjdfstest must at least pass: virtiofsd 1.14's result.
const PJDFSTEST_PASSED: usize = 382;

/// How many test cases pjdfstest 0.2.2 has.
const PJDFSTEST_TOTAL: usize = 398;

/// The ordinary judge: the exit status decides.
pub(crate) fn by_status(outcome: &Outcome) -> Verdict {
    let output = outcome.output.trim();
    match outcome.status {
        Some(0) => Verdict::Passed(String::new()),
        Some(SKIPPED) => {
            let reason = output.lines().last().unwrap_or_default();
            Verdict::Skipped(reason.trim_start_matches("SKIP: ").to_owned())
        }
        Some(124 | 137) => Verdict::Failed(format!("time limit\n{}", tail(output, 30))),
        Some(status) => Verdict::Failed(format!("exit status {status}\n{}", tail(output, 30))),
        None => Verdict::Failed(format!("the guest stopped meanwhile\n{}", tail(output, 30))),
    }
}

/// pjdfstest: its summary decides, its skips are told with their reasons.
pub(crate) fn pjdfstest(outcome: &Outcome) -> Verdict {
    let Some(summary) = PjdfstestSummary::find(&outcome.output) else {
        return match by_status(outcome) {
            Verdict::Passed(_) => Verdict::Failed("pjdfstest printed no summary".into()),
            other => other,
        };
    };
    let PjdfstestSummary {
        passed,
        failed,
        skipped,
        total,
    } = summary;
    let counts = format!("{passed} passed, {failed} failed, {skipped} skipped of {total}");
    if failed > 0 || outcome.status != Some(0) {
        let failures = with_detail(&outcome.output, "FAILED");
        return Verdict::Failed(format!("{counts}\n{failures}"));
    }
    if passed < PJDFSTEST_PASSED || total != PJDFSTEST_TOTAL {
        return Verdict::Failed(format!(
            "{counts}; at least {PJDFSTEST_PASSED} of {PJDFSTEST_TOTAL} must pass\n{}",
            with_detail(&outcome.output, "skipped")
        ));
    }
    Verdict::Passed(format!(
        "{counts}\n{}",
        with_detail(&outcome.output, "skipped")
    ))
}

#[derive(Debug, PartialEq, Eq)]
struct PjdfstestSummary {
    passed: usize,
    failed: usize,
    skipped: usize,
    total: usize,
}

impl PjdfstestSummary {
    /// Reads `Summary: 0 failed, 16 skipped, 382 passed, 0 expected failures, 398 total`.
    fn find(output: &str) -> Option<Self> {
        let line = output
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("Summary: "))?;
        let count = |word: &str| {
            line.split(", ").find_map(|part| {
                let (number, what) = part.split_once(' ')?;
                (what == word).then(|| number.parse().ok())?
            })
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("skipped")?,
            total: count("total")?,
        })
    }
}

/// The test lines that end in `word`, each with the indented lines after it.
fn with_detail(output: &str, word: &str) -> String {
    let mut lines = Vec::new();
    let mut wanted = false;
    for line in output.lines() {
        let indented = line.starts_with(['\t', ' ']);
        if !indented {
            wanted = line.trim_end().ends_with(word);
            if wanted {
                lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        } else if wanted && let Some(last) = lines.last_mut() {
            last.push_str(": ");
            last.push_str(line.trim());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Option<i32>, output: &str) -> Outcome {
        Outcome {
            output: output.into(),
            status,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_script_that_skips_says_why_in_its_last_line() {
        let skipped = outcome(Some(77), "trying\nSKIP: no /dev/fuse\n");
        assert_eq!(by_status(&skipped), Verdict::Skipped("no /dev/fuse".into()));
    }

    #[test]
    fn a_guest_that_stops_fails_its_script() {
        assert!(matches!(
            by_status(&outcome(None, "half")),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn pjdfstest_passes_with_its_skips_named() {
        let output = "open::etxtbsy   ok\nchflags::a::b      skipped\n\trequires features: chflags\n\n\
            Summary: 0 failed, 16 skipped, 382 passed, 0 expected failures, 398 total\n";
        let Verdict::Passed(remark) = pjdfstest(&outcome(Some(0), output)) else {
            panic!("382 of 398 is enough")
        };
        assert!(
            remark.contains("chflags::a::b skipped: requires features: chflags"),
            "{remark}"
        );
    }

    #[test]
    fn pjdfstest_fails_on_one_failure_or_too_few_passes() {
        for (status, output) in [
            (
                1,
                "x FAILED\nSummary: 1 failed, 15 skipped, 382 passed, 0 expected failures, 398 total",
            ),
            (
                0,
                "Summary: 0 failed, 17 skipped, 381 passed, 0 expected failures, 398 total",
            ),
            (
                0,
                "Summary: 0 failed, 0 skipped, 390 passed, 0 expected failures, 390 total",
            ),
            (0, "nothing at all"),
        ] {
            let verdict = pjdfstest(&outcome(Some(status), output));
            assert!(
                matches!(verdict, Verdict::Failed(_)),
                "{output}: {verdict:?}"
            );
        }
    }
}
