//! `cargo xtask demo`: what vfsd does, shown on this machine in a few minutes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::fs::{FlockOperation, flock};

use crate::artifact::Cache;
use crate::cases::boots::{Beside, Root};
use crate::cases::scene::{Scene, Setting};
use crate::daemon::{BUILD_LIMIT, Options, Profile, Program};
use crate::guest::rootfs::{Contents, pristine};
use crate::guest::run::{self, Observer, Outcome, Plan};
use crate::guest::session::{Script, Session};
use crate::guest::{Kernel, Machine};
use crate::packages::{self, C_COMPILER, LIBC_DEV};
use crate::process::{Background, output_of, tail_of_file};
use crate::progress::Step;
use crate::workspace::Workspace;

const LIBRARY_FIRST: &str = ". /vfsd/lib.sh\n";

/// How what the guest has changed is listed: names of its own with their types.
const LISTED: [&str; 9] = [
    "-mindepth",
    "2",
    "-maxdepth",
    "3",
    "!",
    "-path",
    "*/var/*",
    "-printf",
    "%y /%P\\n",
];

/// Arguments of the task.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What stands behind the guest's file system
    #[arg(value_enum, default_value = "directory")]
    shown: Shown,
    /// Which guest; neither needs KVM
    #[arg(long, value_enum, default_value = "uml")]
    kernel: Kernel,
    /// Use this vfsd instead of building one
    #[arg(long, value_name = "PROGRAM")]
    vfsd: Option<PathBuf>,
}

/// What a demo is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// A directory of the host is the root
    Directory,
    /// A writable layer over a directory is the root
    Layers,
    /// An OCI image, made on the spot, is the root
    Oci,
    /// A bucket of a real S3 server, started for it, is beside the root
    S3,
    /// A volume is beside the root
    Volume,
    /// An archive that a plugin in Python shows is beside the root
    Plugin,
}

impl Shown {
    fn script(self) -> &'static str {
        match self {
            Self::Directory => include_str!("../../guest/demo.sh"),
            Self::Layers => include_str!("../../guest/demo-layers.sh"),
            Self::Oci => include_str!("../../guest/demo-oci.sh"),
            Self::S3 => include_str!("../../guest/demo-s3.sh"),
            Self::Volume => include_str!("../../guest/demo-volume.sh"),
            Self::Plugin => include_str!("../../guest/demo-plugin.sh"),
        }
    }

    /// The storage of a virtual machine of the user's own, as `vfsd serve` takes it.
    fn own_storage(self) -> &'static str {
        match self {
            Self::Directory => "DIRECTORY",
            Self::Layers => "--upper WRITABLE DIRECTORY",
            Self::Oci => "--upper WRITABLE docker://REGISTRY/IMAGE:TAG",
            Self::S3 => "s3://BUCKET/PREFIX",
            Self::Volume => "volume:s3://BUCKET/PREFIX",
            Self::Plugin => "plugin:SOCKET",
        }
    }

    fn setting(self) -> Setting {
        Setting {
            contents: Contents::Minimal,
            root: match self {
                Self::Layers => Root::Layers,
                Self::Oci => Root::Image,
                Self::Directory | Self::S3 | Self::Volume | Self::Plugin => Root::Folder,
            },
            beside: match self {
                Self::S3 => Some(Beside::Bucket),
                Self::Volume => Some(Beside::Volume),
                Self::Plugin => Some(Beside::Plugin),
                Self::Directory | Self::Layers | Self::Oci => None,
            },
        }
    }

    /// The word of the command line.
    fn word(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs the demo.
///
/// # Errors
/// Something cannot be installed, built or booted.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let workspace = Workspace::find()?;
    packages::install(&[C_COMPILER, LIBC_DEV])?;
    if !packages::is_root() {
        return again_as_root(arguments, &workspace);
    }
    let cache = Cache::open(workspace.guest_cache())?;
    // The build keeps the processors busy, the rest mostly the network.
    let build = match &arguments.vfsd {
        Some(_) => None,
        None => Some(Build::start(&workspace)?),
    };
    let kernel = arguments.kernel.fetch(&cache)?;
    // Made while the build runs.
    pristine(&cache, Contents::Minimal)?;
    let program = match (&arguments.vfsd, build) {
        (Some(program), _) => program.clone(),
        (None, Some(build)) => build.finish(&workspace)?,
        (None, None) => bail!("no vfsd to run"),
    };
    let program = Program::Vfsd(program);
    let scene = Scene::make(arguments.shown.setting(), &program, &cache)?;
    let session = Session::of(vec![Script {
        text: format!("{LIBRARY_FIRST}{}", arguments.shown.script()),
        limit: Duration::from_secs(120),
    }]);
    let plan = Plan {
        machine: Machine::of(arguments.kernel),
        kernel: &kernel,
        program: &program,
        options: Options::default(),
        root: &scene.root,
        data: scene.beside.as_ref(),
        disk: None,
        session: &session,
    };
    println!("\nA guest boots. Its root is served by:");
    println!("    {}", scene.root.shown());
    if let Some(beside) = &scene.beside {
        println!("and what it works in, by another daemon:");
        println!("    {}", beside.shown());
    }
    println!();
    let report = run::run(
        &plan,
        &mut Screen {
            root: &scene.changes(),
        },
    )?;
    let worked = report
        .outcomes
        .first()
        .is_some_and(|outcome| outcome.status == Some(0));
    if !worked || !report.troubles.is_empty() {
        bail!(
            "{}\nThe daemon's log:\n{}",
            report.troubles.join("\n"),
            report.daemon_log
        );
    }
    let boot = report.boot_time.unwrap_or_default().as_secs_f64();
    println!(
        "\nThe guest booted in {boot:.1} s, unmounted and powered off; the daemon ended with it."
    );
    println!("All of it took {} s.\n", started.elapsed().as_secs());
    let (Program::Vfsd(vfsd) | Program::Virtiofsd(vfsd)) = &program;
    print_how_to_attach(vfsd, arguments.shown);
    Ok(ExitCode::SUCCESS)
}

/// A release build in the background.
#[derive(Debug)]
struct Build {
    child: Background,
    log: PathBuf,
}

impl Build {
    fn start(workspace: &Workspace) -> Result<Self> {
        let log = workspace.target().join("demo-build.log");
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = Background::start(&Profile::Release.build(workspace), &file)?;
        Ok(Self { child, log })
    }

    fn finish(mut self, workspace: &Workspace) -> Result<PathBuf> {
        let mut step = Step::begin("build vfsd");
        let deadline = Instant::now() + BUILD_LIMIT;
        loop {
            let soon = Instant::now() + Duration::from_millis(500);
            match self.child.wait_until(soon)? {
                Some(status) if status.success() => break,
                Some(status) => {
                    bail!(
                        "vfsd does not build ({status})\n{}",
                        tail_of_file(&self.log, 30)
                    )
                }
                None if Instant::now() > deadline => bail!("the build takes too long"),
                None => step.note(&tail_of_file(&self.log, 1)),
            }
        }
        step.done();
        Ok(Profile::Release.program(workspace))
    }
}

/// Builds as this user, so that the target folder stays theirs, and does the
/// rest as root: a guest's root file system has files of many owners.
fn again_as_root(arguments: &Arguments, workspace: &Workspace) -> Result<ExitCode> {
    let vfsd = match &arguments.vfsd {
        Some(program) => program.clone(),
        None => Build::start(workspace)?.finish(workspace)?,
    };
    println!("The guest's root file system needs root; continuing with sudo.");
    let kernel = match arguments.kernel {
        Kernel::Uml => "uml",
        Kernel::Qemu => "qemu",
    };
    let status = Command::new("sudo")
        .arg(std::env::current_exe().context("find this program")?)
        .args([
            "demo",
            &arguments.shown.word(),
            "--kernel",
            kernel,
            "--vfsd",
        ])
        .arg(vfsd)
        .status()
        .context("start sudo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what the guest does, and what the host sees at the same time.
struct Screen<'a> {
    root: &'a Path,
}

impl Observer for Screen<'_> {
    fn started(&mut self, _index: usize) {}

    fn printed(&mut self, _index: usize, line: &str) {
        println!("guest | {line}");
    }

    fn ended(&mut self, _index: usize, _outcome: &Outcome) {}

    fn asked(&mut self, _index: usize, words: &[&str]) -> Result<()> {
        if let ["list"] = words {
            println!(
                "host  | what the guest has changed, in {}:",
                self.root.display()
            );
            let listed = output_of(Command::new("find").arg(self.root).args(LISTED))?;
            listed.lines().for_each(|line| println!("host  |   {line}"));
            return Ok(());
        }
        let [verb, path] = words else {
            bail!("unknown request")
        };
        let path = self.root.join(path);
        let said = match *verb {
            "cat" => fs::read_to_string(&path).context("read what the guest wrote")?,
            "stat" => output_of(
                Command::new("stat")
                    .args(["-c", "%A %U:%G %s bytes"])
                    .arg(&path),
            )?,
            "write" => {
                fs::write(&path, "hello from the host\n").context("write for the guest")?;
                "hello from the host > ".to_owned() + &path.to_string_lossy()
            }
            "flock" => {
                let file = File::open(&path).context("open what the guest locked")?;
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Err(error) => format!("refused while the guest holds it: {error}"),
                    Ok(()) => bail!("the host got a lock that the guest holds"),
                }
            }
            _ => bail!("unknown request"),
        };
        println!("host  | {verb}: {}", said.trim_end());
        Ok(())
    }
}

fn print_how_to_attach(vfsd: &Path, shown: Shown) {
    let vfsd = vfsd.display();
    let storage = shown.own_storage();
    println!(
        "Your own VM:

  {vfsd} serve --tag share --socket-path /tmp/vfsd.sock {storage}

  QEMU (guest memory must be shared):
    -object memory-backend-memfd,id=mem,size=2G,share=on -numa node,memdev=mem -m 2G
    -chardev socket,id=fs,path=/tmp/vfsd.sock
    -device vhost-user-fs-pci,chardev=fs,tag=share

  cloud-hypervisor:
    --memory size=2G,shared=on --fs tag=share,socket=/tmp/vfsd.sock

  In the guest:
    mount -t virtiofs share /mnt

A guest to look around in:  cargo xtask guest"
    );
}
