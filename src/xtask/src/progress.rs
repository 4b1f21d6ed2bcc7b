//! What a person watching sees: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a long step says on a plain output that it is still running.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// One step of a longer work.
#[derive(Debug)]
pub(crate) struct Step {
    title: String,
    spinner: Option<ProgressBar>,
    started: Instant,
    spoke: Instant,
}

impl Step {
    /// Announces a step. It lasts until [`Step::done`] or until it is dropped.
    pub(crate) fn begin(title: impl Into<String>) -> Self {
        let title = title.into();
        let spinner = std::io::stdout().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner.set_message(title.clone());
            spinner
        });
        if spinner.is_none() {
            println!("==> {title}");
        }
        Self {
            title,
            spinner,
            started: Instant::now(),
            spoke: Instant::now(),
        }
    }

    /// Shows what the step is at. A plain output hears of it once a minute.
    pub(crate) fn note(&mut self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(format!("{}: {}", self.title, text.trim())),
            None => {
                if self.spoke.elapsed() >= HEARTBEAT {
                    self.spoke = Instant::now();
                    let seconds = self.started.elapsed().as_secs();
                    println!("    {} after {seconds} s: {}", self.title, text.trim());
                }
            }
        }
    }

    /// Ends the step and says how long it took.
    pub(crate) fn done(self) {
        let text = format!(
            "{} ({:.1} s)",
            self.title,
            self.started.elapsed().as_secs_f64()
        );
        match &self.spinner {
            Some(spinner) => spinner.println(format!("    {text}")),
            None => println!("    done: {text}"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
