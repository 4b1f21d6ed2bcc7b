//! Numbers for what a storage can do.

use vfsd_backend::Capabilities;

/// The bits of the wire. A bit is never used again for something else.
const BITS: [(u32, Capabilities); 12] = [
    (1 << 0, Capabilities::XATTR),
    (1 << 1, Capabilities::POSIX_ACL),
    (1 << 2, Capabilities::SECURITY_CONTEXT),
    (1 << 3, Capabilities::POSIX_LOCKS),
    (1 << 4, Capabilities::FLOCK),
    (1 << 5, Capabilities::KILL_PRIVILEGES),
    (1 << 6, Capabilities::SUBMOUNTS),
    (1 << 7, Capabilities::WRITEBACK),
    (1 << 8, Capabilities::IMMUTABLE),
    (1 << 9, Capabilities::ATOMIC_TRUNCATE),
    (1 << 10, Capabilities::PRIVATE),
    (1 << 11, Capabilities::REOPEN),
];

/// The bits that stand for capabilities.
pub fn capabilities_to_wire(capabilities: Capabilities) -> u32 {
    BITS.into_iter()
        .filter(|(_, one)| capabilities.contains(*one))
        .fold(0, |bits, (bit, _)| bits | bit)
}

/// The capabilities that bits stand for. Unknown bits stand for nothing.
pub fn capabilities_from_wire(bits: u32) -> Capabilities {
    BITS.into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(Capabilities::empty(), |all, (_, one)| all | one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_a_bit() {
        let all = Capabilities::all();
        assert_eq!(capabilities_from_wire(capabilities_to_wire(all)), all);
        assert_eq!(capabilities_from_wire(u32::MAX), all);
        assert_eq!(capabilities_to_wire(Capabilities::empty()), 0);
    }
}
