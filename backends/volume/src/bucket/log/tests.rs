use super::super::frame::Frame;
use super::*;

pub(crate) const LINK: Link = Link {
    uuid: *b"0123456789abcdef",
    nonce: u128::MAX - 5,
    previous: ChainHash([7; 32]),
};

fn decode(bytes: &[u8]) -> Result<(LogObject, Link), Damage> {
    LogObject::decode(&Bytes::copy_from_slice(bytes), &Cipher::default())
}

fn of_everything() -> LogObject {
    let mut inline = Inline::new(9, &Cipher::default()).unwrap();
    let small = inline.append(b"a small file").unwrap();
    let zeros = inline.append(&[0; 5000]).unwrap();
    let segment = Frame {
        object: ObjectId::Segment { epoch: 3, seq: 1 },
        offset: 64,
        stored: 4096,
        length: 4096,
        crc: 5,
    };
    let piece = |ino, offset, length, place| Piece {
        ino,
        offset,
        length,
        place,
    };
    LogObject {
        seq: 9,
        epoch: 3,
        first: 100,
        last: 102,
        records: vec![
            (100, b"first".repeat(30)),
            (101, Vec::new()),
            (102, vec![1]),
        ],
        pieces: vec![
            piece(4, 0, 12, Some((small, 0))),
            piece(5, 4096, 100, Some((zeros, 4000))),
            piece(6, 1 << 40, 4096, Some((segment, 0))),
            piece(6, 0, 1 << 40, None),
        ],
        inline: inline.finish(),
        moves: false,
    }
}

fn fence() -> LogObject {
    LogObject {
        seq: 1,
        epoch: 1,
        first: 1,
        last: 0,
        ..LogObject::default()
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same_object() {
    for object in [of_everything(), fence()] {
        let bytes = object.encode(&LINK, &Cipher::default()).unwrap();
        assert_eq!(decode(&bytes), Ok((object, LINK)));
    }
}

#[test]
fn inline_frames_lie_in_the_object_where_their_pieces_say() {
    let object = of_everything();
    let bytes = object.encode(&LINK, &Cipher::default()).unwrap();
    let (frame, _) = object.pieces[0].place.unwrap();
    let plain = Cipher::default();
    let plain = plain.of(Sealed::Content(frame.object)).unwrap();
    let start = usize::try_from(frame.offset).unwrap();
    let end = usize::try_from(frame.end()).unwrap();
    assert_eq!(
        frame.unpack(&bytes.slice(start..end), &plain).unwrap(),
        "a small file"
    );
}

#[test]
fn an_object_that_is_cut_anywhere_is_refused() {
    let bytes = of_everything().encode(&LINK, &Cipher::default()).unwrap();
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
    assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn no_changed_byte_passes() {
    let bytes = of_everything().encode(&LINK, &Cipher::default()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(decode(&damaged).is_err(), "{at}");
        }
    }
}

/// Whoever wrote the checksum, too, does no harm: what is read is sound, or refused.
#[test]
fn changed_bytes_with_a_fitting_checksum_do_no_harm() {
    let bytes = of_everything().encode(&LINK, &Cipher::default()).unwrap();
    for at in 0..bytes.len() - TRAILER_BYTES {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.to_vec();
            damaged.truncate(bytes.len() - TRAILER_BYTES);
            damaged[at] = value;
            let crc = crc32fast::hash(&damaged);
            damaged.extend_from_slice(&crc.to_le_bytes());
            if let Ok((object, _)) = decode(&damaged) {
                assert!(object.pieces.iter().all(Piece::is_sound));
            }
        }
    }
}

#[test]
fn a_body_that_lies_about_its_counts_is_refused() {
    let mut body = Encoder::default();
    body.u32(u32::MAX);
    assert!(read_body(&body.0).is_err());
    let mut body = Encoder::default();
    body.u32(0);
    body.u32(u32::MAX);
    assert!(read_body(&body.0).is_err());
}

#[test]
fn a_piece_in_an_object_that_is_not_there_yet_is_refused() {
    let good = of_everything();
    let (frame, within) = good.pieces[0].place.unwrap();
    let elsewhere = [
        Frame {
            object: ObjectId::Log(10),
            ..frame
        },
        Frame {
            object: ObjectId::Log(0),
            ..frame
        },
        Frame {
            object: ObjectId::Segment { epoch: 4, seq: 0 },
            ..frame
        },
        Frame { offset: 0, ..frame },
        Frame {
            offset: 5000,
            ..frame
        },
    ];
    for frame in elsewhere {
        let mut object = good.clone();
        object.pieces[0].place = Some((frame, within));
        assert!(
            object.encode(&LINK, &Cipher::default()).is_err(),
            "{frame:?}"
        );
    }
}

#[test]
fn records_that_are_not_all_there_in_their_order_are_refused() {
    for lsns in [
        &[][..],
        &[100, 101],
        &[101, 102],
        &[100, 102],
        &[100, 102, 101],
        &[100, 101, 101, 102],
        &[99, 100, 101, 102],
        &[100, 101, 102, 103],
    ] {
        let records = lsns.iter().map(|lsn| (*lsn, vec![])).collect();
        let object = LogObject {
            records,
            ..of_everything()
        };
        assert!(object.encode(&LINK, &Cipher::default()).is_err());
    }
    let object = LogObject {
        last: 98,
        records: Vec::new(),
        ..of_everything()
    };
    assert!(object.encode(&LINK, &Cipher::default()).is_err());
}

/// What `change` makes of a sound object, and of the content that it carries.
fn refusal(change: impl FnOnce(&mut LogObject)) -> String {
    let mut object = of_everything();
    change(&mut object);
    let refused = object.encode(&LINK, &Cipher::default());
    refused.unwrap_err().to_string()
}

#[test]
fn content_that_an_object_carries_is_named_whole_and_is_what_its_checksums_say() {
    let no_place = "not where it should be";
    let first_left_out = refusal(|object| object.pieces = object.pieces[1..].to_vec());
    assert!(first_left_out.contains(no_place), "{first_left_out}");
    let last_left_out = refusal(|object| object.pieces.truncate(1));
    assert!(last_left_out.contains("of no file"), "{last_left_out}");
    let cut_off = refusal(|object| object.inline.truncate(9));
    assert!(cut_off.contains(no_place), "{cut_off}");
    let longer = refusal(|object| object.inline.push(0));
    assert!(longer.contains("of no file"), "{longer}");
    for at in 0..of_everything().inline.len() {
        let changed = refusal(|object| object.inline[at] ^= 1);
        assert!(changed.contains("checksum"), "{at}: {changed}");
    }
}

/// With a checksum of the whole that fits.
fn read_changed(at: usize, change: impl FnOnce(u8) -> u8) -> Damage {
    let mut bytes = of_everything()
        .encode(&LINK, &Cipher::default())
        .unwrap()
        .to_vec();
    bytes.truncate(bytes.len() - TRAILER_BYTES);
    bytes[at] = change(bytes[at]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    decode(&bytes).unwrap_err()
}

#[test]
fn an_object_that_a_writer_left_incomplete_is_refused_by_who_reads_it() {
    let first = 16 + 32 + 16;
    let last = first + 8;
    for at in [first, last] {
        for change in [1, -1_i8] {
            let damage = read_changed(at, |lsn| lsn.wrapping_add_signed(change));
            assert!(damage.0.contains("not all there"), "{at}: {damage}");
        }
    }
    for at in 0..of_everything().inline.len() {
        let damage = read_changed(HEADER_BYTES + at, |byte| byte ^ 1);
        assert!(
            damage.0.contains("carries has a wrong checksum"),
            "{at}: {damage}"
        );
    }
}

#[test]
fn more_than_an_object_takes_is_refused_before_it_is_written() {
    let record = vec![0; MAX_BODY_BYTES];
    let object = LogObject {
        records: vec![(100, record)],
        last: 100,
        ..of_everything()
    };
    let refused = object
        .encode(&LINK, &Cipher::default())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("67108864 are possible"), "{refused}");
    let object = LogObject {
        inline: vec![0; MAX_INLINE_BYTES + 1],
        ..of_everything()
    };
    assert!(object.encode(&LINK, &Cipher::default()).is_err());
}

#[test]
fn an_object_of_a_newer_version_says_so() {
    let mut bytes = fence().encode(&LINK, &Cipher::default()).unwrap().to_vec();
    bytes[15] = 2;
    let refused = decode(&bytes).unwrap_err();
    assert!(refused.0.contains("newer vfsd"), "{refused}");
}
