//! The table of guest tests: which guests are booted, and what runs in each.

use std::time::Duration;

use vfsd_testkit::servers::StoreServer;

use super::judge;
use crate::daemon::Options;
use crate::guest::run::Outcome;
use crate::guest::{Kernel, Machine};
use crate::verdict::Verdict;

/// One guest, booted once for all of its cases.
#[derive(Debug)]
pub(crate) struct Boot {
    /// What makes it different from the others.
    pub(crate) name: &'static str,
    /// The machine.
    pub(crate) machine: Machine,
    /// The daemon's options.
    pub(crate) options: Options,
    /// What its root is.
    pub(crate) root: Root,
    /// What the scripts work in, when it is not the root.
    pub(crate) beside: Option<Beside>,
    /// What runs in it, in this order.
    pub(crate) cases: &'static [Case],
}

/// How a tree is served as a guest's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// As it lies there, to be changed by the guest.
    Folder,
    /// Below a writable layer.
    Layers,
    /// As an OCI image, below a writable layer.
    Image,
}

/// A storage that a second daemon serves beside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// An empty file system in memory.
    Memory,
    /// An empty volume in a directory.
    Volume,
    /// A bucket of a real S3 server, filled by another client, to be read.
    Bucket,
    /// An empty bucket, to be written to.
    WritableBucket,
    /// An empty volume in a bucket of this S3 server.
    BucketVolume(StoreServer),
    /// The same of SeaweedFS, which the guest's daemon reaches by a proxy that loses requests and replies.
    BucketVolumeBehindMishaps,
    /// The example plugin that shows an archive.
    Plugin,
    /// An empty file system in memory, in a plugin.
    MemoryPlugin,
    /// Several exports of one daemon, two of them plugins.
    Exports,
}

impl Boot {
    /// The case that every boot has: no script failed it, but the run did.
    pub(crate) const AS_A_WHOLE: &'static str =
        "the guest boots and powers off, its kernel log has no complaint, the daemon ends well";
}

/// One test inside a guest.
#[derive(Debug)]
pub(crate) struct Case {
    /// What holds when it passes, as a sentence.
    pub(crate) name: &'static str,
    /// What runs.
    pub(crate) script: &'static str,
    /// What runs it.
    pub(crate) interpreter: Interpreter,
    /// It fails when it runs longer.
    pub(crate) limit: Duration,
    /// Decides.
    pub(crate) judge: fn(&Outcome) -> Verdict,
}

/// What runs a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interpreter {
    /// bash, with `lib.sh` read first.
    Shell,
    /// Python 3, with `lib.py` to import.
    Python,
}

const fn case(name: &'static str, script: &'static str, limit_seconds: u64) -> Case {
    Case {
        name,
        script,
        interpreter: Interpreter::Shell,
        limit: Duration::from_secs(limit_seconds),
        judge: judge::by_status,
    }
}

const PJDFSTEST: Case = Case {
    judge: judge::pjdfstest,
    ..case(
        "pjdfstest passes with at least 382 of 398 and no failure",
        include_str!("../../guest/cases/pjdfstest.sh"),
        600,
    )
};
const FSX: Case = case(
    "fsx does 100,000 operations with mappings and finds every byte again",
    include_str!("../../guest/cases/fsx.sh"),
    1200,
);
const FSX_SHORTER: Case = case(
    "fsx does 30,000 operations with mappings and finds every byte again",
    concat!(
        "OPERATIONS=30000\n",
        include_str!("../../guest/cases/fsx.sh")
    ),
    1200,
);
const FSX_SHORTEST: Case = case(
    "fsx does 10,000 operations with mappings and finds every byte again",
    concat!(
        "OPERATIONS=10000\n",
        include_str!("../../guest/cases/fsx.sh")
    ),
    300,
);
const GIT: Case = case(
    "git clones a repository made on the spot and fsck finds it whole",
    include_str!("../../guest/cases/git.sh"),
    300,
);
const SQLITE: Case = case(
    "an sqlite database stays whole with two processes writing",
    include_str!("../../guest/cases/sqlite.sh"),
    300,
);
const BUCKET_VOLUME: Case = case(
    "what is written to a volume in a bucket is found on another host",
    include_str!("../../guest/cases/bucket_volume.sh"),
    300,
);
const BUCKET_VOLUME_SYNCED: Case = case(
    "what is written and synced a hundred times is found on another host",
    concat!(
        include_str!("../../guest/cases/bucket_synced.sh"),
        include_str!("../../guest/cases/bucket_volume.sh")
    ),
    300,
);
const DPKG: Case = case(
    "dpkg builds, installs and removes a package in the root",
    include_str!("../../guest/cases/dpkg.sh"),
    300,
);
const APT: Case = case(
    "apt installs and purges packages of the distribution in the root",
    include_str!("../../guest/cases/apt.sh"),
    300,
);
const DPKG_OVER_ROOT: Case = case(
    "dpkg builds, installs and removes a package in a layer over the root",
    concat!(
        include_str!("../../guest/cases/over_root.sh"),
        include_str!("../../guest/cases/dpkg.sh")
    ),
    300,
);
const APT_OVER_ROOT: Case = case(
    "apt installs and purges packages of the distribution in a layer over the root",
    concat!(
        include_str!("../../guest/cases/over_root.sh"),
        include_str!("../../guest/cases/apt.sh")
    ),
    300,
);
const FLOCK: Case = case(
    "flock excludes between guest and host in both directions",
    include_str!("../../guest/cases/flock.sh"),
    60,
);
const FCNTL: Case = Case {
    interpreter: Interpreter::Python,
    ..case(
        "fcntl record locks exclude between guest and host in both directions",
        include_str!("../../guest/cases/fcntl.py"),
        60,
    )
};
const WAITING_LOCK: Case = case(
    "processes that wait for a lock of the host hold up nothing else",
    include_str!("../../guest/cases/waiting_lock.sh"),
    60,
);
const WRITE_AFTER_DROP: Case = case(
    "a file created write-only is written again after its pages are dropped",
    include_str!("../../guest/cases/write_after_drop.sh"),
    60,
);
const VANISHING_ENTRIES: Case = case(
    "listing a folder never fails while the host deletes its entries",
    include_str!("../../guest/cases/vanishing_entries.sh"),
    300,
);
const LAYERS: Case = case(
    "files and directories of the lower tree are changed, moved, removed and made again",
    include_str!("../../guest/cases/layers.sh"),
    120,
);
const NESTED: Case = case(
    "an overlay of the guest's own lies on the writable layer and is there again after a remount",
    include_str!("../../guest/cases/nested.sh"),
    120,
);
const IMAGE: Case = case(
    "the files of both layers are there byte for byte, and change in the layer above",
    include_str!("../../guest/cases/image.sh"),
    180,
);
const PLUGIN: Case = case(
    "an archive that a plugin shows has the files that were put into it",
    include_str!("../../guest/cases/plugin.sh"),
    120,
);
const FAILING_PLUGINS: Case = Case {
    interpreter: Interpreter::Python,
    ..case(
        "plugins that are killed and stopped under load are EIO and serve on, and another export does not notice",
        include_str!("../../guest/cases/failing_plugins.py"),
        240,
    )
};
const BUCKET: Case = case(
    "the objects that another client has put are files with its bytes",
    include_str!("../../guest/cases/bucket.sh"),
    240,
);
const BUCKET_WRITE: Case = case(
    "a tree is copied into a bucket, changed and moved, and is what other clients read",
    include_str!("../../guest/cases/bucket_write.sh"),
    300,
);
const DESCRIPTOR_LIMIT: Case = case(
    "at the daemon's descriptor limit open is refused and close works",
    include_str!("../../guest/cases/descriptor_limit.sh"),
    120,
);
const PARALLEL: Case = case(
    "eight processes copy, compare, write and delete side by side",
    include_str!("../../guest/cases/parallel.sh"),
    600,
);
const QUEUES: Case = case(
    "every request queue the driver can use is in use and answers",
    include_str!("../../guest/cases/queues.sh"),
    120,
);

const PLAIN: Options = Options {
    posix_acl: true,
    writeback: false,
    open_files: None,
    drop_in: false,
    further: &[],
};

/// Every guest, the quick ones first.
pub(crate) const BOOTS: &[Boot] = &[
    Boot {
        name: "uml",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: None,
        cases: &[
            FLOCK,
            FCNTL,
            WAITING_LOCK,
            WRITE_AFTER_DROP,
            VANISHING_ENTRIES,
            GIT,
            SQLITE,
            DPKG,
            APT,
            FSX,
            PJDFSTEST,
        ],
    },
    Boot {
        name: "uml, writeback",
        machine: Machine::of(Kernel::Uml),
        options: Options {
            writeback: true,
            ..PLAIN
        },
        root: Root::Folder,
        beside: None,
        cases: &[WRITE_AFTER_DROP, GIT, SQLITE, APT, FSX],
    },
    Boot {
        name: "uml, 2000 descriptors",
        machine: Machine::of(Kernel::Uml),
        options: Options {
            open_files: Some(2000),
            ..PLAIN
        },
        root: Root::Folder,
        beside: None,
        cases: &[DESCRIPTOR_LIMIT],
    },
    Boot {
        name: "uml, as virtiofsd, everything cached",
        machine: Machine::of(Kernel::Uml),
        options: Options {
            drop_in: true,
            further: &["--cache", "always", "--sandbox", "chroot"],
            ..PLAIN
        },
        root: Root::Folder,
        beside: None,
        cases: &[WRITE_AFTER_DROP, DPKG],
    },
    Boot {
        name: "uml, nothing cached",
        machine: Machine::of(Kernel::Uml),
        options: Options {
            further: &["--cache", "never", "--allow-mmap", "--sandbox", "none"],
            ..PLAIN
        },
        root: Root::Folder,
        beside: None,
        cases: &[WRITE_AFTER_DROP, VANISHING_ENTRIES, DPKG],
    },
    Boot {
        name: "uml, memory beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::Memory),
        cases: &[WRITE_AFTER_DROP, GIT, SQLITE, FSX, PJDFSTEST],
    },
    Boot {
        name: "uml, a volume beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::Volume),
        cases: &[WRITE_AFTER_DROP, GIT, SQLITE, FSX, PJDFSTEST],
    },
    Boot {
        name: "uml, a bucket beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::Bucket),
        cases: &[BUCKET],
    },
    Boot {
        name: "uml, a writable bucket beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::WritableBucket),
        cases: &[BUCKET_WRITE],
    },
    Boot {
        name: "uml, a volume in a bucket beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::BucketVolume(StoreServer::SeaweedFs)),
        cases: &[
            WRITE_AFTER_DROP,
            GIT,
            SQLITE,
            DPKG_OVER_ROOT,
            APT_OVER_ROOT,
            FSX_SHORTEST,
            PJDFSTEST,
            BUCKET_VOLUME,
        ],
    },
    Boot {
        name: "uml, a volume in a bucket of moto beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::BucketVolume(StoreServer::Moto)),
        cases: &[BUCKET_VOLUME],
    },
    Boot {
        name: "uml, a volume in a bucket behind a faulty proxy beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::BucketVolumeBehindMishaps),
        cases: &[BUCKET_VOLUME_SYNCED],
    },
    Boot {
        name: "uml, a plugin beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::Plugin),
        cases: &[PLUGIN],
    },
    Boot {
        name: "uml, memory in a plugin beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::MemoryPlugin),
        cases: &[WRITE_AFTER_DROP, GIT, SQLITE, FSX_SHORTER, PJDFSTEST],
    },
    Boot {
        name: "uml, plugins among several exports beside the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Folder,
        beside: Some(Beside::Exports),
        cases: &[FAILING_PLUGINS],
    },
    Boot {
        name: "uml, a writable layer over the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Layers,
        beside: None,
        cases: &[
            LAYERS,
            NESTED,
            WRITE_AFTER_DROP,
            GIT,
            SQLITE,
            DPKG,
            APT,
            FSX,
            PJDFSTEST,
        ],
    },
    Boot {
        name: "uml, an image as the root",
        machine: Machine::of(Kernel::Uml),
        options: PLAIN,
        root: Root::Image,
        beside: None,
        cases: &[IMAGE, GIT, SQLITE, DPKG, APT],
    },
    Boot {
        name: "qemu, 1 queue",
        machine: Machine::of(Kernel::Qemu).with_queues(1),
        options: PLAIN,
        root: Root::Folder,
        beside: None,
        cases: &[QUEUES],
    },
    Boot {
        name: "qemu, 2 queues",
        machine: Machine::of(Kernel::Qemu).with_queues(2),
        options: PLAIN,
        root: Root::Folder,
        beside: None,
        cases: &[QUEUES],
    },
    Boot {
        name: "qemu, 4 queues",
        machine: Machine::of(Kernel::Qemu).with_queues(4),
        options: PLAIN,
        root: Root::Folder,
        beside: None,
        cases: &[QUEUES, PARALLEL],
    },
    Boot {
        name: "qemu, 8 queues and 8 CPUs",
        machine: Machine {
            cpus: 8,
            ..Machine::of(Kernel::Qemu).with_queues(8)
        },
        options: PLAIN,
        root: Root::Folder,
        beside: None,
        cases: &[QUEUES],
    },
];
