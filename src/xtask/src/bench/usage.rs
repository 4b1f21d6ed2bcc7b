//! What a daemon takes from the machine: all its processes and threads together.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A process and everything below it, as it was found. A daemon that confines itself has more
/// than one.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    processes: Vec<u32>,
}

/// Processor time so far, thread by thread.
#[derive(Debug)]
pub(crate) struct Clock(BTreeMap<u32, u64>);

impl Family {
    /// The process `first` and its descendants.
    ///
    /// # Errors
    /// `/proc` cannot be read, or `first` is gone.
    pub(crate) fn of(first: u32) -> Result<Self> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").context("list /proc")? {
            let name = entry.context("list /proc")?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(parent) = parent_of(process) {
                parents.push((process, parent));
            }
        }
        if !parents.iter().any(|(process, _)| *process == first) {
            bail!("process {first} is gone");
        }
        let mut processes = vec![first];
        let mut looked_at = 0;
        while let Some(parent) = processes.get(looked_at).copied() {
            looked_at += 1;
            let children = parents.iter().filter(|(_, of)| *of == parent);
            processes.extend(children.map(|(process, _)| *process));
        }
        Ok(Self { processes })
    }

    /// Processor time of every thread until now.
    ///
    /// # Errors
    /// A process is gone, or the kernel keeps no schedstat.
    pub(crate) fn clock(&self) -> Result<Clock> {
        let mut threads = BTreeMap::new();
        self.each_thread(|thread, folder| {
            // A thread may end between its listing and here.
            if let Ok(text) = fs::read_to_string(folder.join("schedstat")) {
                let nanoseconds = text
                    .split(' ')
                    .next()
                    .and_then(|number| number.parse().ok())
                    .context("read schedstat")?;
                threads.insert(thread, nanoseconds);
            }
            Ok(())
        })?;
        if threads.is_empty() {
            bail!("the daemon is gone, or this kernel keeps no schedstat");
        }
        Ok(Clock(threads))
    }

    /// How often the threads went to sleep by themselves until now: once for each time they were
    /// woken.
    ///
    /// # Errors
    /// A process is gone.
    pub(crate) fn sleeps(&self) -> Result<u64> {
        let mut sum = 0;
        self.each_thread(|_, folder| {
            sum += field(&folder.join("status"), "voluntary_ctxt_switches").unwrap_or(0);
            Ok(())
        })?;
        Ok(sum)
    }

    /// Resident bytes of all processes, without memory that is shared with the guest.
    ///
    /// # Errors
    /// A process is gone.
    pub(crate) fn resident(&self) -> Result<u64> {
        let mut sum = 0;
        for process in &self.processes {
            let status = PathBuf::from(format!("/proc/{process}/status"));
            sum += field(&status, "RssAnon")? + field(&status, "RssFile")?;
        }
        Ok(sum * 1024)
    }

    /// Open file descriptors of all processes.
    ///
    /// # Errors
    /// A process is gone, or belongs to somebody else.
    pub(crate) fn descriptors(&self) -> Result<u64> {
        let mut sum = 0;
        for process in &self.processes {
            let folder = format!("/proc/{process}/fd");
            sum += fs::read_dir(&folder)
                .with_context(|| format!("list {folder}"))?
                .count() as u64;
        }
        Ok(sum)
    }

    /// Calls `look` with the number and the folder of each thread.
    ///
    /// # Errors
    /// A process is gone, or what `look` gives.
    pub(crate) fn each_thread(&self, mut look: impl FnMut(u32, PathBuf) -> Result<()>) -> Result<()> {
        for process in &self.processes {
            let folder = format!("/proc/{process}/task");
            for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
                let entry = entry.with_context(|| format!("list {folder}"))?;
                let name = entry.file_name();
                if let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) {
                    look(thread, entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Clock {
    /// Processor time from `before` to this. What a thread took that ended in between is lost.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let nanoseconds = self.0.iter().map(|(thread, now)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or_default())
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

fn parent_of(process: u32) -> Option<u32> {
    // The name in parentheses may hold anything, a parenthesis too.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// A number of a status file, as it stands there.
fn field(file: &PathBuf, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{} has no {name}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_belongs_to_the_family_and_its_work_is_counted() {
        let mut child = Command::new("sh")
            .args([
                "-c",
                "read line; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let family = Family::of(std::process::id()).unwrap();
        assert!(family.processes.contains(&child.id()));
        let alone = Family::of(child.id()).unwrap();
        let before = alone.clock().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert!(alone.clock().unwrap().since(&before) > Duration::ZERO);
        assert!(alone.resident().unwrap() > 0);
        assert!(alone.descriptors().unwrap() >= 3);
        assert!(alone.sleeps().unwrap() > 0);
        drop(stdin);
        child.wait().unwrap();
        assert!(Family::of(child.id()).is_err());
    }
}
