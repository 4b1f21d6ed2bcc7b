//! Names that are made, moved and removed, by the requests that they cost.

use std::time::Duration;

use tokio::time::advance;
use vfsd_backend::{AttributeChanges, LinkTarget, RenameFlags};

use super::writable::*;
use super::*;
use crate::flat::Overwrite;

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

/// The names that a directory shows, each of which a lookup finds, and no other one of these.
async fn shown(scene: &Writable, directory: &str, candidates: &[&str]) -> Vec<String> {
    let path = |name: &str| match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    };
    let node = match directory {
        "" => scene.root(),
        directory => scene.scene.find(directory).await.unwrap().node,
    };
    let names = names(node.as_ref()).await.split_off(2);
    for name in candidates {
        let found = scene.scene.find(&path(name)).await.is_ok();
        assert_eq!(found, names.iter().any(|listed| listed == name), "{name}");
    }
    for name in &names {
        assert!(scene.scene.find(&path(name)).await.is_ok(), "{name}");
    }
    names
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_lost_its_last_object_is_listed_as_long_as_it_is_found() {
    let objects = [("a/b/f", "1"), ("c/f", "2"), ("c/g", "3"), ("e/f", "4")];
    let mut scene = Writable::new(&objects).await;
    let all = ["a", "c", "e"];
    let later = Duration::from_secs(2);
    assert_eq!(shown(&scene, "", &all).await, all);
    scene.unlink("a/b/f").await.unwrap();
    scene.unlink("c/f").await.unwrap();
    for _ in 0..3 {
        advance(later).await;
        assert_eq!(shown(&scene, "", &all).await, all);
        assert_eq!(shown(&scene, "a", &["b", "f"]).await, ["b"]);
        assert_eq!(shown(&scene, "a/b", &["f"]).await, Vec::<String>::new());
    }
    // A listing is one request all the same.
    advance(later).await;
    scene.cost();
    names(scene.root().as_ref()).await;
    assert_eq!(scene.cost(), (0, 0, 0, 1));

    // What others empty is gone, also where we have removed something before, and seen what was left.
    assert_eq!(shown(&scene, "c", &["f", "g"]).await, ["g"]);
    let below = scene.scene.below.inner().clone();
    for key in ["c/g", "e/f"] {
        below.delete(&Path::from(key)).await.unwrap();
    }
    advance(later).await;
    assert_eq!(shown(&scene, "", &all).await, ["a"]);

    // An object of that name is what the name is, and the directory again when that is gone.
    put(&scene.scene.below, "a", "file".to_owned()).await;
    advance(later).await;
    assert_eq!(shown(&scene, "", &all).await, ["a"]);
    let kind = scene.scene.find("a").await.unwrap().attributes.kind;
    assert_eq!(kind, vfsd_backend::FileKind::Regular);
    below.delete(&Path::from("a")).await.unwrap();
    advance(later).await;

    assert_eq!(scene.rmdir("a").await, Err(Errno::NOTEMPTY));
    scene.rename("a", "x", RenameFlags::empty()).await.unwrap();
    advance(later).await;
    assert_eq!(shown(&scene, "", &["a", "x"]).await, ["x"]);
    assert_eq!(shown(&scene, "x", &["b"]).await, ["b"]);
    scene.rmdir("x/b").await.unwrap();
    advance(later).await;
    scene.rmdir("x").await.unwrap();
    assert_eq!(shown(&scene, "", &["a", "x"]).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_directory_in_which_a_file_is_written_stays_although_others_empty_it() {
    let scene = Writable::new(&[("a/b/f", "1"), ("z", "2")]).await;
    let file = scene.create("a/b/new").await.unwrap();
    let below = scene.scene.below.inner().clone();
    below.delete(&Path::from("a/b/f")).await.unwrap();
    advance(Duration::from_secs(2)).await;
    write(file.as_ref(), 0, b"x").await.unwrap();
    assert_eq!(shown(&scene, "", &["a"]).await, ["a", "z"]);
    assert_eq!(shown(&scene, "a", &["b"]).await, ["b"]);
    close(file).await.unwrap();
    advance(Duration::from_secs(2)).await;
    assert_eq!(shown(&scene, "a/b", &["f", "new"]).await, ["new"]);
    assert_eq!(scene.keys().await, ["a/b/new", "z"]);
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
async fn a_guest_reads_what_it_knows_of_a_directory_that_moved() {
    let mut scene = Writable::new(&[("d/old", "old")]).await;
    close(scene.create("d/new").await.unwrap()).await.unwrap();
    let file = scene.open_to_write("d/new").await.unwrap();
    write(file.as_ref(), 0, b"new").await.unwrap();
    close(file).await.unwrap();
    // The guest believes these names for a second, and opens them without asking.
    let known = ["d/old", "d/new"].map(|path| scene.scene.find(path));
    let [old, new] = known.map(|known| async { known.await.unwrap().node });
    let (old, new) = (old.await, new.await);
    scene.rename("d", "e", RenameFlags::empty()).await.unwrap();
    for (node, name) in [(old, "old"), (new, "new")] {
        scene.cost();
        // In this store a copy has another ETag. The kernel looks a name up again that turns out to be stale.
        let opened = open(node.as_ref()).await;
        assert_eq!(opened.err(), Some(Errno::STALE));
        assert_eq!(scene.cost(), (0, 0, 0, 1), "one look");
        let file = scene.scene.open(&format!("e/{name}")).await.unwrap();
        assert_eq!(read(file.as_ref(), 0, 9).await.unwrap(), name.as_bytes());
    }
}

/// Makes files as a guest does, which looks for each name first.
async fn make_files(scene: &Writable, directory: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let path = format!("{directory}/{number}");
        assert_eq!(scene.scene.find(&path).await.err(), Some(Errno::NOENT));
        let file = scene.create(&path).await.unwrap();
        write(file.as_ref(), 0, b"content").await.unwrap();
        close(file).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_many_new_files_is_one_write_and_nothing_else() {
    let mut scene = Writable::new(&[("old/file", "1"), ("old/d/file", "2")]).await;
    let _new = scene.mkdir("new").await.unwrap();
    let _old = scene.scene.find("old").await.unwrap();
    scene.cost();
    make_files(&scene, "new", 0..50).await;
    assert_eq!(scene.cost(), (50, 0, 0, 0));

    // Two names are asked for with two requests each, then the directory is listed.
    make_files(&scene, "old", 0..50).await;
    assert_eq!(scene.cost(), (50, 0, 0, 5));
    assert_eq!(
        names(scene.scene.find("old").await.unwrap().node.as_ref())
            .await
            .len(),
        2 + 50 + 2
    );
    assert_eq!(scene.cost(), (0, 0, 0, 0));

    // What was known is old: it is listed once more, and another's file is seen.
    advance(Duration::from_millis(1500)).await;
    put(&scene.scene.below, "old/70", "other".to_owned()).await;
    scene.scene.find("old").await.unwrap();
    scene.cost();
    make_files(&scene, "old", 50..70).await;
    assert_eq!(scene.cost(), (20, 0, 0, 1));
    let found = scene.scene.find("old/70").await.unwrap();
    assert_eq!(found.attributes.size, 5);
    assert_eq!(scene.cost(), (0, 0, 0, 1), "its metadata alone");
}

#[tokio::test(start_paused = true)]
async fn a_directory_with_more_than_a_page_is_not_listed_for_a_name() {
    let mut scene = Writable::new(&[]).await;
    for number in 0..1001 {
        put(&scene.scene.below, &format!("d/{number}"), "x".to_owned()).await;
    }
    let _known = scene.scene.find("d").await.unwrap();
    scene.cost();
    make_files(&scene, "d", 2000..2050).await;
    assert_eq!(scene.cost(), (50, 0, 0, 2 * 50 + 1));
    scene.unlink("d/2000").await.unwrap();
    assert_eq!(scene.scene.find("d/2000").await.err(), Some(Errno::NOENT));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_made_without_a_wait_where_its_name_is_known_to_be_free() {
    let scene = Writable::new(&[]).await;
    let directory = scene.mkdir("d").await.unwrap().node;
    let create = |name: &'static str, flags| {
        let name = Name::new(name.as_bytes()).unwrap();
        directory.create(user(), name, flags, inode(0o600))
    };
    let made = create("f", OpenFlags::WRITE).into_ready();
    assert!(made.is_ok_and(|made| made.is_ok()));
    // It is pending now, and no other file comes in its place.
    let exclusive = OpenFlags::WRITE | OpenFlags::EXCLUSIVE;
    let refused = create("f", exclusive).await.map(drop);
    assert_eq!(refused.map_err(errno), Err(Errno::EXIST));
    advance(Duration::from_secs(2)).await;
    let unknown = create("g", OpenFlags::WRITE).into_ready();
    assert!(unknown.is_err(), "the bucket is asked");
}

/// What others made a moment ago of names that are known to be free.
async fn made_by_others() -> Writable {
    let scene = Writable::new(&[("a", "ours"), ("d/f", "ours")]).await;
    assert_eq!(shown(&scene, "", &["b", "e"]).await, ["a", "d"]);
    put(&scene.scene.below, "b", "theirs".to_owned()).await;
    put(&scene.scene.below, "e/f", "theirs".to_owned()).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn what_must_not_exist_is_asked_of_the_bucket_and_not_of_what_is_known() {
    let only_new = RenameFlags::NOREPLACE;
    let link = LinkTarget::new(b"a").unwrap();
    let scene = made_by_others().await;
    assert_eq!(scene.rename("a", "b", only_new).await, Err(Errno::EXIST));
    assert_eq!(scene.rename("d", "e", only_new).await, Err(Errno::EXIST));
    let scene = made_by_others().await;
    let no_flags = RenameFlags::empty();
    assert_eq!(scene.rename("d", "e", no_flags).await, Err(Errno::NOTEMPTY));
    assert_eq!(scene.rename("d", "b", no_flags).await, Err(Errno::NOTDIR));
    let scene = made_by_others().await;
    let name = Name::new(b"b").unwrap();
    let made = scene.root().symlink(user(), name, link, inode(0o777)).await;
    assert_eq!(made.err().map(errno), Some(Errno::EXIST));
    assert_eq!(scene.scene.find("b").await.unwrap().attributes.size, 6);
    assert_eq!(scene.keys().await, ["a", "b", "d/f", "e/f"], "no copies");
    for key in ["a", "d/f"] {
        assert_eq!(scene.object(key).await.unwrap(), "ours");
    }
    for key in ["b", "e/f"] {
        assert_eq!(scene.object(key).await.unwrap(), "theirs");
    }

    // The marker of another client's directory, and its attributes, stay as they are.
    let one = Writable::new(&[]).await;
    assert_eq!(shown(&one, "", &["d"]).await, Vec::<String>::new());
    put(&one.scene.below, "d/.vfsd-directory", "marker".to_owned()).await;
    assert_eq!(one.mkdir("d").await.err(), Some(Errno::EXIST));
    assert_eq!(one.object("d/.vfsd-directory").await.unwrap(), "marker");
}

#[tokio::test(start_paused = true)]
async fn the_last_one_wins_no_name_that_must_not_exist() {
    let scene = Writable::with(&[("a", "ours")], Overwrite::LastWins, Vec::new()).await;
    assert_eq!(shown(&scene, "", &["b"]).await, ["a"]);
    put(&scene.scene.below, "b", "theirs".to_owned()).await;
    let renamed = scene.rename("a", "b", RenameFlags::NOREPLACE).await;
    assert_eq!(renamed, Err(Errno::EXIST));
    advance(Duration::from_secs(2)).await;
    assert_eq!(shown(&scene, "", &["c"]).await, ["a", "b"]);
    put(&scene.scene.below, "c", "theirs".to_owned()).await;
    let (name, link) = (Name::new(b"c").unwrap(), LinkTarget::new(b"a").unwrap());
    let made = scene.root().symlink(user(), name, link, inode(0o777)).await;
    assert_eq!(made.err().map(errno), Some(Errno::EXIST));
    for key in ["b", "c"] {
        assert_eq!(scene.object(key).await.unwrap(), "theirs");
    }
}

#[tokio::test(start_paused = true)]
async fn moves_that_replace_nothing_succeed_although_requests_and_replies_get_lost() {
    let faults = vec![
        (Fault::LostReply, 150),
        (Fault::Unavailable, 100),
        (Fault::Conflict, 80),
    ];
    let scene = Writable::with(&[], Overwrite::Refuse, faults).await;
    close(scene.create("f0").await.unwrap()).await.unwrap();
    for number in 0..60 {
        let (from, to) = (format!("f{number}"), format!("f{}", number + 1));
        scene
            .rename(&from, &to, RenameFlags::NOREPLACE)
            .await
            .unwrap();
        assert_eq!(scene.keys().await, [to]);
        let directory = format!("d{number}");
        scene.mkdir(&directory).await.unwrap();
        scene.rmdir(&directory).await.unwrap();
    }
    assert!(scene.scene.below.met() > 40);
}
