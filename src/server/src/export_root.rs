//! The directory above several exports. It is made of their names and never changes.

use std::ops::ControlFlow;
use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, Device, DirEntry, DirSink, Directory, Entry, Errno,
    FileKind, Lookup, Name, Node, NodeIdentity, Timestamp, Ttl,
};

use crate::export::Export;

/// Inode number of the directory. No export's root has it: a directory with the number of the one above
/// is taken for a loop.
const ROOT_INODE: u64 = 0xffff_fff0;

/// The synthetic root as a backend: a single directory.
#[derive(Debug, Clone)]
pub(crate) struct ExportRoot {
    exports: Arc<[Arc<Export>]>,
    made: Timestamp,
}

impl ExportRoot {
    pub(crate) fn new(exports: Arc<[Arc<Export>]>) -> Self {
        Self {
            exports,
            made: Timestamp::now(),
        }
    }
}

impl Backend for ExportRoot {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(self.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::SUBMOUNTS
    }
}

impl Node for ExportRoot {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: ROOT_INODE,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        let links = u32::try_from(self.exports.len())
            .unwrap_or(u32::MAX)
            .saturating_add(2);
        Answer::ok(Attributes {
            inode: ROOT_INODE,
            kind: FileKind::Directory,
            permissions: 0o755,
            links,
            uid: 0,
            gid: 0,
            device: Device::default(),
            size: 4096,
            blocks: 0,
            block_size: 4096,
            accessed: self.made,
            modified: self.made,
            changed: self.made,
            born: Some(self.made),
            mount_root: false,
        })
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        let found = self
            .exports
            .iter()
            .find(|export| export.name.as_bytes() == name.as_bytes());
        let Some(export) = found else {
            return Answer::ok(Lookup::Missing { ttl: Ttl::Policy });
        };
        Answer::later(async move {
            let node = export.backend.root();
            let attributes = Attributes {
                mount_root: true,
                ..export.threads.run(node.getattr()).await?
            };
            Ok(Lookup::Found(Entry {
                node,
                attributes,
                entry_ttl: Ttl::Policy,
                attribute_ttl: Ttl::Policy,
            }))
        })
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        Answer::ok(Arc::new(self.clone()))
    }
}

impl Directory for ExportRoot {
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        Answer::now(|| {
            let dots = [&b"."[..], b".."].into_iter();
            let names = self.exports.iter().map(|export| export.name.as_bytes());
            let skipped = usize::try_from(cookie).map_err(|_| Errno::INVAL)?;
            for (next, name) in (1u64..).zip(dots.chain(names)).skip(skipped) {
                // The inode number of a directory that something is mounted on is not seen.
                let kind = Some(FileKind::Directory);
                let entry = DirEntry {
                    name,
                    inode: ROOT_INODE,
                    kind,
                    next,
                };
                if let ControlFlow::Break(()) = sink.entry(&entry) {
                    break;
                }
            }
            Ok(())
        })
    }
}
