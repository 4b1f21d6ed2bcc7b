//! Copies that replace nothing.
//!
//! Amazon, Google, Azure and SeaweedFS copy under the condition that there is no object yet (`If-None-Match: *`); other services ignore that, or
//! refuse it. What a [probe](super::probe) has not found to hold is looked at right before.

use std::sync::atomic::{AtomicBool, Ordering};

use object_store::path::Path;
use object_store::{Attributes, CopyMode, CopyOptions, Error, ObjectMeta, ObjectStore, Result};
use tokio::time::timeout;

use super::Store;
use super::error::is_unknown;
use super::head::{found, head};
use super::nonce::Nonce;
use super::retry::RetryingStore;
use super::retry_policy::silent;

/// What was found out about the condition.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// The service was seen to keep it.
    keeps: AtomicBool,
    /// The service refuses requests that have it.
    refuses: AtomicBool,
}

/// A copy onto an object that is there is sent, to see what comes of it.
#[derive(Debug, Clone, Copy)]
struct Trial;

/// What is at a place.
struct There {
    meta: ObjectMeta,
    attributes: Attributes,
}

impl There {
    /// Whether it is a copy of something, as far as that can be told.
    fn is_copy_of(&self, original: &Self) -> bool {
        let nonces = [self, original].map(|there| Nonce::found(&there.attributes));
        let same = match nonces {
            [Some(own), Some(original)] => own == original,
            _ => self.meta.e_tag.is_some() && self.meta.e_tag == original.meta.e_tag,
        };
        same && self.meta.size == original.meta.size
    }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists {
        path: path.to_string(),
        source: "there is an object".into(),
    }
}

impl Store {
    /// Copies an object to where none is.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one.
    pub(crate) async fn copy_new(&self, from: &Path, to: &Path) -> Result<()> {
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        self.objects.copy_opts(from, to, options).await
    }

    /// Whether the service was seen to copy under the condition that nothing is replaced.
    pub(crate) fn copies_under_conditions(&self) -> bool {
        self.copies.keeps.load(Ordering::Relaxed)
    }

    /// Finds out whether the service keeps the condition, with two objects that are there.
    pub(super) async fn try_copy(&self, from: &Path, to: &Path) {
        let mut options = CopyOptions::new().with_mode(CopyMode::Create);
        options.extensions.insert(Trial);
        match self.objects.copy_opts(from, to, options).await {
            Err(Error::AlreadyExists { .. }) => self.copies.keeps.store(true, Ordering::Relaxed),
            Err(error) if is_unknown(&error) => self.copies.refuses.store(true, Ordering::Relaxed),
            // Nothing was learned, and each copy is looked at on its own.
            _ => {}
        }
    }
}

impl RetryingStore {
    /// Copies to where nothing is, and knows its own copy although the reply got lost.
    pub(super) async fn copy_new(
        &self,
        from: &Path,
        to: &Path,
        mut options: CopyOptions,
    ) -> Result<()> {
        let limit = self.policy.give_up;
        if options.extensions.remove::<Trial>().is_some() {
            let copy = || self.inner.copy_opts(from, to, options.clone());
            return self.policy.run_for(limit, copy).await;
        }
        let copies = self.copies();
        if !copies.keeps.load(Ordering::Relaxed) && self.there(to).await?.is_some() {
            return Err(exists(to));
        }
        let mut pauses = self.policy.pauses();
        let mut maybe_applied = false;
        loop {
            if copies.refuses.load(Ordering::Relaxed) {
                options.mode = CopyMode::Overwrite;
            }
            let copy = self.inner.copy_opts(from, to, options.clone());
            let copied = timeout(limit, copy).await;
            let error = match copied.unwrap_or_else(|_| Err(silent())) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let existed = matches!(error, Error::AlreadyExists { .. });
            match error {
                // A passing conflict (409) has the same error.
                error if existed => match self.there(to).await? {
                    Some(there) if maybe_applied && self.is_copy(&there, from).await? => {
                        return Ok(());
                    }
                    Some(_) => return Err(error),
                    None => pauses.conflict(error).await?,
                },
                error if is_unknown(&error) && options.mode == CopyMode::Create => {
                    copies.refuses.store(true, Ordering::Relaxed);
                }
                error => {
                    pauses.after(error).await?;
                    maybe_applied = true;
                    // Without a condition the next one would replace what came meanwhile.
                    if let Some(there) = self.there(to).await? {
                        return match self.is_copy(&there, from).await? {
                            true => Ok(()),
                            false => Err(exists(to)),
                        };
                    }
                }
            }
        }
    }

    async fn is_copy(&self, there: &There, from: &Path) -> Result<bool> {
        let original = self.there(from).await?;
        Ok(original.is_some_and(|original| there.is_copy_of(&original)))
    }

    async fn there(&self, path: &Path) -> Result<Option<There>> {
        let look = || self.inner.get_opts(path, head());
        let there = found(self.policy.run(look).await)?;
        Ok(there.map(|there| There {
            meta: there.meta,
            attributes: there.attributes,
        }))
    }
}
