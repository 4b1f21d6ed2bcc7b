//! The two greetings: magic, version, limits, capabilities.

use vfsd_backend::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::capabilities::{capabilities_from_wire, capabilities_to_wire};

/// What both greetings begin with.
pub const MAGIC: [u8; 8] = *b"vfsdplug";

/// The version of the protocol that is spoken here.
pub const VERSION: u32 = 1;

bitflags::bitflags! {
    /// Parts of the protocol that not everybody has. What the host does not offer the plugin must not use.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Features: u32 {
        /// Descriptors, and replies to READ that point into them.
        const DESCRIPTORS = 1 << 0;
        /// Memory for the data of WRITEs.
        const AREA = 1 << 1;
    }
}

/// What the host says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct HostHello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The newest version that the host speaks.
    pub version: u32,
    /// The size of this structure in bytes: 64.
    pub size: u32,
    /// [`Features`] that the host has.
    pub features: u32,
    /// The largest payload of a READ or WRITE, in bytes.
    pub max_data: u32,
    /// Requests that the host may have in flight.
    pub in_flight: u32,
    /// Descriptors that the host keeps: their numbers are below this.
    pub descriptors: u32,
    /// Size of the memory for the data of WRITEs, in bytes; its descriptor comes with INIT.
    pub area: u32,
    /// 0; ignored by who reads it.
    pub reserved: [u32; 7],
}

/// What the plugin answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct PluginHello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The version that is spoken from here on: not newer than the host's.
    pub version: u32,
    /// The size of this structure in bytes: 64.
    pub size: u32,
    /// [`Features`] of the host's that the plugin uses.
    pub features: u32,
    /// What the storage can do: bits of PROTOCOL.md. Unknown ones are ignored.
    pub capabilities: u32,
    /// Requests that the plugin takes before it has answered the first: at least 1. The host sends no more.
    pub in_flight: u32,
    /// 0; ignored by who reads it.
    pub reserved: [u32; 9],
}

const SIZE: u32 = 64;
const _: () = assert!(size_of::<HostHello>() == 64);
const _: () = assert!(size_of::<PluginHello>() == 64);

/// Why a greeting is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It does not begin with [`MAGIC`].
    #[error("what answers there does not speak the plugin protocol")]
    Magic,
    /// The other side speaks no version in common.
    #[error(
        "it speaks version {0} of the plugin protocol, and this side version {VERSION}: update the older one"
    )]
    Version(u32),
    /// It offers what was not offered to it, or limits that leave no work.
    #[error("its greeting makes no sense")]
    Nonsense,
}

impl HostHello {
    /// A greeting with these limits. `descriptors` of 0 means that none are taken.
    pub fn new(max_data: u32, in_flight: u32, descriptors: u32) -> Self {
        let features = match descriptors {
            0 => Features::empty(),
            _ => Features::DESCRIPTORS,
        };
        Self {
            magic: MAGIC,
            version: VERSION,
            size: SIZE,
            features: features.bits(),
            max_data,
            in_flight,
            descriptors,
            area: 0,
            reserved: [0; 7],
        }
    }

    /// Offers memory for the data of WRITEs, of so many bytes. 0 offers none.
    #[must_use]
    pub fn with_area(mut self, bytes: u32) -> Self {
        if bytes != 0 {
            self.features |= Features::AREA.bits();
            self.area = bytes;
        }
        self
    }

    /// Whether a plugin can go on after it.
    ///
    /// # Errors
    /// When it comes from something else, or from a host that speaks none of our versions.
    pub fn check(&self) -> Result<(), HelloError> {
        if self.magic != MAGIC {
            return Err(HelloError::Magic);
        }
        if self.version < VERSION {
            return Err(HelloError::Version(self.version));
        }
        if self.size != SIZE || self.max_data == 0 || self.in_flight == 0 {
            return Err(HelloError::Nonsense);
        }
        Ok(())
    }

    /// What the host has.
    pub fn features(&self) -> Features {
        Features::from_bits_truncate(self.features)
    }
}

impl PluginHello {
    /// The answer of a plugin that can do this and has these features.
    pub fn new(capabilities: Capabilities, features: Features, in_flight: u32) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            size: SIZE,
            features: features.bits(),
            capabilities: capabilities_to_wire(capabilities),
            in_flight,
            reserved: [0; 9],
        }
    }

    /// Whether the host can go on after it.
    ///
    /// # Errors
    /// When it comes from something else, speaks another version, uses what the host did not offer, or takes no
    /// request.
    pub fn check(&self, offered: Features) -> Result<(), HelloError> {
        if self.magic != MAGIC {
            return Err(HelloError::Magic);
        }
        if self.version != VERSION {
            return Err(HelloError::Version(self.version));
        }
        let unknown = self.features & !offered.bits();
        if self.size != SIZE || self.in_flight == 0 || unknown != 0 {
            return Err(HelloError::Nonsense);
        }
        Ok(())
    }

    /// What the plugin uses of what the host has.
    pub fn features(&self) -> Features {
        Features::from_bits_truncate(self.features)
    }

    /// What the storage can do.
    pub fn capabilities(&self) -> Capabilities {
        capabilities_from_wire(self.capabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_of_this_crate_understand_each_other() {
        let host = HostHello::new(4096, 8, 16);
        assert_eq!(host.check(), Ok(()));
        assert_eq!(host.features(), Features::DESCRIPTORS);
        assert_eq!(host.with_area(8192).features(), Features::all());
        assert_eq!(host.with_area(0), host);
        let plugin = PluginHello::new(Capabilities::XATTR, host.features(), 4);
        assert_eq!(plugin.check(host.features()), Ok(()));
        assert_eq!(plugin.capabilities(), Capabilities::XATTR);
    }

    #[test]
    fn a_greeting_that_cannot_be_meant_is_refused() {
        let good = PluginHello::new(Capabilities::empty(), Features::empty(), 1);
        let bad = |change: fn(&mut PluginHello)| {
            let mut hello = good;
            change(&mut hello);
            hello.check(Features::empty())
        };
        assert_eq!(bad(|hello| hello.magic[0] = b'V'), Err(HelloError::Magic));
        assert_eq!(bad(|hello| hello.version = 2), Err(HelloError::Version(2)));
        assert_eq!(bad(|hello| hello.in_flight = 0), Err(HelloError::Nonsense));
        assert_eq!(bad(|hello| hello.features = 1), Err(HelloError::Nonsense));
        assert_eq!(bad(|hello| hello.size = 65), Err(HelloError::Nonsense));
        let old = HostHello {
            version: 0,
            ..HostHello::new(1, 1, 0)
        };
        assert_eq!(old.check(), Err(HelloError::Version(0)));
    }
}
