//! What both daemons serve.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, fsetxattr};

use super::operation::Operation;

/// Files to look up, open and read attributes of.
pub(crate) const FILES: usize = 1000;
/// Entries of the large folder.
pub(crate) const ENTRIES: usize = 10_000;
/// Name of the large folder.
pub(crate) const MANY: &str = "many";
/// Name of the file to read and write.
pub(crate) const BIG: &str = "big";
/// Its length.
pub(crate) const BIG_BYTES: u64 = 64 << 20;
/// An attribute of each file, and what it holds.
pub(crate) const XATTR: &str = "user.bench";
/// See [`XATTR`].
pub(crate) const XATTR_VALUE: &[u8] = b"sixteen bytes xx";

/// Name of one of [`FILES`] files; all names are equally long.
pub(crate) fn file(index: usize) -> String {
    format!("file-{index:04}")
}

/// Name of a file that is not there; as long as those that are.
pub(crate) fn missing(index: usize) -> String {
    format!("none-{index:04}")
}

/// Name of a folder whose entries come and go: one for each queue, and one for the bare calls.
pub(crate) fn scratch(index: usize) -> String {
    format!("scratch-{index}")
}

/// Name of the entry of `slot` in a scratch folder; all are equally long.
pub(crate) fn entry_name(kind: &str, slot: usize) -> String {
    format!("{kind}-{slot:03}")
}

/// The two names of what is renamed there and back: it has the first between runs.
pub(crate) const RENAMED: [&str; 2] = ["r", "s"];

/// The scratch folder of the bare calls.
pub(crate) const BARE_SCRATCH: usize = 4;

/// A folder with everything the operations need.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Fills `path`, which is empty.
    ///
    /// # Errors
    /// A file cannot be made, or the file system has no extended attributes of users.
    pub(crate) fn fill(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        for index in 0..FILES {
            let file = create(&path.join(file(index)), b"content\n")?;
            fsetxattr(&file, XATTR, XATTR_VALUE, XattrFlags::empty())
                .context("set an extended attribute (a file system without them? see --dir)")?;
        }
        let many = path.join(MANY);
        fs::create_dir(&many).context("make the large folder")?;
        for index in 0..ENTRIES {
            create(&many.join(format!("entry-{index:06}")), b"")?;
        }
        for index in 0..=BARE_SCRATCH {
            let scratch = path.join(scratch(index));
            fs::create_dir(&scratch).context("make a scratch folder")?;
            for slot in 0..Operation::MOST_SLOTS {
                create(&scratch.join(entry_name(RENAMED[0], slot)), b"")?;
            }
        }
        let mut big = create(&path.join(BIG), b"")?;
        let block = vec![0x33; 1 << 20];
        for _ in 0..BIG_BYTES >> 20 {
            big.write_all(&block).context("write the large file")?;
        }
        // What is still to be written back would disturb the first samples.
        big.sync_all().context("write the large file")?;
        Ok(Self { path })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn create(path: &Path, content: &[u8]) -> Result<File> {
    let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.write_all(content)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file)
}
