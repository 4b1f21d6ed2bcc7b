//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::figures::{self, Samples, ratio};
use super::sides::{SIDES, Side};
use super::{Taken, What, Width, full_name};

/// The section: medians, and how many times better ours are than what is done without vfsd.
pub(super) fn text(taken: &Taken) -> String {
    let pairs = taken
        .iter()
        .flatten()
        .map(Samples::count)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "## An image in a registry as a guest's root\n\nDebian with the tools of a build machine, two layers of gzip, in a registry on loopback, directly and \
         over a link of 3 MB/s; a guest of User-Mode Linux; medians of {pairs}, taken in turn by `cargo xtask bench --level images`. The clock \
         starts with the image's name. *Nothing known* reads each layer once to index it, unless the image is in zstd:chunked, or its indexes were pushed beside it; *index known* is a host that has the index, or had \
         the image before, and no byte of content; nothing is fetched in the background. Without vfsd the image is copied by skopeo, unpacked by \
         umoci and served by virtiofsd. Behind a figure stands how many times better it is than that in the same state: nothing there, or all.\n\n| |"
    );
    for side in SIDES {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(SIDES.len()));
    text.push('\n');
    for (width, samples) in Width::ALL.into_iter().zip(taken) {
        for what in What::ALL {
            let _ = write!(text, "| {} |", full_name(width, what));
            for (side, own) in SIDES.into_iter().zip(samples) {
                let peer = SIDES.iter().position(|other| *other == side.peer());
                let peer = peer.and_then(|peer| samples.get(peer));
                let _ = write!(text, " {} |", cell(side, what, own, peer));
            }
            text.push('\n');
        }
    }
    text
}

/// What is less is nothing: it has no ratio.
const LEAST: f64 = 0.01;

/// A median, and how many times better it is than the peer's.
fn cell(side: Side, what: What, own: &Samples, peer: Option<&Samples>) -> String {
    let (ours, theirs) = (
        own.median(what.name()),
        peer.and_then(|peer| peer.median(what.name())),
    );
    let shown = figures::cell(what.measure(), ours);
    let is_something = |figure: Option<f64>| figure.is_some_and(|figure| figure >= LEAST);
    match side.peer() != side && is_something(ours) && is_something(theirs) {
        true => format!("{shown} ({})", ratio(ours, theirs)),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_medians_and_what_is_better_and_no_figure_that_was_not_taken() {
        let mut taken = Taken::default();
        let [narrow, _] = &mut taken;
        for (samples, seconds) in narrow.iter_mut().zip([8.0, 4.0, 2.0, 1.0, 10.0]) {
            for _ in 0..3 {
                samples.add(What::Command.name(), seconds);
            }
        }
        let text = text(&taken);
        assert!(text.contains("medians of 3"), "{text}");
        let row = format!(
            "| {} | 8 s (1.25) | 4 s (2.50) | 2 s (5.00) | 1 s (10.00) | 10 s |  |  |",
            full_name(Width::Narrow, What::Command)
        );
        assert!(text.contains(&row), "{text}");
    }
}
