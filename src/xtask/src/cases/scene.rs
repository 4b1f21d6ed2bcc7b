//! What the daemons of a boot serve: made before it, gone after it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use vfsd_testkit::servers::{RunningStore, StoreServer};

use super::boots::{Beside, Root};
use super::bucket_volume::BucketVolume;
use super::image::ImageRoot;
use super::layers::Layer;
use super::plugin;
use crate::artifact::Cache;
use crate::daemon::{Program, Storage};
use crate::guest::rootfs::{Contents, Tree, folder_in, pristine};
use crate::guest::tools::{FSX, PJDFSTEST};
use crate::process::run_ok;
use crate::stores::StorePrograms;

/// Fills a bucket.
const FILL: &str = include_str!("../../guest/bucket/fill.py");

/// Looks at a bucket that a guest has written to.
const VERIFY: &str = include_str!("../../guest/bucket/verify.py");

/// How long a storage may take to be made.
const LIMIT: Duration = Duration::from_secs(120);

/// What is served to one guest.
#[derive(Debug)]
pub(crate) struct Scene {
    tree: Tree,
    over: Over,
    /// What the storage beside the root is kept in.
    kept: Option<Kept>,
    /// The root.
    pub(crate) root: Storage,
    /// What is beside it.
    pub(crate) beside: Option<Storage>,
}

/// What the tree lies below.
#[derive(Debug)]
enum Over {
    Nothing,
    Layer(Layer),
    Image(ImageRoot),
}

#[derive(Debug)]
enum Kept {
    Folder(TempDir),
    Store(
        #[expect(dead_code, reason = "held until it is dropped")] RunningStore,
        TempDir,
    ),
    Written(Written),
    Volume(BucketVolume),
}

/// A bucket that a guest writes to.
#[derive(Debug)]
struct Written {
    store: RunningStore,
    programs: StorePrograms,
    _cache: TempDir,
}

/// What a scene is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// What the root's tree holds.
    pub(crate) contents: Contents,
    /// How it is served.
    pub(crate) root: Root,
    /// What is served beside it.
    pub(crate) beside: Option<Beside>,
}

impl Scene {
    /// Makes what is to be served. A tree for tests has their tools in it.
    ///
    /// # Errors
    /// A tree, a tool or a storage cannot be made.
    pub(crate) fn make(setting: Setting, program: &Program, cache: &Cache) -> Result<Self> {
        let tree = Tree::copy_of(&pristine(cache, setting.contents)?, cache)?;
        if setting.contents == Contents::Tests {
            for tool in [PJDFSTEST, FSX] {
                tool.copy_into(&tree.root(), cache)?;
            }
        }
        let (beside, kept) = match setting.beside {
            None => (None, None),
            Some(Beside::Memory) => (Some(Storage::named("data", "memory:")), None),
            Some(Beside::Volume) => {
                let (storage, folder) = volume(program, cache)?;
                (Some(storage), Some(Kept::Folder(folder)))
            }
            Some(Beside::Plugin) => {
                let (storage, folder) = plugin::archive(&tree.root(), cache)?;
                (Some(storage), Some(Kept::Folder(folder)))
            }
            Some(Beside::MemoryPlugin) => {
                let (storage, folder) = plugin::memory(cache)?;
                (Some(storage), Some(Kept::Folder(folder)))
            }
            Some(Beside::Exports) => {
                let (storage, folder) = plugin::exports(cache)?;
                (Some(storage), Some(Kept::Folder(folder)))
            }
            Some(Beside::WritableBucket) => {
                let (storage, written) = writable_bucket(cache)?;
                (Some(storage), Some(Kept::Written(written)))
            }
            Some(Beside::BucketVolume(server)) => {
                let volume = BucketVolume::make(server, program, cache)?;
                (Some(volume.storage("state")), Some(Kept::Volume(volume)))
            }
            Some(Beside::BucketVolumeBehindMishaps) => {
                let volume = BucketVolume::make(StoreServer::SeaweedFs, program, cache)?;
                let volume = volume.behind_mishaps(cache)?;
                (Some(volume.storage("state")), Some(Kept::Volume(volume)))
            }
            Some(Beside::Bucket) => {
                let (storage, store, kept) = bucket(cache)?;
                (Some(storage), Some(Kept::Store(store, kept)))
            }
        };
        let over = match setting.root {
            Root::Folder => Over::Nothing,
            Root::Layers => Over::Layer(Layer::over(&tree.root(), cache)?),
            Root::Image => Over::Image(ImageRoot::of(&tree.root(), program, cache)?),
        };
        Ok(Self {
            root: match &over {
                Over::Nothing => Storage::folder(&tree.root()),
                Over::Layer(layer) => layer.root(),
                Over::Image(image) => image.root(),
            },
            over,
            tree,
            kept,
            beside,
        })
    }

    /// Looks at what the guest has left.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn verify(&self) -> Result<()> {
        match &self.over {
            Over::Layer(layer) => layer.verify()?,
            Over::Nothing | Over::Image(_) => {}
        }
        match &self.kept {
            Some(Kept::Store(_, kept)) => verify_kept(kept.path()),
            Some(Kept::Written(written)) => written.verify(),
            Some(Kept::Volume(volume)) => volume.verify(),
            Some(Kept::Folder(_)) | None => Ok(()),
        }
    }

    /// Where the host sees the tree of the root.
    pub(crate) fn folder(&self) -> PathBuf {
        self.tree.root()
    }

    /// The folder of what is beside the root, if that is all there is of it.
    pub(crate) fn folder_beside(&self) -> Option<&Path> {
        match &self.kept {
            Some(Kept::Folder(folder)) => Some(folder.path()),
            _ => None,
        }
    }

    /// Where the host sees what the guest changes in its root.
    pub(crate) fn changes(&self) -> PathBuf {
        match &self.over {
            Over::Layer(layer) => layer.upper(),
            Over::Image(image) => image.upper(),
            Over::Nothing => self.folder(),
        }
    }
}

/// An empty volume, beside the other trees: on a disk.
fn volume(program: &Program, cache: &Cache) -> Result<(Storage, TempDir)> {
    let Program::Vfsd(vfsd) = program else {
        bail!("only vfsd has volumes")
    };
    let folder = folder_in(cache.folder()).context("make a folder for the volume")?;
    let source = format!("volume:file:{}", folder.path().join("volume").display());
    let mut create = Command::new(vfsd);
    create.args(["volume", "create", &source]);
    run_ok(&create, LIMIT, &mut |_| {}).context("make a volume")?;
    Ok((Storage::named("data", source), folder))
}

/// What is kept on the disk of a bucket: less than the guest reads of it.
const KEPT_MIB: u64 = 24;

/// A bucket of a server that runs, filled, and where content of it is kept.
fn bucket(cache: &Cache) -> Result<(Storage, RunningStore, TempDir)> {
    let programs = StorePrograms::fetch(cache)?;
    let store = programs.seaweedfs()?;
    let mut fill = Command::new(programs.program("python3"));
    fill.args(["-c", FILL, "data"]).envs(store.environment());
    run_ok(&fill, LIMIT, &mut |_| {}).context("fill a bucket")?;
    let mut storage = Storage::named("data", "s3://data");
    storage.environment(store.environment());
    let kept = folder_in(cache.folder()).context("make a folder for a cache")?;
    storage.argument("--cache-dir").argument(kept.path());
    storage.argument(format!("--cache-size={KEPT_MIB}M"));
    Ok((storage, store, kept))
}

/// An empty bucket of a server that runs.
fn writable_bucket(cache: &Cache) -> Result<(Storage, Written)> {
    let programs = StorePrograms::fetch(cache)?;
    let store = programs.seaweedfs()?;
    programs.make_bucket(&store, "data")?;
    let mut storage = Storage::named("data", "s3://data/below");
    storage.environment(store.environment());
    let kept = folder_in(cache.folder()).context("make a folder for a cache")?;
    storage.argument("--cache-dir").argument(kept.path());
    storage.argument("--flat-write");
    let written = Written {
        store,
        programs,
        _cache: kept,
    };
    Ok((storage, written))
}

impl Written {
    /// Reads what the guest has written with another client, and compares it with what the guest says.
    fn verify(&self) -> Result<()> {
        let mut verify = Command::new(self.programs.program("python3"));
        verify.args(["-c", VERIFY, "data", "below/"]);
        verify.envs(self.store.environment());
        run_ok(&verify, LIMIT, &mut |_| {}).context("read the bucket with boto3")?;
        Ok(())
    }
}

/// Looks at what was kept: a good part of the size that is allowed, and little more.
fn verify_kept(folder: &Path) -> Result<()> {
    let mut size = 0;
    for shard in std::fs::read_dir(folder.join("objects")).context("list what was kept")? {
        for block in std::fs::read_dir(shard?.path()).context("list what was kept")? {
            size += block?.metadata().context("look at what was kept")?.len();
        }
    }
    let most = KEPT_MIB << 20;
    if size < most / 2 || size > most + most / 4 {
        bail!("{size} bytes are kept on the disk where {most} are allowed");
    }
    Ok(())
}
