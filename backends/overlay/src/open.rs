//! Stacking layers: what is read, checked and cleaned before the first request.

use std::sync::Arc;

use vfsd_backend::{
    Attributes, Capabilities, Errno, FileKind, Lookup, Name, Node, RenameFlags, Result,
};

use crate::index::Index;
use crate::layers::{Layer, Shared, UpperLayer};
use crate::merge::entries_of;
use crate::new::{Inode, New, What};
use crate::node::OverlayNode;
use crate::options::{OpenError, Options, Upper, Which};
use crate::parts::{Part, Parts};
use crate::work::{DAEMON, WorkDirectory, make_whiteout, rename};
use crate::xattr::{LOWERS, Marks};
use crate::{Namespace, Overlay};

/// The most lower layers: their numbers have 16 bits in inode numbers.
const MOST_LOWERS: usize = 65_000;

/// The directory in the work directory where files are made, as the kernel has it.
const WORK: &str = "work";

/// The directory in that one where the kernel notes what forbids another mount.
const INCOMPATIBLE: &[u8] = b"incompat";

impl Overlay {
    /// Stacks layers. What an earlier run has left in the work directory is removed.
    ///
    /// # Errors
    /// When there is no lower layer, one cannot be read, or the upper is not fit to be written.
    pub async fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let count = options.lowers.len();
        match count {
            0 => return Err(OpenError::NoLower),
            1..=MOST_LOWERS => {}
            _ => return Err(OpenError::TooManyLowers(count)),
        }
        let namespace = options.namespace;
        let mut lowers = Vec::with_capacity(count);
        let mut top = None;
        for (index, backend) in options.lowers.iter().enumerate() {
            let which = Which::Lower(index.saturating_add(1));
            let layer = Layer::lower(index, count);
            let (part, attributes) = root_of(namespace, layer, backend.root(), which).await?;
            top.get_or_insert(attributes);
            lowers.push(part);
        }
        let mut attributes = top.ok_or(OpenError::NoLower)?;
        let mut upper = None;
        let mut upper_root = None;
        if let Some(given) = &options.upper {
            let root = given.root.clone();
            let (part, own) = root_of(namespace, Layer::UPPER, root, Which::Upper).await?;
            upper = Some(open_upper(&options, given).await?);
            (upper_root, attributes) = (Some(part), own);
        }
        let capabilities = capabilities(&options);
        let shared = Shared::new(&options, lowers.clone(), upper, capabilities);
        let parts = Parts {
            upper: upper_root,
            lowers: lowers.into(),
            attributes,
        };
        let root = OverlayNode::new(&Arc::new(shared), parts, None, 0, None);
        Ok(Arc::new(Self { root }))
    }
}

/// The root of a layer.
async fn root_of(
    namespace: Namespace,
    layer: Layer,
    root: Arc<dyn Node>,
    which: Which,
) -> Result<(Part, Attributes), OpenError> {
    if root.kind() != FileKind::Directory {
        return Err(OpenError::NotADirectory(which));
    }
    let unreadable = |error| OpenError::Unreadable { which, error };
    let attributes = root.getattr().await.map_err(unreadable)?;
    let marks = Marks::of(namespace, &root).await.map_err(unreadable)?;
    let part = Part {
        layer,
        node: root,
        inode: attributes.inode,
        marks,
        names: None,
    };
    Ok((part, attributes))
}

/// What the upper can do; without one, what all lowers can, and nothing that takes more than reading.
fn capabilities(options: &Options) -> Capabilities {
    if let Some(upper) = &options.upper {
        // Locks are kept here: nobody else uses the upper.
        let without = Capabilities::SUBMOUNTS | Capabilities::IMMUTABLE;
        let locks = Capabilities::POSIX_LOCKS | Capabilities::FLOCK;
        return upper.backend.capabilities().difference(without) | locks;
    }
    let all = options
        .lowers
        .iter()
        .map(|lower| lower.capabilities())
        .fold(Capabilities::all(), |all, one| all & one);
    all & (Capabilities::XATTR
        | Capabilities::POSIX_ACL
        | Capabilities::POSIX_LOCKS
        | Capabilities::FLOCK
        | Capabilities::IMMUTABLE
        | Capabilities::REOPEN)
}

async fn open_upper(options: &Options, given: &Upper) -> Result<UpperLayer, OpenError> {
    let outer = &given.work;
    if outer.kind() != FileKind::Directory {
        return Err(OpenError::NotADirectory(Which::Work));
    }
    let unusable = |error| OpenError::Unreadable {
        which: Which::Work,
        error,
    };
    if let Some(feature) = incompatible(outer).await.map_err(unusable)? {
        return Err(OpenError::Incompatible { feature });
    }
    let work = WorkDirectory::open(outer, WORK).await.map_err(unusable)?;
    probe(options.namespace, given, &work).await?;
    check_lowers(options.namespace, &given.root, &options.lowers_names).await?;
    let namespace = options.namespace;
    let index = Index::open(outer, &given.root, namespace).await;
    let index = index.map_err(unusable)?;
    if let Some(mark) = index.lacking().await.map_err(unusable)? {
        return Err(OpenError::OtherWork {
            attribute: namespace.own(mark).escape_ascii().to_string(),
        });
    }
    Ok(UpperLayer {
        backend: given.backend.clone(),
        root: given.root.clone(),
        work,
        index,
    })
}

/// The mount option with which the kernel has used the upper, if nobody may use it after that.
async fn incompatible(outer: &Arc<dyn Node>) -> Result<Option<String>> {
    let mut directory = outer.clone();
    for name in [WORK.as_bytes(), INCOMPATIBLE] {
        match directory.lookup(Name::new(name)?).await? {
            Lookup::Found(entry) if entry.node.kind() == FileKind::Directory => {
                directory = entry.node;
            }
            _ => return Ok(None),
        }
    }
    let noted = entries_of(&directory).await?;
    Ok(noted
        .names()
        .next()
        .map(|name| name.escape_ascii().to_string()))
}

/// Finds out, by doing it, whether the upper can do what an overlay needs.
async fn probe(namespace: Namespace, given: &Upper, work: &WorkDirectory) -> Result<(), OpenError> {
    let lacks = |what| move |error| OpenError::Lacks { what, error };
    let (one, two) = (work.temporary(), work.temporary());
    let name = |temporary: &crate::work::Temporary| temporary.name().map(|n| n.as_bytes().to_vec());
    let done = async {
        let unusable = |error| OpenError::Unreadable {
            which: Which::Work,
            error,
        };
        let new = New {
            caller: DAEMON,
            what: What::Directory,
            inode: Inode::with(0o700),
        };
        let (one, two) = (name(&one).map_err(unusable)?, name(&two).map_err(unusable)?);
        let first = Name::new(&one).map_err(|errno| unusable(errno.into()))?;
        let second = Name::new(&two).map_err(|errno| unusable(errno.into()))?;
        // A name that does not exist is not moved; between file systems nothing is.
        match rename(
            &work.node,
            first,
            &given.root,
            first,
            RenameFlags::NOREPLACE,
        )
        .await
        {
            Err(error) if error.is(Errno::XDEV) => return Err(OpenError::WorkElsewhere),
            Err(error) if error.is(Errno::NOENT) => {}
            Err(error) => return Err(lacks("renames that replace nothing")(error)),
            Ok(()) => return Err(unusable(Errno::IO.into())),
        }
        let (made, _) = new.make(&work.node, first).await.map_err(unusable)?;
        let set = namespace.set(made.node.as_ref(), "vfsd.probe", b"y").await;
        set.map_err(|error| OpenError::NoXattrs {
            prefix: String::from_utf8_lossy(namespace.prefix()).into_owned(),
            error,
        })?;
        let made = make_whiteout(&work.node, second).await;
        made.map_err(lacks("character devices 0/0"))?;
        let work = &work.node;
        let exchanged = rename(work, first, work, second, RenameFlags::EXCHANGE).await;
        exchanged.map_err(lacks("renames that exchange"))?;
        work.unlink(first).await.map_err(unusable)?;
        let moved = rename(work, second, work, first, RenameFlags::WHITEOUT).await;
        moved.map_err(lacks("renames that leave a whiteout"))
    }
    .await;
    work.discard(&one).await;
    work.discard(&two).await;
    done
}

/// Refuses an upper that belongs to other lower layers, and notes to which it belongs.
async fn check_lowers(
    namespace: Namespace,
    root: &Arc<dyn Node>,
    names: &[String],
) -> Result<(), OpenError> {
    let Some(wanted) = names.first() else {
        return Ok(());
    };
    let unusable = |error| OpenError::Unreadable {
        which: Which::Upper,
        error,
    };
    let known = namespace.get(root.as_ref(), LOWERS).await;
    match known.map_err(unusable)? {
        Some(known) if names.iter().any(|name| known == name.as_bytes()) => Ok(()),
        Some(known) => Err(OpenError::OtherLowers {
            found: known.escape_ascii().to_string(),
            wanted: wanted.to_owned(),
            attribute: namespace.own(LOWERS).escape_ascii().to_string(),
        }),
        None => namespace
            .set(root.as_ref(), LOWERS, wanted.as_bytes())
            .await
            .map_err(unusable),
    }
}
