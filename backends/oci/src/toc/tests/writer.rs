//! Layers with tables of contents, written as the two specifications have it.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::blob::Sha256Digest;
use crate::tar::{TarLimits, TarParser};
use crate::testing::{LAYER, Layout, Tar};
use crate::toc::TocReference;
use crate::{EntryKind, LayerEntry};

/// What the end of a tar has.
const TAR_END: usize = 1024;

/// A layer with a table.
pub(crate) struct Made {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Sha256Digest,
    pub(crate) annotations: Vec<(&'static str, String)>,
    /// The table's own bytes in the blob.
    pub(crate) packed: usize,
}

impl Made {
    pub(crate) fn reference(&self) -> TocReference {
        let found = TocReference::of(|name| {
            let mut all = self.annotations.iter();
            all.find_map(|(known, value)| (*known == name).then_some(value.as_str()))
        });
        found.unwrap()
    }

    /// Its diff-id and descriptor in a layout, with annotations or without.
    pub(crate) fn layer(&self, layout: &Layout, annotated: bool) -> (Sha256Digest, Value) {
        let mut descriptor = layout.blob(LAYER, &self.blob);
        if annotated {
            let all = self.annotations.iter();
            let all = all.map(|(name, value)| ((*name).to_owned(), json!(value)));
            descriptor["annotations"] = Value::Object(all.collect());
        }
        (self.diff_id, descriptor)
    }
}

pub(crate) type Edit<'a> = &'a dyn Fn(&mut Vec<Value>);

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An eStargz layer of a tar, in chunks of at most so many bytes, with a table that was changed.
pub(crate) fn estargz(tar: &[u8], chunk: usize, edit: Edit<'_>) -> Made {
    let (mut blob, mut entries) = packed(tar, chunk, gzip);
    edit(&mut entries);
    let toc = json!({"version": 1, "entries": entries}).to_string();
    let table = Tar::default().file("stargz.index.json", toc.as_bytes());
    let table = table.finish();
    let offset = blob.len();
    blob.extend(gzip(&table));
    let packed = blob.len() - offset;
    blob.extend([
        0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0,
    ]);
    blob.extend(format!("{offset:016x}STARGZ").as_bytes());
    // An empty stored block that is the last, and the sums of nothing.
    blob.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let decoded = [&tar[..tar.len() - TAR_END], &table].concat();
    let digest = Sha256Digest::of(toc.as_bytes()).to_string();
    Made {
        diff_id: Sha256Digest::of(&decoded),
        annotations: vec![("containerd.io/snapshot/stargz/toc.digest", digest)],
        packed,
        blob,
    }
}

/// A zstd:chunked layer of a tar, as [`estargz`].
pub(crate) fn chunked(tar: &[u8], chunk: usize, edit: Edit<'_>) -> Made {
    let (mut blob, mut entries) = packed(tar, chunk, zstd);
    blob.extend(zstd(&[0; TAR_END]));
    edit(&mut entries);
    let toc = json!({"version": 1, "entries": entries}).to_string();
    let table = zstd(toc.as_bytes());
    let frame = |blob: &mut Vec<u8>, bytes: &[u8]| {
        blob.extend([0x50, 0x2a, 0x4d, 0x18]);
        blob.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        blob.extend(bytes);
    };
    let offset = blob.len() + 8;
    frame(&mut blob, &table);
    let mut footer = Vec::new();
    for number in [offset, table.len(), toc.len(), 1] {
        footer.extend(u64::try_from(number).unwrap().to_le_bytes());
    }
    footer.extend(b"GNUlInUx");
    frame(&mut blob, &footer);
    let position = format!("{offset}:{}:{}:1", table.len(), toc.len());
    let digest = Sha256Digest::of(&table).to_string();
    Made {
        diff_id: Sha256Digest::of(tar),
        annotations: vec![
            (
                "io.github.containers.zstd-chunked.manifest-position",
                position,
            ),
            (
                "io.github.containers.zstd-chunked.manifest-checksum",
                digest,
            ),
        ],
        packed: table.len(),
        blob,
    }
}

/// The tar without its end, each chunk of a file beginning a part of its own, and the entries of the table.
fn packed(tar: &[u8], chunk: usize, pack: fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<Value>) {
    let mut parser = TarParser::new(TarLimits::default());
    parser.push(tar).unwrap();
    let parsed = parser.finish().unwrap().entries;
    let (mut blob, mut entries) = (Vec::new(), Vec::new());
    // Where the part begins that is not in the blob yet.
    let mut open = 0;
    for entry in &parsed {
        let mut record = record(entry);
        if let EntryKind::Regular { size, data } = &entry.kind
            && *size > 0
        {
            let [extent] = data.as_slice() else {
                panic!("a writer of tables knows no holes");
            };
            let start = usize::try_from(extent.tar_offset).unwrap();
            let content = &tar[start..start + usize::try_from(*size).unwrap()];
            record["size"] = json!(size);
            record["digest"] = json!(Sha256Digest::of(content).to_string());
            for (number, piece) in content.chunks(chunk).enumerate() {
                blob.extend(pack(&tar[open..start + number * chunk]));
                open = start + number * chunk;
                let mut chunk_of = match number {
                    0 => record.clone(),
                    _ => json!({"type": "chunk", "name": record["name"]}),
                };
                chunk_of["offset"] = json!(blob.len());
                chunk_of["chunkDigest"] = json!(Sha256Digest::of(piece).to_string());
                if number > 0 {
                    chunk_of["chunkOffset"] = json!(number * chunk);
                }
                // The last one goes to the end of the file.
                if (number + 1) * chunk < content.len() {
                    chunk_of["chunkSize"] = json!(piece.len());
                }
                entries.push(chunk_of);
            }
        } else {
            entries.push(record);
        }
    }
    blob.extend(pack(&tar[open..tar.len() - TAR_END]));
    (blob, entries)
}

fn record(entry: &LayerEntry) -> Value {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let time = entry.modified;
    assert!(
        (0..60).contains(&time.seconds),
        "the first minute is enough"
    );
    let mut record = json!({
        "name": text(&entry.path),
        "mode": entry.permissions,
        "uid": entry.uid,
        "gid": entry.gid,
        "modtime": format!("1970-01-01T00:00:{:02}.{:09}Z", time.seconds, time.nanoseconds),
    });
    let kind = match &entry.kind {
        EntryKind::Regular { .. } => "reg",
        EntryKind::Directory => "dir",
        EntryKind::Symlink { target } => {
            record["linkName"] = json!(text(target));
            "symlink"
        }
        EntryKind::HardLink { target } => {
            record["linkName"] = json!(text(target));
            "hardlink"
        }
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
            record["devMajor"] = json!(device.major);
            record["devMinor"] = json!(device.minor);
            match entry.kind {
                EntryKind::CharDevice(_) => "char",
                _ => "block",
            }
        }
    };
    record["type"] = json!(kind);
    if !entry.xattrs.is_empty() {
        let xattrs = entry.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| (text(name), json!(STANDARD.encode(value))));
        record["xattrs"] = Value::Object(xattrs.collect::<Map<_, _>>());
    }
    record
}
