//! Replies, from the backend's vocabulary.

use std::time::Duration;

use vfsd_backend::{Attributes, Device, FsStatistics, Timestamp};

use crate::wire::{
    ATTR_SUBMOUNT, Attr, AttrOut, EntryOut, NodeId, OutHeader, StatfsOut, Statx, StatxOut, SxTime,
    Unique,
};
use crate::{REPLY_HEADER, RequestHeader};

impl OutHeader {
    /// The header of a reply with `body` bytes behind it.
    pub fn success(unique: Unique, body: usize) -> Self {
        let len = u32::try_from(body.saturating_add(REPLY_HEADER)).unwrap_or(u32::MAX);
        Self {
            len,
            error: 0,
            unique,
        }
    }

    /// A refusal, which is a header alone.
    pub fn error(unique: Unique, errno: vfsd_backend::Errno) -> Self {
        Self {
            len: 16,
            error: errno.raw_os_error().saturating_neg(),
            unique,
        }
    }

    /// The bytes on the wire.
    pub fn to_bytes(self) -> [u8; REPLY_HEADER] {
        zerocopy::transmute!(self)
    }
}

/// `new_encode_dev` of linux/kdev_t.h: 12 bits of major, 20 of minor.
fn encode_device(device: Device) -> u32 {
    let Device { major, minor } = device;
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// `new_decode_dev` of linux/kdev_t.h.
pub(crate) fn decode_device(device: u32) -> Device {
    Device {
        major: (device >> 8) & 0xfff,
        minor: (device & 0xff) | ((device >> 12) & 0xf_ff00),
    }
}

impl crate::wire::MknodIn {
    /// The device number of a node to be made.
    pub fn device(&self) -> Device {
        decode_device(self.rdev)
    }
}

impl From<&Attributes> for Attr {
    fn from(a: &Attributes) -> Self {
        Self {
            ino: a.inode,
            size: a.size.min(i64::MAX.unsigned_abs()),
            blocks: a.blocks,
            atime: a.accessed.seconds.cast_unsigned(),
            mtime: a.modified.seconds.cast_unsigned(),
            ctime: a.changed.seconds.cast_unsigned(),
            atimensec: a.accessed.nanoseconds,
            mtimensec: a.modified.nanoseconds,
            ctimensec: a.changed.nanoseconds,
            mode: a.mode(),
            nlink: a.links,
            uid: a.uid,
            gid: a.gid,
            rdev: encode_device(a.device),
            blksize: a.block_size,
            flags: if a.mount_root { ATTR_SUBMOUNT } else { 0 },
        }
    }
}

impl EntryOut {
    /// A name that was resolved.
    pub fn new(
        node: NodeId,
        generation: u64,
        attributes: &Attributes,
        entry_ttl: Duration,
        attribute_ttl: Duration,
    ) -> Self {
        Self {
            nodeid: node,
            generation,
            entry_valid: entry_ttl.as_secs(),
            attr_valid: attribute_ttl.as_secs(),
            entry_valid_nsec: entry_ttl.subsec_nanos(),
            attr_valid_nsec: attribute_ttl.subsec_nanos(),
            attr: attributes.into(),
        }
    }

    /// A name that does not exist, to be remembered as such; or, in a listing, one without attributes.
    pub fn negative(ttl: Duration) -> Self {
        Self {
            entry_valid: ttl.as_secs(),
            entry_valid_nsec: ttl.subsec_nanos(),
            ..zerocopy::FromZeros::new_zeroed()
        }
    }
}

impl AttrOut {
    /// The attributes of a node.
    pub fn new(attributes: &Attributes, ttl: Duration) -> Self {
        Self {
            attr_valid: ttl.as_secs(),
            attr_valid_nsec: ttl.subsec_nanos(),
            dummy: 0,
            attr: attributes.into(),
        }
    }
}

/// `STATX_BASIC_STATS` of linux/stat.h.
const STATX_BASIC_STATS: u32 = 0x7ff;
/// `STATX_BTIME` of linux/stat.h.
const STATX_BTIME: u32 = 0x800;

impl From<Timestamp> for SxTime {
    fn from(time: Timestamp) -> Self {
        Self {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
            reserved: 0,
        }
    }
}

impl StatxOut {
    /// The attributes of a node, with its time of birth where that is known.
    pub fn new(a: &Attributes, ttl: Duration) -> Self {
        let mask = STATX_BASIC_STATS | if a.born.is_some() { STATX_BTIME } else { 0 };
        Self {
            attr_valid: ttl.as_secs(),
            attr_valid_nsec: ttl.subsec_nanos(),
            flags: 0,
            spare: [0; 2],
            stat: Statx {
                mask,
                blksize: a.block_size,
                nlink: a.links,
                uid: a.uid,
                gid: a.gid,
                mode: u16::try_from(a.mode()).unwrap_or(0),
                ino: a.inode,
                size: a.size.min(i64::MAX.unsigned_abs()),
                blocks: a.blocks,
                atime: a.accessed.into(),
                btime: a.born.unwrap_or_default().into(),
                ctime: a.changed.into(),
                mtime: a.modified.into(),
                rdev_major: a.device.major,
                rdev_minor: a.device.minor,
                ..zerocopy::FromZeros::new_zeroed()
            },
        }
    }
}

impl From<&FsStatistics> for StatfsOut {
    fn from(s: &FsStatistics) -> Self {
        Self {
            blocks: s.blocks,
            bfree: s.blocks_free,
            bavail: s.blocks_available,
            files: s.files,
            ffree: s.files_free,
            bsize: s.block_size,
            namelen: s.name_max,
            frsize: s.fragment_size,
            padding: 0,
            spare: [0; 6],
        }
    }
}

const _: () = assert!(RequestHeader::SIZE == 40);
const _: () = assert!(size_of::<OutHeader>() == REPLY_HEADER);
const _: () = assert!(size_of::<EntryOut>() == 128);
const _: () = assert!(size_of::<AttrOut>() == 104);
const _: () = assert!(size_of::<StatxOut>() == 288);
const _: () = assert!(size_of::<StatfsOut>() == 80);
const _: () = assert!(size_of::<crate::wire::InitOut>() == 64);
const _: () = assert!(size_of::<crate::wire::FsXattrArgument>() == 28);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_wire() {
        for (major, minor) in [(0, 0), (1, 3), (8, 0), (4095, 1_048_575), (259, 65_537)] {
            let device = Device { major, minor };
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }

    #[test]
    fn an_error_is_a_header_alone() {
        let bytes = OutHeader::error(Unique(7), vfsd_backend::Errno::NOENT).to_bytes();
        assert_eq!(
            bytes,
            [16, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 7, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
