//! Encrypted objects that somebody changed who writes checksums that fit.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::cipher::{Cipher, SEAL_BYTES, Sealed};
use super::log::{Link, LogObject};
use super::*;
use crate::key::VolumeKey;

const UUID: Uuid = *b"0123456789abcdef";
const SEGMENT: ObjectId = ObjectId::Segment { epoch: 3, seq: 4 };

fn cipher() -> Cipher {
    Cipher::new(&VolumeKey::from([1; 32]), UUID)
}

fn link() -> Link {
    Link {
        uuid: UUID,
        nonce: 5,
        previous: ChainHash([6; 32]),
    }
}

/// With a small file, and the bytes of its frame.
fn log_object() -> (LogObject, Frame) {
    let mut inline = Inline::new(9, &cipher()).unwrap();
    let frame = inline.append(b"a small file").unwrap();
    let piece = Piece {
        ino: 4,
        offset: 0,
        length: 12,
        place: Some((frame, 0)),
    };
    let object = LogObject {
        seq: 9,
        epoch: 3,
        first: 100,
        last: 101,
        records: vec![(100, b"first".repeat(30)), (101, vec![1])],
        pieces: vec![piece],
        inline: inline.finish(),
        moves: false,
    };
    (object, frame)
}

fn bytes_of(whole: &Bytes, frame: &Frame) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap();
    whole.slice(at(frame.offset)..at(frame.end()))
}

#[test]
fn a_log_object_is_read_with_its_key_alone() {
    let (object, frame) = log_object();
    let bytes = object.encode(&link(), &cipher()).unwrap();
    let (read, found) = LogObject::decode(&bytes, &cipher()).unwrap();
    assert_eq!((&read, found), (&object, link()));
    let stored = bytes_of(&bytes, &frame);
    let of_object = cipher().of(Sealed::Content(frame.object)).unwrap();
    assert_eq!(frame.unpack(&stored, &of_object).unwrap(), "a small file");
    let others = [
        Cipher::default(),
        Cipher::new(&VolumeKey::from([2; 32]), UUID),
    ];
    for other in others {
        assert!(LogObject::decode(&bytes, &other).is_err());
        let other = other.of(Sealed::Content(frame.object)).unwrap();
        assert_ne!(
            frame.unpack(&stored, &other).ok().as_deref(),
            Some(&b"a small file"[..])
        );
    }
}

#[test]
fn a_log_object_whose_checksum_was_made_to_fit_is_refused() {
    let (object, frame) = log_object();
    let bytes = object.encode(&link(), &cipher()).unwrap();
    let inline = usize::try_from(frame.offset).unwrap()..usize::try_from(frame.end()).unwrap();
    for at in (0..bytes.len() - 4).filter(|at| !inline.contains(at)) {
        let mut damaged = bytes[..bytes.len() - 4].to_vec();
        damaged[at] ^= 1;
        let crc = crc32fast::hash(&damaged);
        damaged.extend_from_slice(&crc.to_le_bytes());
        assert!(
            LogObject::decode(&damaged.into(), &cipher()).is_err(),
            "{at}"
        );
    }
}

#[test]
fn a_frame_opens_in_its_place_alone_whatever_its_checksum_says() {
    let mut writer = SegmentWriter::new(UUID, (3, 4), &cipher(), Vec::new()).unwrap();
    let contents: [&[u8]; 3] = [&[0; 5000], b"not compressed", &[7; 5000]];
    let frames = contents.map(|content| writer.append(7, 0, content).unwrap());
    let segment = writer.finish().unwrap();
    let of_segment = cipher().of(Sealed::Content(SEGMENT)).unwrap();
    for (frame, content) in frames.iter().zip(contents) {
        let stored = bytes_of(&segment.bytes, frame);
        assert_eq!(frame.unpack(&stored, &of_segment).unwrap(), content);
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 1;
            let crc = crc32fast::hash(&damaged);
            let frame = Frame { crc, ..*frame };
            assert!(frame.unpack(&damaged.into(), &of_segment).is_err(), "{at}");
        }
    }
    // As long as the first one, packed and unpacked.
    let [first, short, last] = frames;
    assert_eq!(first.stored, last.stored);
    let moved = Frame {
        crc: last.crc,
        ..first
    };
    let stored = bytes_of(&segment.bytes, &last);
    assert!(moved.unpack(&stored, &of_segment).is_err());
    let other = ObjectId::Segment { epoch: 3, seq: 5 };
    let of_other = cipher().of(Sealed::Content(other)).unwrap();
    assert!(last.unpack(&stored, &of_other).is_err());
    assert_eq!(short.stored, short.length + 28);
}

#[test]
fn the_map_of_a_segment_is_sealed() {
    let mut writer = SegmentWriter::new(UUID, (3, 4), &cipher(), Vec::new()).unwrap();
    let frame = writer.append(0x1234_5678_9abc, 4096, b"content").unwrap();
    let segment = writer.finish().unwrap();
    let read = |bytes: &Bytes, cipher: &Cipher| segment::read_map(SEGMENT, UUID, bytes, cipher);
    let entries = read(&segment.bytes, &cipher()).unwrap();
    assert_eq!(
        (entries[0].ino, entries[0].frame),
        (0x1234_5678_9abc, frame)
    );
    assert!(read(&segment.bytes, &Cipher::default()).is_err());
    let map_at = usize::try_from(frame.end()).unwrap();
    let footer_at = segment.bytes.len() - 64;
    assert_eq!(footer_at - map_at, 36 + SEAL_BYTES);
    for at in map_at..footer_at {
        let mut damaged = segment.bytes.to_vec();
        damaged[at] ^= 1;
        let map_crc = crc32fast::hash(&damaged[map_at..footer_at]);
        damaged[footer_at + 52..footer_at + 56].copy_from_slice(&map_crc.to_le_bytes());
        let crc = crc32fast::hash(&damaged[footer_at..footer_at + 60]);
        damaged[footer_at + 60..].copy_from_slice(&crc.to_le_bytes());
        let refused = read(&damaged.into(), &cipher()).unwrap_err().to_string();
        assert!(refused.contains("sealed"), "{refused}");
    }
}

#[tokio::test]
async fn a_checkpoint_whose_checksum_was_made_to_fit_is_refused() {
    let bucket = Bucket::new();
    let with_key = crate::key::Bucket::new(bucket.steady(), Some(VolumeKey::from([1; 32])));
    Remote::create(&with_key, "vol", Vec::new(), Quota::default())
        .await
        .unwrap();
    let opener = opener("a", false);
    let opened = Remote::open(&with_key, "vol", &opener).await.unwrap();
    let remote = opened.remote;
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (folder.path().join("file"), folder.path().join("restored"));
    std::fs::write(&file, b"rows ".repeat(1000)).unwrap();
    let checkpoint = remote.checkpoint(&file, remote.end()).await.unwrap();
    remote.restore(&to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == b"rows ".repeat(1000));
    let names = Names::new("vol").unwrap();
    let key = names.checkpoint_part(checkpoint.at.seq, checkpoint.id, 0);
    let good = bucket.0.get(&key).await.unwrap().bytes().await.unwrap();
    for at in 48..good.len() {
        let mut damaged = good.to_vec();
        damaged[at] ^= 1;
        let crc = crc32fast::hash(&damaged[48..]);
        damaged[44..48].copy_from_slice(&crc.to_le_bytes());
        bucket.0.put(&key, damaged.into()).await.unwrap();
        let refused = remote.restore(&to).await.unwrap_err().to_string();
        assert!(refused.contains("sealed"), "{at} {refused}");
    }
}
