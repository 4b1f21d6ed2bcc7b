//! `results.json`: every sample, with medians and spread beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use crate::bench::row::{Level, Row, Side};

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Results {
    /// How the rows were taken.
    pub(crate) conditions: Conditions,
    /// The rows, level by level.
    pub(crate) rows: Vec<Row>,
}

/// A row as it is written: a reader of the file need not calculate.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    row: &'a Row,
    medians: BTreeMap<&'static str, f64>,
    /// From the least to the greatest sample, as a part of the median.
    spread: BTreeMap<&'static str, f64>,
    /// How many times better than virtiofsd.
    ratio: Option<f64>,
    /// How many times better than the bare system calls.
    of_bare: Option<f64>,
}

impl Results {
    /// Reads what [`Results::text`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("read the results of an earlier run")
    }

    /// The text of the file: one row a line, so that changes can be read.
    ///
    /// # Errors
    /// A sample is no number.
    pub(crate) fn text(&self) -> Result<String> {
        let conditions = serde_json::to_string_pretty(&self.conditions)?.replace('\n', "\n  ");
        let mut text = format!("{{\n  \"conditions\": {conditions},\n  \"rows\": [");
        for (index, row) in self.rows.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let line = serde_json::to_string(&Entry::of(row))?;
            write!(text, "{comma}\n    {line}")?;
        }
        text.push_str("\n  ]\n}\n");
        Ok(text)
    }

    /// Whether the rows of both may stand in one table: they were taken under equal conditions. The
    /// options of a level may have changed if every row of it was taken again.
    pub(crate) fn join(&self, earlier: &Self) -> bool {
        let mut before = earlier.conditions.clone();
        for level in Level::ALL {
            let mut old = earlier.rows.iter().filter(|row| row.level == level);
            let again = old.all(|old| self.rows.iter().any(|row| is_same(old, row)));
            if let Some(options) = self.conditions.options.get(level.word())
                && again
            {
                let level = level.word().to_owned();
                before.options.insert(level, options.clone());
            }
        }
        self.conditions.fit(&before)
    }

    /// Takes the place of `earlier` and keeps those of its rows that were not taken again.
    #[must_use]
    pub(crate) fn over(self, earlier: Self) -> Self {
        let mut rows = earlier.rows;
        for row in self.rows {
            match rows.iter_mut().find(|old| is_same(old, &row)) {
                Some(old) => *old = row,
                None => rows.push(row),
            }
        }
        // Stable: within a level the order stays.
        rows.sort_by_key(|row| Level::ALL.iter().position(|level| *level == row.level));
        let guest = self.conditions.guest.or(earlier.conditions.guest);
        Self {
            conditions: Conditions {
                guest,
                ..self.conditions
            },
            rows,
        }
    }
}

fn is_same(one: &Row, two: &Row) -> bool {
    (one.level, one.measure, &one.name, &one.setting)
        == (two.level, two.measure, &two.name, &two.setting)
}

impl<'a> Entry<'a> {
    fn of(row: &'a Row) -> Self {
        let sides = [Side::Vfsd, Side::Virtiofsd, Side::Bare];
        let summaries = || {
            sides
                .into_iter()
                .filter_map(|side| Some((side.name(), row.summary(side)?)))
        };
        Self {
            row,
            medians: summaries()
                .map(|(name, summary)| (name, summary.median))
                .collect(),
            spread: summaries()
                .map(|(name, summary)| (name, rounded(summary.spread())))
                .collect(),
            ratio: row.ratio().map(rounded),
            of_bare: row.of_bare().map(rounded),
        }
    }
}

/// To a thousandth: the samples say the rest.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::conditions::tests::conditions;
    use super::*;
    use crate::bench::row::Measure;

    pub(crate) fn row(level: Level, name: &str, vfsd: &[f64], virtiofsd: &[f64]) -> Row {
        Row {
            vfsd: vfsd.to_vec(),
            virtiofsd: virtiofsd.to_vec(),
            ..Row::new(level, name, "cold", Measure::Seconds)
        }
    }

    fn results(rows: Vec<Row>) -> Results {
        Results {
            conditions: conditions(),
            rows,
        }
    }

    #[test]
    fn results_are_read_back_as_they_were_written() {
        let written = results(vec![
            row(Level::Native, "a", &[1.0, 2.0], &[4.0, 4.5]),
            row(Level::Guest, "b", &[3.0], &[]),
        ]);
        let text = written.text().unwrap();
        assert_eq!(Results::parse(&text).unwrap(), written);
        assert_eq!(
            results(vec![]),
            Results::parse(&results(vec![]).text().unwrap()).unwrap()
        );
    }

    #[test]
    fn a_reader_finds_medians_spread_and_ratio() {
        let text = results(vec![row(Level::Guest, "find", &[1.0, 2.0, 3.0], &[4.0])])
            .text()
            .unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let row = &value["rows"][0];
        assert_eq!(row["medians"]["vfsd"], 2.0);
        assert_eq!(row["spread"]["vfsd"], 1.0);
        assert_eq!(row["ratio"], 2.0);
        assert_eq!(row["of_bare"], serde_json::Value::Null);
    }

    #[test]
    fn a_level_that_was_taken_again_as_a_whole_may_have_other_options() {
        let with = |options: &str, rows: &[&str]| Results {
            conditions: Conditions {
                options: [("guest".to_owned(), options.to_owned())].into(),
                ..conditions()
            },
            rows: rows
                .iter()
                .map(|name| row(Level::Guest, name, &[1.0], &[1.0]))
                .collect(),
        };
        let earlier = with("--cache auto", &["a", "b"]);
        assert!(with("--cache auto", &["a"]).join(&earlier));
        assert!(with("--cache never", &["b", "a"]).join(&earlier));
        assert!(!with("--cache never", &["a"]).join(&earlier));
        let native = Results {
            rows: vec![row(Level::Native, "a", &[1.0], &[1.0])],
            ..with("--cache never", &[])
        };
        assert!(!native.join(&earlier));
    }

    #[test]
    fn rows_taken_again_replace_their_elders_and_others_stay() {
        let earlier = results(vec![
            row(Level::Native, "a", &[1.0], &[1.0]),
            row(Level::Guest, "b", &[2.0], &[2.0]),
        ]);
        let later = results(vec![
            row(Level::Guest, "b", &[9.0], &[9.0]),
            row(Level::Native, "c", &[3.0], &[3.0]),
        ]);
        let both: Vec<(String, f64)> = later
            .over(earlier)
            .rows
            .into_iter()
            .map(|row| (row.name, row.vfsd[0]))
            .collect();
        let expected = [("a", 1.0), ("c", 3.0), ("b", 9.0)];
        assert_eq!(
            both,
            expected.map(|(name, sample)| (name.to_owned(), sample))
        );
    }
}
