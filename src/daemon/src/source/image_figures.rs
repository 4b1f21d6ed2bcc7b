//! What metrics tell of an image.

use vfsd_oci::{Counters, OciImage, RequestKind};

use crate::figures::{Figure, Value, plain};

/// What registries were asked, where the image is in one; what was read of it; and how much of it is here, while it is
/// open.
pub(super) fn figures(
    counters: &Counters,
    image: Option<&OciImage>,
    in_registry: bool,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    if in_registry {
        figures.extend(requests(counters));
    }
    let counts = counters.counts();
    figures.extend(
        [
            ("cached", counts.cached),
            ("fetched", counts.fetched),
            ("waited", counts.waited),
        ]
        .map(|(outcome, spans)| Figure {
            name: "vfsd_image_reads_total",
            label: Some(("outcome", outcome)),
            value: Value::Counter(spans),
        }),
    );
    figures.extend(
        [
            ("vfsd_image_fills_total", counts.filled),
            ("vfsd_image_fill_failures_total", counts.failed),
            ("vfsd_image_verification_failures_total", counts.wrong),
            ("vfsd_image_evicted_bytes_total", counts.evicted),
        ]
        .map(|(name, count)| plain(name, Value::Counter(count))),
    );
    if let Some(image) = image {
        let fill = image.fill();
        figures.extend(
            [
                ("vfsd_image_bytes", fill.bytes),
                ("vfsd_image_local_bytes", fill.local),
                ("vfsd_image_cached_bytes", fill.resident),
            ]
            .map(|(name, bytes)| plain(name, Value::Amount(bytes))),
        );
    }
    figures
}

fn requests(counters: &Counters) -> impl Iterator<Item = Figure> {
    RequestKind::ALL.into_iter().flat_map(|kind| {
        let of_kind = counters.requests(kind);
        [
            ("vfsd_image_requests_total", of_kind.sent),
            ("vfsd_image_request_bytes_total", of_kind.bytes),
            ("vfsd_image_request_retries_total", of_kind.retries),
            ("vfsd_image_request_failures_total", of_kind.failures),
        ]
        .map(|(name, count)| Figure {
            name,
            label: Some(("kind", kind.name())),
            value: Value::Counter(count),
        })
    })
}
