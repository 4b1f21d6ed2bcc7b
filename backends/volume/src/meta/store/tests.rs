//! What SQLite fails to take in.

use tempfile::TempDir;
use vfsd_backend::{FileKind, Timestamp};

use super::*;

/// Tables and a journal, opened now and then.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        create(&scene.database(), &scene.journal()).unwrap();
        scene
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("meta.sqlite")
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn open(&self) -> (Arc<Meta>, JoinHandle<()>) {
        Meta::open(&self.database(), &self.journal(), None).unwrap()
    }

    /// From now on SQLite fails with all rows of inodes, and with nothing else.
    fn refuse_inodes(&self) {
        let db = schema::writer(&self.database()).unwrap();
        db.execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON node BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;",
        )
        .unwrap();
    }

    fn take_inodes(&self) {
        let db = schema::writer(&self.database()).unwrap();
        db.execute_batch("DROP TRIGGER full;").unwrap();
    }
}

fn node(ino: u64) -> Vec<Change> {
    let row = NodeRow::new(FileKind::Regular, 0o644, Timestamp::new(1, 0).unwrap());
    vec![Change::Node(ino, Some(row))]
}

fn end((meta, thread): (Arc<Meta>, JoinHandle<()>)) {
    meta.close();
    thread.join().unwrap();
}

#[test]
fn what_sqlite_fails_to_take_in_when_a_volume_ends_is_not_missed_by_the_next_start() {
    let scene = Scene::new();
    let (meta, thread) = scene.open();
    scene.refuse_inodes();
    meta.commit(node(7), Purpose::Usual).unwrap();
    // It has tried, and is about to try again.
    assert!(meta.catch_up().is_err());
    // SQLite would take that.
    let attribute = Change::Xattr(7, b"user.a"[..].into(), Some(b"value"[..].into()));
    meta.commit(vec![attribute.clone()], Purpose::Usual)
        .unwrap();
    end((meta, thread));
    assert_eq!(
        applied(&scene.database()).unwrap(),
        0,
        "nothing is in the tables without what comes before it"
    );
    scene.take_inodes();
    let (meta, thread) = scene.open();
    assert_eq!(meta.last(), 2);
    assert!(meta.node(7).unwrap().is_some());
    assert_eq!(meta.attributes(7).unwrap().len(), 1);
    end((meta, thread));
}

#[test]
fn what_sqlite_failed_to_take_in_is_taken_in_before_what_follows() {
    let scene = Scene::new();
    let (meta, thread) = scene.open();
    scene.refuse_inodes();
    meta.commit(node(7), Purpose::Usual).unwrap();
    assert!(meta.catch_up().is_err());
    meta.commit(vec![Change::Node(7, None)], Purpose::Usual)
        .unwrap();
    meta.commit(node(8), Purpose::Usual).unwrap();
    scene.take_inodes();
    while meta.catch_up().is_err() {
        std::thread::yield_now();
    }
    assert!(meta.node(7).unwrap().is_none() && meta.node(8).unwrap().is_some());
    end((meta, thread));
    assert_eq!(applied(&scene.database()).unwrap(), 3);
}
