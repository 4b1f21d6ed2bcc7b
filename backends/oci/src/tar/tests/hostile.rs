//! Archives that are cut off, damaged or made to do harm.

use super::*;

#[test]
fn a_tar_may_end_without_its_end() {
    let whole = [file("a", "a"), vec![0; 1024]];
    assert_eq!(parse(&whole).unwrap().entries.len(), 1);
    assert_eq!(parse(&[file("a", "a")]).unwrap().entries.len(), 1);
    let single = [file("a", "a"), vec![0; 512]];
    assert_eq!(parse(&single).unwrap().entries.len(), 1);
    assert_eq!(parse(&[]).unwrap().entries.len(), 0);
    let junk = [vec![0; 1024], b"what follows is of no one".to_vec()];
    assert_eq!(parse(&junk).unwrap().entries.len(), 0);
    let single = [vec![0; 512], file("a", "a")];
    assert_eq!(refused(&single), "a single block of zeros");
}

#[test]
fn a_tar_that_ends_in_an_entry_is_refused() {
    let tar = [
        pax(&[("path", b"name")]),
        file("a", &"x".repeat(600)),
        file("b", "x"),
    ]
    .concat();
    let mut whole = 0;
    for length in 0..tar.len() {
        match parse_in(&tar[..length], 700, TarLimits::default()) {
            // After an extended header, and from the end of a content to the next header.
            Ok(_) => whole += 1,
            Err(error) => assert_eq!(error.what, "it ends in the middle of an entry"),
        }
    }
    assert_eq!(whole, 2 + (1024 - 600 + 1) + (512 - 1));
}

#[test]
fn the_padding_of_the_last_entry_may_be_missing() {
    let tar = file("a", "hello");
    let found = parse_in(&tar[..512 + 5], 700, TarLimits::default()).unwrap();
    let data = vec![extent(0, 512, 5)];
    assert_eq!(found.entries[0].kind, EntryKind::Regular { size: 5, data });
    assert!(parse_in(&tar[..512 + 4], 700, TarLimits::default()).is_err());
}

#[test]
fn what_is_no_tar_is_refused() {
    assert_eq!(
        refused(&[vec![b'x'; 512]]),
        "a header with a wrong checksum"
    );
    assert_eq!(
        refused(&[Block::new("", b'0', 0).bytes()]),
        "an entry has no name"
    );
    let error = parse(&[file("a", "a"), vec![1; 512]]).unwrap_err();
    assert_eq!(error.offset, 1024);
    let xheader = |content: &[u8]| refused(&[extension(b'x', content), file("a", "")]);
    let length = "a PAX record has a wrong length";
    for bad in [
        &b"99 path=a\n"[..],
        b"0 a=b\n",
        b" a=b\n",
        b"x a=b\n",
        b"6 a=bc",
        b"6 abc\n",
        b"6 =ab\n",
        b"18446744073709551616 a=b\n",
    ] {
        assert_eq!(xheader(bad), length, "{}", bad.escape_ascii());
    }
    assert_eq!(xheader(&record("path", b"a\0b")), "a PAX name has a NUL");
    assert_eq!(xheader(&record("size", b"-1")), "a PAX size is no number");
    assert_eq!(
        xheader(&record("size", b"9223372036854775808")),
        "a PAX size is no number"
    );
    assert_eq!(xheader(&record("uid", b"root")), "a PAX owner is no number");
    assert_eq!(xheader(&record("mtime", b"now")), "a PAX time is no time");
}

#[test]
fn memory_is_bounded_whatever_the_tar_says() {
    let huge = Block::new("x", b'x', (1 << 20) + 1).bytes();
    assert_eq!(refused(&[huge]), "an extended header is too large");
    let limits = |change: fn(&mut TarLimits)| {
        let mut limits = TarLimits::default();
        change(&mut limits);
        limits
    };
    let many: Vec<u8> = (0..10).flat_map(|_| file("name", "")).collect();
    let few = limits(|limits| limits.entries = 9);
    assert_eq!(
        parse_in(&many, 512, few).unwrap_err().what,
        "it has too many entries"
    );
    let little = limits(|limits| limits.metadata = 39);
    assert_eq!(
        parse_in(&many, 512, little).unwrap_err().what,
        "the entries have too many names and attributes"
    );
    let mut block = Block::gnu("sparse", b'S', 0);
    block.put(386, &pieces(&[(0, 0); 4])).put(482, &[1]);
    let mut endless = pieces(&[(0, 0); 21]);
    endless.extend_from_slice(&[1; 8]);
    let tar = [block.bytes(), endless.repeat(5000)].concat();
    assert_eq!(
        parse_in(&tar, 4096, TarLimits::default()).unwrap_err().what,
        "a sparse map has too many pieces"
    );
}

#[test]
fn changed_archives_are_read_or_refused() {
    let mut sparse = Block::gnu("sparse", b'S', 200);
    sparse
        .put(386, &pieces(&[(0, 200)]))
        .put(483, b"00000000400\0");
    let tar = [
        pax(&[
            ("path", b"a"),
            ("GNU.sparse.map", b"0,1,3,2"),
            ("mtime", b"1.5"),
        ]),
        file("a", "hello"),
        sparse.with(&[b'x'; 200]),
        extension(b'L', b"long"),
        file("b", "world"),
    ]
    .concat();
    let mut refused = 0;
    for place in 0..tar.len() {
        for change in [1, 0x80, 0xff] {
            let mut wrong = tar.clone();
            wrong[place] ^= change;
            refused += usize::from(parse_in(&wrong, 512, TarLimits::default()).is_err());
        }
    }
    assert!(
        refused > 3000,
        "{refused}: each byte of a header is covered by its checksum"
    );
}
