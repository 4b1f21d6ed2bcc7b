//! Archives made byte by byte: what each format has, and what a hostile one tries.

mod hostile;
mod sparse;

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
