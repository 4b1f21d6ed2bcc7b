//! Content that is taken away while it is in use.

use std::sync::atomic::{AtomicU64, Ordering};

use vfsd_backend::Wait;

use super::*;
use crate::content::{Places, Room};

/// Counts, and takes nothing away by itself.
#[derive(Default)]
struct Counting(AtomicU64);

impl Room for Counting {
    fn filled(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }

    fn make(&self) {}
}

fn bounded(layer: &Layer, folder: &TempDir) -> LayerContent {
    let source: Arc<dyn BlobSource> = layer.source();
    let (index, room) = (Arc::clone(&layer.index), Arc::new(Counting::default()));
    LayerContent::open_in(
        folder.path(),
        &index,
        source,
        boot(1),
        Some(room),
        Arc::default(),
    )
    .unwrap()
}

/// One with many spans.
fn plain_layer() -> Layer {
    layer(<[u8]>::to_vec)
}

fn places(layer: &Layer, folder: &TempDir) -> Places {
    Places::of(folder.path(), &layer.index).unwrap()
}

/// Every file is what it was, for who pins it as a reader does.
fn assert_rereads(layer: &Layer, content: &LayerContent) {
    for (entry, expected) in layer.contents.iter().enumerate() {
        let pinned = content.pin(entry, 0..u64::MAX, Wait::Refused).unwrap();
        assert!(pinned.is_some());
        content.fill(entry, 0..u64::MAX).unwrap();
        assert!(read(content, entry, 0..u64::MAX) == *expected, "{entry}");
    }
}

fn spans(content: &LayerContent, entry: usize) -> Vec<usize> {
    content.spans_of(entry, 0..u64::MAX).flatten().collect()
}

#[test]
fn what_is_pinned_stays_and_the_rest_is_absent_for_who_pins_it_next() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    let places = places(&layer, &folder);
    let entry = layer.number("long");
    let own = spans(&content, entry);
    assert!(own.len() > 3, "{own:?}");
    let pinned = content.pin(entry, 0..u64::MAX, Wait::Refused).unwrap();
    places.take(0..layer.spans()).unwrap();
    // Nothing of it went.
    assert!(read(&content, entry, 0..u64::MAX) == layer.contents[entry]);
    let left: Vec<usize> = places
        .resident()
        .unwrap()
        .iter()
        .map(|it| it.span)
        .collect();
    assert_eq!(left, own);
    drop(pinned);
    assert!(places.take(0..layer.spans()).unwrap() > 0);
    // Until somebody looks it is not known here.
    assert!(content.is_resident(entry, 0..u64::MAX));
    let pinned = content.pin(entry, 0..u64::MAX, Wait::Refused).unwrap();
    assert!(pinned.is_some() && !content.is_resident(entry, 0..u64::MAX));
    content.fill(entry, 0..u64::MAX).unwrap();
    assert!(read(&content, entry, 0..u64::MAX) == layer.contents[entry]);
    drop(pinned);
    assert_rereads(&layer, &content);
}

#[test]
fn a_layer_of_one_zstd_frame_comes_and_goes_as_a_whole() {
    let layer = layer(|tar| zstd::bulk::compress(tar, 3).unwrap());
    assert_eq!(layer.spans(), 1);
    let folder = folder();
    let mut content = bounded(&layer, &folder);
    // It is verified in a file.
    content.in_memory = 1000;
    let places = places(&layer, &folder);
    let entry = layer.number("long");
    for _ in 0..3 {
        let pinned = content.pin(entry, 0..1, Wait::Refused).unwrap();
        assert!(pinned.is_some() && !content.is_resident(entry, 0..1));
        content.fill(entry, 0..1).unwrap();
        // Whatever was asked for, all is there, and stays as long as somebody reads.
        assert_eq!(places.take(0..1).unwrap(), 0);
        for (number, expected) in layer.contents.iter().enumerate() {
            assert!(read(&content, number, 0..u64::MAX) == *expected);
        }
        drop(pinned);
        assert!(places.take(0..1).unwrap() > 0);
        let files = cache_files(&folder);
        assert_eq!(files.len(), 1, "no temporary file is left: {files:?}");
    }
}

#[test]
fn what_was_read_the_longest_time_ago_is_known_to_all() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    // As if it had been read in this order, by another daemon.
    let order = [5, 2, 9, 0];
    for (time, span) in (1..).zip(order) {
        content.file.set_read(span, time).unwrap();
    }
    let mut resident = places(&layer, &folder).resident().unwrap();
    resident.sort();
    let first: Vec<usize> = resident.iter().take(4).map(|it| it.span).collect();
    assert_eq!(first, order);
    assert!(resident[4].read > 1_600_000_000_000, "filled just now");
    // Reading is noted.
    let entry = layer.number("long");
    let own = spans(&content, entry);
    content.file.set_read(own[0], 1).unwrap();
    let again = bounded(&layer, &folder);
    drop(again.pin(entry, 0..1, Wait::Refused).unwrap());
    let resident = places(&layer, &folder).resident().unwrap();
    let found = resident.iter().find(|it| it.span == own[0]).unwrap();
    assert!(found.read > 1_600_000_000_000);
}

#[test]
fn nothing_is_taken_away_from_who_has_no_bound() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    let places = places(&layer, &folder);
    let unbounded = layer.open(&folder, &layer.source());
    assert!(places.is_kept().unwrap());
    assert_eq!(places.take(0..layer.spans()).unwrap(), 0);
    assert_eq!(places.resident().unwrap().len(), layer.spans());
    drop(unbounded);
    assert!(!places.is_kept().unwrap());
    places.take(0..layer.spans()).unwrap();
    assert_eq!(places.resident().unwrap().len(), 0);
}

#[test]
fn content_that_was_made_durable_and_taken_away_is_not_said_to_be_there() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    let places = places(&layer, &folder);
    places.take(0..4).unwrap();
    content.sync().unwrap();
    places.take(8..12).unwrap();
    // What is synced late is what is still there.
    content.sync().unwrap();
    drop(content);
    let content = layer.open_in(&folder, &layer.source(), boot(2));
    assert_eq!(content.resident_spans(), layer.spans() - 8);
    layer.assert_complete(&content);
}

#[test]
fn what_an_eviction_that_was_cut_off_has_left_is_found() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    let places = places(&layer, &folder);
    assert_eq!(places.left_over().unwrap(), Vec::<usize>::new());
    for span in 0..layer.spans() {
        content
            .file
            .set_state(span, crate::content::file::ABSENT)
            .unwrap();
    }
    let disk = content.file.disk().unwrap();
    assert!(disk > 1 << 19, "{disk}");
    assert!(places.take(places.left_over().unwrap()).unwrap() > disk / 2);
    assert_eq!(places.left_over().unwrap(), Vec::<usize>::new());
}

#[test]
fn the_little_that_an_eviction_has_left_is_found_too() {
    let layer = plain_layer();
    let folder = folder();
    let content = bounded(&layer, &folder);
    layer.assert_complete(&content);
    let places = places(&layer, &folder);
    let own = spans(&content, layer.number("long"));
    let cut_off = [own[1], own[3]];
    for span in cut_off {
        let absent = crate::content::file::ABSENT;
        content.file.set_state(span, absent).unwrap();
    }
    assert_eq!(places.left_over().unwrap(), cut_off);
    // Not while somebody fills it.
    let pinned = content.pin_span(own[1], Wait::Refused).unwrap();
    assert!(places.take(cut_off).unwrap() > 0);
    assert_eq!(places.left_over().unwrap(), [own[1]]);
    drop(pinned);
    assert!(places.take([own[1]]).unwrap() > 0);
    assert_eq!(places.left_over().unwrap(), Vec::<usize>::new());
    assert_rereads(&layer, &content);
}
