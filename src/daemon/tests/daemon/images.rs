//! `vfsd image`, and what it leaves to a daemon that serves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use vfsd_oci::blob::Sha256Digest;

use crate::process::{Daemon, Place, outcome, text, vfsd, wait_until};

/// A tar with a file.
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |offset: usize, text: &str| {
        header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\x000000000\0");
    put(
        124,
        &format!("{:011o}\x0000000000000\0        0", content.len()),
    );
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(content.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// Writes an OCI layout with an image `t` whose one layer has a file.
pub(crate) fn layout(folder: &Path, content: &str) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |kind: &str, bytes: &[u8]| -> Value {
        let digest = Sha256Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let layer = blob("layer.v1.tar", &tar("file", content));
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Entrypoint": ["/bin/sh"], "User": "7", "WorkingDir": "/w", "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "t"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    std::fs::write(folder.join("index.json"), index).unwrap();
    let marker = json!({"imageLayoutVersion": "1.0.0"}).to_string();
    std::fs::write(folder.join("oci-layout"), marker).unwrap();
}

/// An image, its name, and a cache.
struct Kept {
    place: Place,
    image: String,
    cache: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let place = Place::new();
        let folder = place.path("layout");
        layout(&folder, "content");
        Self {
            image: format!("oci:{}:t", folder.display()),
            cache: place.path("cache"),
            place,
        }
    }

    fn image(&self, words: &[&str]) -> (i32, String, String) {
        let words = [&["image"], words, &["--cache-dir", text(&self.cache)]];
        outcome(&mut vfsd(words.concat()))
    }

    fn done(&self, words: &[&str]) -> String {
        let (code, output, errors) = self.image(words);
        assert_eq!(code, 0, "{words:?}: {errors}");
        output
    }

    fn list(&self) -> Value {
        serde_json::from_str(&self.done(&["list", "--json"])).unwrap()
    }
}

#[test]
fn images_are_listed_verified_and_removed() {
    let kept = Kept::new();
    assert_eq!(kept.list(), json!([]));
    kept.done(&["pull", &kept.image]);
    let list = kept.list();
    assert_eq!(list[0]["names"], json!([kept.image]));
    assert_eq!(list[0]["platform"], "linux/amd64");
    assert_eq!(list[0]["in_use"], false);
    let digest = list[0]["digest"].as_str().unwrap();
    let table = kept.done(&["list"]);
    assert!(table.contains(&digest[7..19]), "{table}");

    let verified = kept.done(&["verify"]);
    assert!(verified.contains("2 indexes and trees"), "{verified}");
    let tree = kept.cache.join(format!("trees/{}.tree", &digest[7..]));
    std::fs::write(&tree, "damage").unwrap();
    let (code, _, errors) = kept.image(&["verify", &digest[7..15]]);
    assert_eq!(code, 1);
    assert!(errors.contains("1 damaged piece"), "{errors}");
    assert!(!tree.exists());
    kept.done(&["verify", &kept.image]);

    assert!(kept.done(&["prune"]).starts_with("0 B"));
    let dry = kept.done(&["prune", "--all", "--dry-run"]);
    assert!(dry.contains(&kept.image), "{dry}");
    assert_eq!(kept.list()[0]["names"], list[0]["names"]);
    kept.done(&["prune", "--all"]);
    assert_eq!(kept.list(), json!([]));
}

#[test]
fn what_a_daemon_serves_is_not_removed_while_it_does() {
    let kept = Kept::new();
    let socket = kept.place.socket();
    let words = [
        "serve",
        "--socket-path",
        text(&socket),
        "--cache-dir",
        text(&kept.cache),
        &kept.image,
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    wait_until("the image to be in use", || {
        kept.list()[0]["in_use"] == true
    });
    kept.done(&["prune", "--all"]);
    let list = kept.list();
    assert_eq!(list[0]["names"], json!([kept.image]));
    let verified = kept.done(&["verify"]);
    assert!(verified.contains("2 indexes and trees"), "{verified}");
    daemon.stop(Signal::TERM);
    kept.done(&["prune", "--all"]);
    assert_eq!(kept.list(), json!([]));
}

#[test]
fn what_a_daemon_has_written_counts_as_long_as_the_host_runs() {
    let kept = Kept::new();
    let socket = kept.place.socket();
    let words = ["serve", "--socket-path", text(&socket), "--cache-dir"];
    let words = [&words[..], &[text(&kept.cache), &kept.image]].concat();
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    let content = || {
        let layers = std::fs::read_dir(kept.cache.join("layers")).ok()?;
        let mut layers = layers.map(|entry| entry.unwrap().path());
        layers.find(|path| path.extension().is_some_and(|it| it == "content"))
    };
    wait_until("a cache of the layer", || content().is_some());
    let content = std::fs::read(content().unwrap()).unwrap();
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap();
    // In the sandbox it cannot be read, and yet the cache is of this boot.
    assert!(
        content[..4096]
            .windows(36)
            .any(|bytes| bytes == &boot[..36])
    );
    daemon.stop(Signal::TERM);
}

#[test]
fn what_runs_in_an_image_is_told_alone() {
    let kept = Kept::new();
    let told = kept.done(&["inspect", "--config", &kept.image]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told,
        json!({
            "entrypoint": ["/bin/sh"], "cmd": [], "env": ["A=b"], "user": "7", "working_dir": "/w",
            "labels": {}, "stop_signal": told["stop_signal"],
        })
    );
}

#[test]
fn what_is_no_image_of_the_cache_is_said_in_a_line() {
    let kept = Kept::new();
    let (code, _, errors) = kept.image(&["verify", "nothing"]);
    assert_eq!(code, 1);
    assert_eq!(
        errors,
        "vfsd: no image nothing is in the cache: see vfsd image list\n"
    );
    let file = kept.place.path("file");
    std::fs::write(&file, "").unwrap();
    for verb in ["list", "verify", "prune"] {
        let (code, _, errors) = outcome(&mut vfsd(["image", verb, "--cache-dir", text(&file)]));
        assert_eq!(code, 1, "{verb}");
        assert!(
            errors.lines().count() == 1 && errors.contains("--cache-dir"),
            "{errors}"
        );
    }
}

#[test]
fn a_cache_of_images_is_kept_within_its_size() {
    let kept = Kept::new();
    let large = kept.place.path("large");
    layout(&large, &"x".repeat(1000));
    let other = format!("oci:{}:t", large.display());
    // What is a leftover of others counts, and goes first.
    let blobs = kept.cache.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let leftover = blobs.join(".tmpold");
    std::fs::write(&leftover, vec![1; 17 << 20]).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&leftover)
        .unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    file.set_modified(old).unwrap();
    kept.done(&["pull", &kept.image]);
    assert!(leftover.exists());
    kept.done(&["pull", "--cache-size", "16M", &other]);
    assert!(!leftover.exists());
    assert_eq!(kept.list().as_array().unwrap().len(), 2);
}

#[test]
fn offline_an_image_that_is_not_in_the_cache_is_said_at_once() {
    let kept = Kept::new();
    let socket = kept.place.socket();
    // Nobody listens there: whoever asked would say that.
    let image = "docker://127.0.0.1:1/a/b:t";
    let words = [
        "serve",
        "--offline",
        "--socket-path",
        text(&socket),
        "--cache-dir",
        text(&kept.cache),
        image,
    ];
    let (code, _, errors) = outcome(&mut vfsd(words));
    assert_eq!(code, 1);
    let told = "vfsd: 127.0.0.1:1/a/b:t is not in the cache, and is not asked for (--offline)\n";
    assert!(errors.ends_with(told), "{errors}");
    assert!(!socket.exists());
}

/// Base64 of `user:secret`.
pub(crate) const LOGIN: &str = "dXNlcjpzZWNyZXQ=";

/// A registry on loopback that has the image of a layout as `a/b:t`, for `user` alone. It ends with the test's process.
pub(crate) fn private_registry(layout: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let layout = layout.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let target = head[0].split(' ').nth(1).unwrap();
            let login = format!("authorization: basic {}", LOGIN.to_lowercase());
            let is_user = head.iter().any(|line| line.to_lowercase() == login);
            let word = target.rsplit('/').next().unwrap();
            let digits = match word.strip_prefix("sha256:") {
                Some(digits) => digits.to_owned(),
                None => {
                    let index = std::fs::read(layout.join("index.json")).unwrap();
                    let index: Value = serde_json::from_slice(&index).unwrap();
                    index["manifests"][0]["digest"].as_str().unwrap()[7..].to_owned()
                }
            };
            let (status, body) = match is_user {
                true => {
                    let blob = layout.join("blobs/sha256").join(digits);
                    ("200 OK", std::fs::read(blob).unwrap())
                }
                false => (
                    "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"",
                    Vec::new(),
                ),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // A client that has gone is no failure of the test.
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

#[test]
fn an_image_that_needs_credentials_is_served_without_being_pulled_before() {
    let kept = Kept::new();
    let address = private_registry(&kept.place.path("layout"));
    let auth = kept.place.path("auth.json");
    let logins = json!({"auths": {&address: {"auth": LOGIN}}});
    std::fs::write(&auth, logins.to_string()).unwrap();
    let (socket, image) = (kept.place.socket(), format!("docker://{address}/a/b:t"));
    let words = [
        "serve",
        "--socket-path",
        text(&socket),
        "--cache-dir",
        text(&kept.cache),
        "--registry-auth-file",
        text(&auth),
        &image,
    ];
    let mut daemon = Daemon::listening(&mut vfsd(words), &socket);
    daemon.wait_for_threads();
    assert_eq!(kept.list()[0]["names"], json!([image]));
    // The layer is fetched in the sandbox, after the manifest and the configuration.
    let blobs = |folder: &Path| -> std::collections::BTreeSet<_> {
        let entries = std::fs::read_dir(folder.join("blobs/sha256")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let there = blobs(&kept.place.path("layout"));
    assert_eq!(there.len(), 3);
    wait_until("all of the image", || blobs(&kept.cache) == there);
    daemon.stop(Signal::TERM);
}
