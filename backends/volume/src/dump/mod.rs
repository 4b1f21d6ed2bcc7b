//! Dumps: everything in a volume as lines of JSON, of which a volume is made anywhere else, in a directory or in a bucket,
//! encrypted or not. They are also read by people who want to know what is in a volume.
//!
//! The first line tells the format. Each inode has a line, in the order of their numbers, and after it those of its
//! extended attributes and of what is in it: content in base64, or names. The last line tells how much there was.
//!
//! ```text
//! {"kind":"volume","format":1,"uuid":"5f...","made":1764350000,"content":true}
//! {"kind":"inode","inode":1,"type":"directory","mode":"0755","uid":0,"gid":0,"links":2,"atime":[1764340000,5],...,"parent":1}
//! {"kind":"entry","directory":1,"name":"hello","inode":2,"type":"file"}
//! {"kind":"inode","inode":2,"type":"file","mode":"0644",...,"size":6,...}
//! {"kind":"xattr","inode":2,"name":"user.note","value":"a value"}
//! {"kind":"content","inode":2,"offset":0,"data":"aGVsbG8K"}
//! {"kind":"end","inodes":2,"entries":1,"bytes":6}
//! ```
//!
//! Names and values that are not UTF-8 are objects, `{"base64":"..."}`. Inode numbers, and all times, stay as they are.

mod line;
mod loader;
mod reader;
mod source;
mod writer;

use std::io::{BufRead, Write};
use std::path::Path;

use tokio::runtime::Handle;
use vfsd_backend::Backend;

pub use self::line::Summary;
use self::loader::Loader;
use self::reader::Lines;
use self::source::Source;
use self::writer::Writer;
use crate::bucket::View;
use crate::data::DataFolder;
use crate::error::VolumeError;
use crate::key::Bucket;
use crate::layout::Layout;
use crate::live::RemoteOptions;
use crate::live::shipped::Shipped;
use crate::live::snapshot::with_snapshot;
use crate::meta::schema;
use crate::quota::Quota;
use crate::volume::{Volume, VolumeOptions};

/// Bytes of content that stay on this host while a volume in a bucket is loaded.
const CACHE_BYTES: u64 = 1 << 30;

/// What is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpOptions {
    /// The content of files, too. Without it the dump tells what is in the volume, and none can be made of it.
    pub content: bool,
}

impl Volume {
    /// Dumps the volume in `directory`, which nobody else uses meanwhile.
    ///
    /// # Errors
    /// As those of [`open`](Self::open), and when the volume cannot be read or the dump not be written.
    pub fn dump(
        directory: &Path,
        options: DumpOptions,
        to: &mut dyn Write,
    ) -> Result<Summary, VolumeError> {
        let volume = Self::open(directory, &VolumeOptions::default())?;
        let layout = Layout::new(directory);
        let header = layout.read_header()?;
        let storage = || VolumeError::storage(directory, "cannot dump it");
        volume.core().meta.catch_up().map_err(storage())?;
        let folder = DataFolder::open(&layout.data()).map_err(storage())?;
        let source = Source::Directory(folder);
        dump(
            &layout.database(),
            options.content.then_some(&source),
            to,
            (header.uuid, header.quota),
        )
    }

    /// Dumps a snapshot of the volume below `prefix` of a bucket, or what it is now: all that was synced. A daemon may have
    /// it.
    ///
    /// `scratch` is an empty directory of this host. Blocks the thread, which may be none of the runtime.
    ///
    /// # Errors
    /// There is no volume or no such snapshot, the store failed, or the directory cannot be used; the dump cannot be
    /// written.
    pub fn dump_remote(
        (bucket, prefix): (impl Into<Bucket>, &str),
        snapshot: Option<&str>,
        options: DumpOptions,
        to: &mut dyn Write,
        scratch: &Path,
        runtime: &Handle,
    ) -> Result<Summary, VolumeError> {
        let bucket = bucket.into();
        with_snapshot(
            (&bucket, prefix),
            snapshot,
            scratch,
            runtime,
            |view: &View, held| {
                let rows = scratch.join("to-dump.sqlite");
                runtime.block_on(view.restore(&held.checkpoint, &rows))?;
                let source = Source::Bucket {
                    remote: Box::new(view.reader(held.checkpoint.at)),
                    shipped: Shipped::new(&rows),
                    runtime: runtime.clone(),
                };
                let uuid = format!("{:032x}", u128::from_be_bytes(view.uuid()));
                let known = (uuid, view.head().quota);
                dump(&rows, options.content.then_some(&source), to, known)
            },
        )
    }

    /// Makes a volume in `directory`, which is made or is empty, of a dump.
    ///
    /// # Errors
    /// There is something in the directory, it cannot be written to, or what comes is no dump, or none that is whole: then
    /// there is no volume.
    pub fn load(directory: &Path, from: &mut dyn BufRead) -> Result<Summary, VolumeError> {
        let mut lines = Lines::new(from);
        let beginning = lines.beginning()?;
        let (layout, volume) = Self::begin(directory)?;
        let place = directory.display().to_string();
        let loaded = Loader::new(&volume).run(&mut lines).and_then(|summary| {
            let synced = volume.core().sync_all();
            synced.map_err(VolumeError::storage(directory, "cannot load it"))?;
            Ok(summary)
        });
        drop(volume);
        let made = loaded.and_then(|summary| {
            layout.make_header(beginning.quota)?;
            Ok(summary)
        });
        made.map_err(half_loaded(place))
    }

    /// Makes a volume below `prefix` of a bucket, where nothing else is, of a dump.
    ///
    /// `scratch` is an empty directory of this host, for what is on its way. Blocks the thread, which may be none of the
    /// runtime.
    ///
    /// # Errors
    /// There is something at the prefix, the store failed or does not keep two writers apart, the directory cannot be used,
    /// or what comes is no dump, or none that is whole: what was loaded until then stays in the bucket, and has to be removed.
    pub fn load_remote(
        bucket: impl Into<Bucket>,
        prefix: &str,
        from: &mut dyn BufRead,
        scratch: &Path,
        runtime: &Handle,
    ) -> Result<Summary, VolumeError> {
        let bucket = bucket.into();
        let mut lines = Lines::new(from);
        let beginning = lines.beginning()?;
        let options = RemoteOptions {
            cache_size: Some(CACHE_BYTES),
            ..RemoteOptions::new(runtime.clone())
        };
        runtime.block_on(Self::create_remote(&bucket, prefix, &options.volume))?;
        let here = scratch.join("host");
        let mut load = || {
            let volume = Self::open_remote(&bucket, prefix, &here, &options)?;
            let summary = Loader::new(&volume).run(&mut lines)?;
            let closed = volume.close();
            closed.map_err(VolumeError::storage(
                &here,
                "not all of it is in the bucket",
            ))?;
            let limit = |quota: &mut Quota| *quota = beginning.quota;
            runtime.block_on(Self::change_remote_quota(&bucket, prefix, limit))?;
            Ok(summary)
        };
        load().map_err(half_loaded(prefix.to_owned()))
    }
}

fn half_loaded(place: String) -> impl FnOnce(VolumeError) -> VolumeError {
    |error| VolumeError::HalfLoaded {
        place,
        source: Box::new(error),
    }
}

/// Dumps a volume whose rows are in a file.
fn dump(
    rows: &Path,
    content: Option<&Source>,
    to: &mut dyn Write,
    (uuid, quota): (String, Quota),
) -> Result<Summary, VolumeError> {
    let open = schema::reader(rows).map_err(std::io::Error::other);
    let open = open.map_err(VolumeError::failed(rows, "cannot be read"))?;
    let mut writer = Writer {
        rows: &open,
        content,
        to,
    };
    writer.run(uuid, quota).map_err(|broken| broken.told(rows))
}
