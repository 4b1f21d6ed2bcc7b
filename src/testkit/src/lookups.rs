//! A directory that is asked for names, and has nothing else.

use std::fmt;
use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, FileKind, Lookup, Name, Node, NodeIdentity,
};

/// What a lookup is answered with.
type Answers = dyn for<'a> Fn(Name<'a>) -> Answer<'a, Lookup> + Send + Sync;

/// A storage whose root, a directory that cannot be listed, answers lookups as it is told. Cheap to clone.
#[derive(Clone)]
pub struct Lookups(Arc<Answers>);

impl Lookups {
    /// One that answers so.
    pub fn new(
        answers: impl for<'a> Fn(Name<'a>) -> Answer<'a, Lookup> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(answers))
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookups")
    }
}

impl Backend for Lookups {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(self.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Lookups {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: 1,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(Attributes::new(1, FileKind::Directory, 0o755))
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        (self.0)(name)
    }
}
