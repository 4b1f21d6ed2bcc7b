//! Extended attributes of what is written to.

use std::sync::Arc;

use object_store::Attributes as Metadata;
use vfsd_backend::{Answer, Errno, Result, XattrFlags, XattrName};

use crate::flat::body::Body;
use crate::flat::extended;
use crate::flat::node::FlatNode;

impl FlatNode {
    /// Whether it may have any, as far as that is known.
    fn may_have_xattrs(&self) -> bool {
        let posix = match &self.body {
            Body::Directory(directory) => directory.posix(),
            Body::File(file) => file.posix(),
        };
        posix.is_none_or(|posix| posix.extended)
    }

    /// The metadata that has them.
    async fn all_metadata(self: Arc<Self>) -> Result<Metadata> {
        let Body::File(file) = &self.body else {
            return self.marker().await;
        };
        let own = file.writing.state().metadata.clone();
        match own {
            Some(metadata) => Ok(metadata),
            None => self.look_at_metadata(file).await,
        }
    }

    async fn change_xattr(
        self: Arc<Self>,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
        flags: XattrFlags,
    ) -> Result<()> {
        let set = |metadata: &mut Metadata| {
            extended::set(metadata, &name, value.as_deref(), flags)?;
            Ok::<bool, Errno>(extended::has_any(metadata))
        };
        let file = match &self.body {
            Body::File(file) => file,
            Body::Directory(directory) => {
                if self.key().is_empty() {
                    return Err(Errno::OPNOTSUPP.into());
                }
                self.clone().know_marker().await?;
                let mut metadata = self.marker().await?;
                let any = set(&mut metadata)?;
                let posix = directory.change(|posix| posix.extended = any);
                return self.mark(posix, &metadata).await;
            }
        };
        self.know_posix(file).await?;
        // No commit forgets meanwhile what is changed here.
        let _turn = file.writing.turn.lock().await;
        self.know_metadata(file).await?;
        let any = set(file.writing.state().metadata.get_or_insert_default())?;
        Ok(self.touch(|posix| posix.extended = any)?)
    }
}

pub(in crate::flat) fn getxattr<'a>(
    node: &'a FlatNode,
    name: XattrName<'a>,
) -> Answer<'a, Vec<u8>> {
    if node.bucket.writer.is_none() {
        return Answer::not_supported();
    }
    // Guests ask for labels and capabilities again and again.
    if !name.as_bytes().starts_with(b"user.") || !node.may_have_xattrs() {
        return Answer::error(Errno::NODATA);
    }
    let Some(this) = node.this.upgrade() else {
        return Answer::error(Errno::STALE);
    };
    Answer::later(async move {
        let metadata = node.bucket.run(this.all_metadata()).await?;
        Ok(extended::get(&metadata, name.as_bytes()).ok_or(Errno::NODATA)?)
    })
}

pub(in crate::flat) fn listxattr(node: &FlatNode) -> Answer<'_, Vec<u8>> {
    if node.bucket.writer.is_none() {
        return Answer::not_supported();
    }
    if !node.may_have_xattrs() {
        return Answer::ok(Vec::new());
    }
    let Some(this) = node.this.upgrade() else {
        return Answer::error(Errno::STALE);
    };
    Answer::later(async move {
        let metadata = node.bucket.run(this.all_metadata()).await?;
        Ok(extended::list(&metadata))
    })
}

pub(in crate::flat) fn change_xattr<'a>(
    node: &'a FlatNode,
    name: XattrName<'a>,
    value: Option<&'a [u8]>,
    flags: XattrFlags,
) -> Answer<'a, ()> {
    if node.bucket.writer.is_none() {
        return Answer::not_supported();
    }
    let Some(this) = node.this.upgrade() else {
        return Answer::error(Errno::STALE);
    };
    let (name, value) = (name.as_bytes().to_vec(), value.map(<[u8]>::to_vec));
    Answer::later(async move { node.bucket.run(this.change_xattr(name, value, flags)).await })
}
