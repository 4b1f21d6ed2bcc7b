//! Fetching ahead of a guest, from a registry that counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vfsd_backend::Backend as _;
use vfsd_testkit::place::Place;

use super::Stopped;
use super::demand::Demand;
use super::trace::{ENTRIES_MAX, Trace};
use crate::OciImage;
use crate::registry::tests::Scene;

const AT_ONCE: Duration = Duration::ZERO;

fn fetch_rest(image: &Arc<OciImage>, may_go_on: impl Fn() -> bool) -> Stopped {
    let weak = Arc::downgrade(image);
    OciImage::fetch_rest(&weak, AT_ONCE, may_go_on, |error| panic!("{error}"))
}

/// An image that was indexed, and whose layers are in the registry alone.
fn lazy(scene: &Scene) -> Arc<OciImage> {
    drop(scene.open().unwrap());
    scene.drop_layers();
    let image = scene.open().unwrap();
    scene.server.seen();
    Arc::new(image)
}

/// Reads in the middle of the larger file.
fn read_some(image: &OciImage, offset: u64) {
    let file = Place(image.root()).lookup("large").unwrap();
    let file = file.open(vfsd_backend::OpenFlags::READ).unwrap();
    assert_eq!(file.read(offset, 100).unwrap().len(), 100);
}

/// As many requests, and a few more where a busy machine let one take too long, so that it was made again.
fn assert_few(requests: &[impl std::fmt::Debug], count: usize) {
    assert!(
        (count..=count * 3).contains(&requests.len()),
        "{requests:?}"
    );
}

#[test]
fn the_rest_of_an_image_is_fetched_by_few_requests_and_then_nothing_is() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    read_some(&image, 1_500_000);
    assert_eq!(fetch_rest(&image, || true), Stopped::Complete);
    assert_few(&scene.blobs(), 2);
    for content in image.contents() {
        assert_eq!(content.resident_spans(), content.blob().spans.len());
    }
    assert_eq!(fetch_rest(&image, || true), Stopped::Complete);
    assert_eq!(scene.blobs(), []);
}

#[test]
fn what_was_fetched_stays_when_it_is_stopped_and_the_next_daemon_goes_on() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    assert_eq!(fetch_rest(&image, || false), Stopped::Refused);
    assert_eq!(scene.blobs(), []);
    let left = std::cell::Cell::new(1);
    let once = || left.replace(0) > 0;
    assert_eq!(fetch_rest(&image, once), Stopped::Refused);
    assert_eq!(scene.blobs().len(), 1);
    drop(image);
    let image = Arc::new(scene.open().unwrap());
    assert_eq!(fetch_rest(&image, || true), Stopped::Complete);
    assert_few(&scene.blobs(), 1);
}

#[test]
fn nothing_is_fetched_while_the_guest_waits_and_soon_after() {
    let demand = Demand::default();
    assert!(demand.is_quiet_for(Duration::ZERO));
    let waiting = demand.wait();
    assert!(!demand.is_quiet_for(Duration::ZERO));
    drop(waiting);
    assert!(!demand.is_quiet_for(Duration::from_secs(3600)));
    assert!(demand.is_quiet_for(Duration::ZERO));

    let scene = Scene::in_spans();
    let image = lazy(&scene);
    let waiting = image.demand().wait();
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch_rest(&image, || true));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(300) {
            assert_eq!(scene.server.seen(), []);
        }
        drop(waiting);
        assert_eq!(fetching.join().unwrap(), Stopped::Complete);
    });
    assert_few(&scene.blobs(), 2);
}

#[test]
fn fetching_ends_when_nobody_has_the_image_open() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    let weak = Arc::downgrade(&image);
    let waiting = std::thread::spawn(move || {
        let hour = Duration::from_secs(3600);
        OciImage::fetch_rest(&weak, hour, || true, |_| {})
    });
    drop(image);
    assert_eq!(waiting.join().unwrap(), Stopped::Closed);
}

#[test]
fn one_daemon_fetches_the_rest_and_the_others_leave_it_to_it() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    let filling = image.lease().fill().unwrap();
    assert!(filling.is_some());
    let other = Arc::new(scene.open().unwrap());
    assert!(other.lease().fill().unwrap().is_none());
    drop(filling);
    assert!(other.lease().fill().unwrap().is_some());
}

#[test]
fn what_was_read_at_the_last_start_is_fetched_first_at_the_next() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    read_some(&image, 2_500_000);
    read_some(&image, 100);
    drop(image);
    scene.drop_contents();
    let image = Arc::new(scene.open().unwrap());
    scene.server.seen();
    OciImage::prefetch(&Arc::downgrade(&image), 4).unwrap();
    assert!(!scene.blobs().is_empty());
    read_some(&image, 2_500_000);
    read_some(&image, 100);
    assert_eq!(scene.blobs(), [], "the guest waits for nothing");
    let resident: usize = image.contents().map(|it| it.resident_spans()).sum();
    assert_eq!(resident, 2, "and no more than that was fetched");
    // What is there at the next start is written down, too.
    drop(image);
    let image = Arc::new(scene.open().unwrap());
    read_some(&image, 100);
    drop(image);
    scene.drop_contents();
    let image = Arc::new(scene.open().unwrap());
    OciImage::prefetch(&Arc::downgrade(&image), 4).unwrap();
    let resident: usize = image.contents().map(|it| it.resident_spans()).sum();
    assert_eq!(resident, 1);
}

#[test]
fn a_trace_is_read_as_it_was_written_and_not_where_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces/x.trace");
    assert_eq!(Trace::load(&path), None);
    for trace in [Trace::default(), Trace(vec![(3, 7), (0, u32::MAX)])] {
        trace.store(&path).unwrap();
        assert_eq!(Trace::load(&path), Some(trace));
    }
    let bytes = std::fs::read(&path).unwrap();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(Trace::load(&path), None, "byte {place}");
        std::fs::write(&path, &bytes[..place]).unwrap();
        assert_eq!(Trace::load(&path), None, "{place} bytes");
    }
    let long = Trace(vec![(1, 1); ENTRIES_MAX + 5]);
    long.store(&path).unwrap();
    assert_eq!(Trace::load(&path).unwrap().0.len(), ENTRIES_MAX);
}

#[test]
fn a_trace_of_another_image_harms_nothing() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    let wrong = Trace(vec![(0, 1_000_000), (77, 0), (u32::MAX, u32::MAX)]);
    wrong.store(image.recorder().path()).unwrap();
    OciImage::prefetch(&Arc::downgrade(&image), 4).unwrap();
    assert_eq!(scene.blobs(), []);
}

#[test]
fn what_was_read_is_written_down_when_the_image_is_closed() {
    let scene = Scene::in_spans();
    let image = lazy(&scene);
    read_some(&image, 1_500_000);
    let path = image.recorder().path().to_owned();
    assert!(!path.exists());
    image.close().unwrap();
    assert!(path.exists() && !image.recorder().is_recording());
    image.close().unwrap();
}
