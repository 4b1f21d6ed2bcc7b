//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::row::Summary;
use super::sides::SIDES;
use super::{ROWS, Samples};

/// The section: medians, and how many times better ours is than the peer beside it.
pub(super) fn text(taken: &[Samples; SIDES.len()]) -> String {
    let pairs = taken
        .iter()
        .flat_map(Samples::values)
        .map(Vec::len)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "## Volumes in a bucket\n\nThe same programs in a volume of each, mounted on the host, all data in one SeaweedFS on loopback; medians of {pairs}, \
         taken in turn by `cargo xtask bench --level volumes`. JuiceFS keeps its metadata in SQLite on the host, which is lost with \
         it; vfsd's are in the bucket, too. `local` waits in fsync for the host's disk, `--writeback` does not. The kernel has forgotten all it had \
         read before each row. Another host: nothing of the bucket is on its disk.\n\n| |"
    );
    for [ours, theirs] in pairs_of(SIDES) {
        let _ = write!(text, " {} | {} | ratio |", ours.name(), theirs.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(SIDES.len() / 2 * 3));
    text.push('\n');
    for (key, name, measure) in ROWS {
        let _ = write!(text, "| {name} |");
        for [ours, theirs] in pairs_of(taken.each_ref()) {
            let median = |samples: &Samples| {
                let summary = samples.get(key).and_then(|all| Summary::of(all));
                summary.map(|summary| summary.median)
            };
            let cell = |figure: Option<f64>| match figure {
                Some(figure) => format!("{} {}", measure.shown(figure), measure.unit()),
                None => String::new(),
            };
            let (ours, theirs) = (median(ours), median(theirs));
            let ratio = match (ours, theirs) {
                (Some(ours), Some(theirs)) if ours > 0.0 => format!("{:.2}", theirs / ours),
                _ => String::new(),
            };
            let _ = write!(
                text,
                " {} | {} | {ratio} |",
                cell(ours).trim(),
                cell(theirs).trim()
            );
        }
        text.push('\n');
    }
    text
}

fn pairs_of<T: Copy>(all: [T; SIDES.len()]) -> [[T; 2]; SIDES.len() / 2] {
    let [ours, theirs, ours_too, theirs_too] = all;
    [[ours, theirs], [ours_too, theirs_too]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_what_is_better() {
        let samples = |seconds: f64| Samples::from([("create".to_owned(), vec![seconds; 3])]);
        let text = text(&[1.0, 4.0, 2.0, 1.0].map(samples));
        assert!(text.contains("medians of 3"), "{text}");
        let row = "| create 1,000 files of 4 KiB | 1 s | 4 s | 4.00 | 2 s | 1 s | 0.50 |";
        assert!(text.contains(row), "{text}");
    }
}
