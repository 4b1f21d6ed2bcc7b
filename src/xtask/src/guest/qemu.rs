//! QEMU with software emulation (TCG): a stock distribution kernel, the PCI
//! transport, several CPUs and request queues. Ten to twenty times slower
//! than a real machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KernelFiles, Machine};
use crate::artifact::Cache;
use crate::packages::{self, QEMU, ZSTD};
use crate::process::run_ok;
use crate::suite::{Distribution, Suite, unpack};

/// How a zstd frame starts (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The kernel: multi-queue virtio-fs needs Linux 6.12 or newer, which stable
/// Debian has in its backports. virtio-fs and virtio-pci are built in.
///
/// # Errors
/// The emulator or the kernel cannot be fetched.
pub(crate) fn fetch(cache: &Cache) -> Result<KernelFiles> {
    packages::install(&[QEMU, ZSTD])?;
    let host = Distribution::of_host()?;
    let suite = match (host.id.as_str(), host.codename.as_str()) {
        ("debian", "bookworm") => "bookworm-backports",
        ("debian", other) => other,
        (id, _) => bail!("a kernel for the QEMU guest is fetched on Debian only, this is {id}"),
    };
    let recipe = format!("linux-image-cloud-amd64 of {suite}, unpacked, layout 1");
    let folder = cache.get("linux", &recipe, |folder| {
        let lists = folder.join("lists");
        let source = Suite::open(&lists, suite)?;
        let package = source.stands_for("linux-image-cloud-amd64")?;
        let downloads = folder.join("packages");
        let files = source.download(&[&package], &downloads)?;
        unpack(&files, &downloads)?;
        let image = fs::read_dir(downloads.join("boot"))
            .context("read the kernel package's boot folder")?
            .filter_map(std::result::Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("vmlinuz"))
            .context("the kernel package has no vmlinuz")?;
        extract(&image, &folder.join("vmlinux"))?;
        fs::remove_dir_all(&lists).context("remove the package lists")?;
        fs::remove_dir_all(&downloads).context("remove the downloaded packages")
    })?;
    Ok(KernelFiles {
        image: folder.join("vmlinux"),
        modules: Vec::new(),
    })
}

/// The command that boots the kernel. `run` is the run's folder, which holds
/// `sockets`, named like the devices' tags but for the first, and `initrd`.
pub(crate) fn command(
    files: &KernelFiles,
    run: &Path,
    sockets: &[&str],
    machine: &Machine,
) -> Command {
    let Machine {
        memory_mib,
        cpus,
        queues,
        ..
    } = machine;
    let mut command = Command::new(QEMU.provides);
    command
        // One thread emulates all CPUs: with a thread each, a CPU now and then executes the
        // breakpoint that another puts in place while it patches the kernel's code, and the
        // guest stops with "Oops: int3".
        .args(["-machine", "q35", "-accel", "tcg,thread=single"])
        .args(["-smp", &cpus.to_string()])
        .args(["-m", &format!("{memory_mib}M")])
        // QEMU 7.2 gets the flags of cmpxchg16b wrong now and then, and the
        // kernel's slab allocator crashes on it; without it another way is taken.
        .args(["-cpu", "max,-cx16"])
        // vhost-user: the daemon maps the guest's memory, so it is shared.
        .args([
            "-object",
            &format!("memory-backend-memfd,id=mem,size={memory_mib}M,share=on"),
        ])
        .args(["-numa", "node,memdev=mem"])
        .arg("-kernel")
        .arg(&files.image)
        .arg("-initrd")
        .arg(run.join("initrd"))
        .args(["-append", "console=ttyS0 quiet log_buf_len=4M panic=-1"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-serial", "stdio", "-monitor", "none"]);
    for (socket, tag) in sockets.iter().zip(["root", "data"]) {
        let path = run.join(socket);
        command
            .arg("-chardev")
            .arg(format!("socket,id={tag},path={}", path.display()))
            .arg("-device")
            .arg(format!(
                "vhost-user-fs-pci,chardev={tag},tag={tag},num-request-queues={queues}"
            ));
    }
    command
}

/// Unpacks the ELF kernel inside a bzImage. It boots directly (PVH), which
/// saves the emulated machine from unpacking it at every boot.
fn extract(image: &Path, vmlinux: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("read {}", image.display()))?;
    let payload = payload(&bytes)
        .with_context(|| format!("{} is no zstd-compressed bzImage", image.display()))?;
    let packed = vmlinux.with_extension("zst");
    fs::write(&packed, payload).context("write the packed kernel")?;
    let mut zstd = Command::new(ZSTD.provides);
    // The kernel is packed with the largest window.
    zstd.args(["-q", "-d", "--long=31", "--rm", "-o"])
        .arg(vmlinux)
        .arg(&packed);
    run_ok(&zstd, Duration::from_secs(120), &mut |_| {}).context("unpack the kernel")?;
    Ok(())
}

/// The zstd frame inside a bzImage, by the fields of the setup header
/// (Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
/// payload_length).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup_sectors = usize::from(*image.get(0x1f1)?);
    let start = (setup_sectors + 1)
        .checked_mul(512)?
        .checked_add(word(0x248)?)?;
    // The build appends the unpacked size, four bytes that are no part of it.
    let length = word(0x24c)?.checked_sub(4)?;
    let payload = image.get(start..start.checked_add(length)?)?;
    payload.starts_with(&ZSTD_MAGIC).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_by_the_setup_header() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 12;
        image[1040..1044].copy_from_slice(&ZSTD_MAGIC);
        image[1044..1048].copy_from_slice(b"body");
        assert_eq!(payload(&image).unwrap(), b"\x28\xb5\x2f\xfdbody");
    }

    #[test]
    fn an_image_that_ends_early_has_no_payload() {
        let mut image = vec![0; 0x250];
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x1f0]), None);
    }
}
