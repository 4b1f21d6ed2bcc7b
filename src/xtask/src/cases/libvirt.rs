//! libvirt starts a domain with two file systems of vfsd, as the example for it says: one whose daemon it starts itself as
//! virtiofsd, and one of a daemon that was there before.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::artifact::Cache;
use crate::daemon::Program;
use crate::guest::Kernel;
use crate::guest::cpio::Archive;
use crate::guest::rootfs::folder_in;
use crate::packages::{self, BUSYBOX, LIBVIRT, LIBVIRT_QEMU, QEMU, VIRSH};
use crate::process::{run, tail};
use crate::progress::Step;
use crate::verdict::Verdict;
use crate::workspace::Workspace;

/// What holds when it passes, as a sentence.
pub(crate) const NAME: &str =
    "example: libvirt starts a domain with vfsd as its virtiofsd and beside it";

const MANAGE: &str = include_str!("../../guest/libvirt.sh");
const INIT: &str = include_str!("../../guest/libvirt-init.sh");
/// How long all of it may take; the machine is emulated.
const LIMIT: Duration = Duration::from_secs(240);
/// What the script ends with where libvirt cannot run.
const CANNOT: i32 = 77;

/// Runs the test.
///
/// # Errors
/// What it needs cannot be made.
pub(crate) fn run_case(
    program: &Program,
    workspace: &Workspace,
    cache: &Cache,
) -> Result<(Verdict, Duration)> {
    let Program::Vfsd(vfsd) = program else {
        bail!("only vfsd serves a writable layer")
    };
    if !packages::is_root() {
        let why = "libvirt's system daemon is root's";
        return Ok((Verdict::Skipped(why.into()), Duration::ZERO));
    }
    let mut step = Step::begin(NAME);
    packages::install(&[BUSYBOX, QEMU, LIBVIRT, LIBVIRT_QEMU, VIRSH])?;
    let kernel = Kernel::Qemu.fetch(cache)?;
    let folder = folder_in(cache.folder()).context("make a folder for a domain")?;
    let folder = folder.path();
    prepare(
        folder,
        vfsd,
        &workspace.root().join("examples"),
        &kernel.image,
    )?;
    let started = Instant::now();
    let mut manage = Command::new("unshare");
    manage
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["--propagation", "private", "sh"])
        .arg(folder.join("manage.sh"))
        .arg(folder);
    let finished = run(&manage, LIMIT, &mut |line| step.note(line))?;
    step.done();
    let said = tail(&finished.output, 40);
    let verdict = if finished.status.code() == Some(CANNOT) {
        Verdict::Skipped(format!("libvirt cannot run here: {said}"))
    } else if !finished.status.success() {
        Verdict::Failed(format!("{}\n{said}", finished.status))
    } else {
        match look(folder) {
            Ok(()) => Verdict::Passed(String::new()),
            Err(error) => Verdict::Failed(format!("{error:#}\n{said}")),
        }
    };
    Ok((verdict, started.elapsed()))
}

/// Makes what the domain boots and what it is given.
fn prepare(folder: &Path, vfsd: &Path, examples: &Path, kernel: &Path) -> Result<()> {
    for name in ["bin", "share", "lower", "upper"] {
        fs::create_dir(folder.join(name)).with_context(|| format!("make the folder {name}"))?;
    }
    for name in ["vfsd", "virtiofsd"] {
        symlink(vfsd, folder.join("bin").join(name)).context("link vfsd")?;
    }
    fs::write(folder.join("share/hello"), "from the host\n").context("write a file")?;
    fs::write(folder.join("lower/below"), "below\n").context("write a file")?;
    fs::write(folder.join("manage.sh"), MANAGE).context("write the script")?;

    let initrd = folder.join("initrd");
    let mut archive = Archive::new(fs::File::create(&initrd).context("make the initrd")?);
    for name in ["bin", "dev", "proc", "share", "other"] {
        archive.folder(name)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    let busybox = fs::read(BUSYBOX.provides).context("read busybox")?;
    archive.file("bin/busybox", 0o755, &busybox)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.finish()?.flush().context("write the initrd")?;

    let virtiofsd = folder.join("bin/virtiofsd").display().to_string();
    let announced =
        fs::read_to_string(examples.join("10-vfsd.json")).context("read 10-vfsd.json")?;
    let announced = with(&announced, "/usr/local/bin/virtiofsd", &virtiofsd)?;
    fs::write(folder.join("10-vfsd.json"), announced).context("write 10-vfsd.json")?;
    let domain = fs::read_to_string(examples.join("libvirt.xml")).context("read libvirt.xml")?;
    let domain = with(&domain, "<domain type='kvm'>", &machine(folder, kernel))?;
    let serial = format!(
        "<devices><serial type='file'><source path='{}'/></serial>",
        folder.join("serial.log").display()
    );
    let domain = with(&domain, "<devices>", &serial)?;
    let domain = with(
        &domain,
        "/srv/share",
        &folder.join("share").display().to_string(),
    )?;
    let domain = with(
        &domain,
        "/run/vm1.sock",
        &folder.join("other.sock").display().to_string(),
    )?;
    fs::write(folder.join("domain.xml"), domain).context("write domain.xml")
}

/// What the example leaves to its reader: an emulated machine that boots `kernel`. For its processor see
/// [`crate::guest::qemu`].
fn machine(folder: &Path, kernel: &Path) -> String {
    format!(
        "<domain type='qemu'>
  <name>vfsd</name>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <cpu mode='maximum'><feature policy='disable' name='cx16'/></cpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{}</kernel>
    <initrd>{}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline>
  </os>
  <on_reboot>destroy</on_reboot>",
        kernel.display(),
        folder.join("initrd").display()
    )
}

/// `text` with `what`, which it has once, replaced.
fn with(text: &str, what: &str, by: &str) -> Result<String> {
    let found = text.matches(what).count();
    ensure!(found == 1, "the example has {what:?} {found} times");
    Ok(text.replace(what, by))
}

/// Whether the guest did all it was to do.
fn look(folder: &Path) -> Result<()> {
    let letter = folder.join("share/folder/letter");
    let text = fs::read_to_string(&letter).context("read what the guest wrote")?;
    ensure!(text == "from the guest\n", "the guest wrote {text:?}");
    let owner = fs::metadata(&letter).context("look at what the guest wrote")?;
    let owner = (owner.uid(), owner.gid());
    ensure!(
        owner == (12, 34),
        "what the guest wrote belongs to {owner:?}"
    );
    for (file, expected) in [
        ("upper/below", "below\non top\n"),
        ("lower/below", "below\n"),
    ] {
        let text = fs::read_to_string(folder.join(file)).with_context(|| format!("read {file}"))?;
        ensure!(text == expected, "{file} is {text:?}");
    }
    Ok(())
}
