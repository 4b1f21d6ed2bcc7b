//! A guest whose root is an image in a registry: vfsd beside skopeo, umoci and virtiofsd.
//!
//! - [`sides`]: how the image comes to the guest
//! - [`link`]: the way to the registry, which may be narrow
//! - [`section`]: what becomes of the figures

mod link;
mod section;
mod sides;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Plan;
use super::figures::Samples;
use super::row::{Level, Measure};
use super::section::Section;
use crate::artifact::Cache;
use crate::cases::image::make_layout;
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::guest::run::{self, Observer, Outcome};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, KernelFiles, Machine};
use crate::progress::Step;
use crate::registry::{Registry, Repository, push_index};
use link::Link;
use sides::{SIDES, Side, Source};

/// What the guest does.
const PROGRAM: &str = include_str!("../../../guest/bench/images.sh");
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Bytes a second of the narrow link.
const NARROW: u64 = 3_000_000;

/// A way to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Narrow,
    Loopback,
}

impl Width {
    const ALL: [Self; 2] = [Self::Narrow, Self::Loopback];

    fn name(self) -> &'static str {
        match self {
            Self::Narrow => "3 MB/s",
            Self::Loopback => "loopback",
        }
    }

    fn rate(self) -> Option<u64> {
        (self == Self::Narrow).then_some(NARROW)
    }
}

/// What is measured of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Seconds until the guest starts.
    Prepared,
    /// Seconds until its first command has ended.
    Command,
    /// Bytes that have come over the link until then.
    Fetched,
    /// Seconds from then until every file has been read.
    Tree,
}

impl What {
    const ALL: [Self; 4] = [Self::Prepared, Self::Command, Self::Fetched, Self::Tree];

    fn name(self) -> &'static str {
        match self {
            Self::Prepared => "until the guest is started",
            Self::Command => "until `python3 -c \"import json\"` has ended in it",
            Self::Fetched => "fetched until then",
            Self::Tree => "from then until every file has been read",
        }
    }

    fn measure(self) -> Measure {
        match self {
            Self::Fetched => Measure::Bytes,
            _ => Measure::Seconds,
        }
    }
}

/// All samples, by the link's width, the side, and the [name](What::name) of what is measured.
type Taken = [[Samples; SIDES.len()]; Width::ALL.len()];

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    let rows = Width::ALL
        .into_iter()
        .flat_map(|width| What::ALL.map(|what| full_name(width, what)));
    rows.collect()
}

fn full_name(width: Width, what: What) -> String {
    format!("{}, {}", width.name(), what.name())
}

/// Boots a guest for each side, link and pair, prints the table, and writes the section of `bench/RESULTS.md`.
///
/// # Errors
/// An image cannot be made, or a guest fails.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let cache = Cache::open(plan.workspace.guest_cache())?;
    let kernel = Kernel::Uml.fetch(&cache)?;
    let pristine = pristine(&cache, Contents::Bench)?;
    let step = Step::begin("an image in a registry");
    let tree = Tree::copy_into(&plan.folder, &pristine)?;
    // What the other levels work on is no part of a system.
    fs::remove_dir_all(tree.root().join("srv")).context("remove what is no part of an image")?;
    fs::create_dir(tree.root().join("srv")).context("remove what is no part of an image")?;
    let folder = plan.folder.join("images");
    fs::create_dir(&folder).context("make a folder for the image")?;
    make_layout(&tree.root(), &folder)?;
    drop(tree);
    let registry = Registry::new(&folder, &cache)?;
    let running = registry.start()?;
    let layout = format!("{}:root", folder.join("layout").display());
    registry.push(&layout)?;
    registry.push_chunked(&layout, &folder.join("plain"))?;
    let image = Repository::AsItIs.at(registry.address());
    let indexes = push_index(&plan.vfsd, &image, &folder.join("indexing"))?;
    fs::remove_dir_all(folder.join("indexing")).context("remove what indexing has left")?;
    step.done();
    let mut taken = Taken::default();
    for pair in 0..plan.pairs {
        for (width, samples) in Width::ALL.into_iter().zip(&mut taken) {
            for (side, samples) in SIDES.into_iter().zip(samples) {
                if width == Width::Narrow && !side.needs_the_link() {
                    continue;
                }
                let told = format!(
                    "{} of {}: {}, {}",
                    pair + 1,
                    plan.pairs,
                    width.name(),
                    side.name()
                );
                let step = Step::begin(told);
                let link = Link::to(registry.address(), width.rate())?;
                sample(side, (&link, &indexes), plan, &kernel, samples)
                    .with_context(|| format!("{}, {}", width.name(), side.name()))?;
                step.done();
            }
        }
    }
    drop(running);
    let text = section::text(&taken);
    println!("{text}");
    Section(Level::Images).write(&plan.workspace, &text)
}

/// Comes from a name of an image to a guest that has read it all.
fn sample(
    side: Side,
    (link, indexes): (&Link, &str),
    plan: &Plan,
    kernel: &KernelFiles,
    samples: &mut Samples,
) -> Result<()> {
    let folder = plan.folder.join("host");
    fs::create_dir(&folder).context("make a host's folder")?;
    let source = Source::of(side, link, plan, &folder, indexes)?;
    let mut watch = Watch {
        link,
        before: link.bytes(),
        begun: Instant::now(),
        taken: BTreeMap::new(),
    };
    source.prepare()?;
    watch.note(What::Prepared, watch.begun.elapsed().as_secs_f64());
    let session = Session::of(vec![Script {
        text: PROGRAM.to_owned(),
        limit: LIMIT,
    }]);
    let root = source.root();
    let guest = run::Plan {
        machine: Machine::of(Kernel::Uml),
        kernel,
        program: source.program(),
        options: source.options(),
        root: &root,
        data: None,
        disk: None,
        session: &session,
    };
    run::run(&guest, &mut watch)?.check()?;
    for what in What::ALL {
        let figure = watch.taken.get(&what);
        let figure = figure.with_context(|| format!("no figure: {}", what.name()))?;
        samples.add(what.name(), *figure);
    }
    fs::remove_dir_all(folder).context("remove a host's folder")
}

/// Notes when the guest says that it has done something.
struct Watch<'a> {
    link: &'a Link,
    before: u64,
    begun: Instant,
    taken: BTreeMap<What, f64>,
}

impl Watch<'_> {
    fn note(&mut self, what: What, figure: f64) {
        self.taken.insert(what, figure);
    }
}

impl Observer for Watch<'_> {
    fn started(&mut self, _index: usize) {}

    fn printed(&mut self, _index: usize, line: &str) {
        let elapsed = self.begun.elapsed().as_secs_f64();
        match line {
            "figure command" => {
                self.note(What::Command, elapsed);
                let fetched = self.link.bytes() - self.before;
                self.note(What::Fetched, fetched as f64);
            }
            "figure tree" => {
                let before = self.taken.get(&What::Command).copied().unwrap_or_default();
                self.note(What::Tree, elapsed - before);
            }
            _ => {}
        }
    }

    fn ended(&mut self, _index: usize, _outcome: &Outcome) {}

    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        bail!("this host does nothing when asked: {}", words.join(" "))
    }
}
