//! Whether the disk still has what was put into the cache.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::Catalogue;
use super::files::{CachedFile, Kind, files, index_of};
use super::record::Record;
use crate::blob::Sha256Digest;
use crate::content::verify_content;
use crate::index::{LayerIndex, LoadError};
use crate::tree::{self, Tree};

/// What was looked at, and what was wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Layers and documents as they were fetched.
    pub blobs: usize,
    /// Spans of decoded layers.
    pub spans: usize,
    /// Indexes and trees.
    pub indexes: usize,
    /// What was wrong, and was removed.
    pub problems: Vec<Problem>,
}

/// Something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The layer, document or image.
    pub digest: Sha256Digest,
    /// What was wrong with it.
    pub what: String,
    /// Somebody uses it now. What he has read of it he keeps, until he opens it again.
    pub in_use: bool,
}

impl Catalogue {
    /// Reads what the cache has, or only what it has of one image, and removes what is not what it was when it was put
    /// there. It will be fetched, decoded or made again when it is needed.
    ///
    /// # Errors
    /// What the file system answers, except that a file cannot be read: such a file is wrong.
    pub fn verify(&self, only: Option<Sha256Digest>) -> io::Result<Verified> {
        let mut records = self.records()?;
        let mut used = HashSet::new();
        for record in &records {
            if self.is_in_use(record.digest)? {
                used.extend(belonging(record));
            }
        }
        let wanted: Option<HashSet<Sha256Digest>> = only.map(|only| {
            records.retain(|record| record.digest == only);
            records.iter().flat_map(belonging).collect()
        });
        let mut verified = Verified::default();
        for file in files(&self.cache)? {
            let Some(digest) = file.digest else {
                continue;
            };
            if wanted.as_ref().is_some_and(|it| !it.contains(&digest)) {
                continue;
            }
            let in_use = used.contains(&digest);
            let problems = verified.look_at(&file, digest)?;
            let problems = problems.into_iter().map(|what| Problem {
                digest,
                what,
                in_use,
            });
            verified.problems.extend(problems);
        }
        Ok(verified)
    }
}

/// The digests of all that belongs to an image.
fn belonging(record: &Record) -> Vec<Sha256Digest> {
    let mut all = record.documents.clone();
    all.push(record.digest);
    all.extend(record.layers.iter().map(|layer| layer.digest));
    all
}

impl Verified {
    /// What is wrong with a file, which it is not afterwards.
    fn look_at(&mut self, file: &CachedFile, digest: Sha256Digest) -> io::Result<Vec<String>> {
        let count = match file.kind {
            Kind::Blob => &mut self.blobs,
            Kind::Index | Kind::Tree => &mut self.indexes,
            Kind::Content => return self.look_into(file),
            // It is compared with its digest when it is complete, or says nothing that is relied on.
            Kind::Part | Kind::Name | Kind::Trace | Kind::Temporary => return Ok(Vec::new()),
        };
        let problem = match file.kind {
            Kind::Blob => blob(&file.path, digest),
            Kind::Tree => tree(&file.path),
            _ => index(&file.path, digest),
        };
        match problem {
            // Removed meanwhile, as it may be.
            _ if !file.path.exists() => Ok(Vec::new()),
            None => {
                *count = count.saturating_add(1);
                Ok(Vec::new())
            }
            Some(problem) => {
                std::fs::remove_file(&file.path)?;
                Ok(vec![problem])
            }
        }
    }

    fn look_into(&mut self, file: &CachedFile) -> io::Result<Vec<String>> {
        let folder = file.path.parent().unwrap_or(Path::new("."));
        let Some(index) = index_of(&file.path) else {
            // What stands where is not known: it is when the index was made again.
            return Ok(Vec::new());
        };
        let found = verify_content(folder, &index).map_err(io::Error::other)?;
        self.spans = self.spans.saturating_add(found.right);
        let problem = |span| format!("span {span} of what it decodes to was damaged");
        Ok(found.wrong.into_iter().map(problem).collect())
    }
}

fn blob(path: &Path, digest: Sha256Digest) -> Option<String> {
    let hash = || -> io::Result<Sha256Digest> {
        let mut file = File::open(path)?;
        let mut sum = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(sum.into()),
                Ok(count) => sum.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    match hash() {
        Ok(found) if found == digest => None,
        Ok(found) => Some(format!("it was damaged, it is {found}")),
        Err(error) => Some(format!("it cannot be read: {error}")),
    }
}

fn index(path: &Path, digest: Sha256Digest) -> Option<String> {
    match LayerIndex::load(path) {
        Ok(index) if index.blob.digest == digest => None,
        Ok(_) => Some("its index was another layer's".to_owned()),
        Err(LoadError::Foreign) => Some("its index is of another version".to_owned()),
        Err(error) => Some(format!("its index was damaged: {error}")),
    }
}

fn tree(path: &Path) -> Option<String> {
    match Tree::load(path) {
        Ok(_) => None,
        Err(tree::LoadError::Foreign) => Some("its tree is of another version".to_owned()),
        Err(error) => Some(format!("its tree was damaged: {error}")),
    }
}
