//! `vfsd volume dump` and `load`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use vfsd_volume::{DumpOptions, DumpSummary};

use super::{VolumeReachArguments, parse};
use crate::cli::image_cache::size;
use crate::exit::Failure;
use crate::source::VolumeSource;

/// Stands for standard input and output.
const STANDARD: &str = "-";

/// What to dump, and where to.
#[derive(Debug, Clone, Args)]
pub(super) struct DumpArguments {
    /// Which: volume:file:DIR, which nobody uses; volume:s3://BUCKET/PREFIX, which may be in use
    #[arg(value_name = "VOLUME", value_parser = parse)]
    volume: VolumeSource,
    /// Where to; - for standard output
    #[arg(value_name = "FILE", default_value = STANDARD)]
    to: PathBuf,
    /// As it was then: a snapshot of a volume in a bucket
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// Leave out the content of files: to see what is there, not to be loaded
    #[arg(long)]
    metadata_only: bool,
    #[command(flatten)]
    reach: VolumeReachArguments,
}

/// What to load, and where to.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArguments {
    /// The new volume: volume:file:DIR, a directory that is made, or is empty; volume:s3://BUCKET/PREFIX, where nothing is
    /// below PREFIX
    #[arg(value_name = "VOLUME", value_parser = parse)]
    volume: VolumeSource,
    /// The dump; - for standard input
    #[arg(value_name = "FILE", default_value = STANDARD)]
    from: PathBuf,
    #[command(flatten)]
    reach: VolumeReachArguments,
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

fn told(what: &str, volume: &VolumeSource, summary: &DumpSummary) -> String {
    format!(
        "{what} {volume}: {} inodes, {} names, {} of content\n",
        summary.inodes,
        summary.entries,
        size(summary.bytes)
    )
}

impl DumpArguments {
    /// Dumps, and says how much it was, unless the dump itself is shown.
    ///
    /// # Errors
    /// The volume cannot be read, or the dump not be written.
    pub(super) fn run(self) -> Result<String, Failure> {
        let Self {
            volume,
            to,
            snapshot,
            metadata_only,
            reach,
        } = self;
        let options = DumpOptions {
            content: !metadata_only,
        };
        let dump =
            |to: &mut dyn Write| volume.dump(snapshot.as_deref(), options, to, &reach.settings());
        if is_standard(&to) {
            dump(&mut BufWriter::new(std::io::stdout().lock()))?;
            return Ok(String::new());
        }
        // Whoever may read it reads all that the volume has.
        let mut open = File::options();
        open.write(true).create(true).truncate(true).mode(0o600);
        let failed = |error| Failure::run(format!("cannot write {}: {error}", to.display()));
        let file = open.open(&to).map_err(failed)?;
        let summary = dump(&mut BufWriter::new(&file))?;
        file.sync_all().map_err(failed)?;
        Ok(told("dumped", &volume, &summary))
    }
}

impl LoadArguments {
    /// Loads, and says how much it was.
    ///
    /// # Errors
    /// It is no whole dump, or the volume cannot be made.
    pub(super) fn run(self) -> Result<String, Failure> {
        let Self {
            volume,
            from,
            reach,
        } = self;
        let reach = reach.settings();
        let summary = if is_standard(&from) {
            volume.load(&mut std::io::stdin().lock(), &reach)?
        } else {
            let failed = |error| Failure::run(format!("cannot read {}: {error}", from.display()));
            let file = File::open(&from).map_err(failed)?;
            volume.load(&mut BufReader::with_capacity(1 << 20, file), &reach)?
        };
        Ok(told("made", &volume, &summary))
    }
}
