//! `vfsd serve`.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

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
use crate::config;
use crate::exit::Failure;
use crate::listener::whole;
use crate::settings::{
    DEFAULT_POLL_LIMIT, Device, Endpoint, ExportSettings, MAX_QUEUES, ServeSettings, Tag,
};
use crate::source::{SOURCE_HELP, Source, SourceParser, StorageOptions};

/// Serve a guest over a vhost-user socket
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArguments {
    /// What to serve
    #[arg(
        value_name = "SOURCE", value_parser = SourceParser, help = SOURCE_HELP,
        required_unless_present = "config", conflicts_with = "config"
    )]
    source: Option<Source>,

    /// Serve the exports listed in this TOML file, each as a directory of the guest's file system
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceOptions,
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

/// How a virtual machine monitor reaches the device.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Device")]
struct DeviceOptions {
    /// Create the vhost-user socket here
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "fd",
        conflicts_with = "fd"
    )]
    socket_path: Option<PathBuf>,

    /// Accept connections on this listening socket, which the daemon has inherited
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    fd: Option<RawFd>,

    /// Let this group, too, connect to the socket
    #[arg(long, value_name = "GROUP", conflicts_with = "fd")]
    socket_group: Option<String>,

    /// Advertise this tag (1 to 36 bytes) in the device's config space
    #[arg(long, value_name = "TAG", value_parser = Tag::parse)]
    tag: Option<Tag>,

    /// Request queues that the virtual machine monitor may ask for; unused ones cost nothing
    #[arg(
        long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUES))
    )]
    queues: u16,

    /// Look for the next request for at most N microseconds before sleeping, while requests follow
    /// one another that closely; 0 never does
    #[arg(
        long, value_name = "N", default_value_t = microseconds(DEFAULT_POLL_LIMIT),
        value_parser = clap::value_parser!(u32).range(0..=MAX_POLL_US)
    )]
    poll_us: u32,

    /// Wait for the next connection when one ends, instead of exiting
    #[arg(long)]
    reconnect: bool,
}

/// The longest that polling makes sense: beyond this sleeping costs nothing in comparison.
const MAX_POLL_US: i64 = 10_000;

fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl ServeArguments {
    /// What the command line asks for, checked as a whole.
    ///
    /// # Errors
    /// When an option's value cannot be read, or the configuration file.
    pub(crate) fn settings(self) -> Result<ServeSettings, Failure> {
        let mut storage = StorageOptions {
            store: self.store.settings(),
            volume: self.volume.settings(),
            plugin: self.plugin.settings(),
            image: self.index.add_to(self.image.settings(&self.cache)),
            cache: self.cache.settings(),
            ..self.tree.storage(&self.caching)?
        };
        let exports = match (self.source, &self.config) {
            (Some(source), _) => {
                let source = self.layer.over(source);
                vec![ExportSettings::unnamed(source, self.tree.readonly)]
            }
            (None, Some(file)) => {
                let read = config::read(file, self.tree.readonly)?;
                storage.withheld |= read.local_locks.withheld();
                read.exports
            }
            (None, None) => return Err(Failure::usage("name a SOURCE, or --config FILE")),
        };
        let endpoint = match (self.device.socket_path, self.device.fd) {
            (Some(path), _) => Endpoint::Path {
                path,
                group: self.device.socket_group,
                pid_file: false,
            },
            (None, Some(fd)) => Endpoint::Inherited(fd),
            (None, None) => return Err(Failure::usage("name a --socket-path, or give --fd")),
        };
        if let (Endpoint::Path { path, .. }, Some(control)) = (&endpoint, &self.reporting.control)
            && whole(path) == whole(control)
        {
            return Err(Failure::usage(format!(
                "--socket-path and --control are both {}: choose another path for one of them",
                control.display()
            )));
        }
        let offers = self.tree.offers();
        Ok(ServeSettings {
            exports,
            storage,
            session: offers.session(&self.caching, self.tree.translation()?),
            device: Device {
                endpoint,
                tag: self.device.tag,
                queues: self.device.queues,
                poll_limit: Duration::from_micros(self.device.poll_us.into()),
                reconnect: self.device.reconnect,
            },
            confinement: self.confinement.confinement()?,
            log: self.reporting.log(),
            control: self.reporting.control,
        })
    }
}
