//! A guest whose root is an image in a real registry: first with no byte of its layers on the host, so that a part of
//! them is fetched; then, when the rest has been fetched and the registry is gone, without asking anybody; and then on a
//! host that has nothing, by the indexes that the first one has pushed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::image::make_layout;
use crate::artifact::Cache;
use crate::daemon::{Daemon, Options, Program, Storage};
use crate::guest::rootfs::{Contents, folder_in, pristine};
use crate::guest::run::{self, Observer, Outcome, Plan};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, Machine, kernel_log};
use crate::packages;
use crate::process::{run_ok, tail};
use crate::progress::Step;
use crate::registry::{Registry, Served, push_index};
use crate::verdict::Verdict;

/// What holds when it passes, as a sentence.
pub(crate) const NAME: &str = "uml, an image of a registry as the root: a part is fetched, and once all is, the registry may be gone; others need no more than the index";

/// Uses a few programs.
const USE: &str = include_str!("../../guest/cases/registry.sh");
/// Installs packages, and removes them.
const INSTALL: &str = include_str!("../../guest/cases/apt.sh");
/// Compares every file of a package with its sum.
const COMPARE: &str = include_str!("../../guest/cases/image.sh");

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the rest of the image may take to be fetched.
const FILLED: Duration = Duration::from_secs(120);
/// How a layer begins, and no document.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// What the daemon says when all is there.
const ALL_THERE: &str = "all of the image is on this host";

/// Runs the test.
///
/// # Errors
/// What it needs cannot be made, or what had to hold does not.
pub(crate) fn run_case(program: &Program, cache: &Cache) -> Result<(Verdict, Duration)> {
    if !packages::is_root() {
        let why = "a guest's root file system needs root on the host";
        return Ok((Verdict::Skipped(why.into()), Duration::ZERO));
    }
    let started = Instant::now();
    let mut host = Host::make(program, cache)?;
    let registry = host.registry.start()?;
    let booted = host.boot(&["--no-background-fill"], &[USE, INSTALL], cache)?;
    let part = registry.stop()?;
    let registry = host.registry.start()?;
    host.fill()?;
    let rest = registry.stop()?;
    host.boot(&["--offline"], &[COMPARE, USE], cache)?;
    let registry = host.registry.start()?;
    let indexes = push_index(host.vfsd, &host.image, &host.kept())?;
    host.kept = "cache-of-another-host";
    let borrowing = ["--no-background-fill", "--index-from", &indexes];
    let first_boot = host.boot(&borrowing, &[USE], cache)?;
    let other = registry.stop()?;
    let told = format!(
        "{} of {} MiB in {} requests, booted in {:.1} s; then the rest, {} MiB in {} requests; another host {} MiB in {} \
         requests, booted in {:.1} s",
        part.bytes >> 20,
        host.whole.bytes >> 20,
        part.requests,
        booted.as_secs_f64(),
        rest.bytes >> 20,
        rest.requests,
        other.bytes >> 20,
        other.requests,
        first_boot.as_secs_f64()
    );
    // Each byte once, but for those that two pieces share.
    let once = part.bytes + rest.bytes <= host.whole.bytes + (1 << 20);
    let is_part = part.bytes > 0 && part.bytes < host.whole.bytes * 2 / 3;
    // Its guest did less than the first one.
    let is_less = other.bytes > 0 && other.bytes < part.bytes;
    let verdict = match is_part && is_less && once {
        true => Verdict::Passed(told),
        false => Verdict::Failed(told),
    };
    Ok((verdict, started.elapsed()))
}

/// A host that knows an image and has none of its content.
struct Host<'a> {
    program: &'a Program,
    vfsd: &'a Path,
    folder: TempDir,
    registry: Registry,
    image: String,
    /// What was fetched to know it.
    whole: Served,
    boots: usize,
    /// The folder of the cache.
    kept: &'static str,
}

impl<'a> Host<'a> {
    fn make(program: &'a Program, cache: &Cache) -> Result<Self> {
        let Program::Vfsd(vfsd) = program else {
            bail!("only vfsd serves images")
        };
        let step = Step::begin("an image in a registry");
        let tree = pristine(cache, Contents::Tests)?;
        let folder = folder_in(cache.folder()).context("make a folder for the image")?;
        make_layout(&tree, folder.path())?;
        let registry = Registry::new(folder.path(), cache)?;
        let running = registry.start()?;
        let layout = folder.path().join("layout");
        let image = registry.push(&format!("{}:root", layout.display()))?;
        drop(running);
        let running = registry.start()?;
        let mut this = Self {
            program,
            vfsd,
            folder,
            registry,
            image,
            whole: Served::default(),
            boots: 0,
            kept: "cache",
        };
        let mut pull = Command::new(vfsd);
        pull.args(["image", "pull", &this.image, "--cache-dir"]);
        pull.arg(this.kept());
        run_ok(&pull, LIMIT, &mut |_| {}).context("index the image")?;
        this.whole = running.stop()?;
        forget_content(&this.kept())?;
        step.done();
        Ok(this)
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join(self.kept)
    }

    fn storage(&self, options: &[&str]) -> Storage {
        let mut storage = Storage::named("root", &self.image);
        storage.argument("--cache-dir").argument(self.kept());
        for option in options {
            storage.argument(option);
        }
        storage
    }

    /// Boots a guest with an empty writable layer over the image, runs scripts in it, and says how long it took to come
    /// to them.
    fn boot(&mut self, options: &[&str], scripts: &[&str], cache: &Cache) -> Result<Duration> {
        self.boots += 1;
        let upper = self.folder.path().join(format!("upper-{}", self.boots));
        let mut root = self.storage(options);
        root.argument("--upper").argument(upper);
        let scripts = scripts.iter().map(|script| Script {
            text: format!(". /vfsd/lib.sh\n{script}"),
            limit: LIMIT,
        });
        let kernel = Kernel::Uml.fetch(cache)?;
        let plan = Plan {
            machine: Machine::of(Kernel::Uml),
            kernel: &kernel,
            program: self.program,
            options: Options {
                posix_acl: true,
                ..Options::default()
            },
            root: &root,
            data: None,
            disk: None,
            session: &Session::of(scripts.collect()),
        };
        let mut watcher = Watcher {
            step: Step::begin(format!("{NAME}: {options:?}")),
            failed: Vec::new(),
        };
        let report = run::run(&plan, &mut watcher)?;
        let mut wrong = report.troubles;
        let complaints = kernel_log::complaints(&report.kernel_log);
        wrong.extend(
            complaints
                .into_iter()
                .map(|line| format!("guest kernel: {line}")),
        );
        wrong.extend(watcher.failed);
        ensure!(
            wrong.is_empty(),
            "with {options:?}: {}\nThe daemon's log:\n{}",
            wrong.join("\n"),
            report.daemon_log
        );
        watcher.step.done();
        report.boot_time.context("no script ran")
    }

    /// Serves the image to nobody until all of it has been fetched.
    fn fill(&self) -> Result<()> {
        let [socket, log] = ["fill.socket", "fill.log"].map(|it| self.folder.path().join(it));
        let storage = self.storage(&[]);
        let mut daemon = Daemon::serve(self.program, &Options::default(), &storage, &socket, &log)?;
        let deadline = Instant::now() + FILLED;
        while !daemon.log().contains(ALL_THERE) {
            ensure!(
                Instant::now() < deadline && !daemon.has_ended()?,
                "the rest of the image does not come\n{}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let status = daemon.terminate()?;
        ensure!(status.success(), "the daemon failed: {status}");
        Ok(())
    }
}

/// Leaves of a cache what eviction leaves: what is known of an image, and no byte of its layers.
///
/// # Errors
/// The cache cannot be read or changed.
pub(crate) fn forget_content(cache: &Path) -> Result<()> {
    for folder in ["blobs/sha256", "layers"] {
        for entry in fs::read_dir(cache.join(folder)).context("list the cache")? {
            let path = entry.context("list the cache")?.path();
            let goes = match path.extension() {
                Some(kind) => kind == "content",
                None => fs::read(&path)?.starts_with(GZIP),
            };
            if goes {
                fs::remove_file(path).context("remove from the cache")?;
            }
        }
    }
    Ok(())
}

/// Shows what scripts print, and keeps those that fail.
struct Watcher {
    step: Step,
    failed: Vec<String>,
}

impl Observer for Watcher {
    fn started(&mut self, _: usize) {}

    fn printed(&mut self, _: usize, line: &str) {
        self.step.note(line);
    }

    fn ended(&mut self, index: usize, outcome: &Outcome) {
        if outcome.status != Some(0) {
            let output = tail(&outcome.output, 20);
            let status = outcome.status;
            self.failed
                .push(format!("script {index}: {status:?}\n{output}"));
        }
    }

    fn asked(&mut self, _: usize, _: &[&str]) -> Result<()> {
        bail!("there is nobody to ask")
    }
}
