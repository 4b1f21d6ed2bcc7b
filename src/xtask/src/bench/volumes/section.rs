//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::figures::{Samples, cell, ratio};
use super::ROWS;
use super::sides::SIDES;

/// The section: medians, and how many times better ours is than the peer beside it.
pub(super) fn text(taken: &[Samples; SIDES.len()]) -> String {
    let pairs = taken.iter().map(Samples::count).max().unwrap_or_default();
    let mut text = format!(
        "## Volumes in a bucket\n\nThe same programs in a volume of each, mounted on the host, all data in one SeaweedFS on loopback; medians of {pairs}, \
         taken in turn by `cargo xtask bench --level volumes`. JuiceFS keeps its metadata in SQLite on the host, which is lost with \
         it; vfsd's are in the bucket, too. `local` waits in fsync for the host's disk, `--writeback` does not. The kernel has forgotten all it had \
         read before each row, after a sync. Another host: nothing of the bucket is on its disk. \
         Requests are those that SeaweedFS has answered, from the mount to the end of the unmount.\n\n\
         *Read 256 MiB* tells of the host's disk first: what was written here is read from a cold file there, which takes a plain program \
         0.1 to 1.4 s on this machine, from one moment to the next. `bucket` and `local` read in the same way; at `local`, as with `--writeback`, what was written is still \
         being sent meanwhile, for which the store alone needs more than a second of both processors.\n\n| |"
    );
    for [ours, theirs] in pairs_of(SIDES) {
        let _ = write!(text, " {} | {} | ratio |", ours.name(), theirs.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(SIDES.len() / 2 * 3));
    text.push('\n');
    for &(key, name, measure) in ROWS {
        let _ = write!(text, "| {name} |");
        for [ours, theirs] in pairs_of(taken.each_ref()) {
            let (ours, theirs) = (ours.median(key), theirs.median(key));
            let _ = write!(
                text,
                " {} | {} | {} |",
                cell(measure, ours),
                cell(measure, theirs),
                ratio(ours, theirs)
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
        let samples = |seconds: f64| {
            let mut samples = Samples::default();
            for _ in 0..3 {
                samples.add("create", seconds);
            }
            samples
        };
        let text = text(&[1.0, 4.0, 2.0, 1.0].map(samples));
        assert!(text.contains("medians of 3"), "{text}");
        let row = "| create 1,000 files of 4 KiB | 1 s | 4 s | 4.00 | 2 s | 1 s | 0.50 |";
        assert!(text.contains(row), "{text}");
    }
}
