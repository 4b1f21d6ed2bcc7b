//! The figures as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::super::row::Summary;
use super::sides::SIDES;
use super::{Operation, Samples};

/// The section: medians, and what a plugin costs more than the storage compiled in.
pub(super) fn text(taken: &[(Operation, Samples)]) -> String {
    let samples = taken
        .iter()
        .flat_map(|(_, samples)| samples)
        .map(Vec::len)
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "## Plugins\n\nMicroseconds for an operation, one at a time, from a vhost-user front end that sleeps until its interrupt, all on one \
         processor; medians of {samples}, taken in turn by `cargo xtask bench \
         --level plugins`. Behind a plugin's figure stands what it costs more than the same storage compiled in. bindfs is a file system of libfuse \
         on the same directory, mounted on the host and exported by virtiofsd, as a storage of one's own is served without plugins; the host's kernel \
         answers some of its requests from its caches. CREATE+UNLINK is four requests.\n\n| |"
    );
    for side in SIDES {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(SIDES.len()));
    text.push('\n');
    for (operation, samples) in taken {
        let medians = samples
            .each_ref()
            .map(|samples| Summary::of(samples).map(|summary| summary.median));
        let of = |side| {
            let index = SIDES.iter().position(|other| *other == side)?;
            medians.get(index).copied().flatten()
        };
        let _ = write!(text, "| {} |", operation.name());
        for side in SIDES {
            let _ = match (of(side), side.compiled_in().and_then(of)) {
                (Some(figure), Some(inside)) => {
                    write!(text, " {figure:.1} ({:+.1}) |", figure - inside)
                }
                (Some(figure), None) => write!(text, " {figure:.1} |"),
                (None, _) => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_what_it_costs_more() {
        let samples = [4.0, 10.5, 2.0, 9.0, 30.0].map(|figure| vec![figure; 3]);
        let text = text(&[(Operation::Getattr, samples)]);
        assert!(text.contains("medians of 3"), "{text}");
        let row = "| GETATTR | 4.0 | 10.5 (+6.5) | 2.0 | 9.0 (+7.0) | 30.0 |";
        assert!(text.contains(row), "{text}");
    }
}
