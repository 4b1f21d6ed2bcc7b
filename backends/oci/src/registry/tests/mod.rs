//! Images of a registry that answers as it should, and of one that does not.

mod auth;
mod borrowed;
mod contents;
mod counted;
mod faults;
mod mirrors;
mod pull;
mod pushes;
mod ranges;
mod referrers;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::blob::Sha256Digest;
use crate::blob::tests::gzip;
use crate::image::{Image, ImageError, ImageName};
use crate::testing::{Layout, Tar, digest};
use crate::{Counters, OciImage, OpenError, Options};

use super::{AuthFiles, Limits, Settings};
use server::{Fault, Seen, Server, Wants, noise};

/// A registry with one image of two layers: `a/b:t`.
pub(crate) struct Scene {
    pub(crate) server: Server,
    manifest: Sha256Digest,
    /// Digests of the layers.
    layers: Vec<Sha256Digest>,
    /// The larger layer as the registry has it.
    blob: Vec<u8>,
    layout: Layout,
    cache: TempDir,
    auth: PathBuf,
    /// How long nothing may arrive.
    idle: Duration,
    counters: Arc<Counters>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::wanting(Wants::Nothing)
    }

    /// One whose larger layer has several spans.
    pub(crate) fn in_spans() -> Self {
        // What counts requests has none made again on a busy machine.
        Self {
            idle: Duration::from_secs(60),
            ..Self::packed(Wants::Nothing, 6)
        }
    }

    fn wanting(wants: Wants) -> Self {
        // A single block.
        Self::packed(wants, 1)
    }

    fn packed(wants: Wants, level: u32) -> Self {
        let layout = Layout::new();
        let tars = [
            Tar::default().file("large", &noise(3 << 20, 1)).finish(),
            Tar::default().file("small", b"top").finish(),
        ];
        let manifest = layout.image("amd64", &tars, |tar| gzip(tar, level));
        let manifest = digest(&manifest);
        let bytes = std::fs::read(layout.blob_path(manifest)).unwrap();
        let parsed: Value = serde_json::from_slice(&bytes).unwrap();
        let layers = parsed["layers"].as_array().unwrap().iter().map(digest);
        let layers: Vec<Sha256Digest> = layers.collect();
        let server = Server::new(&layout, &[("t", manifest)], wants);
        let cache = tempfile::tempdir().unwrap();
        let auth = cache.path().join("auth.json");
        std::fs::write(&auth, "{}").unwrap();
        Self {
            server,
            manifest,
            blob: std::fs::read(layout.blob_path(layers[0])).unwrap(),
            layers,
            layout,
            auth,
            cache,
            idle: Duration::from_millis(500),
            counters: Arc::default(),
        }
    }

    /// Has `user` and this password among the credentials.
    fn login(&self, password: &str) {
        let entry = serde_json::json!({"username": "user", "password": password});
        let file = serde_json::json!({"auths": {self.server.address().to_string(): entry}});
        std::fs::write(&self.auth, file.to_string()).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            auth: AuthFiles::only(self.auth.clone()),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            offline: false,
            counters: Arc::clone(&self.counters),
            limits: Limits {
                connect: Duration::from_secs(5),
                idle: self.idle,
                attempts: 4,
                pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(5),
            },
        }
    }

    fn name(&self, version: &str) -> ImageName {
        let name = format!("docker://{}/a/b{version}", self.server.address());
        ImageName::Registry(name.parse().unwrap())
    }

    fn cache(&self) -> PathBuf {
        self.cache.path().join("vfsd")
    }

    fn find(&self, version: &str) -> Result<Image, ImageError> {
        let amd64 = "linux/amd64".parse().unwrap();
        let (cache, settings) = (self.cache(), self.settings());
        Image::open(&self.name(version), Some(&amd64), &cache, &settings)
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.name(":t"), self.cache());
        options.platform = Some("linux/amd64".parse().unwrap());
        options.registries = self.settings();
        options
    }

    pub(crate) fn open(&self) -> Result<OciImage, OpenError> {
        OciImage::open(&self.options())
    }

    fn kept(&self, digest: Sha256Digest) -> PathBuf {
        self.cache().join("blobs/sha256").join(digest.hex())
    }

    fn part(&self, digest: Sha256Digest) -> PathBuf {
        self.kept(digest).with_extension("part")
    }

    /// Requests for blobs, of those that came since this was asked last.
    pub(crate) fn blobs(&self) -> Vec<Seen> {
        let mut seen = self.server.seen();
        seen.retain(|seen| seen.target.contains("/blobs/") || seen.target.contains("/elsewhere/"));
        seen
    }

    /// Removes the layers from the cache, not what is known of them.
    pub(crate) fn drop_layers(&self) {
        for &layer in &self.layers {
            std::fs::remove_file(self.kept(layer)).unwrap();
        }
    }

    /// Removes what the layers decode to.
    pub(crate) fn drop_contents(&self) {
        for entry in std::fs::read_dir(self.cache().join("layers")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "content") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    #[track_caller]
    fn assert_all_is_there(&self) {
        for &layer in &self.layers {
            let (kept, there) = (self.kept(layer), self.layout.blob_path(layer));
            assert!(same(&kept, &there), "layer {layer}");
            assert!(!self.part(layer).exists());
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).ok() == std::fs::read(other).ok()
}
