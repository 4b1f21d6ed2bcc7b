//! Under which conditions figures were taken.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bench::row::{Level, Row};
use crate::bench::{Plan, guest, native};
use crate::process::output_of;

/// Everything a figure may depend on, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// The day the latest row was taken, in UTC.
    pub(crate) date: String,
    /// The processor's name.
    pub(crate) processor: String,
    /// How many of them there are.
    pub(crate) processors: usize,
    /// The host's kernel.
    pub(crate) kernel: String,
    /// The file system of what is served.
    pub(crate) file_system: String,
    /// How long a sample lasts that is no fixed amount of work, in milliseconds.
    pub(crate) sample_ms: u64,
    /// vfsd's version.
    pub(crate) vfsd: String,
    /// Which build of it.
    pub(crate) vfsd_sha256: String,
    /// virtiofsd's version.
    pub(crate) virtiofsd: String,
    /// Which build of it.
    pub(crate) virtiofsd_sha256: String,
    /// The daemons' options, by level.
    pub(crate) options: BTreeMap<String, String>,
    /// The guest; nothing where no row is of one.
    pub(crate) guest: Option<String>,
}

impl Conditions {
    /// The conditions of `rows`, taken just now.
    ///
    /// # Errors
    /// This machine does not tell them.
    pub(crate) fn of(plan: &Plan, rows: &[Row]) -> Result<Self> {
        let guest = if rows
            .iter()
            .any(|row| matches!(row.level, Level::Guest | Level::Roots))
        {
            Some(guest::described(&plan.workspace)?)
        } else {
            None
        };
        let cpuinfo = read("/proc/cpuinfo")?;
        Ok(Self {
            date: output_of(Command::new("date").args(["-u", "+%Y-%m-%d"]))?
                .trim()
                .to_owned(),
            processor: field(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            processors: std::thread::available_parallelism()
                .context("count the processors")?
                .get(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts")?, &plan.folder)
                .unwrap_or("unknown")
                .to_owned(),
            sample_ms: u64::try_from(plan.sample.as_millis()).context("a sample is short")?,
            vfsd: version(&plan.vfsd)?,
            vfsd_sha256: sha256(&plan.vfsd)?,
            virtiofsd: version(&plan.virtiofsd)?,
            virtiofsd_sha256: sha256(&plan.virtiofsd)?,
            options: [
                (Level::Native, &native::OPTIONS),
                (Level::Guest, &guest::OPTIONS),
            ]
            .map(|(level, options)| (level.word().to_owned(), options.further.join(" ")))
            .into(),
            guest,
        })
    }

    /// Whether figures of both may stand in one table: all is equal but the date, and a guest that
    /// one of them does not have.
    pub(crate) fn fit(&self, other: &Self) -> bool {
        let same_guest = match (&self.guest, &other.guest) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        let rest = Self {
            date: self.date.clone(),
            guest: self.guest.clone(),
            ..other.clone()
        };
        same_guest && *self == rest
    }

    /// The conditions as a sentence.
    pub(crate) fn sentence(&self) -> String {
        let Self {
            date,
            processor,
            processors,
            kernel,
            file_system,
            vfsd,
            virtiofsd,
            ..
        } = self;
        let guest = match &self.guest {
            Some(guest) => format!("; guest: {guest}"),
            None => String::new(),
        };
        format!(
            "{vfsd} and {virtiofsd} on {date}: {processors} × {processor}, Linux {kernel}, \
             {file_system}{guest}"
        )
    }
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {file}"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The type of the file system that `folder` is on: that of the deepest mount above it.
fn file_system<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((Path::new(words.next()?), words.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        // The last of equals is the one on top.
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind)
}

fn version(program: &Path) -> Result<String> {
    let text = output_of(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn sha256(program: &Path) -> Result<String> {
    let text = output_of(Command::new("sha256sum").arg("--").arg(program))?;
    let digest = text
        .split(' ')
        .next()
        .context("sha256sum prints a digest")?;
    Ok(digest.trim_start_matches('\\').to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn conditions() -> Conditions {
        Conditions {
            date: "2026-01-02".into(),
            processor: "A processor".into(),
            processors: 2,
            kernel: "6.12.1".into(),
            file_system: "ext4".into(),
            sample_ms: 300,
            vfsd: "vfsd 0.1.0".into(),
            vfsd_sha256: "aa".into(),
            virtiofsd: "virtiofsd 1.14.0".into(),
            virtiofsd_sha256: "bb".into(),
            options: BTreeMap::new(),
            guest: None,
        }
    }

    #[test]
    fn rows_of_another_day_fit_and_those_of_another_build_do_not() {
        let ours = conditions();
        let later = Conditions {
            date: "2026-01-03".into(),
            ..conditions()
        };
        let rebuilt = Conditions {
            vfsd_sha256: "cc".into(),
            ..conditions()
        };
        assert!(ours.fit(&later) && !ours.fit(&rebuilt));
    }

    #[test]
    fn rows_without_a_guest_fit_any_guest_but_two_guests_must_be_equal() {
        let with = |guest: &str| Conditions {
            guest: Some(guest.into()),
            ..conditions()
        };
        assert!(conditions().fit(&with("a")) && with("a").fit(&conditions()));
        assert!(with("a").fit(&with("a")) && !with("a").fit(&with("b")));
    }

    #[test]
    fn a_folder_is_on_the_deepest_mount_above_it() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /srv tmpfs rw 0 0\n/dev/b /srv/x xfs rw 0 0\n";
        let of = |folder: &str| file_system(mounts, Path::new(folder));
        assert_eq!(of("/srv/x/y"), Some("xfs"));
        assert_eq!(of("/srv/xy"), Some("tmpfs"));
        assert_eq!(of("/home"), Some("ext4"));
    }
}
