//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::figures::{Samples, cell, ratio};
use super::super::row::Measure;
use super::ROWS;
use super::sides::SIDES;

/// The section: medians, and how many times better ours is than the better one of the others.
pub(super) fn text(taken: &[Samples; SIDES.len()], objects: u32) -> String {
    let pairs = taken.iter().map(Samples::count).max().unwrap_or_default();
    let mut text = format!(
        "## Objects of a bucket as files\n\nThe same programs in the bucket of one SeaweedFS on loopback, mounted on the host by each; medians of {pairs}, taken in \
         turn by `cargo xtask bench --level buckets`, with {objects} objects of 4 KiB in 100 prefixes. The kernel has forgotten all it had read before \
         each row; \"once more\" is what a client's own cache is good for. rclone has `--vfs-cache-mode full` and \
         `--use-server-modtime`, s3fs `use_cache`. rclone's fsync and close wait for nothing: \"until the bucket has it\" counts from the \
         beginning for everybody. The ratio is to the better one of both. curl has no file system: it sends the requests that the \
         work needs at least, signed beforehand, one after another on one connection.\n\n|"
    );
    for side in SIDES {
        let _ = write!(text, " | {}", side.name());
    }
    text.push_str(" | ratio |\n|---|");
    text.push_str(&"---:|".repeat(SIDES.len() + 1));
    text.push('\n');
    let mut to_bare = Vec::new();
    for &(key, name, measure) in ROWS {
        let medians = taken.each_ref().map(|samples| samples.median(key));
        let _ = write!(text, "| {name} |");
        for median in medians {
            let shown = median.map_or("-".to_owned(), |_| cell(measure, median));
            let _ = write!(text, " {shown} |");
        }
        let [ours, theirs @ .., bare] = medians;
        let best = theirs.into_iter().flatten().min_by(f64::total_cmp);
        let _ = writeln!(text, " {} |", ratio(ours, best));
        if measure == Measure::Seconds && bare.is_some() {
            to_bare.push(format!("{name} {}", ratio(ours, bare)));
        }
    }
    let _ = writeln!(
        text,
        "\nTo curl's: {}. Above 1 vfsd is quicker.",
        to_bare.join("; ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_compared_with_the_better_one_of_the_others() {
        let samples = |seconds: f64| {
            let mut samples = Samples::default();
            samples.add("sequential", seconds);
            samples
        };
        let text = text(&[2.0, 8.0, 5.0, 1.0].map(samples), 10);
        for expected in [
            "| | vfsd | rclone | s3fs | curl | ratio |",
            "| read 1 GiB | 2 s | 8 s | 5 s | 1 s | 2.50 |",
            "| the same once more | - | - | - | - |  |",
            "To curl's: read 1 GiB 0.50. Above",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
