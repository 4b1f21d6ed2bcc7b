//! Lifetimes in the guest's cache, as `entry_valid` and `attr_valid` of FUSE replies tell them.

use std::time::Duration;

use vfsd_backend::Ttl;

/// The lifetime that leaves the matter to the operator of the host: all bits of the seconds set.
pub const POLICY: Duration = Duration::from_secs(u64::MAX);

/// From this many seconds on, a year, a lifetime has no end.
const FOREVER: u64 = 31_536_000;

/// The lifetime that seconds and nanoseconds of a reply stand for. `None` for a second or more of nanoseconds.
pub fn ttl_from_wire(seconds: u64, nanoseconds: u32) -> Option<Ttl> {
    if nanoseconds >= 1_000_000_000 {
        return None;
    }
    Some(match seconds {
        u64::MAX => Ttl::Policy,
        FOREVER.. => Ttl::Forever,
        _ => Ttl::For(Duration::new(seconds, nanoseconds)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_a_time_or_a_policy_or_have_no_end() {
        assert_eq!(ttl_from_wire(POLICY.as_secs(), 0), Some(Ttl::Policy));
        assert_eq!(ttl_from_wire(FOREVER, 0), Some(Ttl::Forever));
        let short = Duration::new(1, 5);
        assert_eq!(ttl_from_wire(1, 5), Some(Ttl::For(short)));
        assert_eq!(ttl_from_wire(1, 1_000_000_000), None);
    }
}
