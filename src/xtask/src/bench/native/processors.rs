//! Which processors the driver and a daemon run on.
//!
//! A scheduler that wakes the daemon where its waker runs, and the waker looks at the ring there,
//! measures itself. A driver of one queue has a processor to itself, as a guest's virtual
//! processor may have; the daemon has the others, whichever daemon it is. Or both have the same
//! one, as on a host that has none to spare.

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::driver::Driver;

/// The processors of this process, divided.
#[derive(Debug, Clone)]
pub(crate) struct Division {
    all: CpuSet,
    driver: CpuSet,
    daemon: CpuSet,
    /// One of the daemon's, when the driver has none of its own.
    shared: CpuSet,
}

impl Division {
    /// One processor for a driver and the rest for a daemon; nothing if there is only one.
    ///
    /// # Errors
    /// What sched_getaffinity(2) gives.
    pub(crate) fn of_one_driver() -> Result<Option<Self>> {
        let all = sched_getaffinity(None).context("ask for the processors of this process")?;
        Ok(Self::of(all))
    }

    fn of(all: CpuSet) -> Option<Self> {
        let last = (0..CpuSet::MAX_CPU).rfind(|index| all.is_set(*index))?;
        let mut driver = CpuSet::new();
        driver.set(last);
        let mut daemon = all;
        daemon.unset(last);
        let mut shared = CpuSet::new();
        shared.set((0..CpuSet::MAX_CPU).find(|index| daemon.is_set(*index))?);
        Some(Self {
            all,
            driver,
            daemon,
            shared,
        })
    }

    /// Puts a thread of the daemon where it belongs beside such a driver; those it starts follow
    /// it.
    ///
    /// # Errors
    /// What sched_setaffinity(2) gives.
    pub(crate) fn place_daemon(&self, thread: u32, driver: Driver) -> Result<()> {
        let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
        let set = match driver {
            Driver::Looks | Driver::Sleeps => &self.daemon,
            Driver::SleepsBeside => &self.shared,
        };
        match sched_setaffinity(thread, set) {
            // It has ended since it was listed.
            Err(Errno::SRCH) => Ok(()),
            other => other.context("choose the daemon's processors"),
        }
    }

    /// Puts this thread where such a driver belongs, until the value is dropped.
    ///
    /// # Errors
    /// What sched_setaffinity(2) gives.
    pub(crate) fn drive(&self, driver: Driver) -> Result<Driving> {
        let set = match driver {
            Driver::Looks | Driver::Sleeps => &self.driver,
            Driver::SleepsBeside => &self.shared,
        };
        sched_setaffinity(None, set).context("choose the driver's processor")?;
        Ok(Driving { back: self.all })
    }
}

/// A thread on the driver's processor.
#[derive(Debug)]
pub(crate) struct Driving {
    back: CpuSet,
}

impl Drop for Driving {
    fn drop(&mut self) {
        // The thread had these processors before; they are taken back only with the machine's.
        let _ = sched_setaffinity(None, &self.back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_has_the_last_processor_and_the_daemon_the_others() {
        let mut all = CpuSet::new();
        for index in [0, 3, 5] {
            all.set(index);
        }
        let division = Division::of(all).unwrap();
        assert!(division.driver.is_set(5) && division.driver.count() == 1);
        assert!(division.daemon.is_set(0) && division.daemon.is_set(3));
        assert_eq!(division.daemon.count(), 2);
        assert!(division.shared.is_set(0) && division.shared.count() == 1);
    }

    #[test]
    fn one_processor_is_not_divided() {
        let mut all = CpuSet::new();
        all.set(2);
        assert!(Division::of(all).is_none());
    }

    #[test]
    fn a_driver_returns_to_where_it_was() {
        let before = sched_getaffinity(None).unwrap();
        if let Some(division) = Division::of_one_driver().unwrap() {
            for driver in Driver::ALL {
                let driving = division.drive(driver).unwrap();
                assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
                drop(driving);
            }
        }
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
