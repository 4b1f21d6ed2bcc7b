//! The live side of a volume in a bucket: what is newer here than there, and how it gets there.

pub(crate) mod dirty;
pub(crate) mod ranges;
