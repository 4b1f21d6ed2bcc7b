//! Links that programs see of a file in the upper, where they are not its own.

use vfsd_backend::{Node, Result};

use crate::Namespace;
use crate::xattr::NLINK;

/// By how much the links that programs see are more.
pub(crate) enum Links {
    /// Than those of the copy.
    OfUpper(i64),
    /// Than those of the lower file: a copy was just getting a name.
    OfLower(i64),
}

impl Links {
    /// The difference that a copy keeps.
    ///
    /// # Errors
    /// Those of the layer.
    pub(crate) async fn stored(namespace: Namespace, copy: &dyn Node) -> Result<Self> {
        let stored = namespace.get(copy, NLINK).await?;
        let links = stored.and_then(|value| match value.split_first()? {
            (b'U', more) => parsed(more).map(Self::OfUpper),
            (b'L', more) => parsed(more).map(Self::OfLower),
            _ => None,
        });
        Ok(links.unwrap_or(Self::OfUpper(0)))
    }
}

/// What is more than the upper's links where something is more than the lower's.
pub(crate) fn changed(upper: u32, lower: u32, more: i64) -> i64 {
    i64::from(lower)
        .saturating_sub(i64::from(upper))
        .saturating_add(more)
}

fn parsed(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
