//! Kills while content comes from the bucket.

use super::scene::{Scene, content_in};

/// Sixteen frames.
fn content() -> Vec<u8> {
    (0_u32..1_000_000).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn a_kill_while_content_comes_leaves_what_came_and_the_rest_comes_again() {
    let scene = Scene::new();
    let content = content();
    scene.root().put("file", &content).unwrap();
    scene.sync();
    scene.evict();
    let left = scene.left_by(|scene| assert!(scene.content() == content));
    let places = left
        .iter()
        .filter(|left| left.place == "some content fetched");
    let left: Vec<_> = places.collect();
    assert!(left.len() > 8, "{}", left.len());
    for left in left {
        let volume = scene.open_left(left);
        assert!(content_in(&volume).unwrap() == content);
    }
}

#[test]
fn what_is_written_over_content_while_it_comes_stays() {
    let scene = Scene::new();
    let content = content();
    scene.root().put("file", &content).unwrap();
    scene.sync();
    scene.evict();
    let file = scene.file();
    let ahead = content.len() - 50_000;
    let also = scene.file();
    // What comes after this is in the same request, or in one that is under way.
    scene.then_at("some content fetched", move || {
        std::thread::spawn(move || also.write_all(ahead as u64, &[9; 10_000]).unwrap());
    });
    assert!(file.read(0, 4096).unwrap() == content[..4096]);
    let mut expected = content;
    expected[ahead..ahead + 10_000].fill(9);
    let is_written = || file.read(ahead as u64, 1).unwrap() == [9];
    let waited = (0..30_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        is_written()
    });
    assert!(waited, "nothing was written");
    drop(file);
    assert!(scene.content() == expected);
    scene.sync();
    let elsewhere = scene.elsewhere(&scene.copy.objects);
    assert!(content_in(&elsewhere).unwrap() == expected);
}
