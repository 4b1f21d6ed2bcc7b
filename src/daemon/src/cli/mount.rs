//! `vfsd mount`.

use std::path::PathBuf;

use clap::Args;

use super::cache::CacheArguments;
use super::caching::CachingOptions;
use super::confinement::ConfinementOptions;
use super::image::{ImageOptions, IndexArguments};
use super::later::ForeignOptions;
use super::layer::LayerOptions;
use super::plugin::PluginArguments;
use super::reporting::ReportingOptions;
use super::store::StoreArguments;
use super::tree::TreeOptions;
use super::volume::VolumeUseOptions;
use crate::exit::Failure;
use crate::listener::whole;
use crate::settings::{ExportSettings, MountSettings};
use crate::source::{SOURCE_HELP, Source, SourceParser, StorageOptions};

/// Mount a source on this host through /dev/fuse, until SIGTERM, SIGINT or an unmount
#[derive(Debug, Clone, Args)]
pub(crate) struct MountArguments {
    /// What to mount
    #[arg(value_name = "SOURCE", value_parser = SourceParser, help = SOURCE_HELP)]
    source: Source,

    /// The directory to mount it on
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,

    /// Let other users than the one who mounts use it [default for root]; for an ordinary user
    /// only where /etc/fuse.conf has user_allow_other
    #[arg(long, conflicts_with = "no_allow_other")]
    allow_other: bool,

    /// Keep other users out [default for ordinary users]
    #[arg(long)]
    no_allow_other: bool,

    #[command(flatten)]
    tree: TreeOptions,
    #[command(flatten)]
    layer: LayerOptions,
    #[command(flatten)]
    caching: CachingOptions,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    volume: VolumeUseOptions,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    index: IndexArguments,
    #[command(flatten)]
    plugin: PluginArguments,
    #[command(flatten)]
    confinement: ConfinementOptions,
    #[command(flatten)]
    reporting: ReportingOptions,
    #[command(flatten)]
    foreign: ForeignOptions,
}

impl MountArguments {
    /// What the command line asks for, checked as a whole.
    ///
    /// # Errors
    /// When an option's value cannot be read.
    pub(crate) fn settings(self) -> Result<MountSettings, Failure> {
        let translation = self.tree.translation()?;
        let mut session = self.tree.offers().session(&self.caching, translation);
        session.transport = vfsd_server::Transport::HostKernel;
        let storage = StorageOptions {
            owner: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            store: self.store.settings(),
            volume: self.volume.settings(),
            plugin: self.plugin.settings(),
            image: self.index.add_to(self.image.settings(&self.cache)),
            cache: self.cache.settings(),
            ..self.tree.storage(&self.caching)?
        };
        let point = self.mount_point.canonicalize();
        let point = point.unwrap_or_else(|_| whole(&self.mount_point));
        if let Some(control) = &self.reporting.control
            && whole(control).starts_with(&point)
        {
            return Err(Failure::usage(format!(
                "--control {} is below the mount point, where nobody reaches it once that is mounted: choose another path",
                control.display()
            )));
        }
        Ok(MountSettings {
            export: ExportSettings::unnamed(self.layer.over(self.source), self.tree.readonly),
            mount_point: self.mount_point,
            allow_other: match (self.allow_other, self.no_allow_other) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            storage,
            session,
            confinement: self.confinement.confinement()?,
            log: self.reporting.log(),
            control: self.reporting.control,
        })
    }
}
