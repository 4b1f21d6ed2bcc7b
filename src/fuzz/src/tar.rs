//! A layer of an image.

use vfsd_oci::EntryKind;
use vfsd_oci::tar::{TarContents, TarError, TarLimits, TarParser};

fn parse(tar: &[u8], piece: usize) -> Result<TarContents, TarError> {
    let mut parser = TarParser::new(TarLimits::default());
    for piece in tar.chunks(piece) {
        parser.push(piece)?;
    }
    parser.finish()
}

/// Indexes a tar: in whatever pieces it arrives, the same comes out.
pub(crate) fn run(data: &[u8]) {
    let whole = parse(data, data.len().max(1));
    assert_eq!(parse(data, 509), whole);
    if let Ok(contents) = whole {
        let end_of_tar = u64::try_from(data.len()).unwrap();
        for entry in contents.entries {
            let EntryKind::Regular { size, data } = entry.kind else {
                continue;
            };
            let mut covered = 0;
            for extent in data {
                let end = extent.tar_offset.checked_add(extent.length);
                assert!(end.is_some_and(|end| end <= end_of_tar), "{extent:?}");
                assert!(extent.file_offset >= covered, "{extent:?} after {covered}");
                covered = extent.file_offset.checked_add(extent.length).unwrap();
            }
            assert!(covered <= size, "{covered} of {size}");
        }
    }
}

/// Headers of some types, with the checksum that makes them pass.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (kind, content) in [
        (b'0', &b"content"[..]),
        (b'1', b""),
        (b'2', b""),
        (b'5', b""),
        (b'x', b"19 path=other/name\n"),
        (b'L', b"a/long/name\0"),
    ] {
        let mut tar = block(kind, content);
        tar.extend(block(b'0', b"more"));
        tar.extend([0; 1024]);
        all.push(tar);
    }
    all
}

fn block(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..8].copy_from_slice(b"dir/file");
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[156] = kind;
    block[157..161].copy_from_slice(b"link");
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}
