//! The end of a bucket that was written to: what is pending goes up, or stays on the host's disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use vfsd_backend::Result;

use super::{AT_ONCE, Writer};
use crate::flat::node::FlatNode;

/// A service that refuses does so sooner; one that does not answer is not waited for once more for each file.
const SILENT: Duration = Duration::from_secs(5);
/// Characters of a file's name that are in the name of what is kept of it.
const NAME: usize = 50;

impl Writer {
    /// Uploads everything that is pending, for the last time, whoever has it open. The content that cannot be
    /// uploaded is kept beside the staged files.
    ///
    /// # Errors
    /// Says how much of it that was. Each file has a line in the log.
    pub(in crate::flat) async fn finish(&self) -> Result<()> {
        let silent = &AtomicBool::new(false);
        let left: Vec<Arc<FlatNode>> = futures_util::stream::iter(self.pending_below(""))
            .map(|node| async move {
                if silent.load(Ordering::Relaxed) {
                    return Some(node);
                }
                let at = Instant::now();
                let error = node.commit().await.err()?;
                // After a conflict the content has another name in the bucket.
                let is_left = self.pending(&node.key()).is_some();
                tracing::error!(key = %node.key().escape_debug(), %error, "the last upload failed");
                silent.fetch_or(is_left && at.elapsed() >= SILENT, Ordering::Relaxed);
                is_left.then_some(node)
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let Some(first) = left.first() else {
            return Ok(());
        };
        for node in &left {
            keep(node);
        }
        Err(std::io::Error::other(format!(
            "{} files that were changed are not in the bucket, one of them {}; what was written to them is kept as unsent-* \
             where files are staged",
            left.len(),
            first.key().escape_debug()
        ))
        .into())
    }
}

/// Keeps what was written to a file, with a line that says where.
fn keep(node: &FlatNode) {
    let key = node.key();
    let Ok((file, _)) = node.to_write() else {
        return;
    };
    let staged = file.writing.staged().filter(|_| file.writing.is_written());
    let Some(staged) = staged else {
        tracing::error!(key = %key.escape_debug(), "attributes that the guest changed are lost");
        return;
    };
    let (_, own) = crate::flat::names::split(&key);
    let own: String = own.chars().take(NAME).collect();
    let name = format!("unsent-{:016x}-{own}", crate::store::random());
    match staged.keep(&name) {
        Ok(()) => {
            tracing::error!(key = %key.escape_debug(), name = %name.escape_debug(), "kept where files are staged");
        }
        Err(error) => {
            tracing::error!(key = %key.escape_debug(), %error, "what the guest wrote is lost");
        }
    }
}
