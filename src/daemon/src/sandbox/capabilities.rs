//! Capabilities: what is left of root's power.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Capabilities to add to, and to remove from, those that a backend needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapabilityChanges {
    added: CapabilitySet,
    removed: CapabilitySet,
}

impl CapabilityChanges {
    /// Reads `+NAME:-NAME...`; names without `CAP_`, in any case. The last word on a name counts.
    ///
    /// # Errors
    /// When a part has no sign, or names no capability.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut changes = Self {
            added: CapabilitySet::empty(),
            removed: CapabilitySet::empty(),
        };
        for part in list.split(':') {
            let (adds, name) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(format!("{part:?} begins with neither + nor -")),
            };
            let capability = CapabilitySet::from_name(&name.to_ascii_uppercase())
                .ok_or_else(|| format!("{name:?} is no capability, such as sys_admin"))?;
            changes.added.set(capability, adds);
            changes.removed.set(capability, !adds);
        }
        Ok(changes)
    }

    /// Whether the capability is to be taken away.
    pub(crate) fn removes(&self, capability: CapabilitySet) -> bool {
        self.removed.intersects(capability)
    }

    fn apply(&self, needed: CapabilitySet) -> CapabilitySet {
        (needed | self.added) - self.removed
    }
}

/// What storages need of the host: of root's power, and whether they need the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Act on files in the name of the guest's users.
    pub(crate) files: bool,
    /// Create device nodes.
    pub(crate) device_nodes: bool,
    /// Open files by handle, which reaches every file of their file system.
    pub(crate) file_handles: bool,
    /// Write extended attributes of the `trusted` namespace.
    pub(crate) trusted_attributes: bool,
    /// Reach other hosts.
    pub(crate) network: bool,
}

impl std::ops::BitOr for Needs {
    type Output = Self;

    /// The needs of both.
    fn bitor(self, other: Self) -> Self {
        Self {
            files: self.files || other.files,
            device_nodes: self.device_nodes || other.device_nodes,
            file_handles: self.file_handles || other.file_handles,
            trusted_attributes: self.trusted_attributes || other.trusted_attributes,
            network: self.network || other.network,
        }
    }
}

impl Needs {
    /// The capabilities that these needs come to. The network takes none.
    pub(crate) fn capabilities(self, changes: Option<&CapabilityChanges>) -> CapabilitySet {
        let mut needed = CapabilitySet::empty();
        if self.files {
            needed |= CapabilitySet::CHOWN
                | CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::FOWNER
                | CapabilitySet::FSETID
                | CapabilitySet::SETGID
                | CapabilitySet::SETUID
                | CapabilitySet::SETFCAP;
            needed.set(CapabilitySet::MKNOD, self.device_nodes);
            needed.set(CapabilitySet::DAC_READ_SEARCH, self.file_handles);
            needed.set(CapabilitySet::SYS_ADMIN, self.trusted_attributes);
        }
        changes.map_or(needed, |changes| changes.apply(needed))
    }
}

/// Cuts every set of the calling thread, the bounding and the ambient one included, to `kept`, for
/// good. Threads it starts later inherit that; it must have none yet.
///
/// What the thread does not have it does not get.
///
/// # Errors
/// What capset(2) and prctl(2) answer.
pub(super) fn cut(kept: CapabilitySet) -> rustix::io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    if own.permitted.contains(CapabilitySet::SETPCAP) {
        // The bits above the kernel's last capability are unknown to it.
        for bit in (0..u64::BITS).map(|shift| 1 << shift) {
            let capability = CapabilitySet::from_bits_retain(bit);
            if kept.intersects(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let kept = kept & own.permitted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    rustix::thread::set_no_new_privs(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_capability_counts() {
        let changes = CapabilityChanges::parse("+sys_admin:-CHOWN:+chown:-sys_admin").unwrap();
        let needs = Needs {
            files: true,
            ..Needs::default()
        };
        let kept = needs.capabilities(Some(&changes));
        assert!(kept.contains(CapabilitySet::CHOWN));
        assert!(!kept.contains(CapabilitySet::SYS_ADMIN));
        assert!(changes.removes(CapabilitySet::SYS_ADMIN));
    }

    #[test]
    fn changes_that_cannot_be_read_are_refused() {
        for list in ["", "chown", "+", "+chown:", "+no_such", "*chown"] {
            assert!(CapabilityChanges::parse(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn a_storage_without_files_needs_no_capability() {
        let needs = Needs {
            files: false,
            device_nodes: true,
            file_handles: true,
            trusted_attributes: true,
            network: true,
        };
        assert_eq!(needs.capabilities(None), CapabilitySet::empty());
    }

    #[test]
    fn device_nodes_and_file_handles_each_cost_one_capability() {
        let files = Needs {
            files: true,
            ..Needs::default()
        };
        let nodes = Needs {
            device_nodes: true,
            ..files
        };
        let handles = Needs {
            file_handles: true,
            ..files
        };
        let base = files.capabilities(None);
        assert_eq!(nodes.capabilities(None) - base, CapabilitySet::MKNOD);
        assert_eq!(
            handles.capabilities(None) - base,
            CapabilitySet::DAC_READ_SEARCH
        );
    }
}
