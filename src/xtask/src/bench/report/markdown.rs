//! The tables: all rows in `RESULTS.md`, the headlines in the README.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::results::Results;
use crate::bench::row::{Level, Measure, Row, Side};

/// Where the README's block begins and ends.
const BEGIN: &str = "<!-- bench: written by cargo xtask bench -->";
const END: &str = "<!-- bench: end -->";

/// The rows of the README: name and setting.
const NATIVE_HEADLINES: [(&str, &str); 6] = [
    ("LOOKUP hit", "depth 8, 1 queue"),
    ("GETATTR", "depth 8, 1 queue"),
    ("CREATE+UNLINK", "depth 8, 1 queue"),
    ("READDIRPLUS entry", "depth 8, 1 queue"),
    ("READ 4 KiB", "depth 8, 1 queue"),
    ("WRITE 4 KiB", "depth 8, 1 queue"),
];
const GUEST_HEADLINES: [(&str, &str); 10] = [
    ("fio 4 KiB random read", "direct, 1 job"),
    ("fio 4 KiB random write", "direct, 1 job"),
    ("fio 1 MiB sequential read", "buffered, 1 job"),
    ("fio 1 MiB sequential write", "buffered, 1 job"),
    ("find of a Debian root with sizes", "cold"),
    ("tar of /usr/share", "cold"),
    ("create 10,000 files", "one folder"),
    ("git clone of 3,000 files", "cold"),
    ("git status of 3,000 files", "cold"),
    ("C compile of 11 files", "cold"),
];

/// What stands above the rows of a level.
fn heading(level: Level) -> &'static str {
    match level {
        Level::Native => "Requests, by a front end without a guest",
        Level::Guest => "Programs in a guest",
        Level::Roots => "A guest's root in three ways",
        Level::Scale => "Many guests, files and nodes",
        Level::Requests => "Requests of a program",
        Level::Volumes => "Volumes in a bucket",
        Level::Buckets => "Objects of a bucket as files",
        Level::Images => "An image in a registry as a guest's root",
        Level::Plugins => "Plugins",
        Level::Layers => "A writable layer",
    }
}

/// How the rows of a level came about.
fn explanation(level: Level) -> &'static str {
    match level {
        Level::Native => {
            "A vhost-user front end sends requests as a Linux guest would, so many at a time as \
             the depth says. It looks at its ring on a processor of its own, or sleeps until its \
             interrupt as a guest does, on a processor of its own or on the daemon's. *Bare* is a \
             loop of the same system calls in one thread, without any daemon. virtiofsd has one \
             request queue."
        }
        Level::Guest => {
            "The guest's root is a folder on the host, served over one request queue. Before a \
             cold row the guest has forgotten all it had read; the host never has, for either \
             daemon. Nothing waits for the disk but what the program itself syncs."
        }
        Level::Roots => {
            "One Debian tree as a root, in which everything runs: an OCI image with a writable layer, both \
             by vfsd; the unpacked tree by *virtiofsd*, below an overlay of the guest's kernel whose upper is in memory; \
             *bare* is ext4 on a block device of the guest. Before a cold row the guest has forgotten all \
             it had read; the host never has."
        }
        Level::Scale => "What the daemon costs when much is asked of it, or nothing.",
        Level::Requests => "How many requests a guest waits for.",
        Level::Volumes => "Programs in a volume in a bucket.",
        Level::Buckets => "Programs in the objects of a bucket.",
        Level::Images => "From an image's name to a guest's first command.",
        Level::Plugins => "What an operation costs that a plugin answers.",
        Level::Layers => "What a writable layer over a tree costs.",
    }
}

/// The text of `RESULTS.md`.
pub(crate) fn full(results: &Results) -> String {
    let conditions = &results.conditions;
    let mut text = format!(
        "# Results\n\n{}.\n\nWritten by `cargo xtask bench`; every sample is in \
         [results.json](results.json). Both daemons ran in turn, on the same folder with the same \
         options. A figure is the median; beside it is how far the samples lie apart, as a part of \
         the median. Ratios above 1 mean that vfsd is better, whatever the unit.\n",
        conditions.sentence()
    );
    for level in Level::ALL {
        let rows: Vec<&Row> = of_level(&results.rows, level).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {}\n\n{}", heading(level), explanation(level));
        if let Some(options) = conditions.options.get(level.word()) {
            let _ = write!(text, " Options: `{options}`.");
        }
        text.push_str("\n\n");
        text.push_str(&table(&rows));
        if level == Level::Roots {
            text.push_str(&means(&rows));
        }
    }
    text
}

/// The geometric means of the ratios of rows that are alike.
fn means(rows: &[&Row]) -> String {
    let only_reads = |row: &Row| {
        rows.iter()
            .any(|other| other.name == row.name && other.setting == "warm")
    };
    let mut text = String::from("\nGeometric means of the ratios:");
    for (words, setting, reads) in [
        ("what reads, cold", "cold", true),
        ("what writes, cold", "cold", false),
        ("what reads, warm", "warm", true),
    ] {
        let alike = rows
            .iter()
            .filter(|row| row.setting == setting && only_reads(row) == reads);
        let (peer, bare): (Vec<_>, Vec<_>) = alike.map(|row| (row.ratio(), row.of_bare())).unzip();
        let [peer, bare] = [peer, bare].map(|ratios| times(geometric_mean(&ratios)));
        let _ = write!(text, " {words} {peer} to virtiofsd and {bare} to bare;");
    }
    text.truncate(text.len().saturating_sub(1));
    text.push_str(".\n");
    text
}

/// Of those that are there.
fn geometric_mean(ratios: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = ratios.iter().flatten().map(|ratio| ratio.ln()).collect();
    let count = u32::try_from(known.len()).ok().filter(|&count| count > 0)?;
    Some((known.iter().sum::<f64>() / f64::from(count)).exp())
}

fn of_level(rows: &[Row], level: Level) -> impl Iterator<Item = &Row> {
    rows.iter().filter(move |row| row.level == level)
}

/// A table without the columns that none of its rows has.
fn table(rows: &[&Row]) -> String {
    let peer = rows.iter().any(|row| !row.virtiofsd.is_empty());
    let bare = rows.iter().any(|row| !row.bare.is_empty());
    let mut text = String::from("| | | unit | vfsd |");
    let mut rule = String::from("|---|---|---|---:|");
    for (wanted, heads) in [
        (peer, ["virtiofsd", "ratio"]),
        (bare, ["bare", "ratio to bare"]),
    ] {
        if wanted {
            let _ = write!(text, " {} |", heads.join(" | "));
            rule.push_str("---:|---:|");
        }
    }
    let _ = write!(text, "\n{rule}\n");
    for row in rows {
        let _ = write!(
            text,
            "| {} | {} | {} | {} |",
            row.name,
            row.setting,
            row.measure.unit(),
            cell(row, Side::Vfsd)
        );
        for (wanted, side, ratio) in [
            (peer, Side::Virtiofsd, row.ratio()),
            (bare, Side::Bare, row.of_bare()),
        ] {
            if wanted {
                let _ = write!(text, " {} | {} |", cell(row, side), times(ratio));
            }
        }
        text.push('\n');
    }
    text
}

fn cell(row: &Row, side: Side) -> String {
    match row.summary(side) {
        Some(summary) => format!(
            "{} ({:.0} %)",
            row.measure.shown(summary.median),
            summary.spread() * 100.0
        ),
        None => String::new(),
    }
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
}

/// `readme` with its block made anew.
///
/// # Errors
/// It has no block.
pub(crate) fn into_readme(readme: &str, results: &Results) -> Result<String> {
    let (before, rest) = readme
        .split_once(BEGIN)
        .context("the README has no place for the table")?;
    let (_, after) = rest
        .split_once(END)
        .context("the README's table has no end")?;
    Ok(format!(
        "{before}{BEGIN}\n{}{END}{after}",
        headlines(results)
    ))
}

fn headlines(results: &Results) -> String {
    let mut text = String::new();
    for (level, wanted) in [
        (Level::Guest, GUEST_HEADLINES.as_slice()),
        (Level::Native, NATIVE_HEADLINES.as_slice()),
    ] {
        let rows: Vec<&Row> = wanted
            .iter()
            .filter_map(|(name, setting)| {
                // Processor time is the chart's second column.
                of_level(&results.rows, level).find(|row| {
                    row.name == *name
                        && row.setting == *setting
                        && row.measure != Measure::CpuMicrosecondsPerRequest
                })
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n![{heading}: the ratio of vfsd to virtiofsd, row by row](bench/{}.svg)\n\n\
             | {heading} | unit | vfsd | virtiofsd | ratio |\n|---|---|---:|---:|---:|\n",
            level.word(),
            heading = heading(level),
        );
        for row in rows {
            let figure = |side| {
                row.summary(side)
                    .map_or(String::new(), |summary| row.measure.shown(summary.median))
            };
            let _ = writeln!(
                text,
                "| {}, {} | {} | {} | {} | {} |",
                row.name,
                row.setting,
                row.measure.unit(),
                figure(Side::Vfsd),
                figure(Side::Virtiofsd),
                times(row.ratio())
            );
        }
    }
    let _ = write!(
        text,
        "\n{}. All rows: [bench/RESULTS.md](bench/RESULTS.md).\n\n",
        results.conditions.sentence()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::conditions::tests::conditions;
    use super::super::results::tests::row;
    use super::*;
    use crate::bench::{guest, native};

    fn results() -> Results {
        let (name, setting) = GUEST_HEADLINES[4];
        let mut headline = row(Level::Guest, name, &[1.0, 1.5, 2.0], &[3.0]);
        headline.setting = setting.to_owned();
        let mut bare = row(Level::Native, "READ 4 KiB", &[2.0], &[]);
        bare.bare = vec![1.0];
        Results {
            conditions: conditions(),
            rows: vec![bare, headline, row(Level::Guest, "other", &[1.0], &[1.0])],
        }
    }

    #[test]
    fn every_headline_is_a_row() {
        let names = guest::names();
        for (name, setting) in GUEST_HEADLINES {
            assert!(
                names.contains(&format!("{name}, {setting}")),
                "{name}, {setting}"
            );
        }
        let names = native::names();
        for (name, _) in NATIVE_HEADLINES {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn the_full_table_has_every_row_and_only_columns_that_are_filled() {
        let text = full(&results());
        assert!(
            text.contains(
                "| | | unit | vfsd | bare | ratio to bare |\n|---|---|---|---:|---:|---:|\n\
             | READ 4 KiB | cold | s | 2 (0 %) | 1 (0 %) | 0.50 |\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "| find of a Debian root with sizes | cold | s | 1.50 (67 %) | 3 (0 %) | 2.00 |\n\
             | other | cold | s | 1 (0 %) | 1 (0 %) | 1.00 |\n"
            ),
            "{text}"
        );
        assert!(!text.contains(heading(Level::Scale)));
    }

    #[test]
    fn a_root_has_the_means_of_rows_that_are_alike() {
        let timed = |name, setting: &str, vfsd, bare| {
            let mut row = row(Level::Roots, name, &[vfsd], &[2.0 * vfsd]);
            row.setting = setting.to_owned();
            row.bare = vec![bare];
            row
        };
        let rows = [
            timed("walk", "cold", 1.0, 1.0),
            timed("walk", "warm", 1.0, 3.0),
            timed("read", "cold", 1.0, 4.0),
            timed("read", "warm", 1.0, 3.0),
            timed("write", "cold", 2.0, 1.0),
        ];
        let text = means(&rows.iter().collect::<Vec<_>>());
        assert_eq!(
            text,
            "\nGeometric means of the ratios: what reads, cold 2.00 to virtiofsd and 2.00 to bare; what writes, cold \
             2.00 to virtiofsd and 0.50 to bare; what reads, warm 2.00 to virtiofsd and 3.00 to bare.\n"
        );
    }

    #[test]
    fn only_the_block_of_the_readme_changes() {
        let readme = format!("# Title\n\n{BEGIN}\nstale\n{END}\n\n## More\n");
        let text = into_readme(&readme, &results()).unwrap();
        assert!(
            text.starts_with("# Title\n\n<!--") && text.ends_with("-->\n\n## More\n"),
            "{text}"
        );
        assert!(!text.contains("stale"));
        assert!(
            text.contains("| find of a Debian root with sizes, cold | s | 1.50 | 3 | 2.00 |\n")
        );
        assert!(!text.contains("other"));
        assert_eq!(into_readme(&text, &results()).unwrap(), text);
    }

    #[test]
    fn a_readme_without_a_block_is_refused() {
        assert!(into_readme("# Title\n", &results()).is_err());
    }
}
