//! Debian packages this machine needs, installed when missing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{self, run_ok};
use crate::progress::Step;

/// A package, and a file that is there when it is installed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// The package's name in Debian and Ubuntu.
    pub(crate) name: &'static str,
    /// An absolute path it installs.
    pub(crate) provides: &'static str,
}

/// Makes root file systems from the host's own package sources.
pub(crate) const MMDEBSTRAP: Package = Package {
    name: "mmdebstrap",
    provides: "/usr/bin/mmdebstrap",
};
/// The shell of the initrd: static, so one file is all it needs.
pub(crate) const BUSYBOX: Package = Package {
    name: "busybox-static",
    provides: "/bin/busybox",
};
/// The machine emulator.
pub(crate) const QEMU: Package = Package {
    name: "qemu-system-x86",
    provides: "/usr/bin/qemu-system-x86_64",
};
/// What manages virtual machines on a host.
pub(crate) const LIBVIRT: Package = Package {
    name: "libvirt-daemon",
    provides: "/usr/sbin/libvirtd",
};
/// Its way to the machine emulator.
pub(crate) const LIBVIRT_QEMU: Package = Package {
    name: "libvirt-daemon-driver-qemu",
    provides: "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
};
/// Its client.
pub(crate) const VIRSH: Package = Package {
    name: "libvirt-clients",
    provides: "/usr/bin/virsh",
};
/// Reads what is said of an image, for the example that runs one.
pub(crate) const JQ: Package = Package {
    name: "jq",
    provides: "/usr/bin/jq",
};
/// Unpacks the kernel inside a bzImage.
pub(crate) const ZSTD: Package = Package {
    name: "zstd",
    provides: "/usr/bin/zstd",
};
/// What pjdfstest links with.
pub(crate) const LIBACL_DEV: Package = Package {
    name: "libacl1-dev",
    provides: "/usr/include/sys/acl.h",
};
/// `setfacl`, which pjdfstest calls.
pub(crate) const ACL: Package = Package {
    name: "acl",
    provides: "/usr/bin/setfacl",
};
/// `getfattr`.
pub(crate) const ATTR: Package = Package {
    name: "attr",
    provides: "/usr/bin/getfattr",
};
/// A database.
pub(crate) const POSTGRESQL: Package = Package {
    name: "postgresql",
    provides: "/usr/lib/postgresql",
};
/// Another database, without a service.
pub(crate) const MARIADB: Package = Package {
    name: "mariadb-server-core",
    provides: "/usr/sbin/mariadbd",
};
/// Its clients.
pub(crate) const MARIADB_CLIENT: Package = Package {
    name: "mariadb-client-core",
    provides: "/usr/bin/mariadb",
};
/// Folders of Python programs.
pub(crate) const PYTHON_VENV: Package = Package {
    name: "python3-venv",
    provides: "/usr/lib/python3.11/ensurepip/__init__.py",
};
/// A file system of libfuse, to compare with.
pub(crate) const BINDFS: Package = Package {
    name: "bindfs",
    provides: "/usr/bin/bindfs",
};
/// What unpacks OCI images, to compare with.
pub(crate) const UMOCI: Package = Package {
    name: "umoci",
    provides: "/usr/bin/umoci",
};
/// What copies images to a registry, to compare with.
pub(crate) const SKOPEO: Package = Package {
    name: "skopeo",
    provides: "/usr/bin/skopeo",
};
/// A client of object stores that mounts buckets, to compare with.
pub(crate) const S3FS: Package = Package {
    name: "s3fs",
    provides: "/usr/bin/s3fs",
};
/// The bare client of object stores, to compare with.
pub(crate) const CURL: Package = Package {
    name: "curl",
    provides: "/usr/bin/curl",
};
/// What mounts for rclone.
pub(crate) const FUSE3: Package = Package {
    name: "fuse3",
    provides: "/usr/bin/fusermount3",
};
/// A linker for cargo.
pub(crate) const C_COMPILER: Package = Package {
    name: "gcc",
    provides: "/usr/bin/cc",
};
/// The C library's headers and start files, beside the compiler.
pub(crate) const LIBC_DEV: Package = Package {
    name: "libc6-dev",
    provides: "/usr/include/stdio.h",
};
/// What virtiofsd links with.
pub(crate) const LIBSECCOMP_DEV: Package = Package {
    name: "libseccomp-dev",
    provides: "/usr/include/seccomp.h",
};
/// What virtiofsd links with.
pub(crate) const LIBCAP_NG_DEV: Package = Package {
    name: "libcap-ng-dev",
    provides: "/usr/include/cap-ng.h",
};

/// Installs those of `packages` that are missing.
///
/// # Errors
/// This is no Debian or Ubuntu, this user may not install packages, or apt
/// fails.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !Path::new(package.provides).exists())
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !process::installed("apt-get") {
        bail!(
            "needs the packages {}; install them by hand: there is no apt-get",
            missing.join(" ")
        );
    }
    let mut step = Step::begin(format!("install {}", missing.join(" ")));
    let limit = Duration::from_secs(600);
    let update = as_root("apt-get", &["-q", "update"]);
    run_ok(&update, limit, &mut |line| step.note(line)).context("refresh the package lists")?;
    let mut install = as_root(
        "apt-get",
        &["-q", "-y", "--no-install-recommends", "install"],
    );
    install
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run_ok(&install, limit, &mut |line| step.note(line)).context("install packages")?;
    step.done();
    Ok(())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_root(program: &str, arguments: &[&str]) -> Command {
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    };
    command.args(arguments);
    command
}
