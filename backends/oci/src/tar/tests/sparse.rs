//! Sparse files in their four forms.

use super::*;

#[test]
fn gnu_sparse_files_have_holes() {
    let mut block = Block::gnu("sparse", b'S', 700);
    block
        .put(386, &pieces(&[(0, 200), (4096, 500), (1 << 30, 0)]))
        .put(483, b"10000000000\0");
    let found = entries(&[block.with(&[b'x'; 700]), file("next", "")]);
    let data = vec![extent(0, 512, 200), extent(4096, 712, 500)];
    assert_eq!(
        found[0].kind,
        EntryKind::Regular {
            size: 1 << 30,
            data
        }
    );
    assert_eq!(found.len(), 2);

    // More than four pieces: two blocks of maps.
    let all: Vec<(u64, u64)> = (0..30).map(|piece| (piece * 1000, 10)).collect();
    let mut block = Block::gnu("sparse", b'S', 300);
    block
        .put(386, &pieces(&all[..4]))
        .put(482, &[1])
        .put(483, b"00000100000\0");
    let mut first = pieces(&all[4..25]);
    first.resize(504, 0);
    first.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    let second = padded(&pieces(&all[25..]));
    let found = entries(&[
        block.bytes(),
        first,
        second,
        padded(&[b'x'; 300]),
        file("next", ""),
    ]);
    let EntryKind::Regular { size: 32_768, data } = &found[0].kind else {
        panic!("{found:?}");
    };
    assert_eq!(data.len(), 30);
    assert_eq!(data[29], extent(29_000, 1536 + 290, 10));
    assert_eq!(found.len(), 2);
}

#[test]
fn pax_sparse_files_of_all_forms_have_holes() {
    let data = |start| vec![extent(0, start, 3), extent(5000, start + 3, 4)];
    let stored = || Block::new("GNUSparseFile.0/made-up", b'0', 7).with(b"abcdefg");
    let old = one(&[
        pax(&[
            ("GNU.sparse.size", b"6000"),
            ("GNU.sparse.numblocks", b"3"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"5000"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"6000"),
            ("GNU.sparse.numbytes", b"0"),
        ]),
        stored(),
    ]);
    let kind = EntryKind::Regular {
        size: 6000,
        data: data(1536),
    };
    assert_eq!(old.kind, kind);
    let newer = one(&[
        pax(&[
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.size", b"6000"),
            ("GNU.sparse.map", b"0,3,5000,4,6000,0"),
        ]),
        stored(),
    ]);
    assert_eq!((&newer.path[..], &newer.kind), (&b"real"[..], &kind));
    let map = padded(b"3\n0\n3\n5000\n4\n6000\n0\n");
    let newest = |size: &str, header| {
        entries(&[
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"real"),
                ("GNU.sparse.realsize", b"6000"),
                ("size", size.as_bytes()),
            ]),
            Block::new("GNUSparseFile.0/made-up", b'0', header).bytes(),
            map.clone(),
            padded(b"abcdefg"),
            file("next", ""),
        ])
    };
    for found in [newest("", 519), newest("519", 0)] {
        assert_eq!(found[0].path, b"real");
        let data = data(2048);
        assert_eq!(found[0].kind, EntryKind::Regular { size: 6000, data });
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn a_map_of_many_blocks_is_read() {
    let count = 5000_u64;
    let mut map = format!("{count}\n");
    for piece in 0..count {
        map += &format!("{}\n1\n", piece * 10);
    }
    let map = padded(map.as_bytes());
    let length = u64::try_from(map.len()).unwrap();
    let entry = one(&[
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"50000"),
        ]),
        Block::new("sparse", b'0', length + count).bytes(),
        map,
        padded(&vec![b'x'; 5000]),
    ]);
    let EntryKind::Regular { data, .. } = entry.kind else {
        panic!("a file");
    };
    assert_eq!(data.len(), 5000);
    assert_eq!(data[4999], extent(49_990, 1536 + length + 4999, 1));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |map: &str| {
        refused(&[
            pax(&[
                ("GNU.sparse.size", b"100"),
                ("GNU.sparse.map", map.as_bytes()),
            ]),
            Block::new("file", b'0', 20).with(&[b'x'; 20]),
        ])
    };
    let overlap = "the pieces of a sparse file overlap or are beyond its end";
    assert_eq!(sparse("10,5,14,5"), overlap);
    assert_eq!(sparse("50,5,10,5"), overlap);
    assert_eq!(sparse("90,11"), overlap);
    assert_eq!(sparse("18446744073709551615,2"), overlap);
    let longer = "the pieces of a sparse file are longer than its content";
    assert_eq!(sparse("0,21"), longer);
    assert_eq!(sparse("0,15,20,6"), longer);
    assert_eq!(
        sparse("0,1,2"),
        "a sparse map has what is no pair of numbers"
    );
    let in_content = |map: &[u8], size| {
        refused(&[
            pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]),
            Block::new("file", b'0', size).with(map),
        ])
    };
    assert_eq!(
        in_content(b"1\n0\n", 100),
        "a sparse map is longer than its entry"
    );
    assert_eq!(
        in_content(b"99999999\n", 512),
        "a sparse map has too many pieces"
    );
    assert_eq!(
        in_content(&[b'1'; 512], 512),
        "a sparse map has what is no number"
    );
    let unknown = refused(&[pax(&[("GNU.sparse.major", b"2")]), file("a", "")]);
    assert_eq!(unknown, "a sparse file of an unknown form");
    assert_eq!(
        refused(&[Block::new("no map", b'S', 0).bytes()]),
        "a sparse file without a map"
    );
}
