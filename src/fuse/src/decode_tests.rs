use super::*;
use crate::{InitFlags, ReplyKind};

/// A request as a guest sends it: header and body, with `extlen` words of extensions announced.
fn request(opcode: u32, body: &[u8], extlen: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(40 + body.len()).unwrap();
    bytes.extend(length.to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(77u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(extlen.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

fn errno(bytes: &[u8], layout: Layout) -> Option<Errno> {
    match decode(bytes, bytes.len(), layout) {
        Ok(_) => None,
        Err(DecodeError::Reject { errno, .. }) => Some(errno),
        Err(DecodeError::Unanswerable) => panic!("the header is whole"),
    }
}

fn layout(flags: InitFlags) -> Layout {
    Layout { flags }
}

#[test]
fn every_opcode_of_the_protocol_has_one_row() {
    // linux/fuse.h 7.45 has 1 to 53 without 7 and 19.
    let known: Vec<u32> = (0..100)
        .filter(|n| Opcode::from_number(*n).is_some())
        .collect();
    let expected: Vec<u32> = (1..=53).filter(|n| ![7, 19].contains(n)).collect();
    assert_eq!(known, expected);
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_number(opcode.number()), Some(*opcode));
    }
    let silent: Vec<&str> = Opcode::ALL
        .iter()
        .filter(|opcode| opcode.reply() == ReplyKind::Nothing)
        .map(|opcode| opcode.name())
        .collect();
    assert_eq!(
        silent,
        ["Forget", "Interrupt", "BatchForget", "NotifyReply"]
    );
}

#[test]
fn a_request_without_a_whole_header_cannot_be_answered() {
    for length in 0..40 {
        let bytes = vec![0; length];
        let result = decode(&bytes, length, Layout::default());
        assert!(matches!(result, Err(DecodeError::Unanswerable)));
    }
}

#[test]
fn a_length_that_is_not_there_is_refused() {
    for claimed in [0u32, 1, 39, 45, u32::MAX] {
        let mut bytes = request(1, b"abc\0", 0);
        bytes[..4].copy_from_slice(&claimed.to_le_bytes());
        assert_eq!(
            errno(&bytes, Layout::default()),
            Some(Errno::INVAL),
            "{claimed}"
        );
    }
}

#[test]
fn bytes_beyond_the_claimed_length_are_not_looked_at() {
    let mut bytes = request(1, b"abc", 0);
    bytes.push(0);
    assert_eq!(
        errno(&bytes, Layout::default()),
        Some(Errno::INVAL),
        "the NUL is outside"
    );
}

#[test]
fn opcodes_that_nobody_knows_are_not_implemented() {
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        assert_eq!(
            errno(&request(opcode, &[], 0), Layout::default()),
            Some(Errno::NOSYS)
        );
    }
}

#[test]
fn no_opcode_accepts_a_name_that_leaves_the_directory() {
    let fixed = |opcode| match opcode {
        8 | 35 | 45 | 51 => 16,
        9 | 12 | 13 => 8,
        _ => 0,
    };
    for opcode in [1, 6, 8, 9, 10, 11, 12, 13, 35, 45] {
        for bad in ["", ".", "..", "/", "a/b", "/etc/passwd", "../x"] {
            let mut body = vec![0; fixed(opcode)];
            body.extend(bad.as_bytes());
            body.push(0);
            body.extend(b"second\0");
            let answer = errno(&request(opcode, &body, 0), Layout::default());
            assert_eq!(answer, Some(Errno::INVAL), "opcode {opcode}, name {bad:?}");
        }
        let mut body = vec![0; fixed(opcode)];
        body.extend([b'a'; 256]);
        body.extend(b"\0second\0");
        let answer = errno(&request(opcode, &body, 0), Layout::default());
        assert_eq!(answer, Some(Errno::NAMETOOLONG), "opcode {opcode}");
    }
}

#[test]
fn every_truncation_of_every_request_is_refused_or_decoded() {
    for opcode in Opcode::ALL {
        for flags in [InitFlags::empty(), InitFlags::all()] {
            for length in 0..160 {
                let body: Vec<u8> = (0..length).map(|i: u8| i | 1).collect();
                let bytes = request(opcode.number(), &body, 0);
                let _ = decode(&bytes, bytes.len(), layout(flags));
            }
        }
    }
}

#[test]
fn a_write_says_as_many_bytes_as_it_brings() {
    let mut body = vec![0; 40];
    body[16..20].copy_from_slice(&10u32.to_le_bytes());
    let mut bytes = request(16, &body, 0);
    bytes[..4].copy_from_slice(&90u32.to_le_bytes());
    assert!(decode(&bytes, 90, Layout::default()).is_ok());
    bytes[..4].copy_from_slice(&89u32.to_le_bytes());
    assert!(decode(&bytes, 90, Layout::default()).is_err());
    bytes[..4].copy_from_slice(&91u32.to_le_bytes());
    assert!(decode(&bytes, 91, Layout::default()).is_err());
}

#[test]
fn only_the_data_of_a_write_stay_with_the_transport() {
    let head: [u8; 40] = request(16, &[], 0).try_into().unwrap();
    assert_eq!(
        inline_length(&head, 1_000_000),
        40,
        "the request's own length counts"
    );
    let mut head = head;
    head[..4].copy_from_slice(&1_000_000u32.to_le_bytes());
    assert_eq!(inline_length(&head, 1_000_000), 80);
    head[4] = 1;
    assert_eq!(inline_length(&head, 500), 500);
    assert!(inline_length(&head, 1_000_000) < 200_000);
}

#[test]
fn setxattr_has_the_layout_that_was_negotiated() {
    let short = [&3u32.to_le_bytes()[..], &0u32.to_le_bytes(), b"user.a\0abc"].concat();
    let long = [&3u32.to_le_bytes()[..], &[0; 12], b"user.a\0abc"].concat();
    assert_eq!(errno(&request(21, &short, 0), Layout::default()), None);
    assert_eq!(
        errno(&request(21, &long, 0), layout(InitFlags::SETXATTR_EXT)),
        None
    );
    let lying = [&4u32.to_le_bytes()[..], &[0; 12], b"user.a\0abc"].concat();
    let answer = errno(&request(21, &lying, 0), layout(InitFlags::SETXATTR_EXT));
    assert_eq!(answer, Some(Errno::INVAL));
    let huge = [&65_537u32.to_le_bytes()[..], &[0; 12], b"user.a\0abc"].concat();
    let answer = errno(&request(21, &huge, 0), layout(InitFlags::SETXATTR_EXT));
    assert_eq!(answer, Some(Errno::TOOBIG));
}

#[test]
fn a_value_beyond_the_inline_part_is_too_big() {
    let head = [&200_000u32.to_le_bytes()[..], &[0; 12], b"user.a\0"].concat();
    let body = [&head[..], &[1; 200_000]].concat();
    let bytes = request(21, &body, 0);
    let start: [u8; 40] = bytes[..40].try_into().unwrap();
    let inline = &bytes[..inline_length(&start, bytes.len())];
    let Err(DecodeError::Reject { errno, .. }) = decode(inline, bytes.len(), Layout::default())
    else {
        panic!("it is refused");
    };
    assert_eq!(errno, Errno::TOOBIG);
}

#[test]
fn a_string_with_a_nul_inside_is_refused_and_not_cut_there() {
    let labels = layout(InitFlags::SECURITY_CTX);
    let plain = Layout::default();
    let with = |fixed: usize, strings: &[u8]| [&vec![0; fixed], strings].concat();
    let cases = [
        (1, with(0, b"a\0"), with(0, b"a\0b\0")),
        (6, with(0, b"link\0to\0"), with(0, b"link\0t\0o\0")),
        (9, with(8, b"a\0"), with(8, b"a\0b\0")),
        (10, with(0, b"a\0"), with(0, b"a\0\0")),
        (12, with(8, b"a\0b\0"), with(8, b"a\0b\0c\0")),
        (22, with(8, b"user.a\0"), with(8, b"user.a\0b\0")),
        (24, with(0, b"user.a\0"), with(0, b"user.a\0b\0")),
        (35, with(16, b"a\0"), with(16, b"a\0b\0")),
        (51, with(16, b"/\0"), with(16, b"/\0/\0")),
    ];
    for (opcode, good, bad) in cases {
        for layout in [plain, labels] {
            assert_eq!(errno(&request(opcode, &good, 0), layout), None, "{opcode}");
            let answer = errno(&request(opcode, &bad, 0), layout);
            assert_eq!(answer, Some(Errno::INVAL), "{opcode}");
        }
    }
    let group = [16u32.to_le_bytes(), 32u32.to_le_bytes(), [0; 4], [0; 4]].concat();
    let groups = layout(InitFlags::CREATE_SUPP_GROUP);
    for (name, answer) in [(&b"a\0"[..], None), (b"a\0b\0", Some(Errno::INVAL))] {
        let body = [&[0; 8], name, &group].concat();
        assert_eq!(errno(&request(9, &body, 2), groups), answer);
    }
}

#[test]
fn what_a_later_version_adds_to_a_structure_is_not_looked_at() {
    for (opcode, length) in [(3, 16), (14, 8), (15, 40), (20, 16)] {
        for added in [0, 8, 64] {
            let body = vec![0; length + added];
            assert_eq!(errno(&request(opcode, &body, 0), Layout::default()), None);
        }
    }
}

#[test]
fn security_labels_and_groups_are_taken_from_the_end() {
    let both = layout(InitFlags::SECURITY_CTX | InitFlags::CREATE_SUPP_GROUP);
    let label = [
        &35u32.to_le_bytes()[..],
        &1u32.to_le_bytes(),
        &3u32.to_le_bytes(),
        &[0; 4],
        b"security.selinux\0lbl",
        &[0; 4],
    ]
    .concat();
    let mut label = label;
    label[0] = u8::try_from(8 + 8 + 17 + 3).unwrap();
    label.resize(40, 0);
    let group = [
        &16u32.to_le_bytes()[..],
        &32u32.to_le_bytes(),
        &1u32.to_le_bytes(),
        &[5, 0, 0, 0],
    ]
    .concat();
    let body = [&[0u8; 8][..], b"dir\0", &label, &group].concat();
    let bytes = request(9, &body, 7);
    let Ok(Request {
        operation: Operation::Mkdir { extensions, .. },
        ..
    }) = decode(&bytes, bytes.len(), both)
    else {
        panic!("well formed")
    };
    assert_eq!(extensions.supplementary_group, Some(5));
    let label = extensions.security.unwrap();
    assert_eq!(
        (label.name.as_bytes(), label.value),
        (&b"security.selinux"[..], &b"lbl"[..])
    );

    assert_eq!(
        errno(&bytes, Layout::default()),
        Some(Errno::INVAL),
        "nothing was negotiated"
    );
    for extlen in [1, 3, 8, 100, u16::MAX] {
        assert_eq!(
            errno(&request(9, &body, extlen), both),
            Some(Errno::INVAL),
            "{extlen} words"
        );
    }
    for (at, value) in [
        (12, 0u8),
        (12, 7),
        (12, 200),
        (16, 2),
        (16, 33),
        (20, 200),
        (52, 200),
    ] {
        let mut damaged = body.clone();
        damaged[at] = value;
        let answer = errno(&request(9, &damaged, 7), both);
        assert_eq!(answer, Some(Errno::INVAL), "byte {at} = {value}");
    }
}

#[test]
fn a_list_of_nodes_to_forget_is_read_as_far_as_it_goes() {
    let one = [&5u64.to_le_bytes()[..], &2u64.to_le_bytes()].concat();
    let body = [&1000u32.to_le_bytes()[..], &[0; 4], &one, &one, &[1, 2, 3]].concat();
    let bytes = request(42, &body, 0);
    let Ok(Request {
        operation: Operation::BatchForget { list },
        ..
    }) = decode(&bytes, bytes.len(), Layout::default())
    else {
        panic!("well formed")
    };
    assert_eq!(list.iter().collect::<Vec<_>>(), [(NodeId(5), 2); 2]);
}
