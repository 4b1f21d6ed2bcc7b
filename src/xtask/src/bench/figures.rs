//! Figures that programs print, and the cells of tables that they fill.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::row::{Measure, Summary};

/// Rows: what a program calls them, what a reader calls them, and what they count.
pub(crate) type Rows = &'static [(&'static str, &'static str, Measure)];

/// Samples of each row, by its key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(BTreeMap<String, Vec<f64>>);

impl Samples {
    /// Takes the lines `figure KEY NUMBER` that a program printed.
    ///
    /// # Errors
    /// A line is another one, or no row has its key.
    pub(crate) fn take(&mut self, printed: &str, rows: Rows) -> Result<()> {
        for line in printed.lines() {
            let figure = line
                .strip_prefix("figure ")
                .and_then(|rest| rest.split_once(' '))
                .and_then(|(key, value)| Some((key, value.parse::<f64>().ok()?)));
            let (key, value) = figure.with_context(|| format!("the program printed {line:?}"))?;
            ensure!(
                rows.iter().any(|(known, ..)| *known == key),
                "{key} is no row"
            );
            self.add(key, value);
        }
        Ok(())
    }

    /// Adds a sample of a row.
    pub(crate) fn add(&mut self, key: &str, figure: f64) {
        self.0.entry(key.to_owned()).or_default().push(figure);
    }

    /// The median of a row's samples.
    pub(crate) fn median(&self, key: &str) -> Option<f64> {
        Some(Summary::of(self.0.get(key)?)?.median)
    }

    /// How many samples the row has that has most of them.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).max().unwrap_or_default()
    }
}

/// A figure in a table, with its unit.
pub(crate) fn cell(measure: Measure, figure: Option<f64>) -> String {
    let shown = figure.map(|figure| format!("{} {}", measure.shown(figure), measure.unit()));
    shown.unwrap_or_default().trim().to_owned()
}

/// How many times better `ours` is, where less is better.
pub(crate) fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours > 0.0 => format!("{:.2}", theirs / ours),
        _ => String::new(),
    }
}
