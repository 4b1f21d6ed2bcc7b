//! The index of a layer, from whoever may have made it.

use std::sync::Arc;

use vfsd_backend::Timestamp;
use vfsd_oci::EntryKind;
use vfsd_oci::blob::{BlobOptions, Sha256Digest};
use vfsd_oci::content::{HostBoot, LayerContent};
use vfsd_oci::index::{IndexOptions, LayerIndex, build_index};
use vfsd_oci::tree::TreeBuilder;

use crate::contents::{frame, member};
use crate::tar;

/// Bytes of the checksum behind an index.
const FOOTER: usize = 32;

/// A layer that indexes are of, or say that they are: several gzip members.
fn layer() -> Vec<u8> {
    let tar = tar::seeds().concat();
    tar.chunks(1000).flat_map(member).collect()
}

/// Reads an index, whose checksum is right, as that of any may be; then all that it leads to.
pub(crate) fn run(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.extend(Sha256Digest::of(data).0);
    let Ok(index) = LayerIndex::from_bytes(&bytes) else {
        return;
    };
    assert_eq!(index.to_bytes(), bytes);
    let mut builder = TreeBuilder::new(Timestamp::default());
    builder.begin_layer();
    let entries = (0..).zip(&index.entries);
    let refused = entries
        .map(|(number, entry)| builder.entry(number, entry.clone()))
        .find_map(Result::err);
    if refused.is_none() {
        drop(builder.finish());
    }
    let folder = tempfile::tempdir().unwrap();
    let boot = HostBoot::current();
    let content = LayerContent::open(folder.path(), &index, Arc::new(layer()), boot);
    let Ok(content) = content else {
        return;
    };
    for (number, entry) in index.entries.iter().enumerate().take(16) {
        let EntryKind::Regular { size, .. } = entry.kind else {
            continue;
        };
        let range = 0..size.min(1 << 16);
        // What is there is what the index has the sum of.
        if content.fill(number, range.clone()).is_ok() {
            assert!(content.is_resident(number, range.clone()));
        }
        let mut end = range.start;
        for piece in content.locate(number, range.clone()) {
            assert_eq!(piece.file_offset, end);
            end += piece.length;
        }
        assert_eq!(end, range.end);
    }
}

/// Indexes of layers in each compression, and one that was borrowed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let tar = tar::seeds().concat();
    let options = IndexOptions {
        blob: BlobOptions {
            span: 1024,
            ..BlobOptions::default()
        },
        ..IndexOptions::default()
    };
    let mut seeds = Vec::new();
    for blob in [layer(), frame(&tar), tar] {
        let index = build_index(blob.as_slice(), &options, |_| {}).unwrap();
        let borrowed = LayerIndex {
            borrowed: Some(Sha256Digest::of(b"")),
            ..index.clone()
        };
        for index in [index, borrowed] {
            let mut bytes = index.to_bytes();
            bytes.truncate(bytes.len() - FOOTER);
            seeds.push(bytes);
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_an_index_and_that_of_the_layer_leads_to_its_files() {
        for seed in seeds() {
            let mut bytes = seed.clone();
            bytes.extend(Sha256Digest::of(&seed).0);
            LayerIndex::from_bytes(&bytes).unwrap();
        }
        let mut bytes = seeds().swap_remove(0);
        bytes.extend(Sha256Digest::of(&bytes).0);
        let index = LayerIndex::from_bytes(&bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let boot = HostBoot::current();
        let content = LayerContent::open(folder.path(), &index, Arc::new(layer()), boot).unwrap();
        content.fill(0, 0..7).unwrap();
    }
}
