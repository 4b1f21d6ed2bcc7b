//! A tree in a file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::records::{
    CHECKSUM, ChildRecord, ExtentRecord, Header, MAGIC, NodeRecord, VERSION, XattrRecord,
};
use super::validate::validate;
use super::view::{Figures, Sections, Tree};

/// The largest file that is read: about 20 times what the largest image needs.
const LARGEST: u64 = 8 << 30;

/// Why a stored tree is not used. Whatever it is, the tree can be made again from the layers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Io(#[from] std::io::Error),
    /// It is no tree, or one of another version.
    #[error("not a tree of version {VERSION}")]
    Foreign,
    /// The checksum is another one: the file was damaged.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, but the records make no tree.
    #[error("it has {0}")]
    Invalid(&'static str),
}

impl Tree {
    /// Writes the tree to `path`, whole or not at all: to a new file beside it that is then renamed.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn store(&self, path: &Path) -> std::io::Result<()> {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(&self.bytes)?;
        file.write_all(&Sha256::digest(&self.bytes))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// Reads a tree that was [stored](Self::store), into memory.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let mut bytes = Vec::new();
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > LARGEST {
            return Err(LoadError::Foreign);
        }
        bytes.reserve_exact(usize::try_from(length).unwrap_or(0));
        file.take(LARGEST).read_to_end(&mut bytes)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(LoadError::Foreign);
        }
        let end = bytes.len().saturating_sub(CHECKSUM);
        let checksum = bytes.split_off(end);
        if *Sha256::digest(&bytes) != *checksum {
            return Err(LoadError::Checksum);
        }
        Self::from_bytes(bytes)
    }

    /// A tree of records without a checksum.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, LoadError> {
        let (header, _) = Header::ref_from_prefix(&bytes).map_err(|_| LoadError::Foreign)?;
        if header.magic != MAGIC || header.version.get() != VERSION {
            return Err(LoadError::Foreign);
        }
        let mut end = size_of::<Header>();
        let mut section = |count: u32, size: usize| {
            let begin = end;
            end = end.saturating_add(size.saturating_mul(count as usize));
            begin..end
        };
        let sections = Sections {
            nodes: section(header.nodes.get(), size_of::<NodeRecord>()),
            children: section(header.children.get(), size_of::<ChildRecord>()),
            extents: section(header.extents.get(), size_of::<ExtentRecord>()),
            xattrs: section(header.xattrs.get(), size_of::<XattrRecord>()),
            pool: section(header.pool.get(), 1),
        };
        if end != bytes.len() {
            return Err(LoadError::Invalid("another length than its header says"));
        }
        let mut tree = Self {
            layers: header.layers.get(),
            bytes,
            sections,
            figures: Figures::default(),
        };
        tree.figures = validate(&tree).map_err(LoadError::Invalid)?;
        Ok(tree)
    }
}

// The sections are read through this bound; records that had padding or alignment would not have it.
const _: () = {
    const fn readable<T: FromBytes + KnownLayout + Immutable + zerocopy::Unaligned>() {}
    readable::<NodeRecord>();
    readable::<ChildRecord>();
    readable::<ExtentRecord>();
    readable::<XattrRecord>();
};
