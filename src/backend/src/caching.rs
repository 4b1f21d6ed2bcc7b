//! How long what a backend says may be believed.

use std::time::Duration;

/// The lifetime of an entry or of attributes in the guest's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As long as the operator's cache policy says: the storage may be changed by others.
    #[default]
    Policy,
    /// Exactly this long.
    For(Duration),
    /// The tree never changes.
    Forever,
}

/// How the guest may cache the content of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileCaching {
    /// As the operator's cache policy says.
    #[default]
    Policy,
    /// What the guest has cached from earlier opens is still right: the content never changes.
    Keep,
    /// Nothing may be cached; reads and writes come here.
    Direct,
}
