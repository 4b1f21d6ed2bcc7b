//! How many requests programs in a guest make: of virtiofsd, of a directory, of a writable layer and
//! of an image.
//!
//! - [`counts`]: where the counts come from
//! - [`section`]: what becomes of them

mod counts;
mod section;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::row::Level;
use super::section::Section;
use super::{Plan, guest};
use crate::artifact::Cache;
use crate::cases::image::ImageRoot;
use crate::daemon::{Options, Program, Storage};
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::guest::run::{self, Observer, Outcome};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, KernelFiles, Machine};
use crate::process::tail;
use crate::progress::Step;
use counts::{Counter, Counts, between};

const COUNTED: &str = include_str!("../../../guest/bench/requests/lib.sh");
const PROGRAMS: &str = include_str!("../../../guest/bench/requests/programs.sh");

/// The programs by the words of the script, and as a reader calls them.
const NAMES: [(&str, &str); 6] = [
    ("find", "find of a Debian root with sizes"),
    ("git-status", "git status of 3,000 files"),
    ("compile", "C compile of 11 files"),
    ("import", "import of 500 Python modules"),
    ("verify", "dpkg -V of 6 packages"),
    ("read", "cat of 1,000 small files"),
];

/// How long all programs may take.
const LIMIT: Duration = Duration::from_secs(400);

/// What serves the guest's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Virtiofsd,
    Directory,
    Layer,
    Image,
}

/// In the order of the columns.
pub(super) const SIDES: [Side; 4] = [Side::Virtiofsd, Side::Directory, Side::Layer, Side::Image];

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Virtiofsd => "virtiofsd",
            Self::Directory => "`dir:`",
            Self::Layer => "`dir:` and `--upper`",
            Self::Image => "`oci:` and `--upper`",
        }
    }
}

/// The requests of one program.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) program: String,
    /// Cold or warm.
    pub(super) when: String,
    /// In the order of [`SIDES`].
    pub(super) sides: Vec<Counts>,
}

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    NAMES.iter().map(|(_, name)| (*name).to_owned()).collect()
}

/// Boots a guest over each side, prints the table, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// A guest cannot be made, does not boot and end well, or a program fails.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let cache = Cache::open(plan.workspace.guest_cache())?;
    let kernel = Machine::of(Kernel::Uml).kernel.fetch(&cache)?;
    let root = pristine(&cache, Contents::Bench)?;
    let vfsd = Program::Vfsd(plan.vfsd.clone());
    let mut taken: Vec<Taken> = Vec::new();
    for side in SIDES {
        let mut step = Step::begin(format!("count the requests of {}", side.name()));
        let tree = Tree::copy_into(&plan.folder, &root)?;
        let image = match side {
            Side::Image => Some(ImageRoot::of(&root, &vfsd, &cache)?),
            _ => None,
        };
        let upper = plan.folder.join(format!("upper-{side:?}"));
        let folder = tree.root();
        let storage = match (side, &image) {
            (Side::Image, Some(image)) => image.root(),
            (Side::Layer, _) => {
                let mut storage = Storage::named("root", format!("dir:{}", folder.display()));
                storage.argument("--upper").argument(&upper);
                storage
            }
            _ => Storage::folder(&folder),
        };
        let counted = boot(plan, side, &kernel, &storage)
            .with_context(|| format!("a guest over {}", side.name()))?;
        for (index, (program, when, counts)) in counted.into_iter().enumerate() {
            match taken.get_mut(index) {
                Some(row) => row.sides.push(counts),
                None => taken.push(Taken {
                    program,
                    when,
                    sides: vec![counts],
                }),
            }
        }
        step.note("");
        step.done();
    }
    taken.retain(|row| plan.wants(&row.program));
    let conditions = format!("{}.", guest::described(&plan.workspace)?);
    let text = section::text(&taken, &conditions);
    println!("{text}");
    if plan.only.is_empty() {
        Section(Level::Requests).write(&plan.workspace, &text)?;
    }
    Ok(())
}

type Counted = Vec<(String, String, Counts)>;

fn boot(plan: &Plan, side: Side, kernel: &KernelFiles, storage: &Storage) -> Result<Counted> {
    let place = plan.folder.join(format!("counter-{side:?}"));
    let (program, counter) = match side {
        Side::Virtiofsd => {
            let line = format!(
                "exec {} --log-level debug \"$@\" 2>{}",
                shown(&plan.virtiofsd),
                shown(&place)
            );
            (
                Program::Virtiofsd(wrapper(plan, side, &line)?),
                Counter::Log(place),
            )
        }
        Side::Directory | Side::Layer | Side::Image => {
            let line = format!(
                "exec {} \"$@\" --control {}",
                shown(&plan.vfsd),
                shown(&place)
            );
            (
                Program::Vfsd(wrapper(plan, side, &line)?),
                Counter::Control(place),
            )
        }
    };
    let session = Session::of(vec![Script {
        text: format!(". /vfsd/lib.sh\n{COUNTED}{PROGRAMS}"),
        limit: LIMIT,
    }]);
    let run = run::Plan {
        machine: Machine::of(Kernel::Uml),
        kernel,
        program: &program,
        options: Options::default(),
        root: storage,
        data: None,
        disk: None,
        session: &session,
    };
    let mut reader = Reader {
        counter,
        begun: None,
        counted: Vec::new(),
    };
    let report = run::run(&run, &mut reader)?;
    let ended = report.outcomes.first().and_then(|outcome| outcome.status);
    let output = report
        .outcomes
        .first()
        .map_or("", |outcome| &outcome.output);
    ensure!(
        ended == Some(0) && report.troubles.is_empty(),
        "the programs did not end well ({ended:?})\n{}\n{}\nThe daemon's log:\n{}",
        tail(output, 30),
        report.troubles.join("\n"),
        report.daemon_log
    );
    ensure!(
        reader.counted.len() == 2 * NAMES.len(),
        "{} counts were taken of {}",
        reader.counted.len(),
        2 * NAMES.len()
    );
    Ok(reader.counted)
}

/// A program that starts the daemon in a way the guest's runner does not know.
fn wrapper(plan: &Plan, side: Side, line: &str) -> Result<PathBuf> {
    let path = plan.folder.join(format!("daemon-{side:?}"));
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).context("write the daemon's wrapper")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("chmod")?;
    Ok(path)
}

/// A path as a word for the shell.
fn shown(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Looks at the counters when the guest says so.
struct Reader {
    counter: Counter,
    begun: Option<Counts>,
    counted: Counted,
}

impl Observer for Reader {
    fn started(&mut self, _: usize) {}

    fn printed(&mut self, _: usize, _: &str) {}

    fn ended(&mut self, _: usize, _: &Outcome) {}

    fn asked(&mut self, _: usize, words: &[&str]) -> Result<()> {
        match *words {
            ["begin"] => self.begun = Some(self.counter.read()?),
            ["end", program, when] => {
                let before = self.begun.take().context("nothing has begun")?;
                let counts = between(&before, &self.counter.read()?);
                let name = NAMES.iter().find(|(word, _)| *word == program);
                let (_, name) = name.with_context(|| format!("{program} is no program"))?;
                let row = ((*name).to_owned(), when.to_owned(), counts);
                self.counted.push(row);
            }
            _ => bail!("this host does not count {}", words.join(" ")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_that_has_a_name_is_counted_once() {
        for (word, _) in NAMES {
            let begins = format!("counted {word} ");
            let lines = PROGRAMS.lines().filter(|line| line.starts_with(&begins));
            assert_eq!(lines.count(), 1, "{word}");
        }
        let all = PROGRAMS.lines().filter(|line| line.starts_with("counted "));
        assert_eq!(all.count(), NAMES.len());
    }
}
