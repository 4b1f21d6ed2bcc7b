//! What tells an own write from another's.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use object_store::{Attribute, Attributes};

/// The metadata name that holds a write's nonce (`x-amz-meta-vfsdnonce` and the like): Azure takes letters and digits alone.
pub(crate) const NAME: &str = "vfsdnonce";

/// A random number.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A number that no other write has: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonce(u128);

impl Nonce {
    pub(super) fn new() -> Self {
        Self(u128::from(random()) << 64 | u128::from(random()))
    }

    /// One of several tries to write the same object, which have this half in common.
    pub(crate) fn of_try(half: u64) -> Self {
        Self(u128::from(half) << 64 | u128::from(random()))
    }

    /// Half of it: what tries have in common, or what only has to differ.
    pub(crate) fn half(self) -> u64 {
        u64::try_from(self.0 >> 64).unwrap_or(1)
    }

    /// Whether it is of one of the tries that have this half in common.
    pub(crate) fn is_of_try(self, half: u64) -> bool {
        self.half() == half
    }

    /// The one that an object was written with, if any.
    pub(crate) fn found(attributes: &Attributes) -> Option<Self> {
        let value = attributes.get(&Attribute::Metadata(NAME.into()))?;
        u128::from_str_radix(value, 16).ok().map(Self)
    }

    /// Adds it to what is stored with an object.
    pub(crate) fn mark(self, attributes: &mut Attributes) {
        attributes.insert(Attribute::Metadata(NAME.into()), self.to_string().into());
    }

    /// Whether the object with these attributes was written with it.
    pub(super) fn marks(self, attributes: &Attributes) -> bool {
        attributes
            .get(&Attribute::Metadata(NAME.into()))
            .is_some_and(|value| **value == *self.to_string())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
