//! Which bytes a file has, and what they cost.

use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::advance;
use vfsd_backend::{Backend, Errno, File};

use super::{Scene, names, open, put, read};
use crate::flat::FlatOptions;
use crate::store::Fault;

const MIB: usize = 1 << 20;
const BLOCK: usize = 128 << 10;

/// Bytes that are different everywhere.
pub(super) fn content(length: usize) -> Vec<u8> {
    let words =
        (0..u64::MAX).flat_map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}

#[tokio::test(start_paused = true)]
async fn an_open_file_never_shows_another_version() {
    let scene = Scene::new(&[]).await;
    let (old, new) = (content(4 * MIB), vec![7; 4 * MIB]);
    put(&scene.below, "f", old.clone()).await;
    let before = scene.find("f").await.unwrap();
    let file = open(before.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 4096).await.unwrap(), old[..4096]);
    put(&scene.below, "f", new.clone()).await;
    // What is in memory already is of the version that was opened.
    assert_eq!(
        read(file.as_ref(), 4096, 4096).await.unwrap(),
        old[4096..8192]
    );
    assert_eq!(read(file.as_ref(), 3 * MIB, 4096).await, Err(Errno::STALE));
    assert_eq!(file.getattr().await.unwrap().size, before.attributes.size);
    assert!(
        matches!(open(before.node.as_ref()).await, Err(Errno::STALE)),
        "the guest looks it up again"
    );

    advance(Duration::from_secs(1)).await;
    let after = scene.find("f").await.unwrap();
    assert_eq!(after.attributes.inode, before.attributes.inode);
    assert_ne!(after.node.identity(), before.node.identity());
    let file = open(after.node.as_ref()).await.unwrap();
    assert_eq!(read(file.as_ref(), 0, 4096).await.unwrap(), new[..4096]);
    assert_eq!(
        read(file.as_ref(), 3 * MIB, 4096).await.unwrap(),
        new[..4096]
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_deleted_or_replaced_is_stale_and_looked_up_anew() {
    let scene = Scene::new(&[("f", "one"), ("g", "one")]).await;
    let f = scene.find("f").await.unwrap().node;
    let g = scene.find("g").await.unwrap().node;
    scene.below.inner().delete(&Path::from("f")).await.unwrap();
    put(&scene.below, "g", "longer".to_owned()).await;
    f.getattr().await.unwrap();
    advance(Duration::from_secs(1)).await;
    assert!(f.getattr().await.unwrap_err().is(Errno::STALE));
    assert!(matches!(open(g.as_ref()).await, Err(Errno::STALE)));
    assert!(matches!(scene.find("f").await, Err(Errno::NOENT)));
    assert_eq!(scene.find("g").await.unwrap().attributes.size, 6);
}

#[tokio::test(start_paused = true)]
async fn a_file_read_in_sequence_costs_few_requests() {
    let mut scene = Scene::new(&[]).await;
    let body = content(40 * MIB + 77);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    let mut read_so_far = Vec::new();
    loop {
        let part = read(file.as_ref(), read_so_far.len(), 128 << 10)
            .await
            .unwrap();
        if part.is_empty() {
            break;
        }
        read_so_far.extend(part);
    }
    assert!(read_so_far == body);
    let (heads, lists, gets) = scene.requests();
    assert_eq!((heads, lists), (0, 0));
    assert!(gets <= 9, "{gets}");
    assert_eq!(
        scene.seen.bytes_read,
        u64::try_from(body.len()).unwrap(),
        "no byte twice"
    );
}

#[tokio::test(start_paused = true)]
async fn jumping_reads_fetch_a_block_each_and_no_block_twice() {
    let mut scene = Scene::new(&[]).await;
    let body = content(32 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    for _ in 0..2 {
        for place in [20, 3, 29, 11] {
            let offset = place * MIB + 5000;
            let got = read(file.as_ref(), offset, 4096).await.unwrap();
            assert_eq!(got, body[offset..offset + 4096]);
        }
    }
    assert_eq!(scene.requests(), (0, 0, 4));
    assert_eq!(scene.seen.bytes_read, 4 * (128 << 10));
}

/// Reads a part of each block, no two of them near each other.
async fn jump_over(file: &dyn File, body: &[u8]) {
    let blocks = body.len() / BLOCK;
    for number in 0..blocks {
        let offset = (number * 37 % blocks) * BLOCK + 5000;
        let got = read(file, offset, 4096).await.unwrap();
        assert_eq!(got, body[offset..offset + 4096]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_many_reads_jump_to_the_whole_region_comes_with_one_request() {
    let late = vec![(Fault::Delay(Duration::from_millis(20)), 1000)];
    let mut scene = Scene::with(&[], FlatOptions::default(), late).await;
    let body = content(32 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    jump_over(file.as_ref(), &body).await;
    // One to five blocks of each 8 MiB, and what lies around them.
    let (_, _, gets) = scene.requests();
    assert!((4 * 2..=4 * 6).contains(&gets), "{gets}");
    let bytes = u64::try_from(body.len() + 4 * 5 * BLOCK).unwrap();
    assert!(
        scene.seen.bytes_read <= bytes,
        "{} {bytes}",
        scene.seen.bytes_read
    );
    jump_over(file.as_ref(), &body).await;
    assert_eq!(scene.requests(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_would_not_stay_is_not_fetched_around_what_is_read() {
    let options = FlatOptions {
        memory: 8 << 20,
        ..FlatOptions::default()
    };
    let mut scene = Scene::with(&[], options, Vec::new()).await;
    let body = content(32 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    jump_over(file.as_ref(), &body).await;
    assert_eq!(scene.requests(), (0, 0, 256));
    assert_eq!(scene.seen.bytes_read, u64::try_from(body.len()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_many_wait_for_is_fetched_once_and_survives_who_gave_up() {
    let mut scene = Scene::new(&[]).await;
    let body = content(8 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    scene.requests();
    scene.below.next([Fault::Delay(Duration::from_secs(2))]);
    let given_up = tokio::time::timeout(Duration::from_secs(1), read(file.as_ref(), 5 * MIB, 4096));
    let others = (0..8).map(|_| read(file.as_ref(), 5 * MIB, 4096));
    let (given_up, others) = tokio::join!(given_up, futures_util::future::join_all(others));
    assert!(given_up.is_err());
    for got in others {
        assert_eq!(got.unwrap(), body[5 * MIB..5 * MIB + 4096]);
    }
    assert_eq!(scene.requests().2, 1);
}

#[tokio::test(start_paused = true)]
async fn memory_stays_below_its_bound() {
    let options = FlatOptions {
        memory: 8 << 20,
        ..FlatOptions::default()
    };
    let scene = Scene::with(&[], options, Vec::new()).await;
    let body = content(16 * MIB);
    for name in ["a", "b", "c", "d"] {
        put(&scene.below, name, body.clone()).await;
    }
    let mut files = Vec::new();
    for name in ["a", "b", "c", "d"] {
        files.push(scene.open(name).await.unwrap());
    }
    for offset in (0..16 * MIB).step_by(MIB) {
        let reads = files.iter().map(|file| read(file.as_ref(), offset, MIB));
        for got in futures_util::future::join_all(reads).await {
            assert!(got.unwrap() == body[offset..offset + MIB]);
        }
        assert!(
            scene.bucket.memory() <= 8 << 20,
            "{}",
            scene.bucket.memory()
        );
    }
    assert!(scene.bucket.memory() > 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn memory_of_what_is_forgotten_is_used_again() {
    let options = FlatOptions {
        memory: 8 << 20,
        ..FlatOptions::default()
    };
    let scene = Scene::with(&[], options, Vec::new()).await;
    let body = content(20 * MIB);
    put(&scene.below, "f", body.clone()).await;
    let file = scene.open("f").await.unwrap();
    for offset in (0..20 * MIB).step_by(BLOCK) {
        let got = read(file.as_ref(), offset, BLOCK).await.unwrap();
        assert!(got == body[offset..offset + BLOCK]);
        let allocated = scene.bucket.bucket.blocks.allocated();
        assert!(allocated <= 8 << 20, "{allocated}");
    }
    jump_over(file.as_ref(), &body).await;
    let allocated = scene.bucket.bucket.blocks.allocated();
    assert!(allocated <= 8 << 20, "{allocated}");
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_bytes_are_right_and_names_complete() {
    let faults = vec![
        (Fault::LostReply, 80),
        (Fault::Unavailable, 80),
        (Fault::ShortBody, 80),
        (Fault::BrokenBody, 80),
        (Fault::Delay(Duration::from_secs(1)), 40),
        (Fault::Stall, 20),
    ];
    let scene = Scene::with(&[("x/y", "1")], FlatOptions::default(), faults).await;
    let body = content(6 * MIB);
    put(&scene.below, "f", body.clone()).await;
    for round in 0..30 {
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            names(scene.bucket.root().as_ref()).await,
            [".", "..", "f", "x"]
        );
        let file = scene.open("f").await.unwrap();
        let offset = (round * 200_003) % (5 * MIB);
        let got = read(file.as_ref(), offset, MIB).await.unwrap();
        assert!(got == body[offset..offset + MIB]);
        // Another version each time, so that nothing is in memory.
        put(&scene.below, "f", body.clone()).await;
    }
    assert!(scene.below.met() > 15, "{}", scene.below.met());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_error_after_the_time_limit_and_heals_by_itself() {
    let scene = Scene::new(&[("f", "hello")]).await;
    let f = scene.find("f").await.unwrap();
    let file = open(f.node.as_ref()).await.unwrap();
    scene.below.outage(true);
    let begun = tokio::time::Instant::now();
    assert_eq!(read(file.as_ref(), 0, 10).await, Err(Errno::IO));
    assert!(matches!(scene.find("g").await, Err(Errno::IO)));
    assert!(begun.elapsed() <= Duration::from_secs(120));
    scene.below.outage(false);
    assert_eq!(read(file.as_ref(), 0, 10).await.unwrap(), b"hello");
    assert!(matches!(scene.find("g").await, Err(Errno::NOENT)));
}
