//! What the daemon tells of itself on the control socket.

use std::fmt::Write;
use std::sync::Arc;

use vfsd_server::Session;
use vfsd_virtio::{CountersSnapshot, Device};

use crate::control::Subject;
use crate::figures::Figures;
use crate::settings::ExportSettings;

/// A session, and the device that it is served through, if it is one.
#[derive(Debug)]
pub(crate) struct Status {
    exports: String,
    session: Arc<Session>,
    device: Option<Arc<Device>>,
    figures: Arc<Figures>,
}

impl Status {
    /// What there is to tell of `session` and of its storages, which tell `figures`.
    pub(crate) fn new(
        exports: String,
        session: Arc<Session>,
        device: Option<Arc<Device>>,
        figures: Arc<Figures>,
    ) -> Self {
        Self {
            exports,
            session,
            device,
            figures,
        }
    }
}

/// One line for each export: its directory in the guest, source and access.
pub(crate) fn describe(exports: &[ExportSettings]) -> String {
    let mut lines = String::new();
    for export in exports {
        let name = export.name.as_deref().unwrap_or("");
        let access = if export.readonly { "ro" } else { "rw" };
        // Writing to a string does not fail.
        let _ = writeln!(lines, "export /{name} {} {access}", export.source);
    }
    lines
}

impl Subject for Status {
    fn status(&self) -> String {
        let gauges = self.session.metrics().gauges;
        let mut text = format!("version {}\n{}", env!("CARGO_PKG_VERSION"), self.exports);
        let _ = writeln!(
            text,
            "nodes {}\nhandles {}\nlock_waits {}",
            gauges.nodes, gauges.handles, gauges.lock_waits
        );
        if let Some(device) = &self.device {
            let _ = writeln!(text, "connections {}", device.counters().connections);
        }
        text
    }

    fn metrics(&self) -> String {
        let mut text = self.session.metrics().to_string();
        if let Some(device) = &self.device {
            text.push_str(&device_metrics(&device.counters()));
        }
        text.push_str(&self.figures.text());
        text
    }
}

fn device_metrics(counters: &CountersSnapshot) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("vfsd_connections_total", counters.connections),
        ("vfsd_chains_popped_total", counters.chains_popped),
        ("vfsd_chains_pushed_total", counters.chains_pushed),
        ("vfsd_chains_lost_total", counters.chains_lost),
        ("vfsd_wrong_replies_total", counters.wrong_replies),
    ] {
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
    }
    for (name, reasons) in [
        ("vfsd_bad_chains_total", &counters.bad_chains),
        ("vfsd_broken_rings_total", &counters.broken_rings),
    ] {
        let _ = writeln!(text, "# TYPE {name} counter");
        for (reason, count) in reasons {
            let _ = writeln!(text, "{name}{{reason={reason:?}}} {count}");
        }
    }
    text
}
