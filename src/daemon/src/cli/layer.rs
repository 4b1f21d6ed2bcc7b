//! Options of a writable layer over a source.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vfsd_overlay::Namespace;

use crate::source::{Layers, Source, Upper};

/// A writable layer, as an operator says it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Writable layer")]
pub(crate) struct LayerOptions {
    /// Leave SOURCE as it is, and let all changes go to this directory (made if it is missing), in
    /// the format of the kernel's overlayfs
    #[arg(long, value_name = "DIR", conflicts_with = "readonly")]
    upper: Option<PathBuf>,

    /// Prepare changes in this directory, on the file system of --upper [default: the upper's name
    /// with .work behind it]
    #[arg(long, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,

    /// Extended attributes in which the writable layer keeps its own marks [default: trusted for
    /// root, user for others]
    #[arg(long, value_enum, value_name = "SPACE", requires = "upper")]
    upper_xattr: Option<Marks>,

    /// Others than the guest use the writable layer's files, too: the guest believes names and
    /// attributes only as long as --cache says, and locks exclude on the host
    #[arg(long, requires = "upper")]
    shared: bool,
}

/// The namespace of a layer's own extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Marks {
    /// trusted.overlay.*, as the kernel has by default; the daemon keeps CAP_SYS_ADMIN for it
    Trusted,
    /// user.overlay.*, as the kernel's mount option userxattr has it
    User,
}

impl From<Marks> for Namespace {
    fn from(marks: Marks) -> Self {
        match marks {
            Marks::Trusted => Self::Trusted,
            Marks::User => Self::User,
        }
    }
}

impl LayerOptions {
    /// The source with the layer over it, if there is one.
    pub(super) fn over(self, source: Source) -> Source {
        match self.upper {
            None => source,
            Some(dir) => Source::new(Layers {
                lowers: vec![source],
                upper: Some(Upper {
                    dir,
                    work: self.work,
                    namespace: self.upper_xattr.map(Namespace::from),
                    shared: self.shared,
                }),
            }),
        }
    }
}
