//! One guest's session.
use std::sync::Arc;
use crate::{Exchange, Exports, Incoming, SessionOptions};

/// One guest.
#[derive(Debug)]
pub struct Session {}

/// Counters.
#[derive(Debug, Clone, Default)]
pub struct MetricsSnapshot {}

impl std::fmt::Display for MetricsSnapshot {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl Session {
    /// A session.
    pub fn new(_exports: Exports, _options: SessionOptions, _runtime: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self {})
    }
    /// Takes a request.
    pub fn submit<E: Exchange>(self: &Arc<Self>, incoming: Incoming<E>) {
        incoming.exchange.discard();
    }
    /// Ends waits for locks.
    pub fn cancel_waits(&self) {}
    /// Ends the session.
    pub fn reset(&self) {}
    /// Counters.
    pub fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::default()
    }
}
