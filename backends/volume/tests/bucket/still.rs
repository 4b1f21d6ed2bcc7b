//! What nobody uses costs nothing.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use vfsd_volume::{RemoteOptions, Volume};

use crate::bench::{Hosts, PREFIX, make_volume, root, store, sync};

#[test]
fn a_volume_that_nobody_changes_makes_no_requests() {
    let bucket = store(Arc::new(InMemory::new()));
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let options = RemoteOptions {
        lag: Duration::from_millis(1),
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    };
    let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &options).unwrap();
    root(&volume).mkdir("directory").unwrap();
    let content = vec![7; 300_000];
    root(&volume).put("file", &content).unwrap();
    sync(&volume);
    assert_eq!(root(&volume).names().unwrap(), ["directory", "file"]);
    let file = root(&volume).lookup("file").unwrap();
    assert!(file.content().unwrap() == content);
    // What a close and an access time bring follows within seconds. Then nothing does.
    let mut before = bucket.counters().requests();
    let is_still = (0..10).any(|_| {
        std::thread::sleep(Duration::from_secs(6));
        let now = bucket.counters().requests();
        std::mem::replace(&mut before, now) == now
    });
    assert!(is_still, "{before:?}");
}
