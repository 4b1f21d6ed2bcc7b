//! The real guest: what its programs take over either daemon.
//!
//! - [`workloads`]: what runs, and which figures it yields
//! - [`boot`]: one daemon, one guest, one figure of each
//!
//! The guest's root is one folder, served by both daemons in turn. What a
//! workload makes lies in a folder of its own that is removed after it, so each
//! boot finds the same tree.

mod boot;
mod workloads;

use std::fs::File;

use anyhow::{Context, Result};

use super::Plan;
use super::progress::Progress;
use super::row::{Board, Level, Side};
use crate::artifact::Cache;
use crate::guest::rootfs::{Contents, Tree, pristine};
use crate::progress::Step;
use crate::workspace::Workspace;
pub(crate) use boot::OPTIONS;
use workloads::{Figure, Workload};

/// What `--only` compares with.
fn full_name(figure: &Figure) -> String {
    format!("{}, {}", figure.name, figure.setting)
}

/// The names of all rows.
pub(crate) fn names() -> Vec<String> {
    let figures = workloads::all()
        .into_iter()
        .flat_map(|workload| workload.figures);
    figures.map(|figure| full_name(&figure)).collect()
}

/// The guest, for a reader.
///
/// # Errors
/// Its kernel cannot be fetched.
pub(crate) fn described(workspace: &Workspace) -> Result<String> {
    let machine = boot::MACHINE;
    let kernel = machine
        .kernel
        .fetch(&Cache::open(workspace.guest_cache())?)?;
    // .../modules/VERSION/kernel/fs/fuse/fuse.ko
    let version = kernel
        .modules
        .first()
        .and_then(|module| module.ancestors().nth(4)?.file_name())
        .context("a kernel has modules of its version")?;
    Ok(format!(
        "User-Mode Linux {}, {} CPU, {} MiB",
        version.to_string_lossy(),
        machine.cpus,
        machine.memory_mib
    ))
}

/// Boots a guest for each daemon and pair.
///
/// # Errors
/// The guest cannot be made, or a boot fails; see [`boot::run`].
pub(crate) fn run(plan: &Plan, board: &mut Board) -> Result<()> {
    let wanted: Vec<Workload> = workloads::all()
        .into_iter()
        .filter(|workload| {
            let mut figures = workload.figures.iter();
            figures.any(|figure| plan.wants(&full_name(figure)))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let cache = Cache::open(plan.workspace.guest_cache())?;
    let kernel = boot::MACHINE.kernel.fetch(&cache)?;
    let root = pristine(&cache, Contents::Bench)?;
    let step = Step::begin("copy the guest's root");
    let tree = Tree::copy_into(&plan.folder, &root)?;
    // What is still on its way to the disk would be in the way of the first boot.
    let folder = File::open(tree.root()).context("open the guest's root")?;
    rustix::fs::syncfs(folder).context("write the guest's root to the disk")?;
    step.done();
    let samples = plan.pairs * 2 * wanted.len();
    let mut progress = Progress::begin("guest", u64::try_from(samples)?);
    for _ in 0..plan.pairs {
        for side in [Side::Vfsd, Side::Virtiofsd] {
            let program = plan.program(side).context("a daemon has a program")?;
            let figures = boot::run(&program, &kernel, &tree.root(), &wanted, &mut progress)
                .with_context(|| format!("a guest over {}", side.name()))?;
            for figure in wanted.iter().flat_map(|workload| &workload.figures) {
                if let (true, Some(value)) = (
                    plan.wants(&full_name(figure)),
                    figures.get(&figure.key).copied(),
                ) {
                    board
                        .row(Level::Guest, &figure.name, &figure.setting, figure.measure)
                        .push(side, value);
                }
            }
        }
    }
    Ok(())
}
