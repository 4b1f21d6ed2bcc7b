//! The counts as a section of `RESULTS.md`.

use std::fmt::Write as _;

use super::counts::Counts;
use super::{SIDES, Taken};

/// The section.
pub(super) fn text(taken: &[Taken], conditions: &str) -> String {
    let mut text = format!(
        "## Requests of a program\n\nHow many FUSE requests a guest waits for, of which a noisy machine makes neither more nor \
         fewer; counted by `cargo xtask bench --level requests`. Cold: the guest has forgotten all it had read. Warm: the \
         same once more, at once; a guest then asks once for the access time of what the first run has read. \
         {conditions}\n\n| | |"
    );
    for side in SIDES {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str(" writable layer to virtiofsd |\n|---|---|");
    text.push_str(&"---:|".repeat(SIDES.len() + 1));
    text.push('\n');
    for each in taken {
        let _ = write!(text, "| {} | {} |", each.program, each.when);
        for counts in &each.sides {
            let _ = write!(text, " {} |", total(counts));
        }
        let ratio = match total(&each.sides[0]) {
            0 => String::new(),
            theirs => format!("{:.2}", total(&each.sides[2]) as f64 / theirs as f64),
        };
        let _ = writeln!(text, " {ratio} |");
    }
    text.push_str("\nBy opcode, in the order of the columns:\n\n");
    for each in taken {
        let _ = writeln!(
            text,
            "- {}, {}: {}",
            each.program,
            each.when,
            by_opcode(&each.sides)
        );
    }
    text.push('\n');
    text
}

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

fn by_opcode(sides: &[Counts]) -> String {
    let opcodes: std::collections::BTreeSet<&String> =
        sides.iter().flat_map(|counts| counts.keys()).collect();
    let mut words: Vec<String> = opcodes
        .into_iter()
        .map(|opcode| {
            let counts: Vec<String> = sides
                .iter()
                .map(|counts| counts.get(opcode).copied().unwrap_or(0).to_string())
                .collect();
            format!("{} {}", opcode.to_uppercase(), counts.join("/"))
        })
        .collect();
    if words.is_empty() {
        words.push("none".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_all_columns_and_a_ratio() {
        let counts = |lookups: u64| Counts::from([("lookup".to_owned(), lookups)]);
        let taken = Taken {
            program: "find".to_owned(),
            when: "cold".to_owned(),
            sides: vec![counts(10), counts(9), counts(4), Counts::new()],
        };
        let text = text(&[taken], "Somewhere.");
        assert!(
            text.contains("| find | cold | 10 | 9 | 4 | 0 | 0.40 |"),
            "{text}"
        );
        assert!(text.contains("LOOKUP 10/9/4/0"), "{text}");
    }
}
