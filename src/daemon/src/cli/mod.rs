//! The command line: what an operator can say, and what it comes to.

mod cache;
mod caching;
pub(crate) mod choices;
mod confinement;
mod image;
mod image_cache;
mod later;
mod layer;
mod legacy;
mod mount;
mod ownership;
mod plugin;
mod reporting;
mod serve;
mod spelling;
mod store;
mod tree;
mod virtiofsd;
mod volume;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Parser, Subcommand};

pub(crate) use image::ImageArguments;
pub(crate) use layer::Marks;
pub(crate) use volume::VolumeArguments;

use crate::exit::Failure;
use crate::settings::{MountSettings, ServeSettings};

/// A virtio-fs daemon: one local file system in the guest, a host directory or another storage
/// behind it
#[derive(Debug, Parser)]
#[command(
    name = "vfsd",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(Box<serve::ServeArguments>),
    Mount(Box<mount::MountArguments>),
    Virtiofsd(Box<virtiofsd::VirtiofsdArguments>),
    Image(Box<image::ImageArguments>),
    Volume(volume::VolumeArguments),
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Task {
    /// Serve a guest.
    Serve(Box<ServeSettings>),
    /// Mount on this host.
    Mount(Box<MountSettings>),
    /// Look at an image, or prepare it.
    Image(Box<ImageArguments>),
    /// Make or look after a volume.
    Volume(VolumeArguments),
    /// Write this to standard output, and be done.
    Print(String),
}

/// Reads a command line, whose first word is the name the program was called by.
///
/// # Errors
/// What is wrong with it; also the text of `--help` and `--version`, which is no failure.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Task, Failure> {
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if called == Some(OsStr::new("virtiofsd")) {
        return virtiofsd::VirtiofsdArguments::try_parse_from(words)?.task();
    }
    spelling::check_verb(&words)?;
    match Arguments::try_parse_from(spelling::joined(words))?.verb {
        Verb::Serve(arguments) => Ok(Task::Serve(Box::new(arguments.settings()?))),
        Verb::Mount(arguments) => Ok(Task::Mount(Box::new(arguments.settings()?))),
        Verb::Virtiofsd(arguments) => arguments.task(),
        Verb::Image(arguments) => Ok(Task::Image(arguments)),
        Verb::Volume(arguments) => Ok(Task::Volume(arguments)),
    }
}

#[cfg(test)]
mod tests;
