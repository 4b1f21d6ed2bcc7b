//! What is kept of the 32 KiB before a checkpoint.

use super::*;

/// Bytes that repeat nothing, of which gzip makes blocks of 32 KiB or more.
fn noise(length: usize) -> Vec<u8> {
    let mut numbers = Numbers(7);
    let bytes = std::iter::repeat_with(|| numbers.next().to_le_bytes());
    bytes.take(length / 8).flatten().collect()
}

fn kept(window: &Window) -> usize {
    let bytes = window.unpack().unwrap();
    bytes.iter().filter(|byte| **byte != 0).count()
}

#[test]
fn only_what_is_repeated_of_a_window_is_kept() {
    let mut content = noise(300_000);
    // Now and then something of 100 bytes comes again, from as far away as it may.
    for at in (35_000..300_000 - 100).step_by(5000) {
        let from = at - 32_000;
        content.copy_within(from..from + 100, at);
    }
    let index = assert_readable_with(&gzip(&content, 9), &content, 50_000);
    let kept: Vec<usize> = blocks(&index).map(|(_, window)| kept(window)).collect();
    assert!(kept.len() > 3, "{}", kept.len());
    for kept in kept {
        // Seven of these at most, and what noise has in common with other noise.
        assert!((500..=1000).contains(&kept), "{kept}");
    }
    for (_, window) in blocks(&index) {
        assert!(window.packed().len() < 1500, "{}", window.packed().len());
    }
}

#[test]
fn nothing_is_kept_for_a_span_that_repeats_nothing_and_all_for_one_that_repeats_all() {
    let noise = noise(120_000);
    let index = assert_readable(&gzip(&noise, 9), &noise);
    assert!(blocks(&index).count() > 3);
    assert!(blocks(&index).all(|(_, window)| kept(window) < 100));
    // A block ends wherever the encoder is flushed.
    let again: Vec<u8> = noise[..32_000]
        .iter()
        .cycle()
        .take(400_000)
        .copied()
        .collect();
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(6));
    for piece in again.chunks(100_000) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    let index = assert_readable(&encoder.finish().unwrap(), &again);
    assert!(blocks(&index).count() > 2);
    let spans = index.spans.iter().filter(|span| !span.decoded.is_empty());
    assert!(spans.count() > 3);
    let kept: Vec<usize> = blocks(&index).map(|(_, window)| kept(window)).collect();
    assert!(kept[..3].iter().all(|kept| *kept > 31_000), "{kept:?}");
}

#[test]
fn all_of_a_window_is_kept_where_what_follows_takes_too_much_of_the_blob() {
    let content = noise(200_000);
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(6));
    encoder.write_all(&content[..70_000]).unwrap();
    encoder.flush().unwrap();
    let place = encoder.get_ref().len();
    encoder.write_all(&content[70_000..]).unwrap();
    let mut blob = encoder.finish().unwrap();
    // Stored blocks of no bytes, which end at whole bytes as those before them do.
    let nothing = [0, 0, 0, 0xff, 0xff].repeat(20_000);
    blob.splice(place..place, nothing);
    let index = assert_readable_with(&blob, &content, 70_000);
    let (_, first) = blocks(&index).next().unwrap();
    assert!(kept(first) > 32_000, "{}", kept(first));
    let (_, second) = blocks(&index).nth(1).unwrap();
    assert!(kept(second) < 100, "{}", kept(second));
}

#[test]
fn a_window_counts_only_as_far_as_its_span() {
    // Spans of a few bytes, in blocks that are ended by force: a window is repeated long after.
    let content = text(15_000);
    let mut encoder = GzEncoder::new(Vec::new(), Level::new(6));
    for piece in content.chunks(100) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    let index = assert_readable_with(&encoder.finish().unwrap(), &content, 1);
    assert!(index.spans.len() > 100);
    assert!(blocks(&index).all(|(_, window)| kept(window) <= 110));
}
