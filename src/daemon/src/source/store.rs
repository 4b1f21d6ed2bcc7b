//! How buckets are reached.

use std::time::Duration;

use vfsd_object_store::{OpenError, Overwrite, RetryPolicy, Store, StoreOptions, StoreUrl};

use crate::exit::Failure;
use crate::figures::{Figure, Value};

/// How long one attempt of a request may be without a sign of life.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What an operator decides about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreSettings {
    /// `KEY=VALUE`, before what the environment says.
    pub(crate) options: Vec<String>,
    /// How long a request is repeated.
    pub(crate) timeout: Duration,
    /// Whether their objects are written to, and whose version stays when another client writes, too.
    pub(crate) write: Option<Overwrite>,
}

impl StoreSettings {
    /// Opens a bucket. Nothing is sent yet; certificates and credentials are read, which are files of the host.
    ///
    /// # Errors
    /// When an option is none, or the credentials cannot be read.
    pub(crate) fn open(&self, url: &StoreUrl) -> Result<Store, Failure> {
        let policy = RetryPolicy::new(self.timeout, ATTEMPT);
        Store::open(url, &self.store_options()?, policy).map_err(|error| match error {
            OpenError::Option { .. } => Failure::usage(error),
            _ => Failure::run(error),
        })
    }

    fn store_options(&self) -> Result<StoreOptions, Failure> {
        let mut options = StoreOptions::from_env();
        for option in &self.options {
            options.set(option).map_err(Failure::usage)?;
        }
        Ok(options)
    }
}

/// What was sent to a store, repeated requests included.
pub(super) fn requests(store: &Store) -> Vec<Figure> {
    let sent = store.counters().requests();
    let requests = [
        ("get", sent.gets),
        ("head", sent.heads),
        ("list", sent.lists),
        ("put", sent.puts),
        ("delete", sent.deletes),
        ("copy", sent.copies),
        ("marker", sent.markers),
    ];
    let requests = requests.into_iter().map(|(operation, count)| Figure {
        name: "vfsd_store_requests_total",
        label: Some(("operation", operation)),
        value: Value::Counter(count),
    });
    let bytes = [("read", sent.bytes_read), ("written", sent.bytes_written)];
    let bytes = bytes.into_iter().map(|(direction, count)| Figure {
        name: "vfsd_store_bytes_total",
        label: Some(("direction", direction)),
        value: Value::Counter(count),
    });
    requests.chain(bytes).collect()
}
