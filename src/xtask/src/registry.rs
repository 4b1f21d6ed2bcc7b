//! A registry of images that others wrote, on loopback: what it was asked for is in its log.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::artifact::Cache;
use crate::packages::{self, SKOPEO};
use crate::process::{Background, run_ok, tail_of_file};
use crate::stores;

/// How long it may take to answer.
const READY: Duration = Duration::from_secs(30);
/// How long an image may take to be copied.
const COPY: Duration = Duration::from_secs(300);

/// A place for a registry's images, its address, and the way to start it.
#[derive(Debug)]
pub(crate) struct Registry {
    folder: PathBuf,
    address: SocketAddr,
    path: (String, String),
}

/// A registry that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningRegistry {
    child: Background,
    log: PathBuf,
}

/// What was fetched from a registry, without manifests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// How often a blob or a part of one was asked for.
    pub(crate) requests: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Registry {
    /// An empty registry in `folder`, which does not run yet.
    ///
    /// # Errors
    /// Its program cannot be fetched; the folder cannot be written to.
    pub(crate) fn new(folder: &Path, cache: &Cache) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = free.local_addr().context("find a free port")?;
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: json, accesslog: {{disabled: true}}}}\n\
            storage: {{filesystem: {{rootdirectory: {}/images}}}}\nhttp: {{addr: {address}}}\n",
            folder.display()
        );
        fs::write(folder.join("config.yml"), config).context("configure a registry")?;
        Ok(Self {
            folder: folder.to_owned(),
            address,
            path: stores::path_with_registry(cache)?,
        })
    }

    /// Where it answers when it runs.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it with an empty log, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn start(&self) -> Result<RunningRegistry> {
        let log = self.folder.join("log");
        let file = File::create(&log).context("make the registry's log")?;
        let mut command = Command::new("env");
        let (name, value) = &self.path;
        command.arg(format!("{name}={value}"));
        command.args(["docker-registry", "serve"]);
        command.arg(self.folder.join("config.yml"));
        let mut child = Background::start(&command, &file)?;
        let deadline = Instant::now() + READY;
        while TcpStream::connect(self.address).is_err() {
            if child.exited()?.is_some() || Instant::now() > deadline {
                bail!("the registry does not start\n{}", tail_of_file(&log, 10));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(RunningRegistry { child, log })
    }

    /// Copies an image of a layout, as `layout:tag`, into the registry, which runs. Its name there, as vfsd is given it.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(crate) fn push(&self, layout: &str) -> Result<String> {
        let name = Repository::AsItIs.at(self.address);
        let home = self.folder.join("home");
        self.copy(&home, &[], &format!("oci:{layout}"), &name)?;
        Ok(name)
    }

    /// The same with layers in zstd:chunked, which have tables of contents. `scratch` is a folder that is not there.
    ///
    /// # Errors
    /// It cannot be copied.
    pub(crate) fn push_chunked(&self, layout: &str, scratch: &Path) -> Result<String> {
        let name = Repository::Chunked.at(self.address);
        // Layers that are compressed already would be copied as they are, and so would those be of which skopeo remembers
        // that the registry has them in another form.
        let plain = format!("dir:{}", scratch.display());
        let home = self.folder.join("home-chunked");
        let chunked = ["--dest-compress-format=zstd:chunked"];
        self.copy(
            &home,
            &["--dest-decompress"],
            &format!("oci:{layout}"),
            &plain,
        )?;
        self.copy(&home, &chunked, &plain, &name)?;
        fs::remove_dir_all(scratch).context("remove the decompressed image")?;
        Ok(name)
    }

    /// `home`: where skopeo keeps what it remembers.
    fn copy(&self, home: &Path, options: &[&str], from: &str, to: &str) -> Result<()> {
        packages::install(&[SKOPEO])?;
        fs::create_dir_all(home).context("make a home for skopeo")?;
        let mut copy = Command::new(SKOPEO.provides);
        copy.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]);
        copy.args(options).args([from, to]);
        // Neither credentials nor what it remembers of registries are those of this user. What root's remembers would be in
        // /var/lib whatever its home is (`getRootlessUID` of containers/image).
        copy.env("HOME", home);
        copy.env("_CONTAINERS_ROOTLESS_UID", "1");
        copy.env_remove("XDG_DATA_HOME");
        run_ok(&copy, COPY, &mut |_| {}).context("copy an image to a registry")?;
        Ok(())
    }
}

/// Has vfsd push the indexes of an image to its registry, which runs, and gives the digest by which they are asked for.
/// What vfsd does not know of the image in its `cache` it fetches.
///
/// # Errors
/// They cannot be pushed.
pub(crate) fn push_index(vfsd: &Path, image: &str, cache: &Path) -> Result<String> {
    let mut push = Command::new(vfsd);
    push.args(["image", "push-index", image, "--cache-dir"]);
    push.arg(cache);
    let output = run_ok(&push, COPY, &mut |_| {}).context("push the indexes of an image")?;
    let digest = output.lines().find_map(|line| {
        let word = line.split(' ').next()?;
        word.starts_with("sha256:").then(|| word.to_owned())
    });
    digest.with_context(|| format!("it does not say what it has pushed: {output}"))
}

/// What images are called in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repository {
    /// As it was in its layout.
    AsItIs,
    /// With tables of contents.
    Chunked,
}

impl Repository {
    /// The name of the image in a registry that answers at an address, as vfsd is given it.
    pub(crate) fn at(self, address: SocketAddr) -> String {
        let name = match self {
            Self::AsItIs => "root",
            Self::Chunked => "chunked",
        };
        format!("docker://{address}/vfsd/{name}:1")
    }
}

impl RunningRegistry {
    /// Stops it, and says what it was asked for since it was started.
    ///
    /// # Errors
    /// It had to be killed; its log is not what was expected.
    pub(crate) fn stop(mut self) -> Result<Served> {
        self.child.terminate().context("stop the registry")?;
        let log = fs::read_to_string(&self.log).context("read the registry's log")?;
        Ok(served(&log))
    }
}

/// What a log says.
fn served(log: &str) -> Served {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.fold(Served::default(), |served, line| {
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_of_blob = text("http.request.method") == "GET"
            && text("http.request.uri").contains("/blobs/sha256:");
        match line.get("http.response.written").and_then(Value::as_u64) {
            Some(bytes) if is_of_blob => Served {
                requests: served.requests + 1,
                bytes: served.bytes + bytes,
            },
            _ => served,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_what_was_fetched_of_blobs() {
        let line = |method: &str, uri: &str, written: &str| {
            format!(
                r#"{{"http.request.method":"{method}","http.request.uri":"{uri}"{written},"msg":"x"}}"#
            )
        };
        let written = r#","http.response.written":10"#;
        let log = [
            line("GET", "/v2/a/blobs/sha256:0a", written),
            line("GET", "/v2/a/blobs/sha256:0b", written),
            line("GET", "/v2/a/blobs/sha256:0b", ""),
            line("HEAD", "/v2/a/blobs/sha256:0a", written),
            line("GET", "/v2/a/manifests/1", written),
            "no JSON".to_owned(),
        ];
        let (requests, bytes) = (2, 20);
        assert_eq!(served(&log.join("\n")), Served { requests, bytes });
    }
}
