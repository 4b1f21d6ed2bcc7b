//! A bucket in memory that is written to, and what a guest does with it.

use object_store::{Attribute, GetOptions};
use vfsd_backend::{
    Caller, Identity, LockOwner, NewInode, Rename, RenameFlags, SliceSource, WriteRequest,
};

use super::*;
use crate::flat::{Overwrite, Staging, WriteOptions};

/// A thread that may wait for its disk, as those that serve queues.
struct Patient;

impl vfsd_exec::Worker for Patient {
    fn enter_blocking(&self) -> bool {
        true
    }

    fn exit_blocking(&self) {}
}

pub(super) struct Writable {
    pub(super) scene: Scene,
    pub(super) staging: Staging,
    folder: tempfile::TempDir,
}

impl Writable {
    pub(super) async fn new(objects: &[(&str, &str)]) -> Self {
        Self::with(objects, Overwrite::Refuse, Vec::new()).await
    }

    pub(super) async fn with(
        objects: &[(&str, &str)],
        overwrite: Overwrite,
        faults: Vec<(Fault, u32)>,
    ) -> Self {
        vfsd_exec::register(std::rc::Rc::new(Patient));
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path(), 100 << 20).unwrap();
        let options = FlatOptions {
            write: Some(WriteOptions {
                staging: staging.clone(),
                overwrite,
            }),
            ..FlatOptions::default()
        };
        Self {
            scene: Scene::with(objects, options, faults).await,
            staging,
            folder,
        }
    }

    pub(super) fn root(&self) -> Arc<dyn Node> {
        self.scene.bucket.root()
    }

    /// Requests since the last call: PUT, DELETE, COPY, and those that read.
    pub(super) fn cost(&mut self) -> (u64, u64, u64, u64) {
        let now = self.scene.bucket.store().counters().requests();
        let before = std::mem::replace(&mut self.scene.seen, now);
        let reads = |requests: &Requests| requests.heads + requests.lists + requests.gets;
        (
            now.puts - before.puts,
            now.deletes - before.deletes,
            now.copies - before.copies,
            reads(&now) - reads(&before),
        )
    }

    /// What was kept of files that could not be uploaded at the end.
    pub(super) fn kept(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect()
    }

    /// What another client reads.
    pub(super) async fn object(&self, key: &str) -> Option<String> {
        let got = self.scene.below.inner().get(&Path::from(key)).await.ok()?;
        Some(String::from_utf8(got.bytes().await.unwrap().to_vec()).unwrap())
    }

    pub(super) async fn keys(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        let listed = self.scene.below.inner().list(None).try_collect::<Vec<_>>();
        let mut keys: Vec<_> = listed
            .await
            .unwrap()
            .into_iter()
            .map(|meta| meta.location.to_string())
            .collect();
        keys.sort();
        keys
    }

    pub(super) async fn metadata(&self, key: &str, name: &'static str) -> Option<String> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let path = Path::from(key);
        let got = self
            .scene
            .below
            .inner()
            .get_opts(&path, options)
            .await
            .unwrap();
        let value = got.attributes.get(&Attribute::Metadata(name.into()))?;
        Some(value.to_string())
    }

    pub(super) async fn parent(&self, path: &str) -> (Arc<dyn Node>, String) {
        match path.rsplit_once('/') {
            Some((directory, name)) => (
                self.scene.find(directory).await.unwrap().node,
                name.to_owned(),
            ),
            None => (self.root(), path.to_owned()),
        }
    }

    pub(super) async fn create(&self, path: &str) -> Result<Arc<dyn File>, Errno> {
        let (parent, name) = self.parent(path).await;
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let created = parent.create(user(), Name::new(name.as_bytes())?, flags, inode(0o640));
        Ok(created.await.map_err(errno)?.opened.file)
    }

    pub(super) async fn open_to_write(&self, path: &str) -> Result<Arc<dyn File>, Errno> {
        let request = OpenRequest {
            flags: OpenFlags::READ | OpenFlags::WRITE,
            kill_privileges: false,
        };
        let node = self.scene.find(path).await?.node;
        Ok(node.open(request).await.map_err(errno)?.file)
    }

    pub(super) async fn unlink(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(path).await;
        parent
            .unlink(Name::new(name.as_bytes())?)
            .await
            .map_err(errno)
    }

    pub(super) async fn mkdir(&self, path: &str) -> Result<Entry, Errno> {
        let (parent, name) = self.parent(path).await;
        let made = parent.mkdir(user(), Name::new(name.as_bytes())?, inode(0o750));
        made.await.map_err(errno)
    }

    pub(super) async fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(path).await;
        parent
            .rmdir(Name::new(name.as_bytes())?)
            .await
            .map_err(errno)
    }

    pub(super) async fn rename(
        &self,
        from: &str,
        to: &str,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let (parent, name) = self.parent(from).await;
        let (new_parent, new_name) = self.parent(to).await;
        let rename = Rename {
            name: Name::new(name.as_bytes())?,
            new_parent: new_parent.as_ref(),
            new_name: Name::new(new_name.as_bytes())?,
            flags,
        };
        parent.rename(user(), rename).await.map_err(errno)
    }
}

pub(super) fn user() -> Caller {
    Caller {
        identity: Some(Identity {
            uid: 1000,
            gid: 100,
            supplementary: None,
        }),
        pid: 1,
    }
}

pub(super) fn inode(permissions: u32) -> NewInode<'static> {
    NewInode {
        permissions,
        umask: 0,
        security: None,
    }
}

pub(super) async fn write(file: &dyn File, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let request = WriteRequest {
        offset,
        kill_privileges: false,
        cached: false,
    };
    let mut source = SliceSource::new(bytes);
    file.write(request, &mut source).await.map_err(errno)
}

pub(super) async fn close(file: Arc<dyn File>) -> Result<(), Errno> {
    file.flush(LockOwner(1)).await.map_err(errno)
}
