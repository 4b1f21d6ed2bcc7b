//! What leads to a file of the overlay again, in another process.
//!
//! It is found by its names from the root, as far as there is room for them, and told from another one of those names by its number, and
//! by the upper's handle of it where the upper has all of it: a copied file keeps its number, whichever layer has it by now.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use vfsd_backend::{Errno, FileKind, Locator, Name, Result};

use crate::layers::Layer;
use crate::node::OverlayNode;
use crate::origin::handle_of;

/// The first byte.
const NAMES: u8 = 3;

impl OverlayNode {
    /// What leads to it again, until it is moved or removed.
    ///
    /// # Errors
    /// EOVERFLOW when its names are too long, ESTALE when it has none; those of the upper.
    pub(crate) async fn located(&self) -> Result<Locator> {
        let names = {
            let _names = self.shared.names.read().await;
            self.names()?
        };
        let (number, handle) = self.told_apart().await?;
        let numbers = [number, handle].map(u64::to_be_bytes);
        let [number, handle] = &numbers;
        Ok(Locator::new(
            &[&[NAMES][..], number, handle, &names].concat(),
        )?)
    }

    /// The file that a locator was made of; `self` is the root.
    ///
    /// # Errors
    /// ESTALE when there is none; those of the layers.
    pub(crate) async fn at(self: &Arc<Self>, locator: &Locator) -> Result<Arc<Self>> {
        let rest = locator.as_bytes().strip_prefix(&[NAMES]);
        let (number, rest) = rest
            .and_then(|rest| rest.split_first_chunk())
            .ok_or(Errno::STALE)?;
        let (handle, names) = rest.split_first_chunk().ok_or(Errno::STALE)?;
        let mut at = self.clone();
        {
            let _names = self.shared.names.read().await;
            for name in names.split(|byte| *byte == b'/').skip(1) {
                at.check_directory().map_err(|_| Errno::STALE)?;
                let name = Name::new(name).map_err(|_| Errno::STALE)?;
                (at, _) = at.find(name).await?.ok_or(Errno::STALE)?;
            }
        }
        let known = [*number, *handle].map(u64::from_be_bytes);
        let (number, handle) = at.told_apart().await?;
        match known == [number, handle] {
            true => Ok(at),
            false => Err(Errno::STALE.into()),
        }
    }

    /// The names that lead to it from the root, each behind a slash. They must not change meanwhile.
    fn names(&self) -> Result<Vec<u8>> {
        let (mut names, mut length) = (Vec::new(), 0_usize);
        let mut place = self.place();
        if place.is_none() && !self.is_root() {
            return Err(Errno::STALE.into());
        }
        while let Some(here) = place {
            length = length.saturating_add(here.name.len()).saturating_add(1);
            if length > Locator::MAX {
                return Err(Errno::OVERFLOW.into());
            }
            place = here.parent.place();
            if place.is_none() && !here.parent.is_root() {
                return Err(Errno::STALE.into());
            }
            names.push(here.name);
        }
        let parts = names.iter().rev().map(|name| [b"/", &**name].concat());
        Ok(parts.collect::<Vec<_>>().concat())
    }

    /// Whether it has no name because there is nothing above.
    fn is_root(&self) -> bool {
        self.kind == FileKind::Directory && !self.is_removed() && self.place().is_none()
    }

    /// Its number, and a hash of the upper's handle of it, if the upper has it alone: there a number is soon another file's.
    async fn told_apart(&self) -> Result<(u64, u64)> {
        let number = self.whole_number().key;
        let own = self.upper_part().filter(|part| {
            self.lowers().is_empty()
                && number == self.shared.numbers.of(Layer::UPPER, part.inode).key
        });
        let Some(part) = own else {
            return Ok((number, 0));
        };
        let mut hasher = DefaultHasher::new();
        match handle_of(part.node.as_ref()).await? {
            Some(handle) => handle.hash(&mut hasher),
            None => part.node.identity().generation.hash(&mut hasher),
        }
        Ok((number, hasher.finish()))
    }
}
