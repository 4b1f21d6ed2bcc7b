//! Archives made byte by byte: what each format has, and what a hostile one tries.

use vfsd_backend::{Device, Timestamp};

use super::*;
use crate::{DataExtent, EntryKind, LayerEntry};

/// A header of the ustar format, to be changed.
pub(crate) struct Block([u8; 512]);

impl Block {
    pub(crate) fn new(name: &str, kind: u8, size: u64) -> Self {
        let mut block = Self([0; 512]);
        block
            .put(0, name.as_bytes())
            .put(100, b"0000644\0")
            .put(108, b"0001750\0")
            .put(116, b"0001751\0")
            .put(124, format!("{size:011o}\0").as_bytes())
            .put(136, b"14000000000\0")
            .put(156, &[kind])
            .put(257, b"ustar\x0000");
        block
    }

    pub(crate) fn gnu(name: &str, kind: u8, size: u64) -> Self {
        let mut block = Self::new(name, kind, size);
        block.put(257, b"ustar  \0");
        block
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    }

    /// With its content.
    pub(crate) fn with(&self, content: &[u8]) -> Vec<u8> {
        [self.bytes(), padded(content)].concat()
    }
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length.to_string().len() + body != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let content: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| record(key, value))
        .collect();
    extension(b'x', &content)
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    let size = u64::try_from(content.len()).unwrap();
    Block::new("extension", kind, size).with(content)
}

pub(crate) fn file(name: &str, content: &str) -> Vec<u8> {
    let size = u64::try_from(content.len()).unwrap();
    Block::new(name, b'0', size).with(content.as_bytes())
}

fn parse(parts: &[Vec<u8>]) -> Result<TarContents, TarError> {
    let tar = parts.concat();
    let parsed = parse_in(&tar, tar.len().max(1), TarLimits::default());
    for chunk in [1, 100, 511, 513, 5000] {
        assert_eq!(
            parse_in(&tar, chunk, TarLimits::default()),
            parsed,
            "in chunks of {chunk}"
        );
    }
    parsed
}

fn parse_in(tar: &[u8], chunk: usize, limits: TarLimits) -> Result<TarContents, TarError> {
    let mut parser = TarParser::new(limits);
    for piece in tar.chunks(chunk) {
        parser.push(piece)?;
    }
    parser.finish()
}

fn entries(parts: &[Vec<u8>]) -> Vec<LayerEntry> {
    parse(&[parts.concat(), vec![0; 1024]]).unwrap().entries
}

fn one(parts: &[Vec<u8>]) -> LayerEntry {
    let mut entries = entries(parts);
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

fn refused(parts: &[Vec<u8>]) -> &'static str {
    parse(parts).unwrap_err().what
}

fn extent(file_offset: u64, tar_offset: u64, length: u64) -> DataExtent {
    DataExtent {
        file_offset,
        tar_offset,
        length,
    }
}

fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).unwrap()
}

#[test]
fn every_type_of_entry_is_read() {
    let mut device = Block::new("dev/null", b'3', 0);
    device.put(329, b"0000001\0").put(337, b"0000003\0");
    let mut disk = Block::new("dev/sda", b'4', 0);
    disk.put(329, b"\x80\0\0\0\0\0\x01\0")
        .put(337, b"0000020\0");
    let mut symlink = Block::new("link", b'2', 0);
    symlink.put(157, b"../target");
    let mut hardlink = Block::new("other", b'1', 0);
    hardlink.put(157, b"./a");
    let mut directory = Block::new("./etc/", b'5', 0);
    directory.put(100, b"0041777\0");
    let found = entries(&[
        directory.bytes(),
        file("./a", "hello"),
        symlink.bytes(),
        hardlink.bytes(),
        device.bytes(),
        disk.bytes(),
        Block::new("fifo", b'6', 0).bytes(),
        file("empty", ""),
    ]);
    let kinds: Vec<_> = found
        .iter()
        .map(|entry| (&entry.path[..], &entry.kind))
        .collect();
    let content = EntryKind::Regular {
        size: 5,
        data: vec![extent(0, 1024, 5)],
    };
    let empty = EntryKind::Regular {
        size: 0,
        data: vec![],
    };
    let expected = [
        (&b"./etc/"[..], EntryKind::Directory),
        (b"./a", content),
        (
            b"link",
            EntryKind::Symlink {
                target: b"../target".into(),
            },
        ),
        (
            b"other",
            EntryKind::HardLink {
                target: b"./a".into(),
            },
        ),
        (
            b"dev/null",
            EntryKind::CharDevice(Device { major: 1, minor: 3 }),
        ),
        (
            b"dev/sda",
            EntryKind::BlockDevice(Device {
                major: 256,
                minor: 16,
            }),
        ),
        (b"fifo", EntryKind::Fifo),
        (b"empty", empty),
    ];
    assert_eq!(kinds.len(), expected.len());
    for (found, (path, kind)) in kinds.iter().zip(&expected) {
        assert_eq!((found.0, found.1), (*path, kind));
    }
    assert_eq!(found[0].permissions, 0o1777, "the type is no permission");
    assert_eq!((found[1].uid, found[1].gid), (0o1750, 0o1751));
    assert_eq!(found[1].modified, at(0o14_000_000_000, 0));
}

#[test]
fn old_headers_have_neither_prefix_nor_device() {
    let mut old = Block::new("directory/", 0, 0);
    old.put(257, &[0; 8]).put(345, b"prefix");
    let entry = one(&[old.bytes()]);
    assert_eq!(entry.path, b"directory/");
    assert_eq!(entry.kind, EntryKind::Directory, "the slash says so");
    let mut ustar = Block::new("name", 0, 0);
    ustar.put(345, b"pre/fix");
    assert_eq!(one(&[ustar.bytes()]).path, b"pre/fix/name");
    let mut full = Block::new(&"n".repeat(100), b'0', 0);
    full.put(345, &[b'p'; 155]);
    assert_eq!(one(&[full.bytes()]).path.len(), 256);
    let mut gnu = Block::gnu("name", b'0', 0);
    gnu.put(345, b"14000000000\0");
    assert_eq!(one(&[gnu.bytes()]).path, b"name", "GNU has a time there");
    let mut star = Block::new("name", b'0', 0);
    star.put(345, b"pre")
        .put(476, b"14000000000\0")
        .put(508, b"tar\0");
    assert_eq!(one(&[star.bytes()]).path, b"pre/name");
}

#[test]
fn pax_records_come_before_the_header_and_before_gnu_names() {
    let xattr = b"\x01\0\0\x02\0\xff=\n";
    let entry = one(&[
        extension(b'L', b"gnu name\0"),
        pax(&[
            ("path", b"pax \xff name"),
            ("uid", b"4000000000"),
            ("gid", b"7"),
            ("mtime", b"-1.5"),
            ("atime", b"nonsense"),
            ("SCHILY.xattr.security.capability", xattr),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.twice", b"1"),
            ("SCHILY.xattr.user.twice", b"2"),
            ("comment", b"of no one"),
        ]),
        file("header name", ""),
    ]);
    assert_eq!(entry.path, b"pax \xff name");
    assert_eq!((entry.uid, entry.gid), (4_000_000_000, 7));
    assert_eq!(entry.modified, at(-2, 500_000_000));
    let expected: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b"security.capability".into(), xattr.into()),
        (b"user.empty".into(), vec![]),
        (b"user.twice".into(), b"2".into()),
    ];
    assert_eq!(entry.xattrs, expected);
}

#[test]
fn an_extension_is_of_the_next_entry_only() {
    let found = entries(&[
        pax(&[("path", b"long"), ("uid", b"5")]),
        file("a", ""),
        extension(b'L', &[b'n'; 300]),
        extension(b'K', &[b't'; 300]),
        Block::gnu("b", b'2', 0).bytes(),
        file("c", ""),
    ]);
    assert_eq!(found[0].path, b"long");
    assert_eq!(found[1].path, [b'n'; 300]);
    assert_eq!(
        found[1].kind,
        EntryKind::Symlink {
            target: vec![b't'; 300]
        }
    );
    assert_eq!((&found[2].path[..], found[2].uid), (&b"c"[..], 0o1750));
}

#[test]
fn empty_pax_values_leave_what_the_header_says() {
    let records: &[(&str, &[u8])] = &[("path", b""), ("uid", b""), ("size", b""), ("mtime", b"")];
    let entry = one(&[pax(records), file("name", "x")]);
    assert_eq!((&entry.path[..], entry.uid), (&b"name"[..], 0o1750));
}

#[test]
fn global_headers_say_nothing() {
    let global = [record("path", b"all"), record("uid", b"9")].concat();
    let found = entries(&[extension(b'g', &global), file("a", ""), file("b", "")]);
    assert_eq!(found[0].path, b"a");
    assert_eq!(found[1].uid, 0o1750);
}

#[test]
fn the_pax_size_counts_and_not_the_headers() {
    // The header says that the next entry is content; the record says that it is not.
    let inner = file("hidden", "");
    let small = Block::new("outer", b'0', 512).bytes();
    let found = entries(&[pax(&[("size", b"0")]), small, inner.clone()]);
    assert_eq!(found.len(), 2);
    // And the reverse.
    let small = Block::new("outer", b'0', 0).bytes();
    let found = entries(&[pax(&[("size", b"512")]), small, inner]);
    assert_eq!(found.len(), 1);
    let data = vec![extent(0, 1536, 512)];
    assert_eq!(found[0].kind, EntryKind::Regular { size: 512, data });
}

#[test]
fn numbers_may_be_in_base_256() {
    let mut block = Block::new("big", b'0', 0);
    block
        .put(108, b"\x80\0\0\0\x7f\xff\xff\xff")
        .put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let entry = one(&[block.bytes()]);
    assert_eq!(entry.uid, 0x7fff_ffff);
    assert_eq!(entry.modified, at(-2, 0));
    block.put(108, b"\x80\0\0\x01\0\0\0\0");
    assert_eq!(refused(&[block.bytes()]), "an owner is out of range");
    block.put(108, b"\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(refused(&[block.bytes()]), "an owner is out of range");
    block.put(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(refused(&[block.bytes()]), "a size is no number");
    // A size of which the archive holds nothing.
    let mut block = Block::new("huge", b'0', 0);
    block.put(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(
        refused(&[block.bytes()]),
        "it ends in the middle of an entry"
    );
}

#[test]
fn sizes_of_what_has_no_content_are_ignored() {
    let mut symlink = Block::new("link", b'2', 1000);
    symlink.put(157, b"x");
    let found = entries(&[
        Block::new("dir", b'5', 4096).bytes(),
        symlink.bytes(),
        Block::new("fifo", b'6', 1).bytes(),
        file("a", "a"),
    ]);
    assert_eq!(found.len(), 4);
}

#[test]
fn hard_links_may_have_a_size_with_or_without_content() {
    let mut link = Block::new("b", b'1', 700);
    link.put(157, b"a");
    let without = entries(&[link.bytes(), file("c", "c")]);
    assert_eq!(without.len(), 2);
    let with = entries(&[link.with(&[b'x'; 700]), file("c", "c")]);
    assert_eq!(with, {
        let mut moved = without;
        if let EntryKind::Regular { data, .. } = &mut moved[1].kind {
            data[0].tar_offset += 1024;
        }
        moved
    });
    let said = entries(&[
        pax(&[("size", b"700")]),
        link.with(&[b'x'; 700]),
        file("c", "c"),
    ]);
    assert_eq!(said.len(), 2);
    assert!(parse(&[link.bytes()]).is_ok(), "nothing follows");
}

#[test]
fn unknown_types_are_skipped_with_a_note() {
    let contents = parse(&[
        Block::new("volume\n", b'V', 0).bytes(),
        Block::new("odd", b'Z', 600).with(&[b'x'; 600]),
        file("a", ""),
    ])
    .unwrap();
    assert_eq!(contents.entries.len(), 1);
    assert_eq!(
        contents.notes,
        [
            "volume\\n: skipped, its type V is unknown",
            "odd: skipped, its type Z is unknown"
        ]
    );
}

fn pieces(pieces: &[(u64, u64)]) -> Vec<u8> {
    let text = |number: &u64| format!("{number:011o}\0");
    let pieces = pieces
        .iter()
        .map(|(offset, length)| text(offset) + &text(length));
    pieces.collect::<String>().into_bytes()
}

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
            // Between entries, and after an extended header.
            Ok(_) => whole += 1,
            Err(error) => assert_eq!(error.what, "it ends in the middle of an entry"),
        }
    }
    assert_eq!(whole, 3);
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
