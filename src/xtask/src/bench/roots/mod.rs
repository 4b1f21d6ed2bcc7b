//! One tree as a guest's root, in three ways: an image with a writable layer by vfsd, the unpacked tree
//! by virtiofsd below the guest's own overlay, and ext4 on a block device.
//!
//! - [`sides`]: how the tree comes to the guest
//! - [`workloads`]: what runs in it
//!
//! The guest itself runs from a folder of its own; what is measured runs inside the tree (`chroot`).

mod sides;
mod workloads;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::Plan;
use super::progress::Progress;
use super::row::{Board, Level, Measure};
use crate::artifact::Cache;
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::guest::run::{self, Observer, Outcome};
use crate::guest::session::Session;
use crate::guest::{Kernel, KernelFiles, Machine};
use crate::progress::Step;
use sides::{Kind, Roots};
use workloads::{Figure, PROGRAM, figures, script};

/// What `--only` compares with.
fn full_name(figure: &Figure) -> String {
    format!("{}, {}", figure.name, figure.setting)
}

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    figures().iter().map(full_name).collect()
}

/// Boots a guest for each root and pair.
///
/// # Errors
/// A root cannot be made, or a guest fails.
pub(crate) fn run(plan: &Plan, board: &mut Board) -> Result<()> {
    let wanted: Vec<Figure> = figures()
        .into_iter()
        .filter(|figure| plan.wants(&full_name(figure)))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let cache = Cache::open(plan.workspace.guest_cache())?;
    let kernel = Kernel::Uml.fetch(&cache)?;
    let pristine = pristine(&cache, Contents::Bench)?;
    let step = Step::begin("make an image and a disk of the guest's root");
    let tree = Tree::copy_into(&plan.folder, &pristine)?;
    let roots = Roots::of(&tree, plan, &cache)?;
    step.done();
    let boots = plan.pairs * Kind::ALL.len();
    let mut progress = Progress::begin("roots", u64::try_from(boots)?);
    for _ in 0..plan.pairs {
        for kind in Kind::ALL {
            progress.note(kind.word());
            let taken = boot(kind, &roots, &tree, &kernel, plan)
                .with_context(|| format!("a guest whose root is of the kind {}", kind.word()))?;
            for figure in &wanted {
                let sample = taken.get(&figure.key).copied();
                let sample = sample.with_context(|| format!("no figure for {}", figure.key))?;
                board
                    .row(Level::Roots, figure.name, figure.setting, Measure::Seconds)
                    .push(kind.side(), sample);
            }
            progress.advance();
        }
    }
    Ok(())
}

fn boot(
    kind: Kind,
    roots: &Roots,
    tree: &Tree,
    kernel: &KernelFiles,
    plan: &Plan,
) -> Result<BTreeMap<String, f64>> {
    let given = roots.given(kind, plan);
    let session = Session::of(vec![script(kind)]).with_file("roots.py", PROGRAM);
    let root = crate::daemon::Storage::folder(&tree.root());
    let guest = run::Plan {
        machine: Machine::of(Kernel::Uml),
        kernel,
        program: &given.program,
        options: given.options,
        root: &root,
        data: given.data.as_ref(),
        disk: given.disk,
        session: &session,
    };
    let mut reader = Reader::default();
    run::run(&guest, &mut reader)?.check()?;
    ensure!(
        reader.unreadable.is_empty(),
        "the guest printed {:?}",
        reader.unreadable
    );
    Ok(reader.taken)
}

/// Takes the figures from what the guest prints.
#[derive(Debug, Default)]
struct Reader {
    taken: BTreeMap<String, f64>,
    unreadable: Vec<String>,
}

impl Observer for Reader {
    fn started(&mut self, _index: usize) {}

    fn printed(&mut self, _index: usize, line: &str) {
        let Some(rest) = line.strip_prefix("figure ") else {
            return;
        };
        let read = rest
            .split_once(' ')
            .and_then(|(key, value)| Some((key, value.parse::<f64>().ok()?)));
        match read {
            Some((key, value)) if value > 0.0 => {
                self.taken.insert(key.to_owned(), value);
            }
            _ => self.unreadable.push(line.to_owned()),
        }
    }

    fn ended(&mut self, _index: usize, _outcome: &Outcome) {}

    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        bail!("this host does nothing when asked: {}", words.join(" "))
    }
}
