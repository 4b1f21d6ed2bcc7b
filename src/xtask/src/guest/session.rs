//! What one boot of a guest is to do: a list of scripts, or a shell.

use std::time::Duration;

/// A script that runs inside the guest, as root, with `/vfsd/lib.sh` at hand.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The text, for bash.
    pub(crate) text: String,
    /// It is killed inside the guest after this time.
    pub(crate) limit: Duration,
}

impl Script {
    /// A script that runs `program` by Python 3.
    pub(crate) fn python(program: &str, limit: Duration) -> Self {
        Self {
            text: format!("exec python3 - <<'THE-PROGRAM'\n{program}\nTHE-PROGRAM\n"),
            limit,
        }
    }
}

/// The scripts of one boot, in the order they run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    scripts: Vec<Script>,
    files: Vec<(&'static str, &'static str)>,
    interactive: bool,
}

impl Session {
    /// A session of `scripts`.
    pub(crate) fn of(scripts: Vec<Script>) -> Self {
        Self {
            scripts,
            ..Self::default()
        }
    }

    /// A shell for the person at the terminal.
    pub(crate) fn interactive() -> Self {
        Self {
            interactive: true,
            ..Self::default()
        }
    }

    /// Puts a file beside the scripts, as `/vfsd/NAME`.
    #[must_use]
    pub(crate) fn with_file(mut self, name: &'static str, content: &'static str) -> Self {
        self.files.push((name, content));
        self
    }

    /// The longest the scripts may take together.
    pub(crate) fn limit(&self) -> Duration {
        self.scripts.iter().map(|script| script.limit).sum()
    }

    /// Name (below `/vfsd`) and content of every file of the session.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = Vec::new();
        for (index, script) in self.scripts.iter().enumerate() {
            // Three digits: the guest runs them in the order of their names.
            files.push((format!("cases/{index:03}"), script.text.clone()));
            files.push((
                format!("cases/{index:03}.limit"),
                script.limit.as_secs().to_string(),
            ));
        }
        if self.interactive {
            files.push(("interactive".into(), String::new()));
        }
        files.extend(
            self.files
                .iter()
                .map(|(name, text)| ((*name).into(), (*text).into())),
        );
        files
    }
}
