//! What a name stands for: the search through the layers, as fs/overlayfs/namei.c does it.

use std::sync::Arc;

use vfsd_backend::{Answer, Attributes, Errno, FileKind, Lookup, Name, Result};

use crate::ask::{Begun, OpenPart};
use crate::layers::{Layer, Shared};
use crate::metacopy;
use crate::nested;
use crate::node::OverlayNode;
use crate::parts::{Part, Parts};
use crate::whiteout::is_whiteout;
use crate::xattr::{Marks, Opacity};

/// What a name stands for.
pub(crate) enum Found {
    /// A file that is known, with the attributes of the layer's file that the name is of, and the layer.
    Known(Arc<OverlayNode>, Attributes, Layer),
    /// A file that is not known yet.
    New(Parts),
    /// Nothing.
    Missing {
        /// The upper has a whiteout there.
        whiteout: bool,
    },
}

/// A search through the layers.
struct Search<'s> {
    shared: &'s Shared,
    /// The name that is looked for in the next directory; an absolute path after a redirect.
    path: Vec<u8>,
    is_directory: bool,
    /// Nothing below belongs to it.
    stop: bool,
    /// The search met a whiteout of the name itself.
    whiteout: bool,
    /// Whether something was found.
    found: Option<Attributes>,
    open: &'s [OpenPart],
    /// The answer to the first lookup.
    begun: Option<Answer<'s, Lookup>>,
}

/// What one step found.
enum Step {
    Nothing,
    Part(Part),
    Known(Arc<OverlayNode>, Attributes),
}

/// Resolves a name in a directory of the overlay, from where that has [`begun`](crate::ask::begin). The names must not
/// change meanwhile. `open` has those of its layers' directories that are open.
///
/// # Errors
/// Those of the layers; EIO for what cannot be understood in one.
pub(crate) async fn resolve(
    directory: &OverlayNode,
    name: Name<'_>,
    open: &[OpenPart],
    begun: Begun<'_>,
) -> Result<Found> {
    let shared = &directory.shared;
    let mut search = Search {
        shared,
        path: name.as_bytes().to_vec(),
        is_directory: false,
        stop: false,
        whiteout: false,
        found: None,
        open,
        begun: Some(begun.answer),
    };
    let mut upper = None;
    let mut above = begun.above;
    if let Some(base) = directory.upper_part() {
        match above.checked_sub(1) {
            // It lacks the name.
            Some(rest) => above = rest,
            None => match search.in_layer(&base).await? {
                Step::Nothing => {}
                Step::Part(part) => upper = Some(part),
                Step::Known(node, attributes) => {
                    return Ok(Found::Known(node, attributes, Layer::UPPER));
                }
            },
        }
    }
    let whiteout = search.whiteout;
    let lowers = match search.stop {
        true => Vec::new(),
        false => match search.in_lowers(directory, above, upper.is_some()).await? {
            Ok(lowers) => lowers,
            Err((node, attributes, layer)) => return Ok(Found::Known(node, attributes, layer)),
        },
    };
    Ok(match search.found {
        None => Found::Missing { whiteout },
        Some(attributes) => Found::New(Parts {
            upper,
            lowers: lowers.into(),
            attributes,
        }),
    })
}

/// Whether a lower layer shows this name in the directory, if the upper does not hide it.
///
/// # Errors
/// Those of the layers.
pub(crate) async fn is_in_lowers(directory: &OverlayNode, name: Name<'_>) -> Result<bool> {
    for base in directory.lowers() {
        let (shared, asked) = (&directory.shared, base.base());
        let Some(answer) = asked.ask(shared, name, &[]) else {
            continue;
        };
        if let Lookup::Found(entry) = asked.answered(shared, name, answer).await? {
            let marked = base.has_marked_whiteouts();
            let namespace = shared.namespace;
            return Ok(!is_whiteout(namespace, marked, &entry.node, &entry.attributes).await?);
        }
    }
    Ok(false)
}

impl Search<'_> {
    /// Goes through the lower layers, but so many that lack the name. A file that turns out to be known ends the search.
    async fn in_lowers(
        &mut self,
        directory: &OverlayNode,
        above: usize,
        in_upper: bool,
    ) -> Result<std::result::Result<Vec<Part>, (Arc<OverlayNode>, Attributes, Layer)>> {
        let mut lowers = Vec::new();
        let root = self.shared.root_lowers();
        let mut bases = directory.lowers().get(above..).unwrap_or_default();
        let mut from_root = false;
        if in_upper && self.path.starts_with(b"/") {
            (bases, from_root) = (root, true);
        }
        while let Some((base, rest)) = bases.split_first() {
            bases = rest;
            let found = match self.in_layer(base).await? {
                Step::Nothing => None,
                Step::Part(part) => Some(part),
                Step::Known(node, attributes) => return Ok(Err((node, attributes, base.layer))),
            };
            if self.stop {
                lowers.extend(found);
                break;
            }
            if let Some(part) = found {
                lowers.push(part);
                if self.path.starts_with(b"/") && !from_root {
                    let below = root.partition_point(|other| !other.layer.is_below(base.layer));
                    bases = root.get(below..).unwrap_or_default();
                    from_root = true;
                }
            }
        }
        Ok(Ok(lowers))
    }

    /// Looks for the path in one layer: in `base`, or from there on when it is absolute; then
    /// `base` is the layer's root.
    async fn in_layer(&mut self, base: &Part) -> Result<Step> {
        let Some(path) = self.path.strip_prefix(b"/") else {
            let name = self.path.clone();
            return self.one(base, &name, 0, &[]).await;
        };
        // Counted from the end, because a redirect on the way changes what comes before.
        let mut rest = path.len();
        let mut base = base.clone();
        loop {
            let start = self.path.len().saturating_sub(rest);
            let remaining = self.path.get(start..).unwrap_or_default();
            let length = remaining.iter().position(|&byte| byte == b'/');
            let length = length.unwrap_or(remaining.len());
            let (name, after) = remaining.split_at_checked(length).unwrap_or_default();
            let (name, after) = (name.to_vec(), after.to_vec());
            match self.one(&base, &name, start, &after).await? {
                Step::Part(part) if !after.is_empty() => base = part,
                other => return Ok(other),
            }
            rest = after.len().saturating_sub(1);
        }
    }

    /// Looks for one name of the path. `start` is where it begins, `after` what comes behind it.
    async fn one(&mut self, base: &Part, name: &[u8], start: usize, after: &[u8]) -> Result<Step> {
        let is_last = after.is_empty();
        let name = Name::new(name)?;
        let answer = match self.begun.take() {
            Some(answer) => Some(answer),
            None => base.base().ask(self.shared, name, self.open),
        };
        let Some(answer) = answer else {
            return Ok(Step::Nothing);
        };
        let looked = base.base().answered(self.shared, name, answer).await;
        let Lookup::Found(entry) = looked? else {
            return Ok(Step::Nothing);
        };
        let namespace = self.shared.namespace;
        let marked = base.has_marked_whiteouts();
        if is_whiteout(namespace, marked, &entry.node, &entry.attributes).await? {
            self.stop = true;
            self.whiteout = is_last;
            return Ok(Step::Nothing);
        }
        let marked = base.marks.devices;
        let mut attributes = entry.attributes;
        if nested::is_device(namespace, marked, &entry.node, &attributes).await? {
            attributes = nested::as_device(attributes);
        }
        let mut part = Part {
            layer: base.layer,
            node: entry.node,
            inode: attributes.inode,
            marks: Marks::default(),
            names: None,
        };
        let is_directory = part.node.kind() == FileKind::Directory;
        if !is_directory {
            self.stop = true;
            if self.is_directory || !is_last {
                return Ok(Step::Nothing);
            }
        }
        if is_last && self.found.is_none() {
            if let Some(node) = self.shared.nodes.get(part.key()) {
                return Ok(Step::Known(node, attributes));
            }
            self.found = Some(attributes);
        }
        if !is_directory {
            if metacopy::is_one(self.shared.namespace, part.node.as_ref(), &attributes).await? {
                metacopy::warn(&self.path);
                return Err(Errno::IO.into());
            }
            return Ok(Step::Part(part));
        }
        self.is_directory |= is_last;
        part.marks = Marks::of(namespace, &part.node).await?;
        if part.marks.opacity == Opacity::Opaque {
            self.stop = true;
        } else if let Some(redirect) = &part.marks.redirect {
            self.redirect(redirect, start, after);
        }
        Ok(Step::Part(part))
    }

    /// Goes on with another path in the layers below.
    fn redirect(&mut self, redirect: &[u8], start: usize, after: &[u8]) {
        let before = match redirect.starts_with(b"/") {
            true => {
                // A directory on the way that is opaque does not concern another path.
                self.stop = false;
                &[]
            }
            false => self.path.get(..start).unwrap_or_default(),
        };
        self.path = [before, redirect, after].concat();
    }
}
