//! Images that skopeo pushed to Debian's docker-registry, on loopback.
//!
//! Ignored, with what to install, where one of the programs is missing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by it"
)]

mod indexes;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;
use vfsd_backend::{Backend as _, OpenFlags};
use vfsd_oci::image::ImageName;
use vfsd_oci::registry::AuthFiles;
use vfsd_oci::{OciImage, OpenError, Options};
use vfsd_testkit::place::Place;
use vfsd_testkit::servers::program;

/// Names an image, for a process that is to open it and to say how far it is.
const IMAGE: &str = "VFSD_TEST_OPENS_IMAGE";

/// htpasswd's line for `user` and `secret`.
const PASSWORD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

fn main() -> ExitCode {
    if let Ok(words) = std::env::var(IMAGE) {
        return open_and_say(&words);
    }
    let missing: Vec<&str> = ["docker-registry", "skopeo", "umoci"]
        .into_iter()
        .filter(|name| program("", name).is_none())
        .collect();
    let test = |name: &str, run: fn()| {
        let name = match missing.as_slice() {
            [] => name.to_owned(),
            missing => format!("{name} (install {})", missing.join(", ")),
        };
        Trial::test(name, move || {
            run();
            Ok(())
        })
        .with_ignored_flag(!missing.is_empty())
    };
    let trials = vec![
        test("an image in gzip is what was pushed", || {
            is_what_was_pushed("gzip")
        }),
        test("an image in zstd is what was pushed", || {
            is_what_was_pushed("zstd")
        }),
        test(
            "an image in zstd:chunked is opened by its tables, and is what was pushed",
            || {
                is_the_same_by_its_tables();
            },
        ),
        test(
            "a registry with passwords is asked with those of a credential program",
            a_program_is_asked,
        ),
        test(
            "a download that was killed goes on, and the image is what was pushed",
            a_killed_download_goes_on,
        ),
        test(
            "the indexes of an image are pushed beside it, and a tag lists them",
            indexes::are_pushed_and_listed,
        ),
        test(
            "the indexes of an image let another host begin at once, and are compared with the layers",
            indexes::let_another_host_begin_at_once,
        ),
        test(
            "the indexes of an image are not used when their bytes were changed",
            indexes::are_not_used_when_their_bytes_were_changed,
        ),
    ];
    let unable = missing_for_https();
    let name = "a registry is asked by https, and trusted by the roots of SSL_CERT_FILE";
    let trial = Trial::test(
        match unable {
            Some(reason) => format!("{name} ({reason})"),
            None => name.to_owned(),
        },
        || {
            https_is_trusted_by_its_roots();
            Ok(())
        },
    );
    let is_ignored = unable.is_some() || !missing.is_empty();
    let trials = trials
        .into_iter()
        .chain([trial.with_ignored_flag(is_ignored)]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A line for each mebibyte that arrived, and one with the image's digest. Stands still after so many lines, for
/// whoever kills it.
fn open_and_say(words: &str) -> ExitCode {
    let words: Vec<&str> = words.split(' ').collect();
    let (name, folder, lines) = (words[0], words[1], words[2].parse().unwrap());
    let said = AtomicUsize::new(0);
    let mut options = options(name, Path::new(folder));
    options.progress = Box::new(move |progress| {
        println!("{}", progress.read);
        while said.fetch_add(1, Ordering::SeqCst) + 1 >= lines {
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    match OciImage::open(&options) {
        Ok(image) => println!("opened {}", image.digest()),
        Err(error) => println!("refused {error}"),
    }
    ExitCode::SUCCESS
}

fn options(name: &str, folder: &Path) -> Options {
    let name = ImageName::Registry(name.parse().unwrap());
    let mut options = Options::new(name, folder.join("cache"));
    options.registries.limits.attempts = 3;
    options.registries.auth = AuthFiles::only(folder.join("auth.json"));
    options
}

/// A registry with `a/b:t`: a file of 8 MiB in one layer, and another with the same name and `top` above it.
struct Registry {
    child: Child,
    address: SocketAddr,
    host: String,
    folder: TempDir,
}

impl Registry {
    fn new(format: &str, auth: bool) -> Self {
        Self::start(format, auth, None)
    }

    /// One that is asked by https, and has a certificate for this name, which is one of loopback.
    fn with_certificate(name: &str) -> Self {
        Self::start("gzip", false, Some(name))
    }

    fn start(format: &str, auth: bool, name: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("auth.json"), "{}").unwrap();
        fs::write(path.join("htpasswd"), PASSWORD).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {path}/reg}}}}\nhttp: {{addr: {address}}}\n",
            path = path.display()
        );
        if let Some(name) = name {
            let subject = format!("/CN={name}");
            let extensions = format!(
                "[req]\ndistinguished_name=name\nx509_extensions=more\n[name]\n\
                [more]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{name}\n"
            );
            fs::write(path.join("openssl.cnf"), extensions).unwrap();
            let request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -config openssl.cnf \
                -keyout key.pem -out cert.pem -subj";
            let mut words: Vec<&str> = request.split_whitespace().collect();
            words.push(&subject);
            run(path, &words);
            let path = path.display();
            config.truncate(config.len() - 2);
            config += &format!(", tls: {{certificate: {path}/cert.pem, key: {path}/key.pem}}}}\n");
        }
        if auth {
            let file = path.join("htpasswd");
            config += &format!(
                "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
                file.display()
            );
        }
        fs::write(path.join("config.yml"), config).unwrap();
        let child = Command::new("timeout")
            .args(["--kill-after=5", "300", "docker-registry", "serve"])
            .arg(path.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            address,
            host: name.unwrap_or("127.0.0.1").to_owned(),
            folder,
        };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        registry.push(format, auth);
        registry
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn push(&self, format: &str, auth: bool) {
        let path = self.path();
        for (name, content) in [("base", noise()), ("top", b"top".to_vec())] {
            let from = path.join(name);
            fs::create_dir(&from).unwrap();
            fs::write(from.join("file"), &content).unwrap();
            fs::write(from.join(format!("only-{name}")), &content).unwrap();
            let tar = format!("{name}.tar");
            // No more zeros at the end than there must be: skopeo leaves the rest out of zstd:chunked.
            run(path, &["tar", "-b1", "-C", name, "-cf", &tar, "."]);
        }
        run(path, &["umoci", "init", "--layout", "img"]);
        run(path, &["umoci", "new", "--image", "img:t"]);
        for tar in ["base.tar", "top.tar"] {
            run(
                path,
                &["umoci", "raw", "add-layer", "--image", "img:t", tar],
            );
        }
        let skopeo = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
        ];
        run(
            path,
            &[
                &skopeo[..],
                &["--dest-decompress", "oci:img:t", "dir:plain"],
            ]
            .concat(),
        );
        let to = format!("docker://{}", self.image());
        let mut push = [&skopeo[..], &["--dest-compress-format", format]].concat();
        if auth {
            push.extend(["--dest-creds", "user:secret"]);
        }
        push.extend(["dir:plain", &to]);
        run(path, &push);
    }

    fn image(&self) -> String {
        format!("{}:{}/a/b:t", self.host, self.address.port())
    }

    fn options(&self) -> Options {
        options(&self.image(), self.path())
    }

    /// A process that opens the image, and finds programs in the registry's folder. It stands still after so many
    /// lines.
    fn child(&self, lines: usize) -> Child {
        self.command(lines).spawn().unwrap()
    }

    fn command(&self, lines: usize) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(
                IMAGE,
                format!("{} {} {lines}", self.image(), self.path().display()),
            )
            .env("PATH", format!("{}:{path}", self.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    #[track_caller]
    fn assert_is_what_was_pushed(&self) {
        let image = OciImage::open(&self.options()).unwrap();
        let root = Place(image.root());
        for (name, expected) in [
            ("file", b"top".to_vec()),
            ("only-top", b"top".to_vec()),
            ("only-base", noise()),
        ] {
            let file = root.lookup(name).unwrap();
            let read = read_all(&file, expected.len());
            assert!(read == expected, "{name}: {} bytes", read.len());
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // `timeout` passes it on.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn run(folder: &Path, words: &[&str]) {
    let mut command = Command::new("timeout");
    command
        .arg("120")
        .args(words)
        .current_dir(folder)
        .env("HOME", folder);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
}

/// 8 MiB that no compression makes fewer.
fn noise() -> Vec<u8> {
    let mut state: u64 = 7;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    });
    words.take(8 << 20).collect()
}

fn is_what_was_pushed(format: &str) {
    let registry = Registry::new(format, false);
    registry.assert_is_what_was_pushed();
    let missing: OpenError = {
        let mut options = registry.options();
        let name = format!("{}/a/b:none", registry.address);
        options.name = ImageName::Registry(name.parse().unwrap());
        OciImage::open(&options).unwrap_err()
    };
    assert!(missing.to_string().contains("is not there"), "{missing}");
}

/// What skopeo's tables say is what the layers have when they are read as a whole.
fn is_the_same_by_its_tables() {
    let registry = Registry::new("zstd:chunked", false);
    registry.assert_is_what_was_pushed();
    let opened = |by_contents, cache: &str| {
        let mut options = registry.options();
        options.by_contents = by_contents;
        options.cache = registry.path().join(cache);
        OciImage::open(&options).unwrap()
    };
    let (by_tables, whole) = (opened(true, "tables"), opened(false, "whole"));
    let count = |image: &OciImage| {
        let contents = image.contents();
        let tables = contents.filter(|it| it.blob().contents.is_some());
        tables.count()
    };
    assert_eq!((count(&by_tables), count(&whole)), (2, 0));
    let (a, b) = (by_tables.tree(), whole.tree());
    assert_eq!(a.nodes().count(), b.nodes().count());
    for node in a.nodes() {
        assert_eq!(a.attributes(node), b.attributes(node));
        let children = |tree: &vfsd_oci::tree::Tree| {
            let children = tree.children(node, 0);
            let children = children.map(|(name, node)| (name.to_vec(), node));
            children.collect::<Vec<_>>()
        };
        assert_eq!(children(a), children(b));
    }
    // The layer was not fetched for it.
    let folder = registry.path().join("tables/blobs/sha256");
    let files = fs::read_dir(folder).unwrap();
    let largest = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .max();
    assert!(largest < Some(1 << 20), "{largest:?}");
}

fn a_program_is_asked() {
    let registry = Registry::new("gzip", true);
    let refused = OciImage::open(&registry.options()).unwrap_err();
    assert!(
        refused.to_string().contains("asks for credentials"),
        "{refused}"
    );
    let helper: PathBuf = registry.path().join("docker-credential-ours");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {} ] || exit 1\necho '{}'\n",
        registry.address, r#"{"ServerURL":"x","Username":"user","Secret":"secret"}"#
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let file = format!(r#"{{"credHelpers":{{"{}":"ours"}}}}"#, registry.address);
    fs::write(registry.path().join("auth.json"), file).unwrap();
    let output = registry.child(usize::MAX).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.lines().any(|line| line.starts_with("opened sha256:")),
        "{said}"
    );
}

/// This machine's name, if that is one of loopback, where https is asked for by a name that is no address.
fn loopback_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_owned();
    let addresses: Vec<SocketAddr> = (name.as_str(), 1).to_socket_addrs().ok()?.collect();
    let is_loopback = addresses.iter().all(|it| it.ip().is_loopback());
    (is_loopback && !addresses.is_empty() && name != "localhost").then_some(name)
}

fn missing_for_https() -> Option<&'static str> {
    match (program("", "openssl"), loopback_name()) {
        (None, _) => Some("install openssl"),
        (_, None) => Some("needs the host's name to be one of loopback in /etc/hosts"),
        _ => None,
    }
}

fn https_is_trusted_by_its_roots() {
    let name = loopback_name().unwrap();
    let registry = Registry::with_certificate(&name);
    let said = |roots: &str| {
        let mut child = registry.command(usize::MAX);
        let child = child.env("SSL_CERT_FILE", registry.path().join(roots));
        let output = child.stderr(Stdio::inherit()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    fs::write(registry.path().join("none.pem"), "").unwrap();
    let refused = said("none.pem");
    assert!(refused.contains("certificate"), "{refused}");
    let opened = said("cert.pem");
    assert!(opened.contains("opened sha256:"), "{opened}");
}

fn a_killed_download_goes_on() {
    let registry = Registry::new("gzip", false);
    for lines in [2, 5] {
        let mut child = registry.child(lines);
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: Vec<String> = said.map_while(Result::ok).take(lines).collect();
        assert_eq!(said.len(), lines, "it got so far");
        child.kill().unwrap();
        child.wait().unwrap();
        let blobs = fs::read_dir(registry.path().join("cache/blobs/sha256")).unwrap();
        let names = blobs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(
            names.into_iter().any(|name| name.ends_with(".part")),
            "something is left"
        );
    }
    registry.assert_is_what_was_pushed();
}

fn read_all(file: &Place, length: usize) -> Vec<u8> {
    let handle = file.open(OpenFlags::READ).unwrap();
    let mut all = Vec::new();
    while all.len() < length {
        let offset = u64::try_from(all.len()).unwrap();
        let piece = handle.read(offset, 1 << 20).unwrap();
        if piece.is_empty() {
            break;
        }
        all.extend(piece);
    }
    all
}
