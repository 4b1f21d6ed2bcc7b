//! Boots a guest and runs its cases: each script's verdict, and one for the
//! boot as a whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::boots::{Boot, Case, Interpreter};
use super::host_role::HostRole;
use super::scene::{Scene, Setting};
use crate::artifact::Cache;
use crate::daemon::Program;
use crate::guest::kernel_log;
use crate::guest::rootfs::Contents;
use crate::guest::run::{self, Observer, Outcome, Plan};
use crate::guest::session::{Script, Session};
use crate::progress::Step;
use crate::verdict::Verdict;

/// Files that the scripts find below `/vfsd`.
const FILES: [(&str, &str); 3] = [
    ("lib.py", include_str!("../../guest/lib.py")),
    ("pjdfstest.toml", include_str!("../../guest/pjdfstest.toml")),
    ("fsx.toml", include_str!("../../guest/fsx.toml")),
];

/// Runs `cases` (indices into the boot's cases) in one boot and tells
/// `tell` each verdict with its full name.
///
/// # Errors
/// The guest could not be prepared or started.
pub(crate) fn run_boot(
    boot: &Boot,
    cases: &[&'static Case],
    program: &Program,
    cache: &Cache,
    tell: &mut dyn FnMut(&str, &Verdict, Duration),
) -> Result<()> {
    let kernel = boot.machine.kernel.fetch(cache)?;
    let setting = Setting {
        contents: Contents::Tests,
        root: boot.root,
        beside: boot.beside,
    };
    let scene = Scene::make(setting, program, cache)?;
    let session = FILES.iter().fold(
        Session::of(cases.iter().map(|case| script(case, boot)).collect()),
        |session, (name, content)| session.with_file(name, content),
    );
    let root = scene.folder();
    let plan = Plan {
        machine: boot.machine,
        kernel: &kernel,
        program,
        options: boot.options,
        root: &scene.root,
        data: scene.beside.as_ref(),
        disk: None,
        session: &session,
    };
    let mut watcher = Watcher {
        boot,
        cases,
        step: Some(Step::begin(format!("{}: boots", boot.name))),
        roles: BTreeMap::new(),
        root: &root,
        beside: scene.folder_beside(),
        tell,
    };
    let report = run::run(&plan, &mut watcher)?;
    watcher.step = None;
    // A script the guest never came to has no outcome.
    for (index, case) in cases.iter().enumerate() {
        let unheard = match report.outcomes.get(index) {
            None => "the guest stopped before this",
            Some(outcome) if outcome.status.is_none() => "the guest stopped meanwhile",
            Some(_) => continue,
        };
        let output = report
            .outcomes
            .get(index)
            .map_or("", |outcome| &outcome.output);
        let reason = format!("{unheard}\n{}", crate::process::tail(output, 20));
        (watcher.tell)(
            &full_name(boot, case.name),
            &Verdict::Failed(reason),
            Duration::ZERO,
        );
    }
    let mut verdict = verdict_of_run(&report);
    if let (Verdict::Passed(_), Err(error)) = (&verdict, scene.verify()) {
        verdict = Verdict::Failed(format!("what the guest has left: {error:#}"));
    }
    tell(
        &full_name(boot, Boot::AS_A_WHOLE),
        &verdict,
        report.boot_time.unwrap_or_default(),
    );
    Ok(())
}

/// The name a case has in reports and in `--only`.
pub(crate) fn full_name(boot: &Boot, case: &str) -> String {
    format!("{}: {case}", boot.name)
}

fn script(case: &Case, boot: &Boot) -> Script {
    match case.interpreter {
        Interpreter::Shell => Script {
            text: format!(
                "QUEUES={}\n. /vfsd/lib.sh\n{}",
                boot.machine.queues, case.script
            ),
            limit: case.limit,
        },
        Interpreter::Python => Script::python(case.script, case.limit),
    }
}

fn verdict_of_run(report: &run::Report) -> Verdict {
    let mut wrong: Vec<String> = report.troubles.clone();
    wrong.extend(
        kernel_log::complaints(&report.kernel_log)
            .into_iter()
            .map(|line| format!("guest kernel: {line}")),
    );
    if report.kernel_log.is_empty() && wrong.is_empty() {
        wrong.push("the guest handed over no kernel log".into());
    }
    if wrong.is_empty() {
        let seconds = report.boot_time.unwrap_or_default().as_secs_f64();
        return Verdict::Passed(format!("booted in {seconds:.1} s"));
    }
    Verdict::Failed(format!(
        "{}\nThe daemon's log:\n{}",
        wrong.join("\n"),
        report.daemon_log
    ))
}

/// Tells verdicts as they come, and lets the host play its part.
struct Watcher<'a> {
    boot: &'a Boot,
    cases: &'a [&'static Case],
    step: Option<Step>,
    roles: BTreeMap<usize, HostRole>,
    root: &'a Path,
    beside: Option<&'a Path>,
    tell: &'a mut dyn FnMut(&str, &Verdict, Duration),
}

impl Observer for Watcher<'_> {
    fn started(&mut self, index: usize) {
        if let Some(case) = self.cases.get(index) {
            self.step = Some(Step::begin(full_name(self.boot, case.name)));
        }
    }

    fn printed(&mut self, _index: usize, line: &str) {
        if let Some(step) = &mut self.step {
            step.note(line);
        }
    }

    fn ended(&mut self, index: usize, outcome: &Outcome) {
        self.step = None;
        self.roles.remove(&index);
        if let Some(case) = self.cases.get(index) {
            let verdict = (case.judge)(outcome);
            (self.tell)(&full_name(self.boot, case.name), &verdict, outcome.elapsed);
        }
    }

    fn asked(&mut self, index: usize, words: &[&str]) -> Result<()> {
        let (root, beside) = (self.root, self.beside);
        self.roles
            .entry(index)
            .or_insert_with(|| HostRole::new(root, beside))
            .act(words)
    }
}
