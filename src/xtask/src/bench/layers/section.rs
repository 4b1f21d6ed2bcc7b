//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::figures::Samples;
use super::super::row::Summary;
use super::sides::{COPIES, SIDES};
use super::{COPY, DEPTH, METADATA, of_processor};

/// The section: medians, and behind them how many times the directory's figure of the same daemon they are.
pub(super) fn text(
    metadata: &[Samples; SIDES.len()],
    copies: &[Vec<f64>; COPIES.len() + 1],
) -> String {
    let pairs = metadata
        .iter()
        .map(Samples::count)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "## A writable layer\n\nA tree of 100,000 files in 1,000 directories, from a vhost-user front end with {DEPTH} requests in flight; medians of {pairs}, \
         taken in turn by `cargo xtask bench --level layers`. *New* is an upper with nothing in it over the whole tree; *merged* has a tenth of \
         each directory in the upper. The kernel's overlayfs merges the same layers, with `index=on,nfs_export=on`, and virtiofsd exports it. \
         Microseconds for one, and of the daemon's processor; behind the figure of a layer is how many times that of the directory it is.\n\n| |"
    );
    let _ = write!(text, " |");
    for side in SIDES {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---:|".repeat(SIDES.len()));
    text.push('\n');
    for (key, name) in METADATA {
        for (key, unit) in [(key.to_owned(), "µs"), (of_processor(key), "CPU µs")] {
            let _ = write!(text, "| {name} | {unit} |");
            for (side, samples) in SIDES.into_iter().zip(metadata) {
                let base = side.directory().and_then(|base| {
                    let index = SIDES.iter().position(|other| *other == base)?;
                    metadata.get(index)?.median(&key)
                });
                let _ = match (samples.median(&key), base) {
                    (Some(figure), Some(base)) if base > 0.0 => {
                        write!(text, " {figure:.2} ({:.2}x) |", figure / base)
                    }
                    (Some(figure), _) => write!(text, " {figure:.2} |"),
                    (None, _) => write!(text, " |"),
                };
            }
            text.push('\n');
        }
    }
    text.push_str("\nThe copy that a file's first change makes, until it is on the disk; `cp` is followed by an fsync.\n\n| |");
    let names = COPIES.iter().map(|side| side.name());
    for name in names.chain(["`cp`"]) {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(copies.len()));
    let _ = write!(text, "\n| {COPY} |");
    for samples in copies {
        let _ = match Summary::of(samples) {
            Some(summary) => write!(text, " {:.2} s |", summary.median),
            None => write!(text, " |"),
        };
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_compared_with_the_directory_of_its_daemon() {
        let metadata = [4.0, 5.0, 6.0, 10.0, 30.0].map(|figure| {
            let mut samples = Samples::default();
            samples.add("getattr", figure);
            samples
        });
        let text = text(&metadata, &[1.0, 2.0, 1.5].map(|seconds| vec![seconds]));
        let row = "| GETATTR, each once | µs | 4.00 | 5.00 (1.25x) | 6.00 (1.50x) | 10.00 | 30.00 (3.00x) |";
        assert!(text.contains(row), "{text}");
        let row = "| first write to a file of 1 GiB | 1.00 s | 2.00 s | 1.50 s |";
        assert!(text.contains(row), "{text}");
    }
}
