//! `vfsd image`, and the options of images.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;

use clap::{Args, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use vfsd_oci::Progress;
use vfsd_oci::image::Platform;
use vfsd_oci::referrer::IndexFrom;
use vfsd_oci::registry::Reference;

use super::cache::CacheArguments;
use super::choices::LogLevel;
use super::image_cache::{ListArguments, PruneArguments, VerifyArguments, size};
use crate::exit::Failure;
use crate::logging::{self, LogSettings};
use crate::source::{IMAGE_HELP, ImageSettings, ImageSource};

/// Which of several images is meant, and how a registry is asked.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub(crate) struct ImageOptions {
    /// The platform that an image is to be for, where it is for several, such as linux/arm64
    /// [default: this host's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Ask this registry (HOST or HOST:PORT) by plain http; loopback addresses always are. May be repeated
    #[arg(long, value_name = "HOST")]
    registry_insecure: Vec<String>,

    /// Look for the images of a registry at these hosts first, in this order; may be repeated
    #[arg(long, value_name = "HOST=MIRROR[,...]", value_parser = parse_mirrors)]
    registry_mirror: Vec<Mirrors>,

    /// Ask no registry for anything: an image is what the cache has of it, and the rest is EIO
    #[arg(long)]
    offline: bool,

    /// Fetch only what the guest reads, instead of what was read at the last start first and the rest
    /// while the guest reads nothing
    #[arg(long)]
    no_background_fill: bool,

    /// Where the credentials for registries are [default: the files of docker and podman]
    #[arg(long, value_name = "FILE")]
    registry_auth_file: Option<PathBuf>,
}

/// Whose indexes of layers are believed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub(crate) struct IndexArguments {
    /// Where the index of a layer is from that this host has not read: `off` reads the layer first; a digest that
    /// vfsd image push-index has printed, or `referrers`: whatever was pushed beside the image. Who has pushed it is
    /// believed until the layer has been fetched and compared [default: off]
    #[arg(long, value_name = "off|DIGEST|referrers")]
    index_from: Option<IndexFrom>,
}

impl IndexArguments {
    /// The settings with this in them.
    pub(super) fn add_to(&self, settings: ImageSettings) -> ImageSettings {
        ImageSettings {
            index_from: self.index_from.unwrap_or_default(),
            ..settings
        }
    }
}

/// A registry with one of its mirrors, for each of them.
#[derive(Debug, Clone)]
struct Mirrors(Vec<(String, String)>);

fn parse_mirrors(word: &str) -> Result<Mirrors, String> {
    let form = "use HOST=MIRROR[,MIRROR...], such as docker.io=mirror.example";
    let (registry, mirrors) = word.split_once('=').ok_or(form)?;
    let is_host = |host: &str| {
        let name = format!("{host}/a/b:t").parse::<Reference>();
        name.is_ok_and(|name| host.split('/').next() == Some(name.registry()))
    };
    let mirrors: Vec<_> = mirrors.split(',').collect();
    if registry.contains('/') || !is_host(registry) || !mirrors.iter().all(|it| is_host(it)) {
        return Err(form.to_owned());
    }
    let pairs = mirrors.into_iter();
    let pairs = pairs.map(|mirror| (registry.to_owned(), mirror.to_owned()));
    Ok(Mirrors(pairs.collect()))
}

impl ImageOptions {
    /// What the storages are told.
    pub(super) fn settings(&self, cache: &CacheArguments) -> ImageSettings {
        ImageSettings {
            cache: cache.settings(),
            platform: self.platform.clone(),
            insecure: self.registry_insecure.clone(),
            auth_file: self.registry_auth_file.clone(),
            mirrors: self
                .registry_mirror
                .iter()
                .flat_map(|it| it.0.clone())
                .collect(),
            offline: self.offline,
            background_fill: !self.no_background_fill,
            index_from: IndexFrom::Off,
        }
    }
}

/// Look at images, prepare them to be served, and look after what is kept of them
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Clone, Subcommand)]
enum ImageVerb {
    /// Say what an image is and what runs in it, as JSON
    Inspect {
        /// Which
        #[arg(value_name = "IMAGE", value_parser = ImageSource::parse, help = IMAGE_HELP)]
        image: ImageSource,
        /// Only what runs in it: entry point, arguments, environment, user, directory
        #[arg(long)]
        config: bool,
        #[command(flatten)]
        options: ImageOptions,
        #[command(flatten)]
        cache: CacheArguments,
    },
    /// Say which images are kept, and how much of them
    List(ListArguments),
    /// Read what is kept and compare it with its digests; what is damaged is removed
    Verify(VerifyArguments),
    /// Remove images that were not used lately, and what belongs to none
    Prune(PruneArguments),
    /// Fetch an image, if it is in a registry, and index its layers, so that serving it begins at once; with
    /// --index-from fetch only the indexes that are there
    #[command(alias = "index")]
    Pull {
        /// Which
        #[arg(value_name = "IMAGE", value_parser = ImageSource::parse, help = IMAGE_HELP)]
        image: ImageSource,
        #[command(flatten)]
        options: ImageOptions,
        #[command(flatten)]
        index: IndexArguments,
        #[command(flatten)]
        cache: CacheArguments,
    },
    /// Index the layers of an image in a registry, as pull does, and push the indexes there, beside the image. What it
    /// prints begins with the digest of what was pushed
    PushIndex {
        /// Which
        #[arg(value_name = "IMAGE", value_parser = ImageSource::parse, help = IN_REGISTRY)]
        image: ImageSource,
        #[command(flatten)]
        options: ImageOptions,
        #[command(flatten)]
        cache: CacheArguments,
    },
}

/// What of an image's names one is that something is pushed beside.
const IN_REGISTRY: &str = "docker://REGISTRY/NAME[:TAG]";

impl ImageArguments {
    /// Does it, and says what was found.
    ///
    /// # Errors
    /// When the image is not there, or is damaged.
    pub(crate) fn run(self) -> Result<String, Failure> {
        // What is not an error, but not as it was asked for either, is told as well.
        logging::start(&LogSettings {
            level: LogLevel::Warn,
            ..LogSettings::default()
        })?;
        match self.verb {
            ImageVerb::Inspect {
                image,
                config,
                options,
                cache,
            } => inspect(&image, config, &options.settings(&cache)),
            ImageVerb::List(arguments) => arguments.run(),
            ImageVerb::Verify(arguments) => arguments.run(),
            ImageVerb::Prune(arguments) => arguments.run(),
            ImageVerb::Pull {
                image,
                options,
                index,
                cache,
            } => {
                let settings = index.add_to(options.settings(&cache));
                let opened = image.index(&settings, shown())?;
                let count = opened.contents().count();
                Ok(format!(
                    "{image} is ready: {} with {count} layers\n",
                    opened.digest()
                ))
            }
            ImageVerb::PushIndex {
                image,
                options,
                cache,
            } => {
                let pushed = image.push_index(&options.settings(&cache), shown())?;
                for layer in &pushed.too_large {
                    eprintln!("layer {layer} is left out: its index is too large");
                }
                Ok(format!(
                    "{} has the indexes of {} layers of {image}, {} of which {} were sent\n",
                    pushed.artifact,
                    pushed.layers,
                    size(pushed.bytes),
                    size(pushed.sent)
                ))
            }
        }
    }
}

/// Shows how far the layers are, to whoever sits at a terminal.
fn shown() -> Box<dyn Fn(Progress) + Send + Sync> {
    match std::io::stderr().is_terminal() {
        true => Box::new(bars()),
        false => Box::new(|_| {}),
    }
}

fn inspect(
    image: &ImageSource,
    only_config: bool,
    settings: &ImageSettings,
) -> Result<String, Failure> {
    let found = image.find(settings)?;
    let run = found.config.run();
    let config = serde_json::json!({
        "user": run.user,
        "env": run.env,
        "entrypoint": run.entrypoint,
        "cmd": run.cmd,
        "working_dir": run.working_dir,
        "stop_signal": run.stop_signal,
        "labels": run.labels,
    });
    let layers: Vec<_> = found
        .layers
        .iter()
        .map(|layer| serde_json::json!({ "digest": layer.digest.to_string(), "size": layer.size }))
        .collect();
    let told = match only_config {
        true => config,
        false => serde_json::json!({
            "image": image.to_string(),
            "digest": found.digest.to_string(),
            "os": found.config.os,
            "architecture": found.config.architecture,
            "variant": found.config.variant,
            "created": found.config.created,
            "layers": layers,
            "config": config,
        }),
    };
    let text = serde_json::to_string_pretty(&told)
        .map_err(|error| Failure::run(format!("cannot tell of the image: {error}")))?;
    Ok(text + "\n")
}

/// A bar for each layer.
fn bars() -> impl Fn(Progress) + Send + Sync {
    let all = MultiProgress::new();
    let bars: Mutex<Vec<ProgressBar>> = Mutex::default();
    move |progress| {
        let mut bars = bars
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        while bars.len() < progress.layers {
            let bar = all.add(ProgressBar::no_length());
            let number = bars.len().saturating_add(1);
            bar.set_message(format!("layer {number} of {}", progress.layers));
            if let Ok(style) = ProgressStyle::with_template(
                "{msg:16} {bar:30} {bytes:>10} of {total_bytes:10} {eta}",
            ) {
                bar.set_style(style);
            }
            bars.push(bar);
        }
        if let Some(bar) = bars.get(progress.layer) {
            bar.set_length(progress.size);
            bar.set_position(progress.read);
            if progress.read >= progress.size {
                bar.finish();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_mirrors_in_their_order() {
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(
            parse_mirrors("docker.io=m.example,127.0.0.1:5000/hub")
                .unwrap()
                .0,
            [
                pair("docker.io", "m.example"),
                pair("docker.io", "127.0.0.1:5000/hub")
            ]
        );
        for word in [
            "",
            "docker.io",
            "docker.io=",
            "a=b",
            "docker.io=m.example,",
            "r.example/a=m.example",
        ] {
            assert!(parse_mirrors(word).is_err(), "{word}");
        }
    }
}
