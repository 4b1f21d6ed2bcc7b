//! What is written, by the requests that it costs and the objects that it makes.

use std::time::Duration;

use object_store::{Attribute, Attributes, GetOptions, ObjectStore, PutOptions};
use tokio::time::advance;
use vfsd_backend::{
    AttributeChanges, Caller, Identity, LinkTarget, LockOwner, NewInode, Rename, RenameFlags,
    SetTime, SliceSource, Timestamp, WriteRequest,
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
    staging: Staging,
    _folder: tempfile::TempDir,
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
            _folder: folder,
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

    async fn parent(&self, path: &str) -> (Arc<dyn Node>, String) {
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

    async fn unlink(&self, path: &str) -> Result<(), Errno> {
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

    async fn rmdir(&self, path: &str) -> Result<(), Errno> {
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

#[tokio::test(start_paused = true)]
async fn a_new_file_is_one_put_when_it_is_closed_and_there_before() {
    let mut scene = Writable::new(&[("a", "1")]).await;
    let file = scene.create("b").await.unwrap();
    scene.cost();
    write(file.as_ref(), 0, b"hello ").await.unwrap();
    write(file.as_ref(), 6, b"world").await.unwrap();
    assert_eq!(scene.object("b").await, None);
    assert_eq!(scene.scene.find("b").await.unwrap().attributes.size, 11);
    assert_eq!(names(scene.root().as_ref()).await, [".", "..", "a", "b"]);
    scene.cost();
    close(file.clone()).await.unwrap();
    assert_eq!(scene.cost(), (1, 0, 0, 0));
    assert_eq!(scene.object("b").await.unwrap(), "hello world");
    close(file.clone()).await.unwrap();
    file.fsync(false).await.unwrap();
    assert_eq!(scene.cost(), (0, 0, 0, 0), "nothing changed since");
    assert_eq!(scene.metadata("b", "mode").await.unwrap(), "33184");
    assert_eq!(scene.metadata("b", "uid").await.unwrap(), "1000");
    assert_eq!(read(file.as_ref(), 6, 100).await.unwrap(), b"world");
    drop(file);
    assert_eq!(scene.staging.used(), 0);
    let entry = scene.scene.find("b").await.unwrap();
    assert_eq!(entry.attributes.size, 11);
    assert_eq!(scene.cost(), (0, 0, 0, 0), "what was written is known");
    advance(Duration::from_secs(2)).await;
    let again = scene.scene.find("b").await.unwrap();
    assert_eq!(
        again.node.identity(),
        entry.node.identity(),
        "it is the same file"
    );
    assert_eq!(again.attributes.modified, entry.attributes.modified);
    assert_eq!(again.attributes.mode(), 0o100_640);
    assert_eq!(names(scene.root().as_ref()).await, [".", "..", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_changed_in_place_and_replaced_under_its_condition() {
    let mut scene = Writable::new(&[("d/f", "0123456789")]).await;
    let file = scene.open_to_write("d/f").await.unwrap();
    scene.cost();
    write(file.as_ref(), 3, b"xyz").await.unwrap();
    write(file.as_ref(), 12, b"end").await.unwrap();
    close(file.clone()).await.unwrap();
    assert_eq!(
        scene.cost(),
        (1, 0, 0, 1),
        "one GET of the old, one PUT of the new"
    );
    assert_eq!(scene.object("d/f").await.unwrap(), "012xyz6789\0\0end");

    // Truncated to nothing: the old content is not fetched.
    let node = scene.scene.find("d/f").await.unwrap().node;
    let changes = AttributeChanges {
        size: Some(0),
        ..AttributeChanges::default()
    };
    node.setattr(changes).await.unwrap();
    write(file.as_ref(), 0, b"new").await.unwrap();
    file.fsync(true).await.unwrap();
    assert_eq!(scene.object("d/f").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_race_gets_eio_and_the_bytes_another_name() {
    let scene = Writable::new(&[("f", "old")]).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "f", "theirs".to_owned()).await;
    assert_eq!(close(file.clone()).await, Err(Errno::IO));
    assert_eq!(scene.object("f").await.unwrap(), "theirs");
    let keys = scene.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[1].starts_with("f.vfsd-conflict-"), "{keys:?}");
    assert_eq!(scene.object(&keys[1]).await.unwrap(), "our");
    let now = scene.scene.open("f").await.unwrap();
    assert_eq!(read(now.as_ref(), 0, 10).await.unwrap(), b"theirs");

    // The same for a file that was new.
    let file = scene.create("g").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "g", "theirs".to_owned()).await;
    assert_eq!(close(file).await, Err(Errno::IO));
    assert_eq!(scene.object("g").await.unwrap(), "theirs");
    assert_eq!(scene.keys().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_wins_where_that_is_wanted() {
    let scene = Writable::with(&[("f", "old")], Overwrite::LastWins, Vec::new()).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"our").await.unwrap();
    put(&scene.scene.below, "f", "theirs".to_owned()).await;
    close(file).await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "our");
    assert_eq!(scene.keys().await, ["f"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_is_told_kept_and_done_later() {
    let scene = Writable::new(&[("a", "1")]).await;
    let file = scene.create("f").await.unwrap();
    write(file.as_ref(), 0, b"precious").await.unwrap();
    scene.scene.below.outage(true);
    assert_eq!(close(file.clone()).await, Err(Errno::IO));
    assert!(file.fsync(false).await.is_err());
    assert_eq!(read(file.as_ref(), 0, 10).await.unwrap(), b"precious");
    drop(file);
    assert_eq!(scene.staging.used(), 8, "it is not dropped");
    scene.scene.below.outage(false);
    // Nobody waits for it, and it comes all the same.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scene.object("f").await.unwrap(), "precious");
    assert_eq!(scene.staging.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_what_close_acknowledged_is_there() {
    let faults = vec![
        (Fault::LostReply, 150),
        (Fault::Unavailable, 100),
        (Fault::Conflict, 80),
        (Fault::Delay(Duration::from_secs(1)), 40),
        (Fault::Stall, 20),
    ];
    let scene = Writable::with(&[("x", "1")], Overwrite::Refuse, faults).await;
    for round in 0..40 {
        let name = format!("f{}", round % 7);
        let body = format!("content of round {round}");
        let file = match scene.create(&name).await {
            Ok(file) => file,
            Err(errno) => panic!("{errno}"),
        };
        write(file.as_ref(), 0, body.as_bytes()).await.unwrap();
        close(file).await.unwrap();
        let there = scene.object(&name).await.unwrap();
        assert!(there.starts_with(&body), "{there}");
    }
    assert_eq!(scene.keys().await.len(), 8, "no copies of conflicts");
    assert!(scene.scene.below.met() > 15);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_removed_while_it_is_open_stays_readable() {
    let mut scene = Writable::new(&[("d/f", "content"), ("d/g", "other")]).await;
    let _known = scene.scene.find("d").await.unwrap();
    let file = scene.scene.open("d/f").await.unwrap();
    scene.cost();
    scene.unlink("d/f").await.unwrap();
    assert_eq!(scene.object("d/f").await, None);
    assert_eq!(read(file.as_ref(), 0, 10).await.unwrap(), b"content");
    assert_eq!(file.getattr().await.unwrap().links, 0);
    assert!(matches!(scene.scene.find("d/f").await, Err(Errno::NOENT)));
    drop(file);
    assert_eq!(scene.staging.used(), 0);

    // One that never was in the bucket costs nothing to remove.
    let file = scene.create("d/h").await.unwrap();
    write(file.as_ref(), 0, b"x").await.unwrap();
    scene.cost();
    scene.unlink("d/h").await.unwrap();
    assert_eq!(scene.cost(), (0, 0, 0, 0));
    close(file).await.unwrap();
    assert_eq!(scene.object("d/h").await, None);
    assert_eq!(scene.keys().await, ["d/g"]);

    // A directory stays although its last file is gone, and goes when it is told to.
    scene.unlink("d/g").await.unwrap();
    advance(Duration::from_secs(2)).await;
    assert_eq!(
        names(scene.scene.find("d").await.unwrap().node.as_ref())
            .await
            .len(),
        2
    );
    scene.rmdir("d").await.unwrap();
    assert!(matches!(scene.scene.find("d").await, Err(Errno::NOENT)));
    assert_eq!(scene.keys().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn directories_are_made_and_removed_and_keep_their_attributes() {
    let scene = Writable::new(&[("a", "1")]).await;
    scene.mkdir("d").await.unwrap();
    scene.mkdir("d/e").await.unwrap();
    assert!(matches!(scene.mkdir("a").await, Err(Errno::EXIST)));
    assert!(matches!(scene.mkdir("d").await, Err(Errno::EXIST)));
    advance(Duration::from_secs(5)).await;
    let e = scene.scene.find("d/e").await.unwrap();
    assert_eq!((e.attributes.mode(), e.attributes.uid), (0o040_750, 1000));
    assert_eq!(
        names(scene.scene.find("d").await.unwrap().node.as_ref()).await,
        [".", "..", "e"]
    );
    assert_eq!(scene.rmdir("d").await, Err(Errno::NOTEMPTY));
    assert_eq!(scene.rmdir("a").await, Err(Errno::NOTDIR));
    assert_eq!(scene.unlink("d").await, Err(Errno::ISDIR));
    let changes = AttributeChanges {
        permissions: Some(0o700),
        ..AttributeChanges::default()
    };
    e.node.setattr(changes).await.unwrap();
    drop(e);
    advance(Duration::from_secs(5)).await;
    assert_eq!(
        scene
            .scene
            .find("d/e")
            .await
            .unwrap()
            .attributes
            .permissions,
        0o700
    );
    scene.rmdir("d/e").await.unwrap();
    scene.rmdir("d").await.unwrap();
    assert_eq!(scene.keys().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_is_the_same_file_with_all_its_bytes() {
    let mut scene = Writable::new(&[("a", "1"), ("b", "2"), ("d/x", "3")]).await;
    let file = scene.open_to_write("a").await.unwrap();
    let replaced = scene.scene.open("b").await.unwrap();
    let before = scene.scene.find("a").await.unwrap().node.identity();
    write(file.as_ref(), 1, b"more").await.unwrap();
    assert_eq!(
        scene.rename("a", "b", RenameFlags::NOREPLACE).await,
        Err(Errno::EXIST)
    );
    scene.rename("a", "b", RenameFlags::empty()).await.unwrap();
    assert_eq!(read(replaced.as_ref(), 0, 9).await.unwrap(), b"2");
    assert_eq!(scene.object("b").await.unwrap(), "1more");
    assert_eq!(scene.keys().await, ["b", "d/x"]);
    assert_eq!(scene.scene.find("b").await.unwrap().node.identity(), before);
    write(file.as_ref(), 5, b" and more").await.unwrap();
    close(file).await.unwrap();
    assert_eq!(scene.object("b").await.unwrap(), "1more and more");
    advance(Duration::from_secs(2)).await;
    scene.scene.find("b").await.unwrap();
    let _known = scene.scene.find("d").await.unwrap();
    scene.cost();
    scene
        .rename("b", "d/y", RenameFlags::empty())
        .await
        .unwrap();
    let (puts, deletes, copies, reads) = scene.cost();
    assert_eq!((puts, deletes, copies), (0, 1, 1));
    assert!(reads <= 3, "{reads}");
    assert_eq!(
        scene.rename("d/y", "d", RenameFlags::empty()).await,
        Err(Errno::ISDIR)
    );
    assert_eq!(
        scene.rename("d", "z", RenameFlags::EXCHANGE).await.err(),
        Some(Errno::INVAL)
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_moved_with_its_files_up_to_a_thousand() {
    let scene = Writable::new(&[("d/a", "1"), ("d/e/b", "2"), ("z", "3")]).await;
    scene.mkdir("d/empty").await.unwrap();
    let file = scene.open_to_write("d/a").await.unwrap();
    write(file.as_ref(), 1, b"!").await.unwrap();
    scene.rename("d", "n", RenameFlags::empty()).await.unwrap();
    assert_eq!(scene.object("n/a").await.unwrap(), "1!");
    assert_eq!(scene.object("n/e/b").await.unwrap(), "2");
    assert!(matches!(scene.scene.find("d").await, Err(Errno::NOENT)));
    assert_eq!(
        names(scene.scene.find("n").await.unwrap().node.as_ref()).await,
        [".", "..", "a", "e", "empty"]
    );
    write(file.as_ref(), 2, b"?").await.unwrap();
    close(file).await.unwrap();
    assert_eq!(scene.object("n/a").await.unwrap(), "1!?");
    assert_eq!(scene.object("d/a").await, None);

    for number in 0..1001 {
        put(
            &scene.scene.below,
            &format!("many/{number}"),
            "x".to_owned(),
        )
        .await;
    }
    let many = scene.rename("many", "other", RenameFlags::empty()).await;
    assert_eq!(many, Err(Errno::XDEV));
    assert_eq!(scene.object("many/1000").await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn links_modes_owners_and_times_are_in_the_metadata_of_s3fs() {
    let scene = Writable::new(&[("f", "1")]).await;
    let target = LinkTarget::new(b"../some/where").unwrap();
    let root = scene.root();
    let name = Name::new(b"l").unwrap();
    root.symlink(user(), name, target, inode(0o777))
        .await
        .unwrap();
    assert_eq!(scene.object("l").await.unwrap(), "../some/where");
    assert_eq!(scene.metadata("l", "mode").await.unwrap(), "41471");
    advance(Duration::from_secs(5)).await;
    names(root.as_ref()).await;
    let link = scene.scene.find("l").await.unwrap();
    assert_eq!(link.attributes.kind, vfsd_backend::FileKind::Symlink);
    assert_eq!(link.node.readlink().await.unwrap(), b"../some/where");

    let f = scene.scene.find("f").await.unwrap().node;
    let changes = AttributeChanges {
        permissions: Some(0o4711),
        uid: Some(7),
        gid: Some(8),
        modified: Some(SetTime::At(Timestamp {
            seconds: 981_173_106,
            nanoseconds: 5,
        })),
        ..AttributeChanges::default()
    };
    let now = f.setattr(changes).await.unwrap();
    assert_eq!(
        (now.permissions, now.uid, now.modified.seconds),
        (0o4711, 7, 981_173_106)
    );
    f.syncfs().await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "1");
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "35273");
    assert_eq!(
        scene.metadata("f", "mtime").await.unwrap(),
        "981173106.000000005"
    );
    drop(f);
    advance(Duration::from_secs(5)).await;
    let f = scene.scene.find("f").await.unwrap().attributes;
    assert_eq!((f.permissions, f.uid, f.gid), (0o4711, 7, 8));
    assert_eq!(f.modified.nanoseconds, 5);
}

#[tokio::test(start_paused = true)]
async fn a_listing_tells_no_attributes_that_only_the_metadata_has() {
    let mut scene = Writable::new(&[]).await;
    let attributes = [("mode", "35273"), ("uid", "7")]
        .map(|(name, value)| (Attribute::Metadata(name.into()), value));
    let options = PutOptions::from(Attributes::from_iter(attributes));
    let body = "x".repeat(70_000);
    let below = scene.scene.below.clone();
    let path = Path::from("program");
    below
        .inner()
        .put_opts(&path, body.into(), options)
        .await
        .unwrap();

    let directory = scene.root().opendir().await.unwrap();
    let (name, found) = list_plus(directory.as_ref()).await.remove(0);
    assert!(name == b"program" && found.is_none());
    assert_eq!(scene.cost().3, 1, "a listing is one LIST");
    let program = scene.scene.find("program").await.unwrap();
    let seen = &program.attributes;
    assert_eq!((seen.permissions, seen.uid), (0o4711, 7));
    assert_eq!(scene.cost().3, 2, "a lookup is one HEAD and one LIST");

    advance(Duration::from_secs(5)).await;
    let (_, found) = list_plus(directory.as_ref()).await.remove(0);
    assert_eq!(found.unwrap().attributes, program.attributes);
    assert_eq!(scene.cost().3, 1, "what the guest knows is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_up_in_parts_and_is_not_put_over_anothers() {
    let scene = Writable::new(&[("f", "old")]).await;
    let body = vec![b'x'; 20 << 20];
    let file = scene.create("g").await.unwrap();
    write(file.as_ref(), 0, &body).await.unwrap();
    close(file.clone()).await.unwrap();
    assert_eq!(scene.object("g").await.unwrap().len(), body.len());
    write(file.as_ref(), 0, b"y").await.unwrap();
    put(&scene.scene.below, "g", "theirs".to_owned()).await;
    assert_eq!(close(file).await, Err(Errno::IO));
    assert_eq!(scene.object("g").await.unwrap(), "theirs");
    assert_eq!(scene.keys().await.len(), 3);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_unless_the_last_one_wins() {
    use object_store::local::LocalFileSystem;
    let folder = tempfile::tempdir().unwrap();
    let staging = Staging::open(&folder.path().join("staging"), 1 << 20).unwrap();
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).unwrap();
    let open = async |overwrite| {
        let files = LocalFileSystem::new_with_prefix(&objects).unwrap();
        let careless = Arc::new(crate::store::tests::Careless(files));
        let staging = staging.clone();
        let options = FlatOptions {
            write: Some(WriteOptions { staging, overwrite }),
            ..FlatOptions::default()
        };
        FlatBucket::open(Store::over(careless, RetryPolicy::default()), "", options).await
    };
    let refused = open(Overwrite::Refuse).await.unwrap_err().to_string();
    assert!(refused.contains("If-None-Match"), "{refused}");
    assert!(
        refused.ends_with("(--flat-overwrite=last-wins)"),
        "{refused}"
    );
    assert!(!refused.contains('\n'), "{refused}");
    let last_wins = open(Overwrite::LastWins).await.unwrap();
    assert_eq!(last_wins.store().counters().requests().puts, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_staged_is_bounded_and_the_guest_is_told() {
    let scene = Writable::new(&[("f", "old")]).await;
    let file = scene.create("g").await.unwrap();
    let far = write(file.as_ref(), 200 << 20, b"x").await;
    assert_eq!(far, Err(Errno::NOSPC));
    assert_eq!(write(file.as_ref(), 0, b"x").await, Ok(1));
    close(file).await.unwrap();
    assert_eq!(scene.object("g").await.unwrap(), "x");
}
