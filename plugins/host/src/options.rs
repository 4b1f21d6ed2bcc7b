//! How long a plugin may take, and how much it may make the daemon hold.

use std::time::Duration;

use vfsd_fuse::Opcode;

/// What an operator decides about a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How long it may take.
    pub deadlines: Deadlines,
    /// What it may make the daemon hold.
    pub limits: Limits,
    /// How long the daemon waits before it tries again to get a plugin.
    pub back_off: BackOff,
}

/// How long a plugin may take for a request. After that its caller gets EIO; if the plugin has said nothing at all
/// meanwhile, it is given up and another one is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Both greetings, and INIT.
    pub greeting: Duration,
    /// What is not named elsewhere.
    pub metadata: Duration,
    /// READ, WRITE, COPY_FILE_RANGE, FALLOCATE, LSEEK.
    pub data: Duration,
    /// FSYNC, FSYNCDIR, SYNCFS, FLUSH, RELEASE.
    pub durability: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(5),
            metadata: Duration::from_secs(10),
            data: Duration::from_secs(30),
            durability: Duration::from_secs(60),
        }
    }
}

impl Deadlines {
    /// How long a request of this kind may take. `None` for one that waits for a lock.
    pub(crate) fn of(&self, opcode: Opcode) -> Option<Duration> {
        match opcode {
            Opcode::Setlkw => None,
            Opcode::Read
            | Opcode::Write
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64
            | Opcode::Fallocate
            | Opcode::Lseek => Some(self.data),
            Opcode::Fsync | Opcode::Fsyncdir | Opcode::Syncfs | Opcode::Flush | Opcode::Release => {
                Some(self.durability)
            }
            _ => Some(self.metadata),
        }
    }
}

/// What a plugin may make the daemon hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight, half of them waiting for locks at most. Others wait for their turn, within their deadline.
    pub in_flight: u32,
    /// Bytes of payload in flight. At least that of one request.
    pub payload: u32,
    /// Descriptors that the plugin has handed over. 0: none are taken, all data pass through the socket.
    pub descriptors: u32,
    /// Bytes of memory that is shared with the plugin for the data of WRITEs. 0: all data pass through the socket.
    pub area: u32,
}

impl Default for Limits {
    /// 1024 requests, 64 MiB, 256 descriptors, 16 MiB of shared memory.
    fn default() -> Self {
        Self {
            in_flight: 1024,
            payload: 64 << 20,
            descriptors: 256,
            area: 16 << 20,
        }
    }
}

/// The pause before another try: doubled each time, until a plugin has lived for as long as the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// After the first failure.
    pub shortest: Duration,
    /// After many.
    pub longest: Duration,
}

impl Default for BackOff {
    /// 10 ms to 10 s.
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(10),
            longest: Duration::from_secs(10),
        }
    }
}
