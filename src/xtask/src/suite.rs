//! Packages of another suite of the host's distribution, without touching the
//! host's own package sources.
//!
//! The source entry is copied from the host's configuration with only its
//! suite replaced, so the mirror is whatever this machine uses. apt keeps the
//! lists in a folder of their own and only downloads; `dpkg -x` unpacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{output_of, run_ok};
use crate::progress::Step;

/// How long one apt call may take.
const LIMIT: Duration = Duration::from_secs(900);

/// What this machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// `debian` or `ubuntu`.
    pub(crate) id: String,
    /// The suite's code name, as `bookworm`.
    pub(crate) codename: String,
}

impl Distribution {
    /// Reads `/etc/os-release`.
    ///
    /// # Errors
    /// It is not readable or names no code name.
    pub(crate) fn of_host() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        Self::parse(&text)
    }

    fn parse(os_release: &str) -> Result<Self> {
        let field = |key: &str| {
            os_release
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        };
        Ok(Self {
            id: field("ID").context("/etc/os-release has no ID")?,
            codename: field("VERSION_CODENAME")
                .context("/etc/os-release has no VERSION_CODENAME")?,
        })
    }
}

/// One suite, with package lists of its own.
#[derive(Debug)]
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Opens `suite` with its lists kept in `folder` and refreshes them.
    ///
    /// # Errors
    /// The host has no package source of its own code name, or apt fails.
    pub(crate) fn open(folder: &Path, suite: &str) -> Result<Self> {
        let mut step = Step::begin(format!("package lists of {suite}"));
        let parts = folder.join("sources");
        fs::create_dir_all(&parts).context("make the sources folder")?;
        fs::create_dir_all(folder.join("lists/partial")).context("make the lists folder")?;
        let (name, text) = sources_for(suite)?;
        fs::write(parts.join(name), text).context("write the sources file")?;
        let this = Self {
            folder: folder.to_path_buf(),
        };
        let mut update = this.apt("apt-get");
        update.args(["-q", "update"]);
        run_ok(&update, LIMIT, &mut |line| step.note(line))
            .with_context(|| format!("read the package lists of {suite}"))?;
        step.done();
        Ok(this)
    }

    /// The first package that `package` depends on: what a meta package
    /// stands for.
    ///
    /// # Errors
    /// There is no such package or it depends on nothing.
    pub(crate) fn stands_for(&self, package: &str) -> Result<String> {
        let text = output_of(
            self.apt("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        text.lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .and_then(|line| line.split([' ', ',', '(']).next())
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing"))
    }

    /// Downloads `packages` into `folder` and returns their files.
    ///
    /// # Errors
    /// apt fails, as for an unknown package.
    pub(crate) fn download(&self, packages: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
        let mut step = Step::begin(format!("download {}", packages.join(" ")));
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut command = self.apt("apt-get");
        command
            .args(["-q", "download"])
            .args(packages)
            .current_dir(folder);
        run_ok(&command, LIMIT, &mut |line| step.note(line)).context("download packages")?;
        let mut files = Vec::new();
        for package in packages {
            let prefix = format!("{package}_");
            let found = fs::read_dir(folder)
                .context("read the download folder")?
                .filter_map(std::result::Result::ok)
                .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
            match found {
                Some(entry) => files.push(entry.path()),
                None => bail!("apt downloaded no file for {package}"),
            }
        }
        step.done();
        Ok(files)
    }

    fn apt(&self, program: &str) -> Command {
        let option = |key: &str, value: PathBuf| format!("-o{key}={}", value.display());
        let mut command = Command::new(program);
        command
            .arg("-oDir::Etc::sourcelist=/dev/null")
            .arg(option("Dir::Etc::sourceparts", self.folder.join("sources")))
            .arg(option("Dir::State::Lists", self.folder.join("lists")))
            .arg(option(
                "Dir::Cache::pkgcache",
                self.folder.join("pkgcache.bin"),
            ))
            .arg(option(
                "Dir::Cache::srcpkgcache",
                self.folder.join("srcpkgcache.bin"),
            ))
            // What the host has installed must not win over what the suite has.
            .arg("-oDir::State::status=/dev/null")
            .arg("-oAPT::Sandbox::User=root")
            .args(["-oAcquire::Languages=none", "-oAcquire::Retries=3"])
            .arg("-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false");
        command
    }
}

/// Unpacks package files into `folder`, running none of their scripts.
///
/// # Errors
/// dpkg fails.
pub(crate) fn unpack(files: &[PathBuf], folder: &Path) -> Result<()> {
    for file in files {
        let mut command = Command::new("dpkg");
        command.arg("-x").arg(file).arg(folder);
        run_ok(&command, LIMIT, &mut |_| {})
            .with_context(|| format!("unpack {}", file.display()))?;
    }
    Ok(())
}

/// The host's own source entry with its suite replaced: a file name that apt
/// accepts, and its text.
///
/// # Errors
/// The host has no package source of its own code name.
pub(crate) fn sources_for(suite: &str) -> Result<(&'static str, String)> {
    let host = Distribution::of_host()?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(
            entries
                .filter_map(std::result::Result::ok)
                .map(|entry| entry.path()),
        );
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let derived = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => {
                derive_stanza(&text, &host.codename, suite).map(|text| ("derived.sources", text))
            }
            Some("list") => {
                derive_line(&text, &host.codename, suite).map(|text| ("derived.list", text))
            }
            _ => None,
        };
        if let Some(derived) = derived {
            return Ok(derived);
        }
    }
    bail!(
        "no package source for {} in /etc/apt/sources.list or /etc/apt/sources.list.d",
        host.codename
    )
}

/// A stanza (deb822 style) of `codename`, for `suite`.
fn derive_stanza(text: &str, codename: &str, suite: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanza = lines.split(|line| line.trim().is_empty()).find(|stanza| {
        let field = |key: &str| stanza.iter().find_map(|line| line.strip_prefix(key));
        let has = |key, word| {
            field(key).is_some_and(|value| value.split_whitespace().any(|each| each == word))
        };
        has("Types:", "deb")
            && has("Suites:", codename)
            && has("Components:", "main")
            && !has("Enabled:", "no")
    })?;
    let mut derived = String::new();
    for line in stanza {
        let line = match line.split_once(':') {
            Some(("Types", _)) => "Types: deb".to_owned(),
            Some(("Suites", _)) => format!("Suites: {suite}"),
            _ => (*line).to_owned(),
        };
        derived.push_str(&line);
        derived.push('\n');
    }
    Some(derived)
}

/// A one-line entry of `codename`, for `suite`.
fn derive_line(text: &str, codename: &str, suite: &str) -> Option<String> {
    text.lines().map(str::trim).find_map(|line| {
        let rest = line.strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (options, rest) = inner.split_once(']')?;
                (format!("[{options}] "), rest)
            }
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, its_suite) = (words.next()?, words.next()?);
        let components: Vec<&str> = words.collect();
        (its_suite == codename && components.contains(&"main"))
            .then(|| format!("deb {options}{uri} {suite} {}\n", components.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_keeps_everything_but_its_suites() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: https://mirror.example/debian\n\
            Suites: bookworm bookworm-updates\nComponents: main contrib\n\
            Signed-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: https://other.example\n\
            Suites: bookworm-security\nComponents: main\n";
        assert_eq!(
            derive_stanza(text, "bookworm", "sid").unwrap(),
            "Types: deb\nURIs: https://mirror.example/debian\nSuites: sid\n\
             Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n"
        );
    }

    #[test]
    fn a_foreign_stanza_is_no_source() {
        let text = "Types: deb\nURIs: https://other.example\nSuites: nodistro\nComponents: main\n";
        assert_eq!(derive_stanza(text, "bookworm", "sid"), None);
    }

    #[test]
    fn a_line_keeps_its_options_and_components() {
        let text = "# deb https://x.example bookworm main\n\
            deb [arch=amd64 trusted=yes] https://mirror.example/debian bookworm main contrib\n";
        assert_eq!(
            derive_line(text, "bookworm", "bookworm-backports").unwrap(),
            "deb [arch=amd64 trusted=yes] https://mirror.example/debian bookworm-backports main contrib\n"
        );
        assert_eq!(
            derive_line(
                "deb https://x.example bookworm-security main",
                "bookworm",
                "sid"
            ),
            None
        );
    }

    #[test]
    fn the_distribution_is_read_with_and_without_quotes() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=\"debian\"\n";
        let expected = Distribution {
            id: "debian".into(),
            codename: "bookworm".into(),
        };
        assert_eq!(Distribution::parse(text).unwrap(), expected);
    }
}
