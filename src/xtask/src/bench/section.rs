//! Sections of `RESULTS.md` that levels of their own write, and that the other levels leave there.

use std::fs;

use anyhow::{Context, Result};

use super::row::Level;
use crate::workspace::Workspace;

/// A level's section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section(pub(crate) Level);

/// All of them, in their order.
const ALL: [Section; 6] = [
    Section(Level::Requests),
    Section(Level::Volumes),
    Section(Level::Images),
    Section(Level::Buckets),
    Section(Level::Plugins),
    Section(Level::Layers),
];

impl Section {
    fn begin(self) -> String {
        let word = self.0.word();
        format!("<!-- {word}: written by `cargo xtask bench --level {word}` -->")
    }

    fn end(self) -> String {
        format!("<!-- end of {} -->", self.0.word())
    }

    /// `text` with this section in it: where one was before, or at the end.
    fn into(self, text: &str, section: &str) -> String {
        let section = format!("{}\n{section}{}\n", self.begin(), self.end());
        match self.bounds(text) {
            Some((begin, end)) => format!("{}{section}{}", &text[..begin], &text[end..]),
            None => format!("{}\n\n{section}", text.trim_end()),
        }
    }

    /// Writes it into `bench/RESULTS.md`.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn write(self, workspace: &Workspace, section: &str) -> Result<()> {
        let results = workspace.root().join("bench").join("RESULTS.md");
        let before = fs::read_to_string(&results).context("read bench/RESULTS.md")?;
        fs::write(&results, self.into(&before, section)).context("write bench/RESULTS.md")
    }

    fn bounds(self, text: &str) -> Option<(usize, usize)> {
        let begin = text.find(&self.begin())?;
        let last = self.end();
        let end = begin + text[begin..].find(&last)? + last.len();
        Some((begin, end + usize::from(text[end..].starts_with('\n'))))
    }
}

/// `text`, which has no sections, with those of `earlier`.
pub(crate) fn keep(earlier: &str, text: &str) -> String {
    ALL.into_iter().fold(text.to_owned(), |text, section| {
        match section.bounds(earlier) {
            Some((begin, end)) => format!("{}\n\n{}", text.trim_end(), &earlier[begin..end]),
            None => text,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_one_before_and_survives_other_results() {
        let [requests, volumes, ..] = ALL;
        let first = volumes.into(&requests.into("# Results\n\nrows\n", "one\n"), "theirs\n");
        assert_eq!(first.matches("one").count(), 1);
        let second = requests.into(&first, "two\n");
        assert!(second.contains("two") && !second.contains("one") && second.contains("theirs"));
        let kept = keep(&second, "# Results\n\nother rows\n");
        assert!(kept.contains("other rows") && kept.contains("two") && kept.contains("theirs"));
        assert_eq!(requests.into(&kept, "two\n"), kept);
        assert_eq!(keep("# Results\n", "text\n"), "text\n");
    }
}
