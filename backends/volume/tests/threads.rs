//! Many threads on one volume leave rows that fit together, and names that are what was done to them.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::{Backend, OpenFlags, RenameFlags};
use vfsd_testkit::place::Place;
use vfsd_volume::{Volume, VolumeOptions};

const THREADS: u64 = 6;
const STEPS: u64 = 600;

fn open(path: &Path) -> Volume {
    Volume::open(path, &VolumeOptions::default()).unwrap()
}

/// One thread's work on directories and names that all use. Much of it is refused: names come and go.
fn work(root: &Place, seed: u64, written: &AtomicU64) {
    let mut random = seed;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for _ in 0..STEPS {
        let name = format!("n{}", next(8));
        let other = format!("n{}", next(8));
        let Ok(dir) = root.lookup(&format!("d{}", next(3))) else {
            continue;
        };
        let Ok(second) = root.lookup(&format!("d{}", next(3))) else {
            continue;
        };
        let refused = match next(12) {
            0 | 1 => dir.create(&name).map(drop),
            2 => dir.mkdir(&name).map(drop),
            3 => dir.unlink(&name),
            4 => dir.rmdir(&name),
            5 => dir.rename(&name, &second, &other),
            6 => dir.rename_with(&name, &second, &other, RenameFlags::EXCHANGE),
            7 => dir
                .lookup(&name)
                .and_then(|file| second.link(&file, &other))
                .map(drop),
            8 => dir.lookup(&name).and_then(|file| {
                let length = next(5000);
                let handle = file.open(OpenFlags::READ | OpenFlags::WRITE)?;
                handle.write(next(9000), &vec![1; usize::try_from(length).unwrap()])?;
                dir.unlink(&name)?;
                // It has no name any more, unless it has another one.
                handle.content().map(drop)
            }),
            9 => dir.lookup(&name).and_then(|file| {
                file.truncate(next(9000))?;
                file.setxattr("user.a", &[1; 50])?;
                file.chmod(0o600).map(drop)
            }),
            10 => dir.names().map(drop),
            _ => root
                .lookup("shared")
                .and_then(|file| file.open(OpenFlags::WRITE | OpenFlags::APPEND))
                .and_then(|handle| handle.write(0, &[7; 10]))
                .map(|count| {
                    written.fetch_add(count as u64, Ordering::Relaxed);
                }),
        };
        // What may be refused depends on the others; a failure of the storage may not be.
        assert!(
            !matches!(refused, Err(vfsd_backend::Errno::IO)),
            "seed {seed}"
        );
    }
}

#[test]
fn many_threads_leave_what_fits_together() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("volume");
    Volume::create(&path, &VolumeOptions::default()).unwrap();
    let written = AtomicU64::new(0);
    {
        let root = Place(open(&path).root());
        for number in 0..3 {
            root.mkdir(&format!("d{number}")).unwrap();
        }
        root.put("shared", b"").unwrap();
        std::thread::scope(|scope| {
            for thread in 1..=THREADS {
                let (root, written) = (&root, &written);
                scope.spawn(move || work(root, thread * 0x9e37_79b9, written));
            }
        });
        let shared = root.lookup("shared").unwrap();
        let size = shared.attributes().unwrap().size;
        assert_eq!(
            size,
            written.load(Ordering::Relaxed),
            "appends in one place"
        );
    }
    let report = Volume::check(&path).unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    let root = Place(open(&path).root());
    let shared = root.lookup("shared").unwrap().content().unwrap();
    assert_eq!(shared.len() as u64, written.load(Ordering::Relaxed));
}

/// Many small directories are made inside each other and moved about: none is ever lost, or above itself.
#[test]
fn directories_that_are_moved_by_many_threads_stay_a_tree() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("volume");
    Volume::create(&path, &VolumeOptions::default()).unwrap();
    {
        let root = Place(open(&path).root());
        let dirs: Vec<Place> = (0..12)
            .map(|number| root.mkdir(&format!("d{number}")).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (root, dirs) = (&root, &dirs);
                scope.spawn(move || {
                    for step in 0..300_usize {
                        let from = step.wrapping_mul(7).wrapping_add(thread) % 13;
                        let to = step.wrapping_mul(5).wrapping_add(thread * 3) % 13;
                        let name = format!("d{}", (step + thread) % 12);
                        let at = |index: usize| dirs.get(index).unwrap_or(root);
                        let _ = at(from).rename(&name, at(to), &name);
                    }
                });
            }
        });
    }
    let report = Volume::check(&path).unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    assert_eq!(report.names, 12);
}
