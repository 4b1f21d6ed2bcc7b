//! The table of what runs in a guest: scripts, and the rows each one yields.

use std::time::Duration;

use crate::bench::row::Measure;
use crate::guest::session::Script;

const FIO: &str = include_str!("../../../guest/bench/fio.sh");

/// `timed`, beside what every guest script has.
const TIMED: &str = "timed() { python3 /vfsd/timed.py \"$@\"; }\n";

/// One figure that a workload yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    /// What the script calls it; one word, unique.
    pub(crate) key: String,
    /// What a reader calls it.
    pub(crate) name: String,
    /// Under which circumstances.
    pub(crate) setting: String,
    /// What it counts.
    pub(crate) measure: Measure,
}

/// A script and its figures.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// What runs.
    pub(crate) script: Script,
    /// What it prints a figure for, each once.
    pub(crate) figures: Vec<Figure>,
}

/// Everything there is, in the order it runs.
pub(crate) fn all() -> Vec<Workload> {
    let mut workloads = Vec::new();
    for block in [Block::Random4KiB, Block::Sequential1MiB] {
        for direct in [true, false] {
            for write in [false, true] {
                for jobs in [1, 4] {
                    workloads.push(fio(block, direct, write, jobs));
                }
            }
        }
    }
    workloads.extend([
        shell(
            include_str!("../../../guest/bench/find.sh"),
            &[
                ("find-cold", "find of a Debian root with sizes", "cold"),
                ("find-warm", "find of a Debian root with sizes", "warm"),
            ],
        ),
        shell(
            include_str!("../../../guest/bench/tar.sh"),
            &[("tar", "tar of /usr/share", "cold")],
        ),
        python(
            include_str!("../../../guest/bench/files.py"),
            &[
                ("create", "create 10,000 files", "one folder"),
                ("stat", "stat 10,000 files", "one folder, cold"),
                ("unlink", "unlink 10,000 files", "one folder, cold"),
            ],
        ),
        shell(
            include_str!("../../../guest/bench/git.sh"),
            &[
                ("git-clone", "git clone of 3,000 files", "cold"),
                ("git-status-cold", "git status of 3,000 files", "cold"),
                ("git-status-warm", "git status of 3,000 files", "warm"),
            ],
        ),
        shell(
            include_str!("../../../guest/bench/compile.sh"),
            &[("compile", "C compile of 11 files", "cold")],
        ),
        shell(
            include_str!("../../../guest/bench/sqlite.sh"),
            &[
                ("sqlite", "sqlite, 500 inserts", "synchronous off"),
                ("sqlite-synced", "sqlite, 100 inserts", "synchronous full"),
            ],
        ),
        shell(
            include_str!("../../../guest/bench/import.sh"),
            &[("import", "import of 500 Python modules", "cold")],
        ),
    ]);
    workloads
}

/// Both ends of a boot: see `clock.sh`.
pub(crate) fn clock() -> Script {
    Script {
        text: include_str!("../../../guest/bench/clock.sh").to_owned(),
        limit: Duration::from_secs(20),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Random4KiB,
    Sequential1MiB,
}

fn fio(block: Block, direct: bool, write: bool, jobs: u8) -> Workload {
    let (name, size, prefix, measure, loops) = match block {
        Block::Random4KiB => (
            "fio 4 KiB random",
            "4k",
            "rand",
            Measure::OperationsPerSecond,
            1,
        ),
        Block::Sequential1MiB => (
            "fio 1 MiB sequential",
            "1m",
            "",
            Measure::MebibytesPerSecond,
            16,
        ),
    };
    let verb = if write { "write" } else { "read" };
    let mode = if direct { "direct" } else { "buffered" };
    let key = format!("fio-{size}-{mode}-{verb}-{jobs}");
    let text = format!(
        "ROW={key} RW={prefix}{verb} BLOCK={size} DIRECT={} JOBS={jobs} LOOPS={loops}\n{FIO}",
        u8::from(direct)
    );
    Workload {
        script: script(&text, 30),
        figures: vec![Figure {
            key,
            name: format!("{name} {verb}"),
            setting: format!("{mode}, {jobs} {}", if jobs == 1 { "job" } else { "jobs" }),
            measure,
        }],
    }
}

fn shell(text: &str, figures: &[(&str, &str, &str)]) -> Workload {
    Workload {
        script: script(text, 60),
        figures: in_seconds(figures),
    }
}

fn python(text: &str, figures: &[(&str, &str, &str)]) -> Workload {
    Workload {
        script: Script::python(text, Duration::from_secs(60)),
        figures: in_seconds(figures),
    }
}

fn script(text: &str, limit_seconds: u64) -> Script {
    Script {
        text: format!(". /vfsd/lib.sh\n{TIMED}{text}"),
        limit: Duration::from_secs(limit_seconds),
    }
}

fn in_seconds(figures: &[(&str, &str, &str)]) -> Vec<Figure> {
    figures
        .iter()
        .map(|(key, name, setting)| Figure {
            key: (*key).to_owned(),
            name: (*name).to_owned(),
            setting: (*setting).to_owned(),
            measure: Measure::Seconds,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_figure_is_found_by_its_key_and_by_its_name_and_setting() {
        let figures: Vec<Figure> = all().into_iter().flat_map(|each| each.figures).collect();
        let keys: BTreeSet<&String> = figures.iter().map(|figure| &figure.key).collect();
        let names: BTreeSet<_> = figures
            .iter()
            .map(|figure| (&figure.name, &figure.setting))
            .collect();
        assert_eq!((keys.len(), names.len()), (figures.len(), figures.len()));
    }

    #[test]
    fn every_script_names_the_figures_it_is_asked_for() {
        for workload in all() {
            for figure in &workload.figures {
                assert!(workload.script.text.contains(&figure.key), "{}", figure.key);
            }
        }
    }
}
