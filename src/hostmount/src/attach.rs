//! A mount that this process makes itself, as root.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::MAX_DATA;
use crate::control::Control;
use crate::device::Device;
use crate::mount::{MountError, MountOptions};
use crate::mount_id::{self, MountId};

/// What tells mounts of vfsd from others' in mount tables, behind `fuse.`.
pub(crate) const SUBTYPE: &str = "vfsd";

/// A file system that is mounted, and not served yet.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) device: Device,
    /// None where mounts have no numbers.
    pub(crate) id: Option<MountId>,
    /// None where the kernel shows this process none.
    pub(crate) control: Option<Control>,
}

impl Attached {
    /// What was mounted at `point` a moment ago, unless something else was since.
    pub(crate) fn found_at(point: &Path, device: Device) -> Self {
        Self {
            device,
            id: mount_id::at(point).ok(),
            control: Control::open(CWD, point).ok(),
        }
    }
}

/// Mounts a file system on `point`, whose type is `root`.
///
/// # Errors
/// Without `/dev/fuse`, and what the kernel says to the mount.
pub(crate) fn attach(
    point: &Path,
    root: FileType,
    options: &MountOptions,
) -> std::result::Result<Attached, MountError> {
    let open = || Device::open().map_err(MountError::Device);
    match attach_made(point, root, options, open()?) {
        Ok(attached) => return Ok(attached),
        // Security modules tell a mount from one that is made first and attached then, and some know the former only.
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {}
        Err(errno) => return Err(refused(point, errno)),
    }
    attach_named(point, root, options, open()?).map_err(|errno| refused(point, errno))
}

fn refused(point: &Path, errno: Errno) -> MountError {
    MountError::Refused {
        point: point.to_owned(),
        errno,
    }
}

/// Makes the mount, and attaches it then: so it is known before anyone else can take it for another, or away.
fn attach_made(
    point: &Path,
    root: FileType,
    options: &MountOptions,
    device: Device,
) -> Result<Attached> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    let mount = fsmount(
        made(root, options, &device)?,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?;
    let itself = Path::new("");
    let attached = Attached {
        device,
        id: mount_id::of(&mount, itself).ok(),
        control: Control::open(&mount, itself).ok(),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, itself, CWD, point, flags)?;
    Ok(attached)
}

/// The file system, with options as fs/fuse/inode.c reads them.
fn made(root: FileType, options: &MountOptions, device: &Device) -> Result<OwnedFd> {
    let made = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&made, "source", options.source())?;
    fsconfig_set_string(&made, "subtype", SUBTYPE)?;
    for (key, value) in options.for_kernel(device, root) {
        match value {
            Some(value) => fsconfig_set_string(&made, key, value)?,
            None => fsconfig_set_flag(&made, key)?,
        }
    }
    if options.read_only {
        fsconfig_set_flag(&made, "ro")?;
    }
    fsconfig_create(&made)?;
    Ok(made)
}

/// Mounts by mount(2). Somebody may unmount it and mount something else there before its number is read.
fn attach_named(
    point: &Path,
    root: FileType,
    options: &MountOptions,
    device: Device,
) -> Result<Attached> {
    let data: Vec<String> = options
        .for_kernel(&device, root)
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.to_owned(),
        })
        .collect();
    let data = CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    let kind = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(options.source(), point, kind, flags, Some(data.as_c_str()))?;
    Ok(Attached::found_at(point, device))
}

impl MountOptions {
    /// Options as fs/fuse/inode.c reads them. `default_permissions` lets the kernel check access
    /// by owner and mode, as it does for a virtio-fs guest.
    fn for_kernel(
        &self,
        device: &Device,
        root: FileType,
    ) -> impl Iterator<Item = (&'static str, Option<String>)> + use<> {
        [
            ("fd", Some(device.as_fd().as_raw_fd().to_string())),
            ("rootmode", Some(format!("{:o}", root.as_raw_mode()))),
            (
                "user_id",
                Some(rustix::process::getuid().as_raw().to_string()),
            ),
            (
                "group_id",
                Some(rustix::process::getgid().as_raw().to_string()),
            ),
            ("default_permissions", None),
            ("max_read", Some(MAX_DATA.to_string())),
        ]
        .into_iter()
        .chain(self.allow_other.then_some(("allow_other", None)))
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{UnmountFlags, unmount};

    use super::*;

    #[test]
    fn a_mount_has_one_number_before_and_after_it_is_attached() {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: it takes root and /dev/fuse");
            return;
        }
        let options = MountOptions {
            name: "a,b".into(),
            ..MountOptions::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().canonicalize().unwrap();
        for attach in [attach_made, attach_named] {
            let device = Device::open().unwrap();
            let attached = attach(&point, FileType::Directory, &options, device).unwrap();
            let at = mount_id::at(&point);
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(&point, flags).unwrap();
            assert_eq!(at.ok(), attached.id);
            let place = format!(" {} ", point.display());
            let line = table.lines().find(|line| line.contains(&place)).unwrap();
            assert!(line.contains(" rw,nosuid,nodev,"), "{line}");
            assert!(line.contains(" - fuse.vfsd a_b rw,user_id=0,"), "{line}");
            assert!(
                line.ends_with(",default_permissions,max_read=1048576"),
                "{line}"
            );
        }
    }
}
