//! Images made for tests.

use std::path::Path;

use serde_json::{Value, json};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;
use tempfile::TempDir;

use crate::blob::Sha256Digest;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar of what was added.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a member: its headers as `describe` leaves them, then `content`.
    pub(crate) fn member(
        mut self,
        path: &str,
        content: &[u8],
        describe: impl FnOnce(&mut EntryBuilder),
    ) -> Self {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).size(content.len() as u64).unwrap();
        entry.mode(0o644).unwrap().uid(0).unwrap().gid(0).unwrap();
        entry.mtime(1).unwrap().entry_type(EntryType::Regular);
        describe(&mut entry);
        self.0.extend(entry.finish_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.member(path, content, |_| {})
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.member(path, b"", |entry| {
            entry.entry_type(EntryType::Symlink).link_name(target);
        })
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// An OCI layout in a temporary folder.
pub(crate) struct Layout {
    pub(crate) folder: TempDir,
    manifests: Vec<Value>,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let marker = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        std::fs::write(folder.path().join("oci-layout"), marker).unwrap();
        Self {
            folder,
            manifests: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a blob, and gives its descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Sha256Digest::of(bytes);
        std::fs::write(self.blob_path(digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub(crate) fn blob_path(&self, digest: Sha256Digest) -> std::path::PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// Writes an image for linux on this architecture, of layers that are tars, each compressed as `pack` says, and
    /// gives the descriptor of its manifest.
    pub(crate) fn image(
        &self,
        architecture: &str,
        tars: &[Vec<u8>],
        pack: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Value {
        let layers = tars
            .iter()
            .map(|tar| (Sha256Digest::of(tar), self.blob(LAYER, &pack(tar))));
        self.image_of(architecture, layers.collect())
    }

    /// As [`image`](Self::image), of layers that are there: their diff-ids and descriptors.
    pub(crate) fn image_of(&self, architecture: &str, layers: Vec<(Sha256Digest, Value)>) -> Value {
        let diff_ids = layers.iter().map(|(diff_id, _)| diff_id.to_string());
        let config = json!({
            "created": "2001-09-09T01:46:40.5Z", "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/bin/init"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
        });
        let config = self.json(CONFIG, &config);
        let layers: Vec<Value> = layers.into_iter().map(|(_, layer)| layer).collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut descriptor = self.json(MANIFEST, &manifest);
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    /// Gives a manifest, or an index, a name in the layout.
    pub(crate) fn name(&mut self, mut descriptor: Value, tag: Option<&str>) {
        if let Some(tag) = tag {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        }
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

/// The digest in a descriptor.
pub(crate) fn digest(descriptor: &Value) -> Sha256Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}
