//! What was read after a start, in a file.
//!
//! ```text
//! magic 8 | version u32 | entries u32 | entry: layer u32, span u32 | SHA-256 of all before
//! ```

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::blob::Sha256Digest;

const MAGIC: &[u8; 8] = b"vfsdtrac";
const VERSION: u32 = 1;
/// The most that is written down: 16 GiB of content in spans of 256 KiB.
pub(super) const ENTRIES_MAX: usize = 1 << 16;
const HEAD: usize = 16;
const ENTRY: usize = 8;
const FOOTER: usize = 32;

/// Spans by the numbers of their layers and their own, in the order in which they were needed first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) Vec<(u32, u32)>);

impl Trace {
    /// Writes it whole or not at all. Where it has more than is ever written, the end is left out.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let entries = self.0.get(..ENTRIES_MAX).unwrap_or(&self.0);
        let count = u32::try_from(entries.len()).unwrap_or(0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        for (layer, span) in entries {
            bytes.extend(layer.to_le_bytes());
            bytes.extend(span.to_le_bytes());
        }
        let sum = Sha256Digest::of(&bytes);
        bytes.extend(sum.0);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&bytes)?;
        file.persist(path)?;
        Ok(())
    }

    /// The one that was stored; none where it is not there, damaged or of another version.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let most = HEAD + ENTRIES_MAX * ENTRY + FOOTER;
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        let most = u64::try_from(most).ok()?;
        file.take(most).read_to_end(&mut bytes).ok()?;
        let (body, footer) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER)?)?;
        if Sha256Digest::of(body).0 != footer {
            return None;
        }
        let rest = body.strip_prefix(MAGIC.as_slice())?;
        let rest = rest.strip_prefix(VERSION.to_le_bytes().as_slice())?;
        let (count, entries) = rest.split_first_chunk::<4>()?;
        let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
        let entries: Option<Vec<_>> = entries
            .chunks(ENTRY)
            .map(|entry| Some((number(entry.get(..4)?)?, number(entry.get(4..)?)?)))
            .collect();
        let entries = entries?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        (entries.len() == count).then_some(Self(entries))
    }
}
