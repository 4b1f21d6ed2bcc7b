//! What a name in a directory of the overlay stands for, as one of its files.

use std::sync::Arc;

use vfsd_backend::{Attributes, FileKind, Name, Result};

use crate::layers::Layer;
use crate::links::{Links, changed};
use crate::node::{OverlayNode, Place};
use crate::origin;
use crate::resolve::{Found, OpenPart, Part, Parts, resolve};
use crate::xattr::{INODE, Marks};

/// What a name stands for, and where.
pub(crate) struct Spot {
    pub(crate) found: Option<(Arc<OverlayNode>, Attributes)>,
    /// The upper has the file under this name.
    pub(crate) in_upper: bool,
    /// The upper has a whiteout there.
    pub(crate) whiteout: bool,
}

impl OverlayNode {
    /// What a name in this directory stands for. The names must not change meanwhile.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn find(
        self: &Arc<Self>,
        name: Name<'_>,
    ) -> Result<Option<(Arc<Self>, Attributes)>> {
        Ok(self.spot(name).await?.found)
    }

    /// As [`find`](Self::find), by what is open of its directories.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn find_in(
        self: &Arc<Self>,
        open: &[OpenPart],
        name: Name<'_>,
    ) -> Result<Option<(Arc<Self>, Attributes)>> {
        Ok(self.spot_in(open, name).await?.found)
    }

    /// As [`find`](Self::find), with where it is.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn spot(self: &Arc<Self>, name: Name<'_>) -> Result<Spot> {
        self.spot_in(&[], name).await
    }

    async fn spot_in(self: &Arc<Self>, open: &[OpenPart], name: Name<'_>) -> Result<Spot> {
        if self.is_removed() {
            return Ok(Spot {
                found: None,
                in_upper: false,
                whiteout: false,
            });
        }
        let (node, attributes, in_upper) = match resolve(self, name, open).await? {
            Found::Missing { whiteout } => {
                return Ok(Spot {
                    found: None,
                    in_upper: false,
                    whiteout,
                });
            }
            Found::Known(node, attributes, layer) => {
                node.is_found_at(self, name);
                (node, attributes, layer == Layer::UPPER)
            }
            Found::New(parts) => {
                let attributes = parts.attributes;
                let in_upper = parts.upper.is_some();
                let node = self.enter(parts, name).await?;
                (node, attributes, in_upper)
            }
        };
        // The name may be a lower one of a file that is in the upper.
        let attributes = match node.upper().is_some() && !in_upper {
            true => node.attributes().await?,
            false => node.shown(attributes),
        };
        Ok(Spot {
            found: Some((node, attributes)),
            in_upper,
            whiteout: false,
        })
    }

    /// Makes the node of what was found under a name.
    async fn enter(self: &Arc<Self>, mut parts: Parts, name: Name<'_>) -> Result<Arc<Self>> {
        let shared = &self.shared;
        let mut number = None;
        let mut more = 0;
        if (parts.attributes.kind != FileKind::Directory || parts.lowers.is_empty())
            && let Some(upper) = &shared.upper
        {
            match (&parts.upper, parts.lowers.first()) {
                (Some(part), _) if self.upper_part().is_some_and(|own| own.marks.impure) => {
                    let stored = shared.namespace.get(part.node.as_ref(), INODE).await?;
                    number = stored.and_then(|value| shared.numbers.restored(&value));
                    if number.is_none() && parts.attributes.kind != FileKind::Directory {
                        let lower = origin::lower_of(self, part, name, None).await?;
                        number = lower.map(|(number, _)| number);
                    }
                    if parts.attributes.links > 1 && parts.attributes.kind != FileKind::Directory {
                        more = match Links::stored(shared.namespace, part.node.as_ref()).await? {
                            Links::OfUpper(more) => more,
                            Links::OfLower(more) => {
                                match origin::lower_of(self, part, name, number).await? {
                                    Some((_, lower)) => {
                                        changed(parts.attributes.links, lower, more)
                                    }
                                    None => 0,
                                }
                            }
                        };
                    }
                }
                (None, Some(part)) if parts.attributes.links > 1 => {
                    let own = shared.numbers.of(part.layer, part.inode);
                    if let Some(copy) = upper.index.find(own.key, part.node.as_ref()).await? {
                        let part = Part {
                            layer: Layer::UPPER,
                            inode: copy.identity().inode,
                            node: copy,
                            marks: Marks::default(),
                            names: None,
                        };
                        number = Some(own);
                        more = match Links::stored(shared.namespace, part.node.as_ref()).await? {
                            Links::OfUpper(more) => more,
                            Links::OfLower(more) => {
                                let upper = part.node.getattr().await?.links;
                                changed(upper, parts.attributes.links, more)
                            }
                        };
                        parts.upper = Some(part);
                    }
                }
                _ => {}
            }
        }
        let place = Some(Place::new(self, name));
        Ok(Self::new(shared, parts, number, more, place))
    }
}
