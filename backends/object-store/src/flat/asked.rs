//! Directories of which one name after another is asked for.
//!
//! Each name costs two requests. A directory with a page of names costs one, after which all of them are known, those included
//! that are not there: who makes many files asks for nothing else. In a bucket that is only read nothing is listed instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::known::Bounded;

/// So many names are asked for one by one, the last of which lists the directory.
const FEW: u32 = 3;
/// The same where it turned out to have more than a page.
const MANY: u32 = 1000;
/// Directories that are remembered.
const DIRECTORIES: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Asked(Bounded<Arc<str>, Names>);

#[derive(Debug, Clone, Copy)]
struct Names {
    since: Instant,
    /// How many more are asked for one by one.
    left: u32,
}

impl Asked {
    /// Notes that one more name is asked for, and says whether its directory shall be listed instead. A listing is
    /// believed for `lifetime`.
    pub(super) fn one_more(&mut self, directory: &str, lifetime: Duration) -> bool {
        let mut names = self.names(directory);
        if names.since.elapsed() > lifetime.saturating_mul(2) {
            names.since = Instant::now();
            names.left = names.left.max(FEW);
        }
        names.left = names.left.saturating_sub(1);
        let enough = names.left == 0;
        if enough {
            names.left = FEW;
        }
        self.set(directory, names);
        enough && !lifetime.is_zero()
    }

    /// The directory was listed: all of it, or it has more than a page.
    pub(super) fn listed(&mut self, directory: &str, whole: bool) {
        let names = Names {
            since: Instant::now(),
            left: if whole { 1 } else { MANY },
        };
        self.set(directory, names);
    }

    fn names(&self, directory: &str) -> Names {
        self.0.peek(directory).copied().unwrap_or_else(|| Names {
            since: Instant::now(),
            left: FEW,
        })
    }

    fn set(&mut self, directory: &str, names: Names) {
        self.0.insert(directory.into(), names);
        if self.0.len() > DIRECTORIES {
            self.0.remove_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_listed_when_some_names_of_it_were_asked_for_in_a_row() {
        let mut asked = Asked::default();
        let ask = |asked: &mut Asked, times| {
            let answers = std::iter::repeat_with(|| asked.one_more("d/", SECOND));
            answers.take(times).collect::<Vec<_>>()
        };
        assert_eq!(ask(&mut asked, 3), [false, false, true]);
        asked.listed("d/", true);
        tokio::time::advance(SECOND).await;
        assert_eq!(ask(&mut asked, 1), [true], "once more at once");
        tokio::time::advance(SECOND * 3).await;
        assert_eq!(
            ask(&mut asked, 3),
            [false, false, true],
            "anew after a while"
        );
        asked.listed("d/", false);
        assert_eq!(ask(&mut asked, 999), [false; 999], "too large");
        for _ in 0..5 {
            tokio::time::advance(SECOND * 3).await;
            assert!(!asked.one_more("e/", SECOND), "now and then");
        }
        let mut never = || asked.one_more("f/", Duration::ZERO);
        assert!(!never() && !never() && !never(), "nothing is believed");
    }
}
