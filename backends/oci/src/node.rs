//! A file of an image.

use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Directory, Errno, FileCaching, FileKind, FsStatistics, Locator, Lookup,
    Name, Node, NodeIdentity, OpenFlags, OpenRequest, Opened, Ttl, XattrName,
};

use crate::backend::Shared;
use crate::directory::ImageDirectory;
use crate::file::ImageFile;
use crate::tree::NodeId;

/// A file of an image, by its place in the tree.
pub(crate) struct ImageNode {
    shared: Arc<Shared>,
    id: NodeId,
}

impl ImageNode {
    pub(crate) fn new(shared: Arc<Shared>, id: NodeId) -> Self {
        Self { shared, id }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Node for ImageNode {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.id.inode(),
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.shared.tree.kind(self.id)
    }

    fn locator(&self) -> Answer<'_, Locator> {
        Answer::ok(Locator::of_inode(self.id.inode()))
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        Answer::ok(self.shared.attributes(self.id))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        if self.kind() != FileKind::Directory {
            return Answer::error(Errno::NOTDIR);
        }
        Answer::ok(match self.shared.tree.lookup(self.id, name.as_bytes()) {
            Some(node) => Lookup::Found(self.shared.entry(node)),
            None => Lookup::Missing { ttl: Ttl::Forever },
        })
    }

    fn readlink(&self) -> Answer<'_, Vec<u8>> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        match self.shared.tree.target(self.id) {
            Some(target) => Answer::ok(target.to_vec()),
            None => Answer::error(Errno::INVAL),
        }
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        let refused = match self.kind() {
            FileKind::Regular => {
                let changes = OpenFlags::WRITE | OpenFlags::TRUNCATE;
                request.flags.intersects(changes).then_some(Errno::ROFS)
            }
            FileKind::Directory => Some(Errno::ISDIR),
            FileKind::Symlink => Some(Errno::LOOP),
            _ => Some(Errno::BADF),
        };
        if let Some(errno) = refused {
            return Answer::error(errno);
        }
        match ImageFile::open(&self.shared, self.id) {
            Some(file) => Answer::ok(Opened {
                file: Arc::new(file),
                caching: FileCaching::Keep,
            }),
            // The tree names a layer that the image does not have: it was checked when it was opened.
            None => Answer::error(Errno::IO),
        }
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        match self.shared.tree.parent(self.id) {
            Some(parent) => Answer::ok(Arc::new(ImageDirectory {
                shared: self.shared.clone(),
                id: self.id,
                parent,
            })),
            None => Answer::error(Errno::NOTDIR),
        }
    }

    fn getxattr<'a>(&'a self, name: XattrName<'a>) -> Answer<'a, Vec<u8>> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        match self.shared.tree.xattr(self.id, name.as_bytes()) {
            Some(value) => Answer::ok(value.to_vec()),
            None => Answer::error(Errno::NODATA),
        }
    }

    fn listxattr(&self) -> Answer<'_, Vec<u8>> {
        if let Err(errno) = self.shared.is_shown() {
            return Answer::error(errno);
        }
        let mut names = Vec::new();
        for (name, _) in self.shared.tree.xattrs(self.id) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Answer::ok(names)
    }

    fn statfs(&self) -> Answer<'_, FsStatistics> {
        Answer::ok(self.shared.statistics())
    }

    fn syncfs(&self) -> Answer<'_, ()> {
        Answer::ok(())
    }
}
