//! Indexes of layers that one host shares with others: pushed to the image's registry beside the image.
//!
//! They are the layers of an artifact, a manifest whose `subject` is that of the image: for each layer the bytes of its
//! [index](crate::index), in zstd, with the layer's digest as an annotation. The same image and version of the format
//! give the same artifact, whoever makes it.

mod artifact;
mod push;

pub use push::{PushError, PushedIndexes, push_indexes};

/// What the artifact is.
const ARTIFACT: &str = "application/vnd.vfsd.layer-indexes.v1";
/// What each of its blobs is.
const LAYER_INDEX: &str = "application/vnd.vfsd.layer-index.v1+zstd";
/// The annotation that says of which layer.
const OF_LAYER: &str = "dev.vfsd.layer.digest";

/// The most bytes of an index that is shared: of a layer of about 10 GB.
const INDEX_MAX: u64 = 256 << 20;
