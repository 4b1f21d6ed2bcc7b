use vfsd_backend::Timestamp;

use super::*;
use crate::bucket::{Frame, ObjectId};
use crate::meta::Change;

fn frame(seq: u64) -> Frame {
    Frame {
        object: if seq.is_multiple_of(2) {
            ObjectId::Log(seq)
        } else {
            ObjectId::Segment { epoch: 3, seq }
        },
        offset: 64,
        stored: 10,
        length: 4096,
        crc: u32::MAX,
    }
}

const FILE: u64 = 7;
const DIRECTORY: u64 = 8;
/// How long the file is.
const SIZE: u64 = 5000;

fn point(seq: u64, lsn: Lsn) -> Point {
    Point {
        seq,
        lsn,
        epoch: 3,
        hash: ChainHash([9; 32]),
    }
}

/// An image of the log object 1, which made a file and a directory with the records 1 and 2.
fn image(path: &Path) -> Shipping {
    Shipping::create(path).unwrap();
    let mut shipping = Shipping::open(path).unwrap();
    let row = |kind, size| NodeRow {
        size,
        ..NodeRow::new(kind, 0o644, Timestamp::new(1, 0).unwrap())
    };
    let file = Change::Node(FILE, Some(row(FileKind::Regular, SIZE)));
    let directory = Change::Node(DIRECTORY, Some(row(FileKind::Directory, 0)));
    let records = [
        (1, change::encode(&[file])),
        (2, change::encode(&[directory])),
    ];
    let step = shipping.prepare(&records, &[], point(1, 2)).unwrap();
    shipping.apply(&step, &[]).unwrap();
    shipping
}

fn piece(ino: u64, offset: u64, length: u64, whole: bool) -> Piece {
    Piece {
        ino,
        offset,
        length,
        place: whole.then(|| (frame(1), 0)),
    }
}

fn refusal(refused: Result<Step, Refused>) -> String {
    match refused {
        Err(Refused::Defect(defect)) => defect.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_object_that_lacks_anything_is_refused_before_it_is_taken_in() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let shipping = image(&dir.path().join("shipped.sqlite"));
    let record = |lsn| (lsn, change::encode(&[Change::Orphan(FILE, true)]));
    let removed = (3, change::encode(&[Change::Node(FILE, None)]));
    let cut_off = (3, change::encode(&[Change::Node(FILE, None)])[..9].to_vec());
    let content = || vec![piece(FILE, 4096, 904, true)];
    let good = [
        (vec![], vec![], point(2, 2)),
        (vec![record(3)], content(), point(2, 3)),
        (vec![record(3), record(4)], vec![], point(2, 4)),
        (vec![], vec![piece(FILE, 4096, 1 << 40, false)], point(2, 2)),
    ];
    for (records, pieces, point) in good {
        shipping.prepare(&records, &pieces, point).unwrap();
    }
    let bad = [
        (vec![], content(), point(1, 2), "does not follow 1"),
        (vec![], content(), point(3, 2), "does not follow 1"),
        (vec![], vec![], point(2, 3), "record 3 is missing"),
        (vec![record(3)], vec![], point(2, 4), "record 4 is missing"),
        (
            vec![record(4)],
            vec![],
            point(2, 4),
            "record 4 does not follow",
        ),
        (
            vec![record(2)],
            vec![],
            point(2, 2),
            "record 2 does not follow",
        ),
        (
            vec![cut_off],
            vec![],
            point(2, 3),
            "record 3 has an unknown form",
        ),
        (
            vec![removed],
            content(),
            point(2, 3),
            "no place for content of inode 7",
        ),
        (
            vec![],
            vec![piece(FILE, 4096, 905, true)],
            point(2, 2),
            "of inode 7 at 4096",
        ),
        (
            vec![],
            vec![piece(99, 0, 1, true)],
            point(2, 2),
            "of inode 99 at 0",
        ),
        (
            vec![],
            vec![piece(99, 0, 1, false)],
            point(2, 2),
            "of inode 99 at 0",
        ),
        (
            vec![],
            vec![piece(DIRECTORY, 0, 1, false)],
            point(2, 2),
            "of inode 8 at 0",
        ),
    ];
    for (records, pieces, point, expected) in bad {
        let refused = refusal(shipping.prepare(&records, &pieces, point));
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
}

#[test]
fn what_was_found_complete_is_taken_in_once() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut shipping = image(&dir.path().join("shipped.sqlite"));
    let pieces = [piece(FILE, 0, 10, true)];
    let step = shipping.prepare(&[], &pieces, point(2, 2)).unwrap();
    shipping.apply(&step, &pieces).unwrap();
    let again = shipping.apply(&step, &pieces).unwrap_err().to_string();
    assert!(again.contains("does not follow 2"), "{again}");
}

/// Random pieces and holes, against an array that says for each byte where it lies.
#[test]
fn extents_are_what_the_pieces_say_and_never_overlap() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("shipped.sqlite");
    let mut shipping = image(&path);
    let shipped = Shipped::new(&path);
    let mut random = 5_u64;
    let mut next = |bound: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut places: Vec<Option<(Frame, u32)>> = vec![None; 5000];
    for seq in 2..400 {
        let offset = next(4900);
        let length = next(100.min(4900 - offset) + 1) + 1;
        let skip = u32::try_from(next(1000)).unwrap();
        let place = (next(4) > 0).then(|| (frame(seq), skip));
        let piece = Piece {
            ino: FILE,
            offset,
            length,
            place,
        };
        let step = shipping.prepare(&[], &[piece], point(seq, 2)).unwrap();
        shipping.apply(&step, &[piece]).unwrap();
        for at in 0..length {
            let slot = usize::try_from(offset + at).unwrap();
            places[slot] = place.map(|(frame, skip)| (frame, skip + u32::try_from(at).unwrap()));
        }
        let mut told = vec![None; 5000];
        let mut end = 0;
        for extent in shipped.extents(FILE, &(0..5000)).unwrap() {
            assert!(extent.offset >= end && extent.length > 0);
            end = extent.range().end;
            for at in extent.range() {
                let skip = extent.skip + u32::try_from(at - extent.offset).unwrap();
                told[usize::try_from(at).unwrap()] = Some((extent.frame, skip));
            }
        }
        assert!(told == places, "{piece:?}");
    }
    drop(shipping);
    let again = Shipping::open(&path).unwrap();
    assert_eq!(
        (again.point().seq, again.point().hash),
        (399, ChainHash([9; 32]))
    );
}
