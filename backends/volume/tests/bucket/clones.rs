//! Clones that break off, and those that go on with them.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use vfsd_object_store::store::{Fault, FaultStore, Faults};
use vfsd_volume::{CheckLevel, Volume, VolumeError};

use crate::bench::{Hosts, PREFIX, impatient_store, make_volume, root, store, sync};
use crate::care::{copy, noise, open_at, open_tidy, scratch, snapshot};

const TO: &str = "the/clone";

/// Copies to a store to which so many requests go, and no more.
fn copy_with(
    requests: usize,
    objects: &Arc<InMemory>,
    hosts: &mut Hosts,
) -> Result<(), VolumeError> {
    let cut_off = FaultStore::new(objects.clone(), Faults::default());
    let well = vec![Fault::Delay(Duration::ZERO); requests];
    cut_off.next(well.into_iter().chain(vec![Fault::Unavailable; 1000]));
    let runtime = vfsd_testkit::runtime().handle();
    let from = store(objects.clone());
    let to = impatient_store(Arc::new(cut_off));
    let scratch = scratch(hosts);
    Volume::copy_remote((&from, PREFIX), None, (&to, TO), &scratch, runtime).map(drop)
}

fn put(objects: &InMemory, key: &str) {
    let key = Path::from(key);
    vfsd_testkit::block_on(objects.put(&key, "something".into())).unwrap();
}

fn refusal(copied: Result<(), VolumeError>) -> String {
    copied.unwrap_err().to_string()
}

#[test]
fn a_clone_goes_on_with_one_that_broke_off_anywhere() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    root(&volume).put("large", &noise(1, 300_000)).unwrap();
    // So many are sent before something is copied, about.
    let mut requests = 64;
    // Each comes a little further than the one before, and finds another state of the volume.
    while copy_with(requests, &objects, &mut hosts).is_err() {
        let content = requests.to_string().into_bytes();
        let name = format!("file-{requests}");
        root(&volume).put(&name, &content).unwrap();
        sync(&volume);
        requests += 11;
        assert!(requests < 1000, "it comes to an end");
    }
    assert!(requests > 64, "one broke off");
    // As if the last step had not come.
    let head = Path::from(format!("{TO}/HEAD"));
    vfsd_testkit::block_on(objects.delete(&head)).unwrap();
    copy(&bucket, None, TO, &mut hosts).unwrap();
    let scratch = scratch(&mut hosts);
    let runtime = vfsd_testkit::runtime().handle();
    let report = Volume::check_remote(&bucket, TO, &scratch, CheckLevel::Content, runtime);
    let report = report.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    let copied = open_at(&bucket, TO, &hosts.fresh());
    assert_eq!(
        root(&copied).names().unwrap(),
        root(&volume).names().unwrap()
    );
    let found = root(&copied).lookup("large").unwrap().content().unwrap();
    assert!(found == noise(1, 300_000));
    // What it writes has names that nothing of before has.
    let large = root(&copied).lookup("large").unwrap();
    let handle = large.open_both().unwrap();
    for seed in 2..6 {
        handle.write_all(0, &noise(seed, 300_000)).unwrap();
        sync(&copied);
    }
    let again = refusal(copy(&bucket, None, TO, &mut hosts));
    assert!(again.contains("the/clone already"), "{again}");
}

#[test]
fn a_clone_does_not_go_on_with_what_might_come_between() {
    let objects = Arc::new(InMemory::new());
    let bucket = store(objects.clone());
    make_volume(&bucket);
    let mut hosts = Hosts::new();
    let volume = open_tidy(&bucket, &hosts.fresh());
    root(&volume).put("large", &noise(1, 300_000)).unwrap();
    sync(&volume);
    snapshot(&bucket, "kept", &mut hosts).unwrap();
    let listed = objects.list(Some(&Path::from(format!("{PREFIX}/seg"))));
    let segment = vfsd_testkit::block_on(futures_util::TryStreamExt::try_collect::<Vec<_>>(listed));
    let segment = segment.unwrap().remove(0).location.to_string();
    let segment = segment.strip_prefix(PREFIX).unwrap();
    for (number, key) in [
        "/other",
        "/snap/kept.json",
        // After what is copied.
        "/log/00000000000000999999",
        "/seg/00/00000000000000ff-0000000000000000",
        // Of another volume.
        segment,
    ]
    .into_iter()
    .enumerate()
    {
        let to = format!("to/{number}");
        put(&objects, &format!("{to}{key}"));
        let refused = refusal(copy(&bucket, Some("kept"), &to, &mut hosts));
        assert!(
            refused.contains("there are other objects at"),
            "{key}: {refused}"
        );
    }
    put(&objects, "to/volume/HEAD");
    let refused = refusal(copy(&bucket, Some("kept"), "to/volume", &mut hosts));
    assert!(refused.contains("there is a volume at"), "{refused}");
}
