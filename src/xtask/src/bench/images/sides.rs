//! How an image comes from a registry to a guest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::link::Link;
use crate::bench::Plan;
use crate::cases::registry::forget_content;
use crate::daemon::{Options, Program, Storage};
use crate::packages::{self, SKOPEO, UMOCI};
use crate::process::run_ok;
use crate::registry::Repository;

/// Fetching an image, over a narrow link, and unpacking it.
const LIMIT: Duration = Duration::from_secs(600);

/// What is on the host before the clock starts, and who brings the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// vfsd; nothing.
    New,
    /// vfsd; nothing, and the layers have tables of contents.
    Tables,
    /// vfsd; nothing, and another host has pushed the indexes of the layers.
    Borrowed,
    /// vfsd; the index of each layer, and no byte of them.
    Indexed,
    /// skopeo, umoci, virtiofsd; nothing.
    Unpacked,
    /// vfsd; everything.
    Here,
    /// virtiofsd; the unpacked tree.
    UnpackedBefore,
}

/// In the order of the columns.
pub(super) const SIDES: [Side; 7] = [
    Side::New,
    Side::Tables,
    Side::Borrowed,
    Side::Indexed,
    Side::Unpacked,
    Side::Here,
    Side::UnpackedBefore,
];

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "vfsd, nothing known",
            Self::Tables => "vfsd, nothing known, zstd:chunked",
            Self::Borrowed => "vfsd, gzip, index from the registry",
            Self::Indexed => "vfsd, index known",
            Self::Unpacked => "skopeo, umoci, virtiofsd",
            Self::Here => "vfsd, all there",
            Self::UnpackedBefore => "virtiofsd, unpacked before",
        }
    }

    /// What is done without vfsd when as much is there.
    pub(super) fn peer(self) -> Self {
        match self {
            Self::New | Self::Tables | Self::Borrowed | Self::Indexed | Self::Unpacked => {
                Self::Unpacked
            }
            Self::Here | Self::UnpackedBefore => Self::UnpackedBefore,
        }
    }

    /// Whether something has to come over the link.
    pub(super) fn needs_the_link(self) -> bool {
        !matches!(self, Self::Here | Self::UnpackedBefore)
    }

    fn is_ours(self) -> bool {
        !matches!(self, Self::Unpacked | Self::UnpackedBefore)
    }
}

/// An image behind a link, on a host of its own.
#[derive(Debug)]
pub(super) struct Source<'a> {
    side: Side,
    /// Its name over the link.
    image: String,
    /// Its name where nothing is between this host and the registry.
    beside: String,
    folder: &'a Path,
    program: Program,
    /// The digest of the indexes that were pushed beside it.
    indexes: &'a str,
}

impl<'a> Source<'a> {
    /// The host, with what is there before the clock starts.
    ///
    /// # Errors
    /// The image cannot be fetched.
    pub(super) fn of(
        side: Side,
        link: &Link,
        plan: &Plan,
        folder: &'a Path,
        indexes: &'a str,
    ) -> Result<Self> {
        let program = match side.is_ours() {
            true => Program::Vfsd(plan.vfsd.clone()),
            false => Program::Virtiofsd(plan.virtiofsd.clone()),
        };
        let repository = match side {
            Side::Tables => Repository::Chunked,
            _ => Repository::AsItIs,
        };
        let this = Self {
            side,
            image: repository.at(link.address()),
            beside: repository.at(link.server()),
            folder,
            program,
            indexes,
        };
        packages::install(&[SKOPEO, UMOCI])?;
        match side {
            Side::New | Side::Tables | Side::Borrowed | Side::Unpacked => {}
            Side::Indexed => {
                this.pull(&this.beside)?;
                forget_content(&this.cache())?;
            }
            Side::Here => this.pull(&this.beside)?,
            Side::UnpackedBefore => this.unpack(&this.beside)?,
        }
        Ok(this)
    }

    /// What has to be done before a daemon can be started.
    ///
    /// # Errors
    /// The image cannot be fetched.
    pub(super) fn prepare(&self) -> Result<()> {
        match self.side {
            Side::New => self.pull(&self.image),
            Side::Unpacked => self.unpack(&self.image),
            // The daemon itself reads the tables, and fetches the indexes.
            Side::Tables | Side::Borrowed | Side::Indexed | Side::Here | Side::UnpackedBefore => {
                Ok(())
            }
        }
    }

    /// The guest's root.
    pub(super) fn root(&self) -> Storage {
        if !self.side.is_ours() {
            return Storage::folder(&self.bundle().join("rootfs"));
        }
        let mut storage = Storage::named("root", &self.image);
        storage.argument("--cache-dir").argument(self.cache());
        storage
            .argument("--upper")
            .argument(self.folder.join("upper"));
        // What is fetched is what the guest asked for.
        storage.argument("--no-background-fill");
        if self.side == Side::Borrowed {
            storage.argument("--index-from").argument(self.indexes);
        }
        storage
    }

    /// Who serves it.
    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    pub(super) fn options(&self) -> Options {
        match self.side.is_ours() {
            true => Options::default(),
            false => crate::bench::guest::OPTIONS,
        }
    }

    fn pull(&self, image: &str) -> Result<()> {
        let (Program::Vfsd(program) | Program::Virtiofsd(program)) = &self.program;
        let mut pull = Command::new(program);
        pull.args(["image", "pull", image, "--cache-dir"]);
        pull.arg(self.cache());
        run_ok(&pull, LIMIT, &mut |_| {}).context("pull the image")?;
        Ok(())
    }

    fn unpack(&self, image: &str) -> Result<()> {
        let layout = format!("{}:root", self.folder.join("layout").display());
        let mut copy = Command::new(SKOPEO.provides);
        copy.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
        copy.args([image, &format!("oci:{layout}")]);
        // Neither credentials nor what it remembers of other registries are those of this user.
        copy.env("HOME", self.folder);
        run_ok(&copy, LIMIT, &mut |_| {}).context("copy the image from the registry")?;
        let mut unpack = Command::new(UMOCI.provides);
        unpack
            .args(["unpack", "--image", &layout])
            .arg(self.bundle());
        run_ok(&unpack, LIMIT, &mut |_| {}).context("unpack the image")?;
        Ok(())
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    fn bundle(&self) -> PathBuf {
        self.folder.join("bundle")
    }
}
