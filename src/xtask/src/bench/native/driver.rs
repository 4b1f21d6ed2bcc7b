//! How the driver of one queue waits, and where.

use std::time::Duration;

use vfsd_testkit::frontend::pump::Waits;

/// How long a driver that looks does so before it sleeps.
const LOOKING: Duration = Duration::from_micros(50);

/// The driver of a session's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Looks at its ring, on a processor of its own where there is one: what the daemon can do at
    /// most.
    Looks,
    /// Sleeps until its interrupt, on a processor of its own: a guest.
    Sleeps,
    /// Sleeps until its interrupt, on the daemon's processor: a guest on a full host.
    SleepsBeside,
}

impl Driver {
    /// Those that are measured with one queue.
    pub(crate) const ALL: [Self; 3] = [Self::Looks, Self::Sleeps, Self::SleepsBeside];

    /// What a row's setting ends with.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::Looks => "",
            Self::Sleeps => ", sleeping driver",
            Self::SleepsBeside => ", sleeping driver, same processor",
        }
    }

    /// How it waits, on a processor of its own or not.
    pub(crate) fn waits(self, apart: bool) -> Waits {
        match self {
            Self::Looks if apart => Waits::Looking(LOOKING),
            // Looking on, it would keep the daemon from its work.
            Self::Looks => Waits::Looking(Duration::ZERO),
            Self::Sleeps | Self::SleepsBeside => Waits::Sleeping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_driver_that_looks_on_a_processor_of_its_own_goes_on_looking() {
        for driver in Driver::ALL {
            for apart in [true, false] {
                let looks = driver.waits(apart) == Waits::Looking(LOOKING);
                assert_eq!(looks, driver == Driver::Looks && apart, "{driver:?}");
            }
        }
    }
}
