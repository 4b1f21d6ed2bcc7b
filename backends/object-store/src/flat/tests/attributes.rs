//! Attributes that change without the content: what they cost, and what stands when that goes wrong.

use std::time::Duration;

use async_trait::async_trait;
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, PutOptions};
use tokio::time::advance;
use vfsd_backend::{AttributeChanges, Capabilities, RenameFlags, XattrFlags, XattrName};

use super::writable::{Writable, close, write};
use super::*;
use crate::flat::{Overwrite, Staging, WriteOptions};
use crate::store::AttributeStore;

fn permissions(permissions: u32) -> AttributeChanges {
    AttributeChanges {
        permissions: Some(permissions),
        ..AttributeChanges::default()
    }
}

impl Writable {
    async fn chmod(&self, path: &str, mode: u32) -> Result<(), Errno> {
        let node = self.scene.find(path).await?.node;
        node.setattr(permissions(mode)).await.map_err(errno)?;
        node.syncfs().await.map_err(errno)
    }
}

async fn put_with(
    store: &FaultStore,
    key: &str,
    body: &str,
    said: &[(&'static str, &'static str)],
) {
    let named = |name: &'static str| match name {
        "content-type" => Attribute::ContentType,
        name => Attribute::Metadata(name.into()),
    };
    let attributes = said.iter().map(|(name, value)| (named(name), *value));
    let options = PutOptions::from(Attributes::from_iter(attributes));
    let path = Path::from(key);
    let put = store
        .inner()
        .put_opts(&path, body.to_owned().into(), options);
    put.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mode_is_one_copy_and_what_others_keep_with_the_object_stays() {
    let mut scene = Writable::new(&[("g", "1")]).await;
    let said = [
        ("team", "blue"),
        ("content-type", "text/plain"),
        ("mode", "33188"),
    ];
    put_with(&scene.scene.below, "f", "content", &said).await;
    let known = scene.scene.find("f").await.unwrap();
    scene.cost();
    scene.chmod("f", 0o600).await.unwrap();
    assert_eq!(
        scene.cost(),
        (0, 0, 2, 2),
        "the first one tries whether conditions are kept; in this store it changes the ETag"
    );
    scene.chmod("f", 0o640).await.unwrap();
    let (puts, _, copies, _) = scene.cost();
    assert_eq!((puts, copies), (0, 1));
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "33184");
    assert_eq!(scene.metadata("f", "team").await.unwrap(), "blue");
    let options = GetOptions::default();
    let below = scene.scene.below.inner();
    let found = below.get_opts(&Path::from("f"), options).await.unwrap();
    let kind = found.attributes.get(&Attribute::ContentType);
    assert_eq!(
        kind.map(|kind| kind.to_string()).as_deref(),
        Some("text/plain")
    );
    assert_eq!(scene.object("f").await.unwrap(), "content");
    let now = scene.scene.find("f").await.unwrap();
    assert_eq!(now.attributes.permissions, 0o640);
    assert_eq!(
        now.node.identity(),
        known.node.identity(),
        "it is the same file"
    );
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_file_goes_on_when_its_mode_changes() {
    let body = "0123456789abcdef".repeat(200_000);
    let scene = Writable::new(&[("f", &body)]).await;
    let file = scene.scene.open("f").await.unwrap();
    let end = body.len() - 16;
    assert_eq!(
        read(file.as_ref(), 0, 16).await.unwrap(),
        b"0123456789abcdef"
    );
    scene.chmod("f", 0o600).await.unwrap();
    assert_eq!(
        read(file.as_ref(), end, 99).await.unwrap(),
        b"0123456789abcdef"
    );

    // And when the object already has another ETag, but nobody has told us that yet.
    let file = scene.scene.open("f").await.unwrap();
    let node = scene.scene.find("f").await.unwrap().node;
    node.setattr(permissions(0o644)).await.unwrap();
    // Of the look at the object and of the copy.
    let faults = [Fault::Delay(Duration::ZERO), Fault::LostReply];
    scene.scene.below.next(faults);
    let synced = tokio::spawn(async move { node.syncfs().await });
    while scene.metadata("f", "mode").await.unwrap() != "33188" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!synced.is_finished());
    let middle = 1_000_000;
    assert_eq!(
        read(file.as_ref(), middle, 16).await.unwrap(),
        b"0123456789abcdef"
    );
    synced.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn anothers_object_does_not_get_our_attributes() {
    let mut scene = Writable::new(&[("f", "old"), ("g", "old")]).await;
    for (name, theirs) in [("f", Some("theirs")), ("g", None)] {
        let node = scene.scene.find(name).await.unwrap().node;
        node.setattr(permissions(0o600)).await.unwrap();
        match theirs {
            Some(body) => put(&scene.scene.below, name, body.to_owned()).await,
            None => scene
                .scene
                .below
                .inner()
                .delete(&Path::from(name))
                .await
                .unwrap(),
        }
        assert_eq!(node.syncfs().await.map_err(errno), Err(Errno::IO), "{name}");
        assert_eq!(scene.object(name).await.as_deref(), theirs);
        scene.cost();
        node.syncfs().await.unwrap();
        assert_eq!(
            scene.cost(),
            (0, 0, 0, 0),
            "it is told once, and not tried for ever"
        );
    }
    assert_eq!(scene.metadata("f", "mode").await, None);
    let f = scene.scene.find("f").await.unwrap();
    assert_eq!((f.attributes.size, f.attributes.permissions), (6, 0o644));
    assert!(matches!(scene.scene.find("g").await, Err(Errno::NOENT)));
}

#[tokio::test(start_paused = true)]
async fn a_mode_and_new_bytes_are_one_upload() {
    let mut scene = Writable::new(&[("f", "old")]).await;
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"new").await.unwrap();
    let node = scene.scene.find("f").await.unwrap().node;
    node.setattr(permissions(0o600)).await.unwrap();
    scene.cost();
    close(file.clone()).await.unwrap();
    assert_eq!(scene.cost(), (1, 0, 0, 0));
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "33152");
    // While it is open, too.
    node.setattr(permissions(0o640)).await.unwrap();
    close(file.clone()).await.unwrap();
    let (puts, _, copies, _) = scene.cost();
    assert_eq!((puts, copies), (0, 2));
    write(file.as_ref(), 0, b"and").await.unwrap();
    close(file).await.unwrap();
    assert_eq!(scene.object("f").await.unwrap(), "and");
    assert_eq!(scene.metadata("f", "mode").await.unwrap(), "33184");
    assert_eq!(scene.keys().await, ["f"], "no conflict with ourselves");
}

async fn set(node: &dyn Node, name: &str, value: &[u8]) -> Result<(), Errno> {
    let name = XattrName::new(name.as_bytes())?;
    let set = node.setxattr(name, value, XattrFlags::empty());
    set.await.map_err(errno)
}

async fn get(node: &dyn Node, name: &str) -> Result<Vec<u8>, Errno> {
    let name = XattrName::new(name.as_bytes())?;
    node.getxattr(name).await.map_err(errno)
}

#[tokio::test(start_paused = true)]
async fn extended_attributes_are_a_copy_and_are_asked_for_only_where_there_are_any() {
    let mut scene = Writable::new(&[("f", "content"), ("g", "1")]).await;
    put_with(&scene.scene.below, "h", "1", &[("team", "blue")]).await;
    let offered = scene.scene.bucket.capabilities();
    assert!(offered.contains(Capabilities::XATTR), "guests are let ask");
    let f = scene.scene.find("f").await.unwrap().node;
    scene.chmod("g", 0o600).await.unwrap();
    scene.cost();
    assert_eq!(f.listxattr().await.unwrap(), b"");
    for name in [
        "user.colour",
        "security.capability",
        "system.posix_acl_access",
    ] {
        assert_eq!(get(f.as_ref(), name).await, Err(Errno::NODATA), "{name}");
    }
    assert_eq!(scene.cost(), (0, 0, 0, 0), "that there is none is known");

    set(f.as_ref(), "user.colour", b"red").await.unwrap();
    set(f.as_ref(), "user.shape", b"\0\xff").await.unwrap();
    assert_eq!(get(f.as_ref(), "user.colour").await.unwrap(), b"red");
    f.setattr(permissions(0o640)).await.unwrap();
    f.syncfs().await.unwrap();
    let (puts, _, copies, _) = scene.cost();
    assert_eq!((puts, copies), (0, 1), "together they are one copy");
    advance(Duration::from_secs(5)).await;
    let f = scene.scene.find("f").await.unwrap();
    assert_eq!(f.attributes.permissions, 0o640);
    let f = f.node;
    assert_eq!(f.listxattr().await.unwrap(), b"user.colour\0user.shape\0");
    assert_eq!(get(f.as_ref(), "user.shape").await.unwrap(), b"\0\xff");

    // They stay when the content changes, and when the file is moved.
    let file = scene.open_to_write("f").await.unwrap();
    write(file.as_ref(), 0, b"new").await.unwrap();
    set(f.as_ref(), "user.third", b"3").await.unwrap();
    scene.cost();
    close(file).await.unwrap();
    assert_eq!(scene.cost().0, 1, "with new bytes it is one upload");
    scene.rename("f", "n", RenameFlags::empty()).await.unwrap();
    let n = scene.scene.find("n").await.unwrap().node;
    assert_eq!(get(n.as_ref(), "user.third").await.unwrap(), b"3");
    assert_eq!(get(n.as_ref(), "user.colour").await.unwrap(), b"red");

    let h = scene.scene.find("h").await.unwrap().node;
    assert_eq!(h.listxattr().await.unwrap(), b"user.team\0");
    set(h.as_ref(), "user.team", b"green").await.unwrap();
    h.syncfs().await.unwrap();
    assert_eq!(scene.metadata("h", "team").await.unwrap(), "green");
    let name = XattrName::new(b"user.team").unwrap();
    h.removexattr(name).await.unwrap();
    assert!(h.removexattr(name).await.is_err());
    h.syncfs().await.unwrap();
    assert_eq!(scene.metadata("h", "team").await, None);
    let far = set(h.as_ref(), "user.big", &[1; 2000]).await;
    assert_eq!(far, Err(Errno::NOSPC));
    assert_eq!(
        set(h.as_ref(), "security.x", b"1").await,
        Err(Errno::OPNOTSUPP)
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_keeps_what_its_marker_says() {
    let scene = Writable::new(&[("a", "1")]).await;
    let d = scene.mkdir("d").await.unwrap().node;
    assert_eq!(d.listxattr().await.unwrap(), b"");
    set(d.as_ref(), "user.colour", b"red").await.unwrap();
    d.setattr(permissions(0o700)).await.unwrap();
    drop(d);
    advance(Duration::from_secs(5)).await;
    let d = scene.scene.find("d").await.unwrap();
    assert_eq!(d.attributes.permissions, 0o700);
    assert_eq!(get(d.node.as_ref(), "user.colour").await.unwrap(), b"red");
    let root = scene.root();
    assert_eq!(root.listxattr().await.unwrap(), b"");
    let refused = set(root.as_ref(), "user.colour", b"red").await;
    assert_eq!(refused, Err(Errno::OPNOTSUPP), "the root has no marker");
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_attributes_are_as_they_were_set_last() {
    let faults = vec![
        (Fault::LostReply, 150),
        (Fault::Unavailable, 100),
        (Fault::Delay(Duration::from_secs(1)), 40),
        (Fault::Stall, 20),
    ];
    let objects = [("a", "one"), ("b", "two"), ("c", "three")];
    let scene = Writable::with(&objects, Overwrite::Refuse, faults).await;
    for round in 0..60_u32 {
        let (name, body) = objects[usize::try_from(round % 3).unwrap()];
        let mode = 0o400 + round;
        scene.chmod(name, mode).await.unwrap();
        let said = scene.metadata(name, "mode").await.unwrap();
        assert_eq!(said, (0o100_000 + mode).to_string(), "round {round}");
        assert_eq!(scene.object(name).await.unwrap(), body);
        if round % 5 == 0 {
            advance(Duration::from_secs(2)).await;
        }
    }
    assert_eq!(scene.keys().await, ["a", "b", "c"]);
    assert!(scene.scene.below.met() > 15);
}

/// Replaces attributes whatever the condition.
#[derive(Debug)]
struct Careless(Arc<FaultStore>);

#[async_trait]
impl AttributeStore for Careless {
    async fn replace(
        &self,
        location: &Path,
        _etag: &str,
        attributes: &Attributes,
    ) -> object_store::Result<Option<String>> {
        let found = self.0.inner().head(location).await?;
        let etag = found.e_tag.unwrap_or_default();
        self.0.replace(location, &etag, attributes).await
    }
}

#[tokio::test(start_paused = true)]
async fn where_conditions_of_copies_are_ignored_files_are_sent_again() {
    let mut scene = Writable::new(&[]).await;
    let below = scene.scene.below.clone();
    put(&below, "f", "content".to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    let options = FlatOptions {
        write: Some(WriteOptions {
            staging: Staging::open(folder.path(), 1 << 20).unwrap(),
            overwrite: Overwrite::Refuse,
        }),
        ..FlatOptions::default()
    };
    let store = Store::over(below.clone(), RetryPolicy::default());
    let store = store.with_attributes(Arc::new(Careless(below)));
    scene.scene.bucket = FlatBucket::show(store, "", options);
    for (mode, uploads, copies) in [(0o600, 0, 1), (0o640, 1, 0), (0o644, 1, 0)] {
        scene.scene.find("f").await.unwrap();
        scene.cost();
        scene.chmod("f", mode).await.unwrap();
        let cost = scene.cost();
        assert_eq!((cost.0, cost.2), (uploads, copies), "{mode:o}");
        let said = scene.metadata("f", "mode").await.unwrap();
        assert_eq!(said, (0o100_000 + mode).to_string());
        assert_eq!(scene.object("f").await.unwrap(), "content");
    }
}

#[tokio::test(start_paused = true)]
async fn one_name_after_another_has_its_mode_and_is_not_taken_from_a_listing() {
    let names = ["f", "g", "h", "i", "j"];
    let mut scene = Scene::new(&[]).await;
    for name in names {
        put_with(&scene.below, name, "content", &[("mode", "33261")]).await;
    }
    for name in names {
        let found = scene.find(name).await.unwrap();
        assert_eq!(found.attributes.permissions, 0o755, "{name}");
        assert_eq!(scene.requests(), (1, 1, 0), "{name}");
    }
}
