//! Where the tree that is measured comes from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifact::Cache;
use crate::bench::Plan;
use crate::bench::row::Side;
use crate::cases::image::ImageRoot;
use crate::daemon::{Options, Program, Storage};
use crate::guest::rootfs::Tree;
use crate::process::run_ok;

const MAKING_A_DISK: Duration = Duration::from_secs(300);
/// Room on the disk for what is written.
const SPARE_MIB: u64 = 1024;

/// A way to have a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An image with a writable layer, both vfsd's.
    Image,
    /// virtiofsd over the unpacked tree, with an overlay of the guest's kernel.
    Folder,
    /// ext4 on a block device.
    Block,
}

impl Kind {
    /// In the order they are measured.
    pub(super) const ALL: [Self; 3] = [Self::Image, Self::Folder, Self::Block];

    /// What the guest calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Folder => "folder",
            Self::Block => "block",
        }
    }

    /// Whose samples they are.
    pub(super) fn side(self) -> Side {
        match self {
            Self::Image => Side::Vfsd,
            Self::Folder => Side::Virtiofsd,
            Self::Block => Side::Bare,
        }
    }
}

/// One tree in all its forms.
#[derive(Debug)]
pub(super) struct Roots {
    tree: PathBuf,
    image: ImageRoot,
    disk: PathBuf,
}

/// What a guest gets to measure.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) program: Program,
    pub(super) options: Options,
    pub(super) data: Option<Storage>,
    pub(super) disk: Option<&'a Path>,
}

impl Roots {
    /// Makes an image and a disk of the tree.
    ///
    /// # Errors
    /// A tool is missing or fails.
    pub(super) fn of(tree: &Tree, plan: &Plan, cache: &Cache) -> Result<Self> {
        let program = Program::Vfsd(plan.vfsd.clone());
        let image = ImageRoot::of(&tree.root(), &program, cache)?;
        let disk = plan.folder.join("disk.ext4");
        let used = crate::process::output_of(Command::new("du").args(["-sm"]).arg(tree.root()))?;
        let used: u64 = used
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .context("du prints no number")?;
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-d"])
            .arg(tree.root())
            .arg(&disk)
            .arg(format!("{}M", used + SPARE_MIB));
        run_ok(&make, MAKING_A_DISK, &mut |_| {}).context("make a disk")?;
        Ok(Self {
            tree: tree.root(),
            image,
            disk,
        })
    }

    /// What a guest gets that measures one of them.
    pub(super) fn given(&self, kind: Kind, plan: &Plan) -> Given<'_> {
        let vfsd = Program::Vfsd(plan.vfsd.clone());
        match kind {
            Kind::Image => Given {
                program: vfsd,
                options: Options::default(),
                data: Some(self.image.as_device("data")),
                disk: None,
            },
            Kind::Folder => Given {
                program: Program::Virtiofsd(plan.virtiofsd.clone()),
                options: crate::bench::guest::OPTIONS,
                data: Some(Storage::folder_as("data", &self.tree)),
                disk: None,
            },
            Kind::Block => Given {
                program: vfsd,
                options: Options::default(),
                data: None,
                disk: Some(&self.disk),
            },
        }
    }
}
