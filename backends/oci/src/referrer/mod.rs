//! Indexes of layers that one host shares with others: pushed to the image's registry beside the image.
//!
//! They are the layers of an artifact, a manifest whose `subject` is that of the image: for each layer the bytes of its
//! [index](crate::index), in zstd, with the layer's digest as an annotation. The same image and version of the format
//! give the same artifact, whoever makes it.
//!
//! Whoever uses one believes its maker ([`IndexFrom`]). It is checked that it is an index that can be, and of the layer
//! with that digest, but what files the layer has and what is in them only the layer itself could tell. So the layer is
//! read as a whole while the guest waits for nothing, and compared with the index; if that was wrong, the image is
//! served no longer.

mod artifact;
mod borrow;
mod compare;
mod doubt;
mod push;

pub(crate) use borrow::Borrower;
pub use borrow::IndexFrom;
pub(crate) use doubt::Doubts;
pub use push::{PushError, PushedIndexes, push_indexes};

/// What the artifact is.
const ARTIFACT: &str = "application/vnd.vfsd.layer-indexes.v1";
/// What each of its blobs is.
const LAYER_INDEX: &str = "application/vnd.vfsd.layer-index.v1+zstd";
/// The annotation that says of which layer.
const OF_LAYER: &str = "dev.vfsd.layer.digest";

/// The most bytes of an index that is shared: of a layer of about 10 GB.
const INDEX_MAX: u64 = 256 << 20;

/// The most bytes of an index of a layer of any size. That of a larger layer has no more than the layer, so that no small
/// one takes much memory.
const INDEX_OF_ANY: u64 = 16 << 20;
