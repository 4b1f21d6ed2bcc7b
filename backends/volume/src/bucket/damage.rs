//! What is wrong with bytes that a bucket gave.

use crate::meta::codec::BadRecord;

/// What is wrong, as the rest of a sentence that begins with the key: `log/7: ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage(pub &'static str);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damage {}

impl From<BadRecord> for Damage {
    fn from(_: BadRecord) -> Self {
        Self("it is cut short, or holds what no vfsd writes")
    }
}
