//! What can be served: how each kind of storage is named, what it needs of the host, and how it is
//! opened. A kind has a file of its own here and a line in [`KINDS`].

mod bucket;
mod cache;
mod dir;
mod folder;
mod image;
mod image_figures;
mod image_upkeep;
mod layers;
mod memory;
mod plugin;
mod store;
mod upper;
mod volume;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use vfsd_backend::{Backend, Capabilities};

pub(crate) use cache::CacheSettings;
pub(crate) use dir::Dir;
pub(crate) use image::{ImageSettings, ImageSource};
pub(crate) use layers::Layers;
pub(crate) use plugin::{PluginSettings, PluginUser};
pub(crate) use store::StoreSettings;
pub(crate) use upper::Upper;
pub(crate) use volume::{
    Reach as VolumeReach, Status as VolumeStatus, VolumeSettings, VolumeSource,
};

use crate::cli::choices::FileHandles;
use crate::exit::Failure;
use crate::figures::Figures;
use crate::sandbox::{Needs, Share};
use crate::together::Work;

/// A storage to serve, as the command line names it.
#[derive(Debug, Clone)]
pub(crate) struct Source(Arc<dyn Storage>);

/// A kind of storage.
pub(crate) trait Storage: fmt::Debug + fmt::Display + Send + Sync {
    /// Looks at it from outside the sandbox, and says what has to be taken along.
    ///
    /// # Errors
    /// When it is not there, or an option does not go with it.
    fn prepare(&self, options: &StorageOptions, readonly: bool) -> Result<Prepared, Failure>;

    /// Whether nothing in it can be changed, whatever the operator wants.
    fn is_read_only(&self, options: &StorageOptions) -> bool {
        let _ = options;
        false
    }

    /// What it is called from whatever directory it is named: the name of what an upper belongs to.
    fn lasting_name(&self) -> String {
        self.to_string()
    }

    /// Looks whether what it has on this host is there, without waiting for anything and without a trace: what is wrong is
    /// told before other storages are waited for.
    ///
    /// # Errors
    /// When it is not.
    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// What it has to ask a registry for before the sandbox: what is found is kept until [`Self::prepare`].
    fn ahead(&self, options: &StorageOptions) -> Vec<Work<()>> {
        let _ = options;
        Vec::new()
    }

    /// How many trees in memory it has that take an equal share each.
    fn memory_shares(&self) -> u64 {
        0
    }

    /// Whether its files are those of its share, with their inode numbers.
    fn is_host_directory(&self) -> bool {
        false
    }

    /// Whether it is, or stands on, what some options are about.
    fn is(&self, kind: Kind) -> bool {
        let _ = kind;
        false
    }
}

/// What some options are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The objects of a bucket as files.
    Objects,
    /// As [`Self::Objects`], where the guest itself may change them.
    ObjectsToWrite,
    /// A volume in a bucket, or a snapshot of one.
    VolumeInBucket,
    /// A volume in a bucket to which the guest may write, unless it is served read-only.
    VolumeToWrite,
    Image,
    /// A program that the daemon starts.
    StartedPlugin,
}

/// What an operator decides about storages, whichever they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct StorageOptions {
    /// How directories of the host are served. Their budget of descriptors is for all of them
    /// together.
    pub(crate) passthrough: vfsd_passthrough::Options,
    /// How they hold on to files; decided when it is known how many descriptors there are.
    pub(crate) file_handles: FileHandles,
    /// What the guest is not offered, whatever a storage can do.
    pub(crate) withheld: Capabilities,
    /// Owner and group of the root of a tree that the daemon makes.
    pub(crate) owner: (u32, u32),
    /// Trees in memory that have what may be used of it together, each as much as the others.
    pub(crate) memory_shares: u64,
    /// The operator chose what the guest may cache: nothing is remembered longer because it is the
    /// guest's own.
    pub(crate) cached_as_told: bool,
    /// How buckets are reached.
    pub(crate) store: StoreSettings,
    /// What is kept on this host's disk for the next time.
    pub(crate) cache: CacheSettings,
    /// How volumes in buckets are used.
    pub(crate) volume: VolumeSettings,
    /// What is kept of images, and which are meant.
    pub(crate) image: ImageSettings,
    /// What plugins may do.
    pub(crate) plugin: PluginSettings,
}

/// A storage that was looked at and is not open yet.
pub(crate) struct Prepared {
    /// What it needs of the host's files.
    pub(crate) shares: Vec<Share>,
    /// What it needs of root's power.
    pub(crate) needs: Needs,
    /// Nobody but the guest changes it, or locks its files.
    pub(crate) private: bool,
    /// Opens it, from inside the sandbox.
    pub(crate) open: Open,
}

/// A path as it is from every directory. Links on the way stay: they are the operator's names.
fn lasting(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.components().collect()
}

/// The last step of opening a storage.
type Open = Box<dyn FnOnce(Given) -> Result<Arc<dyn Backend>, Failure> + Send>;

/// What a storage is given inside the sandbox.
#[derive(Debug)]
pub(crate) struct Given {
    /// Its shares, in their order.
    pub(crate) roots: Vec<Root>,
    /// The directory `/proc/self/fd`.
    pub(crate) proc_self_fd: Arc<OwnedFd>,
    /// Descriptors that each directory of the host may use.
    pub(crate) descriptors: usize,
    /// On which it waits.
    pub(crate) runtime: Handle,
    /// Where it says what can be told of it.
    pub(crate) figures: Arc<Figures>,
}

impl Given {
    /// The same for another storage, which has these shares.
    pub(crate) fn with(&self, roots: Vec<Root>) -> Self {
        Self {
            roots,
            proc_self_fd: Arc::clone(&self.proc_self_fd),
            descriptors: self.descriptors,
            runtime: self.runtime.clone(),
            figures: Arc::clone(&self.figures),
        }
    }

    /// Its only share, which the host calls `path`. `what` was to be done with it.
    pub(crate) fn root(&mut self, what: &str, path: &Path) -> Result<Root, Failure> {
        let root = self.roots.pop();
        root.ok_or_else(|| {
            let path = path.display();
            Failure::run(format!("cannot {what} {path}: it was not taken along"))
        })
    }
}

/// A share, inside the sandbox.
#[derive(Debug)]
pub(crate) struct Root {
    /// An `O_PATH` descriptor of it.
    pub(crate) descriptor: OwnedFd,
    /// Where it lies now.
    pub(crate) path: PathBuf,
}

impl Root {
    /// What an error says, with the place as the host calls it.
    pub(crate) fn on_host(&self, path: &Path, error: &impl fmt::Display) -> String {
        let inside = self.path.to_string_lossy();
        error.to_string().replace(&*inside, &path.to_string_lossy())
    }
}

/// How storages are named.
macro_rules! sources {
    () => {
        "PATH or dir:PATH, docker://REGISTRY/NAME[:TAG], oci:LAYOUT[:TAG], docker-archive:FILE[:NAME], \
         s3://BUCKET[/PREFIX] (also gs:// and az://), volume:file:DIR, volume:s3://BUCKET/PREFIX[?snapshot=NAME], \
         memory:[?size=SIZE], plugin:SOCKET, 'plugin:exec:PROGRAM ARGUMENT...'"
    };
}

/// What an error says of the kinds.
const SOURCES: &str = sources!();

/// What a command line says of sources.
pub(crate) const SOURCE_HELP: &str = concat!("What to show: ", sources!());

/// What a command line says of images.
pub(crate) const IMAGE_HELP: &str =
    "Which: docker://REGISTRY/NAME[:TAG], oci:LAYOUT[:TAG] or docker-archive:FILE[:NAME]";

/// Reads what stands behind a prefix, or a whole address.
type Read = fn(&OsStr) -> Result<Arc<dyn Storage>, SourceError>;

/// The kinds, by the prefix of their names. A word without a prefix is a path.
const KINDS: [(&str, Read); 7] = [
    ("dir:", dir::read),
    ("memory:", memory::read),
    ("volume:", volume::read),
    ("oci:", image::read_layout),
    ("docker-archive:", image::read_archive),
    ("docker://", image::read_registry),
    ("plugin:", plugin::read),
];

/// Kinds that are named by an address, by how it begins.
const ADDRESSES: [(&str, Read); 3] = [
    ("s3://", bucket::read),
    ("gs://", bucket::read),
    ("az://", bucket::read),
];

/// Why a word names nothing that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceError {
    /// What stands behind the prefix is wrong: what to do.
    Wrong(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(advice) => f.write_str(advice),
        }
    }
}

impl std::error::Error for SourceError {}

impl Source {
    /// A source of some kind.
    pub(crate) fn new(storage: impl Storage + 'static) -> Self {
        Self(Arc::new(storage))
    }

    /// Reads a word of the command line.
    ///
    /// # Errors
    /// When the word names a kind of source that is not there, or what is behind it is wrong.
    pub(crate) fn parse(word: &OsStr) -> Result<Self, SourceError> {
        let bytes = word.as_bytes();
        for (prefix, read) in KINDS {
            if let Some(rest) = bytes.strip_prefix(prefix.as_bytes()) {
                return read(OsStr::from_bytes(rest)).map(Self);
            }
        }
        for (beginning, read) in ADDRESSES {
            if bytes.starts_with(beginning.as_bytes()) {
                return read(word).map(Self);
            }
        }
        dir::read(word).map(Self)
    }

    /// As [`Storage::is_read_only`].
    pub(crate) fn is_read_only(&self, options: &StorageOptions) -> bool {
        self.0.is_read_only(options)
    }

    /// As [`Storage::lasting_name`].
    pub(crate) fn lasting_name(&self) -> String {
        self.0.lasting_name()
    }

    /// As [`Storage::ahead`].
    pub(crate) fn ahead(&self, options: &StorageOptions) -> Vec<Work<()>> {
        self.0.ahead(options)
    }

    /// As [`Storage::check`].
    ///
    /// # Errors
    /// When something is not there.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.0.check()
    }

    /// As [`Storage::memory_shares`].
    pub(crate) fn memory_shares(&self) -> u64 {
        self.0.memory_shares()
    }

    /// As [`Storage::is_host_directory`].
    pub(crate) fn is_host_directory(&self) -> bool {
        self.0.is_host_directory()
    }

    /// As [`Storage::is`].
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.0.is(kind)
    }

    /// As [`Storage::prepare`].
    ///
    /// # Errors
    /// When it is not there, or an option does not go with it.
    pub(crate) fn prepare(
        &self,
        options: &StorageOptions,
        readonly: bool,
    ) -> Result<Prepared, Failure> {
        self.0.prepare(options, readonly)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Source {
    /// Sources that are named alike are the same.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Reads a source for clap, which hands over words that need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceParser;

impl clap::builder::TypedValueParser for SourceParser {
    type Value = Source;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Source, clap::Error> {
        use clap::builder::StringValueParser;
        Source::parse(value).map_err(|error| {
            // Going through the string parser gives the error clap's usual form.
            let refuse = move |_: String| Err::<Source, _>(error.clone());
            let lossy = OsString::from(value.to_string_lossy().into_owned());
            match StringValueParser::new()
                .try_map(refuse)
                .parse_ref(command, argument, &lossy)
            {
                Err(error) => error,
                Ok(_) => clap::Error::new(clap::error::ErrorKind::ValueValidation),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<String, SourceError> {
        Source::parse(OsStr::new(word)).map(|source| source.to_string())
    }

    #[test]
    fn a_path_needs_no_prefix() {
        for (word, source) in [
            ("/srv/share", "dir:/srv/share"),
            ("dir:/srv/share", "dir:/srv/share"),
            ("./memory:", "dir:./memory:"),
            ("dir:s3://b", "dir:s3://b"),
        ] {
            assert_eq!(parse(word), Ok(source.to_owned()));
        }
    }

    #[test]
    fn a_path_may_be_any_bytes() {
        let word = OsStr::from_bytes(b"dir:/srv/\xff");
        let path = PathBuf::from(OsStr::from_bytes(b"/srv/\xff"));
        assert_eq!(Source::parse(word), Ok(Source::new(Dir(path))));
    }

    #[test]
    fn memory_takes_a_size_and_nothing_else_behind_it() {
        assert_eq!(parse("memory:"), Ok("memory:".to_owned()));
        assert_eq!(parse("memory:?size=25%"), Ok("memory:?size=25%".to_owned()));
        assert_eq!(parse("memory:?size=1k"), Ok("memory:?size=1024".to_owned()));
        for rest in ["64M", "?size=", "?size=x", "?Size=1G", "?size=1G,mode=0"] {
            let refused = parse(&format!("memory:{rest}")).unwrap_err().to_string();
            assert!(refused.contains(&format!("{rest:?}")), "{refused}");
            assert!(refused.contains("?size=512M"), "{refused}");
        }
    }

    #[test]
    fn each_kind_is_shown_as_it_is_named() {
        for word in [
            "oci:layout:tag",
            "docker-archive:a.tar:debian:12",
            "docker://registry.example/debian:12",
            "s3://bucket/prefix",
            "volume:file:/srv/volume",
            "volume:s3://bucket/prefix",
            "volume:s3://bucket/prefix?snapshot=monday",
            "volume:file:/srv/volume?snapshot=monday",
            "plugin:/run/plugin.sock",
            "plugin:exec:./program --option value",
        ] {
            assert!(
                parse(word).is_ok_and(|shown| shown.starts_with(word)),
                "{word}"
            );
        }
    }

    #[test]
    fn a_source_without_a_path_is_refused() {
        for word in [
            "",
            "dir:",
            "plugin:",
            "plugin:exec:",
            "oci:",
            "volume:file:",
            "volume:/srv/volume",
            "volume:s3://bucket",
            "volume:s3://bucket/prefix?snapshot=",
            "volume:s3://bucket?snapshot=monday",
        ] {
            assert!(matches!(parse(word), Err(SourceError::Wrong(_))));
        }
    }

    #[test]
    fn what_lies_on_this_host_is_called_the_same_from_every_directory() {
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        for (word, name) in [
            ("low", format!("dir:{here}/low")),
            ("./low/", format!("dir:{here}/low")),
            ("dir:/srv/low", "dir:/srv/low".to_owned()),
            ("volume:file:v", format!("volume:file:{here}/v")),
            ("oci:layout:t", format!("oci:{here}/layout:t")),
            (
                "docker-archive:a.tar:b:c",
                format!("docker-archive:{here}/a.tar:b:c"),
            ),
            ("s3://bucket/prefix", "s3://bucket/prefix".to_owned()),
        ] {
            let source = Source::parse(OsStr::new(word)).unwrap();
            assert_eq!(source.lasting_name(), name);
        }
    }
}
