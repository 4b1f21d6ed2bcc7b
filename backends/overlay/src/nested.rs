//! Whiteouts of another overlay, whose upper lies on this one: character devices 0/0 that a program makes.
//!
//! Such a device would be a whiteout of this overlay, so it is kept as what the kernel calls an escaped whiteout:
//! an empty regular file with the attribute `overlay.whiteout`, in a directory with `overlay.opaque` `x`. The
//! kernel's overlay of the same layers shows it as a file with `whiteout`, which an overlay over that one takes
//! for what it is (Linux 6.7). Here it is shown as the device: older kernels know nothing else, and none makes
//! another. `vfsd.device` on the file tells it from a file that a program has marked itself, and
//! `vfsd.devices` on the directory that there are such.

use std::sync::Arc;

use vfsd_backend::{Attributes, Caller, Device, FileKind, Name, Node, Result};

use crate::layers::UpperLayer;
use crate::new::{Inode, New, What};
use crate::node::OverlayNode;
use crate::whiteout;
use crate::xattr::{Namespace, OPAQUE, WHITEOUT};

/// On a file: it is shown as a character device 0/0. The kernel does not know it.
const DEVICE: &str = "vfsd.device";
/// On a directory: there may be such files in it. The kernel does not know it.
pub(crate) const DEVICES: &str = "vfsd.devices";
/// What comes before the name of another overlay's attribute.
const ESCAPED: &str = "overlay.";

/// Whether a file of a layer is shown as a character device 0/0. `marked` says whether its directory may have
/// such.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn is_device(
    namespace: Namespace,
    marked: bool,
    node: &Arc<dyn Node>,
    attributes: &Attributes,
) -> Result<bool> {
    whiteout::is_marked_file(namespace, marked, node, attributes, DEVICE).await
}

/// The attributes of the file, as those of the device.
pub(crate) fn as_device(attributes: Attributes) -> Attributes {
    Attributes {
        kind: FileKind::CharDevice,
        device: Device::default(),
        ..attributes
    }
}

/// Makes an empty regular file one that is shown as the device.
///
/// # Errors
/// Those of the storage.
pub(crate) async fn mark(namespace: Namespace, file: &dyn Node) -> Result<()> {
    namespace.set(file, DEVICE, b"y").await?;
    let escaped = [ESCAPED, WHITEOUT].concat();
    namespace.set(file, &escaped, b"y").await
}

/// Whether a name in a list of attributes, as programs see it, is there for the kernel alone.
pub(crate) fn is_for_the_kernel(namespace: Namespace, shown: &[u8]) -> bool {
    shown == namespace.own(WHITEOUT)
}

impl OverlayNode {
    /// Notes, before the first such name is there, that this directory has devices 0/0.
    ///
    /// # Errors
    /// Those of the storage.
    pub(crate) async fn mark_devices(&self) -> Result<()> {
        let Some(directory) = self.upper_part() else {
            return Ok(());
        };
        if directory.marks.devices {
            return Ok(());
        }
        let namespace = self.shared.namespace;
        let node = directory.node.as_ref();
        namespace.set(node, DEVICES, b"y").await?;
        // What the other overlay says itself stays.
        let escaped = [ESCAPED, OPAQUE].concat();
        if namespace.get(node, &escaped).await?.is_none() {
            namespace.set(node, &escaped, b"x").await?;
        }
        self.change_marks(|marks| marks.devices = true);
        Ok(())
    }

    /// Makes a device 0/0 in the place of a whiteout of this overlay, or where nothing is.
    ///
    /// # Errors
    /// Those of the upper.
    pub(crate) async fn put_device(
        self: &Arc<Self>,
        upper: &UpperLayer,
        name: Name<'_>,
        caller: Caller,
    ) -> Result<()> {
        self.mark_devices().await?;
        let directory = self.gaining(name)?;
        let new = New {
            caller,
            what: What::Whiteout,
            inode: Inode::with(0),
        };
        self.make_elsewhere(upper, directory, name, &new)
            .await
            .map(drop)
    }
}
