//! A table of contents of a layer.

use vfsd_backend::Timestamp;
use vfsd_oci::EntryKind;
use vfsd_oci::blob::{Compression, Resume, Sha256Digest, SpanReader};
use vfsd_oci::index::{IndexOptions, LayerIndex};
use vfsd_oci::toc::{TocLayer, TocReference, read_toc};
use vfsd_oci::tree::TreeBuilder;

/// Chunks that tables lead to: members of gzip and frames of zstd, which all decode to the same.
const CONTENT: &[u8] = b"content";

/// A chunk's bytes in a layer: a gzip member of one stored block.
pub(crate) fn member(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    member.extend(length.to_le_bytes());
    member.extend((!length).to_le_bytes());
    member.extend_from_slice(content);
    // Its CRC-32, bit by bit.
    let crc = content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0xedb8_8320,
        })
    });
    member.extend((!crc).to_le_bytes());
    member.extend(u32::from(length).to_le_bytes());
    member
}

/// A chunk's bytes in a layer: a zstd frame of one raw block.
pub(crate) fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x20,
        u8::try_from(content.len().min(255)).unwrap(),
    ];
    if content.len() > 255 {
        // The content's size has four bytes.
        frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        frame.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    }
    let mut blocks = content.chunks(1 << 16).peekable();
    if blocks.peek().is_none() {
        frame.extend([1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let head = u32::try_from(block.len()).unwrap() << 3 | u32::from(blocks.peek().is_none());
        frame.extend(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// A layer with a table, and how its manifest names it.
struct Layer {
    blob: Vec<u8>,
    reference: TocReference,
}

fn reference(annotations: &[(&str, String)]) -> TocReference {
    let found = TocReference::of(|name| {
        let mut all = annotations.iter();
        all.find_map(|(known, value)| (*known == name).then_some(value.as_str()))
    });
    found.unwrap()
}

fn estargz(table: &[u8]) -> Layer {
    let mut tar = vec![0; 512];
    tar[..17].copy_from_slice(b"stargz.index.json");
    tar[100..107].copy_from_slice(b"0000644");
    tar[124..135].copy_from_slice(format!("{:011o}", table.len()).as_bytes());
    tar[156] = b'0';
    tar[257..263].copy_from_slice(b"ustar\0");
    tar[263..265].copy_from_slice(b"00");
    tar[148..156].fill(b' ');
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(table);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    let mut blob = chunks(&member(CONTENT));
    let offset = blob.len();
    for piece in tar.chunks(60_000) {
        blob.extend(member(piece));
    }
    blob.extend([
        0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0,
    ]);
    blob.extend(format!("{offset:016x}STARGZ").as_bytes());
    blob.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let digest = Sha256Digest::of(table).to_string();
    let reference = reference(&[("containerd.io/snapshot/stargz/toc.digest", digest)]);
    Layer { blob, reference }
}

fn chunked(table: &[u8]) -> Layer {
    let packed = frame(table);
    let mut blob = chunks(&frame(CONTENT));
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    let position = format!("{}:{}:{}:1", blob.len(), packed.len(), table.len());
    blob.extend_from_slice(&packed);
    let digest = Sha256Digest::of(&packed).to_string();
    let reference = reference(&[
        (
            "io.github.containers.zstd-chunked.manifest-position",
            position,
        ),
        (
            "io.github.containers.zstd-chunked.manifest-checksum",
            digest,
        ),
    ]);
    Layer { blob, reference }
}

/// Three chunks, each at a multiple of 64.
fn chunks(chunk: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    for number in 0..3 {
        blob.resize(number * 64, 0);
        blob.extend_from_slice(chunk);
    }
    blob.resize(192, 0);
    blob
}

/// Reads the table of a layer, and what it leads to.
pub(crate) fn run(data: &[u8]) {
    for (layer, compression) in [
        (estargz(data), Compression::Gzip),
        (chunked(data), Compression::Zstd),
    ] {
        let whole = TocLayer {
            digest: Sha256Digest::of(&layer.blob),
            size: u64::try_from(layer.blob.len()).unwrap(),
            diff_id: Sha256Digest::of(b""),
        };
        let read = read_toc(
            &layer.blob,
            whole,
            &layer.reference,
            &IndexOptions::default(),
        );
        let Ok(index) = read else {
            continue;
        };
        assert_eq!(index.blob.compression, compression);
        check(&index);
        // It is stored and read as it is.
        let stored = LayerIndex::from_bytes(&index.to_bytes());
        assert_eq!(stored.unwrap(), index);
        tree(&index);
        let reader = SpanReader::new(layer.blob.clone(), index.blob.clone());
        for span in 0..index.blob.spans.len() {
            // What has the digest that the table says, or nothing.
            if let Ok(bytes) = reader.read(span, 1 << 20) {
                assert_eq!(bytes, CONTENT);
            }
        }
    }
}

/// What every index promises.
fn check(index: &LayerIndex) {
    let blob = &index.blob;
    let (mut compressed, mut decoded) = (0, 0);
    for span in &blob.spans {
        assert_eq!(span.resume, Resume::Fresh);
        assert!(span.compressed.start >= compressed && !span.compressed.is_empty());
        assert!(span.decoded.start == decoded && !span.decoded.is_empty());
        (compressed, decoded) = (span.compressed.end, span.decoded.end);
    }
    assert!(compressed <= blob.size);
    assert_eq!(decoded, blob.decoded_size);
    let mut placed = 0;
    for entry in &index.entries {
        let EntryKind::Regular { size, data } = &entry.kind else {
            continue;
        };
        let mut covered = 0;
        for extent in data {
            assert!(extent.file_offset >= covered && extent.length > 0);
            assert_eq!(extent.tar_offset, placed);
            covered = extent.file_offset.checked_add(extent.length).unwrap();
            placed += extent.length;
        }
        assert!(covered <= *size);
    }
    assert_eq!(placed, decoded);
}

/// The entries make a tree, or are refused.
fn tree(index: &LayerIndex) {
    let mut builder = TreeBuilder::new(Timestamp::default());
    builder.begin_layer();
    for (number, entry) in (0..).zip(&index.entries) {
        if builder.entry(number, entry.clone()).is_err() {
            return;
        }
    }
    builder.finish().unwrap();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let digest = Sha256Digest::of(CONTENT);
    let chunk = format!(r#""chunkDigest":"{digest}""#);
    let entries = [
        r#"{"type":"dir","name":"d/","mode":493,"uid":1,"gid":2,"modtime":"2026-01-01T00:00:00Z"}"#
            .to_owned(),
        format!(
            r#"{{"type":"reg","name":"d/a","mode":420,"size":7,"offset":0,"endOffset":60,"digest":"{digest}"}}"#
        ),
        format!(
            r#"{{"type":"reg","name":"b","size":21,"offset":64,"chunkSize":7,{chunk}}},{{"type":"chunk","name":"b",
            "chunkOffset":7,"chunkSize":7,"chunkType":"zeros"}},{{"type":"chunk","chunkOffset":14,"offset":128,{chunk}}}"#
        ),
        r#"{"type":"symlink","name":"s","linkName":"../b","xattrs":{"user.a":"YQ=="}}"#.to_owned(),
        r#"{"type":"hardlink","name":"h","linkName":"d/a"}"#.to_owned(),
        r#"{"type":"char","name":"c","devMajor":1,"devMinor":3},{"type":"fifo","name":"f"}"#
            .to_owned(),
        r#"{"type":"reg","name":"d/.wh.x","accesstime":null}"#.to_owned(),
    ];
    let table = |entries: &[String]| {
        let entries = entries.join(",");
        format!(r#"{{"version":1,"entries":[{entries}],"more":[{{}}]}}"#).into_bytes()
    };
    let single = entries
        .iter()
        .map(|entry| table(std::slice::from_ref(entry)));
    single.chain([table(&entries)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_a_table_whose_chunks_are_there() {
        for seed in seeds() {
            for layer in [estargz(&seed), chunked(&seed)] {
                let whole = TocLayer {
                    digest: Sha256Digest::of(&layer.blob),
                    size: u64::try_from(layer.blob.len()).unwrap(),
                    diff_id: Sha256Digest::of(b""),
                };
                let index = read_toc(
                    &layer.blob,
                    whole,
                    &layer.reference,
                    &IndexOptions::default(),
                );
                let index = index.unwrap();
                let reader = SpanReader::new(layer.blob.clone(), index.blob.clone());
                for span in 0..index.blob.spans.len() {
                    assert_eq!(reader.read(span, 100).unwrap(), CONTENT);
                }
            }
        }
    }
}
