//! What a name in a directory of the overlay stands for, as one of its files.

use std::sync::Arc;

use vfsd_backend::{Answer, Attributes, Entry, FileKind, Lookup, Name, Result};

use crate::ask::{Base, Begun, OpenPart, begin};
use crate::layers::Layer;
use crate::links::{Links, changed};
use crate::metacopy;
use crate::node::{OverlayNode, Place};
use crate::origin;
use crate::parts::{Lowers, Part, Parts};
use crate::resolve::{Found, resolve};
use crate::table::Key;
use crate::whiteout::is_device;
use crate::xattr::{INODE, Marks};

/// What a name stands for, and where.
pub(crate) struct Spot {
    pub(crate) found: Option<(Arc<OverlayNode>, Attributes)>,
    /// The upper has the file under this name.
    pub(crate) in_upper: bool,
    /// The upper has a whiteout there.
    pub(crate) whiteout: bool,
}

impl Spot {
    const MISSING: Self = Self {
        found: None,
        in_upper: false,
        whiteout: false,
    };
}

/// A search that is over, or has begun.
pub(crate) enum AtOnce<'a> {
    Done(Result<Spot>),
    Begun(Begun<'a>),
}

/// Whether a file of a layer may be something else than it looks, as a whiteout, or not whole.
fn is_special(attributes: &Attributes) -> bool {
    match attributes.kind {
        FileKind::CharDevice => is_device(attributes),
        FileKind::Regular => attributes.size == 0 || metacopy::is_suspect(attributes),
        _ => false,
    }
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

    /// As [`find`](Self::find), with where it is.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn spot(self: &Arc<Self>, name: Name<'_>) -> Result<Spot> {
        match self.spot_at_once(&[], name) {
            AtOnce::Done(spot) => spot,
            AtOnce::Begun(begun) => self.spot_later(&[], name, begun).await,
        }
    }

    /// As [`spot`](Self::spot), by what is open of its directories, without a future: as far as that goes.
    pub(crate) fn spot_at_once<'a>(&'a self, open: &'a [OpenPart], name: Name<'a>) -> AtOnce<'a> {
        if self.is_removed() {
            return AtOnce::Done(Ok(Spot::MISSING));
        }
        let Some(begun) = begin(self, name, open) else {
            return AtOnce::Done(Ok(Spot::MISSING));
        };
        let Begun {
            base,
            above,
            answer,
        } = begun;
        let answer = match answer.into_ready() {
            Ok(Ok(Lookup::Found(entry))) if !is_special(&entry.attributes) => {
                match self.plain_spot(base, name, entry) {
                    Ok(spot) => return AtOnce::Done(Ok(spot)),
                    Err(entry) => Answer::ok(Lookup::Found(*entry)),
                }
            }
            Ok(Err(error)) => return AtOnce::Done(Err(error)),
            Ok(other) => Answer::ready(other),
            Err(answer) => answer,
        };
        AtOnce::Begun(Begun {
            base,
            above,
            answer,
        })
    }

    /// What a layer has under a name, if that is a node already, or a new file of which no more has to be asked.
    fn plain_spot(
        &self,
        base: Base<'_>,
        name: Name<'_>,
        entry: Entry,
    ) -> std::result::Result<Spot, Box<Entry>> {
        let attributes = entry.attributes;
        let in_upper = base.layer == Layer::UPPER;
        let key = Key {
            layer: base.layer,
            identity: entry.node.identity(),
        };
        let node = match self.shared.nodes.get(key) {
            Some(node) if in_upper || node.upper().is_none() => {
                node.is_found_at(self, name);
                node
            }
            None if !self.may_differ(&attributes, in_upper) => {
                let Ok(this) = self.this() else {
                    return Err(Box::new(entry));
                };
                let part = Part {
                    layer: base.layer,
                    node: entry.node,
                    inode: attributes.inode,
                    marks: Marks::default(),
                    names: None,
                };
                let (upper, lower) = match in_upper {
                    true => (Some(part), None),
                    false => (None, Some(part)),
                };
                let parts = Parts {
                    upper,
                    lowers: Lowers::One(lower),
                    attributes,
                };
                Self::new(&self.shared, parts, None, 0, Some(Place::new(&this, name)))
            }
            _ => return Err(Box::new(entry)),
        };
        let attributes = node.shown(attributes);
        Ok(Spot {
            found: Some((node, attributes)),
            in_upper,
            whiteout: false,
        })
    }

    /// Whether more than the file of the layer decides over what is shown of a new node: other layers, marks, the index.
    fn may_differ(&self, attributes: &Attributes, in_upper: bool) -> bool {
        match attributes.kind {
            FileKind::Directory => true,
            _ if in_upper => self.is_impure(),
            _ => attributes.links > 1 && self.shared.upper.is_some(),
        }
    }

    /// As [`spot`](Self::spot), from where that has [`begun`](begin).
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) async fn spot_later(
        self: &Arc<Self>,
        open: &[OpenPart],
        name: Name<'_>,
        begun: Begun<'_>,
    ) -> Result<Spot> {
        let (node, attributes, in_upper) = match resolve(self, name, open, begun).await? {
            Found::Missing { whiteout } => {
                return Ok(Spot {
                    whiteout,
                    ..Spot::MISSING
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
        if (parts.attributes.kind != FileKind::Directory || parts.lowers.as_slice().is_empty())
            && let Some(upper) = &shared.upper
        {
            match (&parts.upper, parts.lowers.as_slice().first()) {
                (Some(part), _) if self.is_impure() => {
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
