//! The local directory of a volume in a bucket: its cache, and what is not in the bucket yet.
//!
//! ```text
//! lock             locked by who has the volume open
//! local.json       which volume it is, and the name of this directory for the bucket
//! seen.json        how far it has seen the chains of volumes
//! cleaned.json     when objects were last removed from the bucket
//! session.json     who had it open last, and whether everything was in the bucket at the end
//! shipped.sqlite   what the bucket says
//! meta.sqlite, journal/, data/   the volume, as in a directory
//! aside-N/         what could not be brought into the bucket because another daemon took over
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bucket::{CHECKPOINT_TO_READ, Point};
use crate::data::DataFolder;
use crate::layout::Layout;
use crate::meta::journal::Lsn;

/// See [`Local::checkpoint_to_store`].
const CHECKPOINT_TO_STORE: &str = "checkpoint-to-store.sqlite";
/// No such file is longer.
const MAX_BYTES: u64 = 64 * 1024;

/// A local directory.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    path: PathBuf,
    layout: Layout,
    /// Of the host, if it was told.
    boot: Option<String>,
}

/// `local.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    /// Of the volume, in hexadecimal digits.
    pub(crate) uuid: String,
    /// What the bucket knows this directory by.
    pub(crate) instance: String,
}

/// Of `seen.json`: the last point of a volume's chain that was here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenPoint {
    /// Of the volume, in hexadecimal digits.
    pub(crate) uuid: String,
    #[serde(flatten)]
    pub(crate) at: Point,
}

/// `session.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Of the host's kernel: another one after each boot.
    pub(crate) boot: String,
    /// Of the daemon, in the bucket.
    pub(crate) epoch: u64,
    /// Everything was in the bucket, and on the disk, and the volume was given back.
    pub(crate) clean: bool,
}

/// Which boot of the host this is: another text after each one.
///
/// # Errors
/// There is no `/proc`, as in a sandbox.
pub fn host_boot() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

impl Local {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            layout: Layout::new(path),
            boot: None,
        }
    }

    /// The same, with what [`host_boot`] says.
    pub(crate) fn at_boot(self, boot: Option<String>) -> Self {
        Self { boot, ..self }
    }

    /// Which boot of the host this is.
    pub(crate) fn boot(&self) -> io::Result<String> {
        match &self.boot {
            Some(boot) => Ok(boot.clone()),
            None => host_boot(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The shipped image.
    pub(crate) fn shipped(&self) -> PathBuf {
        self.path.join("shipped.sqlite")
    }

    /// A copy of it that is on its way.
    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.sqlite")
    }

    /// A copy of rows on their way into the bucket, beside those that stay.
    pub(crate) fn checkpoint_to_store(&self) -> PathBuf {
        self.path.join(CHECKPOINT_TO_STORE)
    }

    pub(crate) fn remove_checkpoint_to_store(&self) -> io::Result<()> {
        self.remove_database(CHECKPOINT_TO_STORE)
    }

    /// Removes the copy for a checkpoint, and what was left of those that were read or stored.
    pub(crate) fn remove_checkpoint(&self) -> io::Result<()> {
        self.remove_database(CHECKPOINT_TO_READ)?;
        self.remove_checkpoint_to_store()?;
        self.remove_database("checkpoint.sqlite")
    }

    /// When a daemon here last removed objects from the bucket, in seconds after 1970.
    pub(crate) fn last_cleaning(&self) -> Option<u64> {
        self.read("cleaned.json").unwrap_or_default()
    }

    pub(crate) fn write_last_cleaning(&self, seconds: u64) -> io::Result<()> {
        self.write("cleaned.json", &seconds)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        use std::io::Read;
        let file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let unfinished = self.path.join(format!("{name}.new"));
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(unfinished, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    pub(crate) fn identity(&self) -> io::Result<Option<Identity>> {
        self.read("local.json")
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        self.write("local.json", identity)
    }

    /// How far chains were seen from here.
    pub(crate) fn seen(&self) -> io::Result<Vec<SeenPoint>> {
        Ok(self.read("seen.json")?.unwrap_or_default())
    }

    pub(crate) fn write_seen(&self, seen: &[SeenPoint]) -> io::Result<()> {
        self.write("seen.json", &seen)
    }

    /// Who had the volume open here last; nobody, or nobody knows.
    pub(crate) fn session(&self) -> Option<Session> {
        self.read("session.json").unwrap_or_default()
    }

    pub(crate) fn write_session(&self, epoch: u64, clean: bool) -> io::Result<()> {
        let boot = self.boot()?;
        self.write("session.json", &Session { boot, epoch, clean })
    }

    /// Whether there is a live volume.
    pub(crate) fn has_live(&self) -> bool {
        self.layout.database().exists()
            && self.layout.journal().exists()
            && self.layout.data().exists()
    }

    /// Moves the live volume out of the way, and answers where it is now.
    pub(crate) fn set_live_aside(&self) -> io::Result<PathBuf> {
        let place = (1_u32..)
            .map(|number| self.path.join(format!("aside-{number}")))
            .find(|place| !place.exists())
            .ok_or(io::ErrorKind::AlreadyExists)?;
        std::fs::create_dir(&place)?;
        for name in [
            "meta.sqlite",
            "meta.sqlite-wal",
            "meta.sqlite-shm",
            "journal",
            "data",
            "session.json",
        ] {
            match std::fs::rename(self.path.join(name), place.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(place)
    }

    /// Removes the live volume.
    pub(crate) fn remove_live(&self) -> io::Result<()> {
        self.remove_database("meta.sqlite")?;
        for folder in [self.layout.journal(), self.layout.data()] {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the shipped image.
    pub(crate) fn remove_shipped(&self) -> io::Result<()> {
        self.remove_database("shipped.sqlite")
    }

    fn remove_database(&self, name: &str) -> io::Result<()> {
        for end in ["", "-wal", "-shm"] {
            match std::fs::remove_file(self.path.join(format!("{name}{end}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a live volume: tables that `fill` puts into a file, no journal, no data.
    pub(crate) fn make_live(
        &self,
        fill: impl FnOnce(&Path) -> vfsd_backend::Result<()>,
    ) -> vfsd_backend::Result<()> {
        self.remove_live()?;
        std::fs::create_dir(self.layout.journal())?;
        DataFolder::create(&self.layout.data())?;
        // The tables come last: without them there is no live volume.
        let unfinished = self.path.join("new.sqlite");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.path.join(format!("new.sqlite{end}")));
        }
        fill(&unfinished)?;
        // After a power cut there is a whole one, or none.
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(unfinished, self.layout.database())?;
        Ok(())
    }

    /// The last record that is in the live volume, if one is.
    pub(crate) fn last_record(&self, tables: Lsn) -> io::Result<Lsn> {
        crate::meta::journal::read(&self.layout.journal(), tables, |_, _| Ok(()))
    }
}
