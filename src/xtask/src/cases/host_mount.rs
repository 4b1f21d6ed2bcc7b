//! The tests on `vfsd mount`: the same server behind the host's own kernel.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use vfsd_testkit::servers::RunningStore;

use super::{judge, plugin};
use crate::artifact::Cache;
use crate::daemon::{Daemon, Options, Program, Storage, is_mount_point};
use crate::guest::run::Outcome;
use crate::guest::tools::{FSX, PJDFSTEST};
use crate::packages::{self, MARIADB, MARIADB_CLIENT, POSTGRESQL, Package};
use crate::process::{run, run_ok};
use crate::progress::Step;
use crate::stores::StorePrograms;
use crate::verdict::Verdict;

/// One test on a host mount.
#[derive(Debug)]
pub(crate) struct Case {
    /// What holds when it passes, as a sentence.
    pub(crate) name: &'static str,
    source: Source,
    options: Options,
    work: Work,
    judge: fn(&Outcome) -> Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Folder,
    Memory,
    /// A file system in memory, in a plugin.
    MemoryPlugin,
    /// A writable layer over a folder.
    Layers,
    /// An empty bucket of SeaweedFS, to be written to.
    Bucket,
}

/// What runs on the mount.
#[derive(Debug, Clone, Copy)]
enum Work {
    Pjdfstest,
    /// With so many operations.
    Fsx(&'static str),
    /// A server on a data directory that is there before the mount.
    Database(&'static Database),
}

/// A database server, by shell scripts.
#[derive(Debug)]
struct Database {
    packages: &'static [Package],
    /// Makes the data directory.
    before: &'static str,
    /// Uses it, through a crash.
    work: &'static str,
}

const POSTGRESQL_SERVER: Database = Database {
    packages: &[POSTGRESQL],
    before: include_str!("../../guest/host/postgresql-before.sh"),
    work: include_str!("../../guest/host/postgresql.sh"),
};

const MARIADB_SERVER: Database = Database {
    packages: &[MARIADB, MARIADB_CLIENT],
    before: concat!(
        include_str!("../../guest/host/mariadb.sh"),
        include_str!("../../guest/host/mariadb-before.sh")
    ),
    work: concat!(
        include_str!("../../guest/host/mariadb.sh"),
        include_str!("../../guest/host/mariadb-work.sh")
    ),
};

const PLAIN: Options = Options {
    posix_acl: true,
    writeback: false,
    open_files: None,
    drop_in: false,
    further: &[],
};

/// Every test on a host mount.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "host mount of dir: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::Folder,
        options: PLAIN,
        work: Work::Pjdfstest,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of memory: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::Memory,
        options: PLAIN,
        work: Work::Pjdfstest,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of dir: fsx does 100,000 operations and finds every byte again",
        source: Source::Folder,
        options: PLAIN,
        work: Work::Fsx("100000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of dir, writeback: fsx does 100,000 operations and finds every byte again",
        source: Source::Folder,
        options: Options {
            writeback: true,
            ..PLAIN
        },
        work: Work::Fsx("100000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of memory: fsx does 100,000 operations and finds every byte again",
        source: Source::Memory,
        options: PLAIN,
        work: Work::Fsx("100000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of memory in a plugin: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::MemoryPlugin,
        options: PLAIN,
        work: Work::Pjdfstest,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of memory in a plugin: fsx does 30,000 operations and finds every byte again",
        source: Source::MemoryPlugin,
        options: PLAIN,
        work: Work::Fsx("30000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of a writable layer: pjdfstest passes with at least 382 of 398 and no failure",
        source: Source::Layers,
        options: PLAIN,
        work: Work::Pjdfstest,
        judge: judge::pjdfstest,
    },
    Case {
        name: "host mount of a writable layer: fsx does 100,000 operations and finds every byte again",
        source: Source::Layers,
        options: PLAIN,
        work: Work::Fsx("100000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of a bucket: fsx does 20,000 operations, and another client finds every byte again",
        source: Source::Bucket,
        options: Options {
            posix_acl: false,
            ..PLAIN
        },
        work: Work::Fsx("20000"),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of a writable layer: PostgreSQL uses a data directory of the tree below, through a crash",
        source: Source::Layers,
        options: PLAIN,
        work: Work::Database(&POSTGRESQL_SERVER),
        judge: judge::by_status,
    },
    Case {
        name: "host mount of a writable layer: MariaDB uses a data directory of the tree below, through a crash",
        source: Source::Layers,
        options: PLAIN,
        work: Work::Database(&MARIADB_SERVER),
        judge: judge::by_status,
    },
];

/// How long a test program may run; a busy machine takes ten times what a
/// quiet one does.
const LIMIT: Duration = Duration::from_secs(1200);

const PJDFSTEST_CONFIGURATION: &str = include_str!("../../guest/pjdfstest.toml");
const FSX_CONFIGURATION: &str = include_str!("../../guest/fsx.toml");
/// Compares a file of the host with the object of the bucket.
const SAME_OBJECT: &str = "import boto3, os, sys
store = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'])
content = store.get_object(Bucket='data', Key='file')['Body'].read()
assert content == open(sys.argv[1], 'rb').read(), len(content)";

/// Mounts, runs the program on the mount, unmounts.
///
/// # Errors
/// The test could not be prepared.
pub(crate) fn run_case(
    case: &Case,
    program: &Program,
    cache: &Cache,
) -> Result<(Verdict, Duration)> {
    if !packages::is_root() {
        return Ok((Verdict::Skipped("needs root".into()), Duration::ZERO));
    }
    if !Path::new("/dev/fuse").exists() {
        return Ok((
            Verdict::Skipped("this machine has no /dev/fuse".into()),
            Duration::ZERO,
        ));
    }
    let tool = match case.work {
        Work::Pjdfstest => PJDFSTEST.build(cache)?,
        Work::Fsx(_) => FSX.build(cache)?,
        Work::Database(database) => {
            packages::install(database.packages)?;
            "sh".into()
        }
    };
    let mut step = Step::begin(case.name);
    // A disk's file system that other users get to: the tests switch users.
    let folder = tempfile::Builder::new()
        .prefix("mount-")
        .tempdir_in("/var/tmp")
        .context("make a folder for the mount")?;
    let at = |name: &str| folder.path().join(name);
    for made in ["source", "mount", "second", "kept"] {
        std::fs::create_dir(at(made)).context("make a folder for the mount")?;
    }
    std::fs::write(at("pjdfstest.toml"), PJDFSTEST_CONFIGURATION).context("write a file")?;
    let configuration = match case.source {
        // Objects have no holes.
        Source::Bucket => FSX_CONFIGURATION.replace("punch_hole = 2", "punch_hole = 0"),
        _ => FSX_CONFIGURATION.to_owned(),
    };
    std::fs::write(at("fsx.toml"), configuration).context("write a file")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).context("open the folder to all")?;
    let folder_source = format!("dir:{}", at("source").display());
    let bucket = match case.source {
        Source::Bucket => Some(Bucket::make(cache)?),
        _ => None,
    };
    let storage = match case.source {
        Source::Folder => Storage::named("root", folder_source),
        Source::Memory => Storage::named("root", "memory:"),
        Source::MemoryPlugin => plugin::memory_in("root", folder.path())?,
        Source::Layers => {
            let mut storage = Storage::named("root", folder_source);
            storage.argument("--upper").argument(at("upper"));
            storage
        }
        Source::Bucket => {
            let mut storage = Storage::named("root", "s3://data");
            storage.environment(bucket.as_ref().map(Bucket::environment).unwrap_or_default());
            storage.argument("--cache-dir").argument(at("cache"));
            storage.argument("--flat-write");
            storage
        }
    };
    let mount = at("mount");
    let script = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "script"]);
        command.args([at("source"), mount.clone(), folder.path().to_path_buf()]);
        command
    };
    if let Work::Database(database) = case.work {
        let before = script(database.before);
        run_ok(&before, LIMIT, &mut |line| step.note(line)).context("make a database")?;
    }
    let mut daemon = Daemon::mount(program, &case.options, &storage, &mount, &at("daemon.log"))?;
    let mut command = match case.work {
        Work::Database(database) => script(database.work),
        Work::Pjdfstest | Work::Fsx(_) => Command::new(tool),
    };
    match case.work {
        Work::Pjdfstest => {
            command.arg("-c").arg(at("pjdfstest.toml"));
            command.arg("-p").arg(&mount).arg("-s").arg(at("second"));
            command.env("NO_COLOR", "1");
        }
        Work::Fsx(operations) => {
            command.arg("-f").arg(at("fsx.toml"));
            command.args(["-N", operations, "-S", "20250520", "-P"]);
            command.arg(at("kept")).arg(mount.join("file"));
        }
        Work::Database(_) => {}
    }
    let started = Instant::now();
    let finished = run(&command, LIMIT, &mut |line| step.note(line));
    let elapsed = started.elapsed();
    let left = at("left");
    let kept = match &bucket {
        Some(_) => std::fs::copy(mount.join("file"), &left).map(drop),
        None => Ok(()),
    };
    let unmounted = unmount(&mut daemon, &mount).and_then(|()| match &bucket {
        Some(bucket) => {
            kept.context("read the file")?;
            bucket.has(&left)
        }
        None => Ok(()),
    });
    let finished = match finished {
        Ok(finished) => finished,
        Err(error) => {
            let reason = format!("{error:#}\nThe daemon's log:\n{}", daemon.log());
            return Ok((Verdict::Failed(reason), elapsed));
        }
    };
    let outcome = Outcome {
        output: finished.output,
        status: finished.status.code(),
        elapsed,
    };
    let verdict = match ((case.judge)(&outcome), unmounted) {
        (Verdict::Passed(_), Err(error)) => {
            Verdict::Failed(format!("{error:#}\nThe daemon's log:\n{}", daemon.log()))
        }
        (verdict, _) => verdict,
    };
    Ok((verdict, elapsed))
}

/// A bucket of a server that runs.
struct Bucket {
    store: RunningStore,
    programs: StorePrograms,
}

impl Bucket {
    fn make(cache: &Cache) -> Result<Self> {
        let programs = StorePrograms::fetch(cache)?;
        let store = programs.seaweedfs()?;
        programs.make_bucket(&store, "data")?;
        Ok(Self { store, programs })
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.store.environment()
    }

    /// Reads the object with another client.
    fn has(&self, file: &Path) -> Result<()> {
        let mut compare = Command::new(self.programs.program("python3"));
        compare.args(["-c", SAME_OBJECT]).arg(file);
        compare.envs(self.environment());
        run_ok(&compare, LIMIT, &mut |_| {}).context("read the bucket with boto3")?;
        Ok(())
    }
}

fn unmount(daemon: &mut Daemon, mount: &Path) -> Result<()> {
    let status = daemon.terminate();
    if is_mount_point(mount) {
        // A mount that stays would hang whoever looks at the folder.
        let detached = Command::new("umount").arg("-l").arg(mount).status();
        bail!("still mounted after SIGTERM (detached by force: {detached:?})");
    }
    let status = status?;
    if !status.success() {
        bail!("the daemon failed: {status}");
    }
    Ok(())
}
