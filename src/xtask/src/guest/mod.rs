//! Real guests on this machine: kernels, root file systems, boots.

pub(crate) mod cpio;
pub(crate) mod initrd;
pub(crate) mod kernel_log;
pub(crate) mod qemu;
pub(crate) mod rootfs;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod tools;
pub(crate) mod uml;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::artifact::Cache;

/// Which guest to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// User-Mode Linux: near native speed, one CPU, one request queue
    Uml,
    /// QEMU with software emulation: slow, PCI, several CPUs and queues
    Qemu,
}

/// A kernel ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct KernelFiles {
    /// The ELF kernel, or the folder that holds it and its C library.
    pub(crate) image: PathBuf,
    /// Modules to load before the root is mounted, in this order.
    pub(crate) modules: Vec<PathBuf>,
}

/// The machine a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Which kernel.
    pub(crate) kernel: Kernel,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Processors; User-Mode Linux has one.
    pub(crate) cpus: u16,
    /// virtio-fs request queues; User-Mode Linux has one.
    pub(crate) queues: u16,
}

impl Machine {
    /// The usual machine of a kernel.
    pub(crate) const fn of(kernel: Kernel) -> Self {
        match kernel {
            Kernel::Uml => Self {
                kernel,
                memory_mib: 1024,
                cpus: 1,
                queues: 1,
            },
            Kernel::Qemu => Self {
                kernel,
                memory_mib: 1024,
                cpus: 2,
                queues: 4,
            },
        }
    }

    /// The same machine with `queues` request queues.
    #[must_use]
    pub(crate) const fn with_queues(self, queues: u16) -> Self {
        Self { queues, ..self }
    }

    /// The command that boots a kernel with a virtio-fs device on each of `sockets` in the
    /// folder `run`, which also holds the `initrd`.
    fn command(&self, files: &KernelFiles, run: &Path, sockets: &[&str]) -> Command {
        match self.kernel {
            Kernel::Uml => uml::command(files, run, sockets, self.memory_mib),
            Kernel::Qemu => qemu::command(files, run, sockets, self),
        }
    }
}

impl Kernel {
    /// Fetches what the kernel needs, from the cache when it is there.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub(crate) fn fetch(self, cache: &Cache) -> Result<KernelFiles> {
        match self {
            Self::Uml => uml::fetch(cache),
            Self::Qemu => qemu::fetch(cache),
        }
    }
}
