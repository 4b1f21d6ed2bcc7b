//! What a run leaves: every sample, tables and charts.
//!
//! - [`conditions`]: where and with what the figures were taken
//! - [`results`]: the file `results.json`
//! - [`markdown`]: the file `RESULTS.md` and the README's table
//! - [`chart`]: the files `native.svg` and `guest.svg`
//!
//! The folder `bench` has the project's results: those of a whole run, and
//! those of later parts under equal conditions (but a level that is taken
//! again as a whole may have other options). Any other run leaves the same
//! files below `target`, so that a try does not undo the results.

mod chart;
mod conditions;
mod markdown;
mod results;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Plan;
use super::row::{Level, Row};
use super::section;
use conditions::Conditions;
use results::Results;

/// Fewer pairs say too little.
const PAIRS: usize = 5;

/// The charts: a level and what is written above it.
const CHARTS: [(Level, &str); 2] = [
    (
        Level::Native,
        "Requests without a guest: vfsd compared with virtiofsd",
    ),
    (
        Level::Guest,
        "Programs in a guest: vfsd compared with virtiofsd",
    ),
];

/// Whether a run was about everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every row of every level.
    Whole,
    /// Some rows.
    Part,
}

/// What becomes of a run's rows.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    /// They are the project's results.
    Project(Results),
    /// They are a try, and why.
    Try(Results, &'static str),
}

fn place(run: Results, earlier: Option<Results>, extent: Extent, pairs: usize) -> Place {
    if pairs < PAIRS {
        return Place::Try(run, "it has fewer than 5 pairs");
    }
    match (extent, earlier) {
        (Extent::Whole, _) => Place::Project(run),
        (Extent::Part, None) => Place::Try(run, "it is only a part, and bench/ has no results"),
        (Extent::Part, Some(earlier)) if run.join(&earlier) => Place::Project(run.over(earlier)),
        (Extent::Part, Some(_)) => Place::Try(
            run,
            "it is only a part, and bench/ was taken under other conditions",
        ),
    }
}

/// Writes the results of a run, and says where.
///
/// # Errors
/// A file cannot be read or written, or this machine does not tell what it is.
pub(crate) fn write(plan: &Plan, extent: Extent, rows: &[Row]) -> Result<()> {
    let project = plan.workspace.root().join("bench");
    let run = Results {
        conditions: Conditions::of(plan, rows)?,
        rows: rows.to_vec(),
    };
    let file = project.join("results.json");
    let earlier = if file.exists() {
        Some(Results::parse(&read(&file)?).with_context(|| format!("{}", file.display()))?)
    } else {
        None
    };
    match place(run, earlier, extent, plan.pairs) {
        Place::Project(results) => {
            files(&project, &results)?;
            let readme = plan.workspace.root().join("README.md");
            save(&readme, &markdown::into_readme(&read(&readme)?, &results)?)?;
            println!("Results, tables and charts are in bench/, the README has the headlines.");
        }
        Place::Try(results, why) => {
            let folder = plan.workspace.target().join("bench");
            files(&folder, &results)?;
            println!(
                "Results, tables and charts of this run are in {}, not in bench/: {why}.",
                folder.display()
            );
        }
    }
    Ok(())
}

fn files(folder: &Path, results: &Results) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    save(&folder.join("results.json"), &results.text()?)?;
    let tables = folder.join("RESULTS.md");
    let earlier = if tables.exists() {
        read(&tables)?
    } else {
        String::new()
    };
    let text = section::keep(&earlier, &markdown::full(results));
    save(&tables, &text)?;
    for (level, title) in CHARTS {
        let footer = results.conditions.sentence();
        let chart = folder.join(format!("{}.svg", level.word()));
        match chart::svg(&results.rows, level, title, &footer)? {
            Some(text) => save(&chart, &text)?,
            // One of an earlier run would be of other figures.
            None if chart.exists() => fs::remove_file(&chart).context("remove a chart")?,
            None => {}
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

fn save(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::conditions::tests::conditions;
    use super::results::tests::row;
    use super::*;

    fn results(name: &str) -> Results {
        Results {
            conditions: conditions(),
            rows: vec![row(Level::Guest, name, &[1.0], &[2.0])],
        }
    }

    fn elsewhere(name: &str) -> Results {
        Results {
            conditions: Conditions {
                kernel: "5.10".into(),
                ..conditions()
            },
            ..results(name)
        }
    }

    #[test]
    fn a_whole_run_replaces_what_was_there() {
        for earlier in [Some(elsewhere("old")), None] {
            let placed = place(results("new"), earlier, Extent::Whole, 5);
            assert_eq!(placed, Place::Project(results("new")));
        }
    }

    #[test]
    fn a_part_joins_results_of_equal_conditions_only() {
        let placed = place(results("new"), Some(results("old")), Extent::Part, 5);
        let Place::Project(both) = placed else {
            panic!("{placed:?}")
        };
        assert_eq!(both.rows.len(), 2);
        for earlier in [Some(elsewhere("old")), None] {
            let placed = place(results("new"), earlier, Extent::Part, 5);
            assert!(matches!(placed, Place::Try(alone, _) if alone == results("new")));
        }
    }

    #[test]
    fn a_run_of_few_pairs_is_a_try() {
        for earlier in [None, Some(results("old"))] {
            let placed = place(results("new"), earlier, Extent::Whole, 4);
            assert!(matches!(placed, Place::Try(..)));
        }
    }

    #[test]
    fn a_folder_gets_all_files_and_keeps_no_chart_of_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("native.svg"), "old").unwrap();
        files(folder.path(), &results("find")).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["RESULTS.md", "guest.svg", "results.json"]);
    }
}
