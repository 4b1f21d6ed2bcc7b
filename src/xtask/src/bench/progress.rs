//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain output hears of the progress.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The bar of one run.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    title: String,
    total: u64,
    done: u64,
    spoke: Instant,
}

impl Progress {
    /// A bar over `total` samples.
    pub(crate) fn begin(title: &str, total: u64) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{prefix} {wide_bar} {pos}/{len} {elapsed} (left {eta}) {msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            println!("==> {title}: {total} samples");
        }
        Self {
            bar,
            title: title.to_owned(),
            total,
            done: 0,
            spoke: Instant::now(),
        }
    }

    /// Shows what is measured next.
    pub(crate) fn note(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        } else if self.spoke.elapsed() >= HEARTBEAT {
            self.spoke = Instant::now();
            println!(
                "    {}: {} of {}, {what}",
                self.title, self.done, self.total
            );
        }
    }

    /// One sample is taken.
    pub(crate) fn advance(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
