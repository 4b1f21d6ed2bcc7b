//! What a daemon takes from the machine: all its processes and threads together.

#![expect(
    unsafe_code,
    reason = "no safe call reads another process's processor time"
)]

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

    /// Processor time of all processes until now, in nanoseconds: of threads that run, that sleep
    /// and that have ended.
    ///
    /// # Errors
    /// A process is gone.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let each = self.processes.iter();
        each.map(|process| processor_time_of(*process))
            .sum::<Result<Duration>>()
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
    pub(crate) fn each_thread(
        &self,
        mut look: impl FnMut(u32, PathBuf) -> Result<()>,
    ) -> Result<()> {
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

fn processor_time_of(process: u32) -> Result<Duration> {
    let number = libc::pid_t::try_from(process).context("a process's number")?;
    let mut clock = 0;
    // SAFETY: `clock` outlives the call, which writes nothing but it.
    let failed = unsafe { libc::clock_getcpuclockid(number, &mut clock) };
    if failed != 0 {
        let error = std::io::Error::from_raw_os_error(failed);
        return Err(error).with_context(|| format!("find the clock of process {process}"));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, which writes nothing but it.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("read the clock of process {process}"));
    }
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(time.tv_sec.unsigned_abs(), nanoseconds))
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
    fn the_time_of_a_thread_that_ended_is_not_lost() {
        let family = Family {
            processes: vec![std::process::id()],
        };
        let before = family.processor_time().unwrap();
        let own = std::thread::spawn(|| {
            let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            while cpu().tv_nsec < 5_000_000 {}
        });
        own.join().unwrap();
        let taken = family.processor_time().unwrap() - before;
        assert!(taken >= Duration::from_millis(5), "{taken:?}");
    }

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
        let before = alone.processor_time().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert!(alone.processor_time().unwrap() > before);
        assert!(alone.resident().unwrap() > 0);
        assert!(alone.descriptors().unwrap() >= 3);
        assert!(alone.sleeps().unwrap() > 0);
        drop(stdin);
        child.wait().unwrap();
        assert!(Family::of(child.id()).is_err());
        assert!(alone.processor_time().is_err());
    }
}
