//! Who serves the tree: vfsd as a directory and in two layers, virtiofsd as a directory and by the kernel's overlayfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::tree::{BIG, Tree};
use crate::bench::Plan;
use crate::bench::mounted::MountPoint;
use crate::bench::native::session::{OPTIONS, OWN_OPTIONS, Offered};
use crate::daemon::{Program, Storage};
use crate::process::run_ok;
use crate::progress::Step;

/// Who serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The whole tree as a directory.
    Directory,
    /// The whole tree below an upper that is new.
    New,
    /// A part of every directory in each of two layers.
    Merged,
    /// The whole tree as a directory, by virtiofsd.
    Peer,
    /// The same layers merged by the kernel, and that by virtiofsd.
    Kernel,
}

/// In the order of the columns.
pub(super) const SIDES: [Side; 5] = [
    Side::Directory,
    Side::New,
    Side::Merged,
    Side::Peer,
    Side::Kernel,
];

/// Those that copy a file that is written to.
pub(super) const COPIES: [Side; 2] = [Side::New, Side::Kernel];

/// A mount, or a copy of the large file.
const LIMIT: Duration = Duration::from_secs(120);

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Directory => "`dir:`",
            Self::New => "`--upper`, new",
            Self::Merged => "`--upper`, merged",
            Self::Peer => "virtiofsd",
            Self::Kernel => "overlayfs and virtiofsd",
        }
    }

    /// The same daemon with the tree in one directory.
    pub(super) fn directory(self) -> Option<Self> {
        match self {
            Self::New | Self::Merged => Some(Self::Directory),
            Self::Kernel => Some(Self::Peer),
            Self::Directory | Self::Peer => None,
        }
    }
}

/// What all sides share for a run.
#[derive(Debug)]
pub(super) struct Standing {
    vfsd: Program,
    virtiofsd: Program,
    tree: Tree,
}

/// What a side serves for as long as this is there.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) offered: Offered<'a>,
    // Before what is in it.
    _mount: Option<MountPoint>,
    folder: TempDir,
}

impl Layers<'_> {
    /// Where sockets may lie.
    pub(super) fn place(&self) -> &Path {
        self.folder.path()
    }
}

impl Standing {
    /// Makes the tree.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn make(plan: &Plan) -> Result<Self> {
        let step = Step::begin("make a tree of 100,000 files, whole and in layers");
        let tree = Tree::make(plan.folder.join("layers"))?;
        step.done();
        Ok(Self {
            vfsd: Program::Vfsd(plan.vfsd.clone()),
            virtiofsd: Program::Virtiofsd(plan.virtiofsd.clone()),
            tree,
        })
    }

    /// The tree, by a side.
    ///
    /// # Errors
    /// A layer cannot be written, or the kernel does not mount it.
    pub(super) fn tree(&self, side: Side) -> Result<Layers<'_>> {
        let merged = matches!(side, Side::Merged | Side::Kernel);
        self.layers(side, merged)
    }

    /// The whole tree below an upper that is new.
    ///
    /// # Errors
    /// As of [`tree`](Self::tree).
    pub(super) fn untouched(&self, side: Side) -> Result<Layers<'_>> {
        self.read_big()?;
        self.layers(side, false)
    }

    fn layers(&self, side: Side, merged: bool) -> Result<Layers<'_>> {
        let folder = tempfile::tempdir_in(self.tree.folder()).context("make a folder")?;
        let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
        for made in [&upper, &work] {
            fs::create_dir(made).context("make a layer")?;
        }
        if merged {
            self.tree.fill_upper(&upper)?;
        }
        let lower = match merged {
            true => self.tree.lower(),
            false => self.tree.whole(),
        };
        let mut mount = None;
        let storage = match side {
            Side::Directory => named(&lower),
            Side::New | Side::Merged => {
                let mut storage = named(&lower);
                storage.argument("--upper").argument(upper);
                storage.argument("--work").argument(work);
                storage
            }
            Side::Peer => Storage::folder(&lower),
            Side::Kernel => {
                let point = MountPoint::make(folder.path().join("mount"))?;
                // Without file handles virtiofsd needs a descriptor for each file.
                let options = format!(
                    "lowerdir={},upperdir={},workdir={},index=on,nfs_export=on",
                    lower.display(),
                    upper.display(),
                    work.display()
                );
                let mut command = Command::new("mount");
                command
                    .args(["-t", "overlay", "overlay", "-o", &options])
                    .arg(point.path());
                run_ok(&command, LIMIT, &mut |_| {}).context("mount the kernel's overlayfs")?;
                let storage = Storage::folder(point.path());
                mount = Some(point);
                storage
            }
        };
        let (program, options) = match side {
            Side::Peer | Side::Kernel => (&self.virtiofsd, &OPTIONS),
            Side::Directory | Side::New | Side::Merged => (&self.vfsd, &OWN_OPTIONS),
        };
        Ok(Layers {
            offered: Offered {
                program,
                options,
                storage,
                is_empty: false,
            },
            _mount: mount,
            folder,
        })
    }

    /// Seconds that `cp` takes to copy the large file on the same file system, until it is on the disk.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn copied(&self) -> Result<f64> {
        self.read_big()?;
        let (from, to) = (self.big(), self.tree.folder().join("copy"));
        let begin = Instant::now();
        run_ok(Command::new("cp").arg(&from).arg(&to), LIMIT, &mut |_| {})?;
        let copy = fs::File::open(&to).context("open the copy")?;
        copy.sync_data().context("sync the copy")?;
        let took = begin.elapsed().as_secs_f64();
        fs::remove_file(&to).context("remove the copy")?;
        Ok(took)
    }

    /// Brings the large file into the host's cache, and to the disk what an fsync would wait for otherwise.
    fn read_big(&self) -> Result<()> {
        rustix::fs::sync();
        let mut file = fs::File::open(self.big()).context("open the large file")?;
        std::io::copy(&mut file, &mut std::io::sink()).context("read the large file")?;
        Ok(())
    }

    fn big(&self) -> PathBuf {
        self.tree.whole().join(BIG)
    }
}

fn named(folder: &Path) -> Storage {
    Storage::named("bench", format!("dir:{}", folder.display()))
}
