//! Rows as a table for a terminal.

use std::fmt::Write as _;

use super::row::{Row, Side};

/// The rows, one a line; medians, and in parentheses how far the samples lie apart.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<22} {:<18} {:<10} {:>16} {:>16} {:>10} {:>9} {:>8}\n",
        "", "", "", "vfsd", "virtiofsd", "bare", "x virtio", "x bare"
    );
    for row in rows {
        let cell = |side, with_spread: bool| match row.summary(side) {
            None => "-".to_owned(),
            Some(summary) if with_spread => format!(
                "{} ({:>3.0}%)",
                row.measure.shown(summary.median),
                summary.spread() * 100.0
            ),
            Some(summary) => row.measure.shown(summary.median),
        };
        let times =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "{:<22} {:<18} {:<10} {:>16} {:>16} {:>10} {:>9} {:>8}",
            row.name,
            row.setting,
            row.measure.unit(),
            cell(Side::Vfsd, true),
            cell(Side::Virtiofsd, true),
            cell(Side::Bare, false),
            times(row.ratio()),
            times(row.of_bare()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::row::{Level, Measure};
    use super::*;

    #[test]
    fn a_line_has_medians_spread_and_ratios() {
        let mut row = Row::new(
            Level::Native,
            "LOOKUP hit",
            "depth 1, 1 queue",
            Measure::OperationsPerSecond,
        );
        row.vfsd = vec![90_000.0, 100_000.0, 110_000.0];
        row.virtiofsd = vec![50_000.0];
        let text = text(&[row]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "LOOKUP hit depth 1, 1 queue op/s 100 k ( 20%) 50.0 k ( 0%) - 2.00 -";
        assert_eq!(words, expected.split_whitespace().collect::<Vec<_>>());
    }
}
