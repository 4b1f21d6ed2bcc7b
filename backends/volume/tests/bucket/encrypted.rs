//! Volumes that were made with a key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use vfsd_testkit::place::Place;
use vfsd_volume::bucket::CheckLevel;
use vfsd_volume::{Bucket, RemoteOptions, Volume, VolumeError, VolumeKey, VolumeOptions};

use crate::bench::{Hosts, PREFIX, options, root, store, sync};

const NAME: &str = "a-name-of-a-file-that-nobody-shall-know";
const TARGET: &str = "where-a-link-leads-that-nobody-shall-know";
const ATTRIBUTE: &[u8] = b"a-value-of-an-attribute-that-nobody-shall-know";
const CONTENT: &[u8] = b"Content that nobody shall know: 8d1f0c72b39e45aa6c0d";

fn with_key(objects: &Arc<InMemory>, key: Option<u8>) -> Bucket {
    let key = key.map(|key| VolumeKey::from([key; 32]));
    Bucket::new(store(objects.clone()), key)
}

fn made(key: Option<u8>) -> (Arc<InMemory>, Bucket) {
    let objects = Arc::new(InMemory::new());
    let bucket = with_key(&objects, key);
    let options = VolumeOptions::default();
    let made = Volume::create_remote(&bucket, PREFIX, &options);
    vfsd_testkit::block_on(made).unwrap();
    (objects, bucket)
}

/// Nothing is shipped but by a sync: which objects there are does not depend on how long anything takes.
fn when_synced() -> RemoteOptions {
    RemoteOptions {
        lag: Duration::from_secs(3600),
        ..options()
    }
}

fn try_open(bucket: &Bucket, host: &Path) -> Result<Volume, VolumeError> {
    Volume::open_remote(bucket, PREFIX, host, &when_synced())
}

fn scratch(hosts: &mut Hosts) -> std::path::PathBuf {
    let path = hosts.fresh();
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// All objects, as they are stored.
fn stored(objects: &InMemory) -> BTreeMap<String, Bytes> {
    vfsd_testkit::block_on(async {
        let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
        let mut found = BTreeMap::new();
        for object in listed {
            let bytes = objects.get(&object.location).await.unwrap().bytes();
            found.insert(object.location.to_string(), bytes.await.unwrap());
        }
        found
    })
}

/// Small and large content, names, a link and an attribute.
fn fill(volume: &Volume) {
    let root = root(volume);
    let small = root.put(NAME, CONTENT).unwrap();
    small.setxattr("user.secret", ATTRIBUTE).unwrap();
    root.symlink("link", TARGET).unwrap();
    // So that it is in no segment with what is removed later.
    sync(volume);
    // What is compressed does not hide it.
    let mut noise = 1_u64;
    let mut large = Vec::new();
    while large.len() < 400_000 {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        large.extend_from_slice(&noise.to_be_bytes());
        if large.len() % 4096 == 0 {
            large.extend_from_slice(CONTENT);
        }
    }
    root.put("large", &large).unwrap();
    sync(volume);
}

fn is_there(objects: &InMemory, secret: &[u8]) -> bool {
    let mut all = stored(objects).into_values();
    all.any(|bytes| bytes.windows(secret.len()).any(|found| found == secret))
}

#[test]
fn nothing_of_names_attributes_and_content_is_to_be_seen_in_the_bucket() {
    for key in [None, Some(1)] {
        let (objects, bucket) = made(key);
        let mut hosts = Hosts::new();
        let volume = try_open(&bucket, &hosts.fresh()).unwrap();
        fill(&volume);
        let runtime = vfsd_testkit::runtime().handle();
        let at = scratch(&mut hosts);
        Volume::snapshot_remote(&bucket, PREFIX, "snapshot", &at, runtime).unwrap();
        drop(volume);
        let kinds = ["log/", "seg/", "ckpt/", "snap/"];
        let keys: Vec<String> = stored(&objects).into_keys().collect();
        for kind in kinds {
            assert!(keys.iter().any(|key| key.contains(kind)), "{kind}");
        }
        let secrets = [NAME.as_bytes(), TARGET.as_bytes(), ATTRIBUTE, CONTENT];
        let seen = secrets.map(|secret| is_there(&objects, secret));
        match key {
            Some(_) => assert_eq!(seen, [false; 4]),
            // Compression hides some of it.
            None => assert!(seen.contains(&true)),
        }
    }
}

#[test]
fn without_the_key_or_with_another_one_nothing_is_opened_and_nothing_changed() {
    let mut hosts = Hosts::new();
    for (key, others) in [(Some(1), [None, Some(2)]), (None, [Some(1), Some(2)])] {
        let (objects, bucket) = made(key);
        drop(try_open(&bucket, &hosts.fresh()).unwrap());
        let before = stored(&objects);
        for other in others {
            let wrong = with_key(&objects, other);
            let runtime = vfsd_testkit::runtime().handle();
            let level = CheckLevel::Content;
            let (here, there) = (scratch(&mut hosts), scratch(&mut hosts));
            let (age, name) = (Duration::ZERO, "name");
            let refusals = [
                try_open(&wrong, &hosts.fresh()).map(drop),
                Volume::check_remote(&wrong, PREFIX, &here, level, runtime).map(drop),
                Volume::snapshot_remote(&wrong, PREFIX, name, &here, runtime).map(drop),
                Volume::clean_remote(&wrong, PREFIX, &there, age, false, runtime).map(drop),
                Volume::copy_remote((&wrong, PREFIX), None, (&wrong, "to"), &there, runtime)
                    .map(drop),
            ];
            for refused in refusals {
                let told = refused.unwrap_err().to_string();
                assert!(told.contains("key") && !told.contains('\n'), "{told}");
            }
            assert!(stored(&objects) == before, "{other:?}");
        }
        // What looks at the outside alone needs no key.
        let outside = with_key(&objects, None);
        let status = vfsd_testkit::block_on(Volume::stat_remote(&outside, PREFIX)).unwrap();
        assert_eq!(status.encryption.is_some(), key.is_some());
        assert!(try_open(&bucket, &hosts.fresh()).is_ok());
    }
}

/// What another host reads: the content of each file, or that it is refused.
fn read_all(bucket: &Bucket, host: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let options = RemoteOptions {
        takeover: true,
        ..RemoteOptions::new(vfsd_testkit::runtime().handle().clone())
    };
    let volume = Volume::open_remote(bucket, PREFIX, host, &options);
    let volume = volume.map_err(|error| error.to_string())?;
    let root = Place(vfsd_backend::Backend::root(&volume));
    let names = root.names().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for name in names {
        let file = root.lookup(&name).map_err(|error| error.to_string())?;
        let content = match file.readlink() {
            Ok(target) => Ok(target),
            Err(_) => file.content(),
        };
        let content = content.map_err(|error| error.to_string())?;
        found.insert(name, content);
    }
    Ok(found)
}

#[test]
fn whatever_a_store_does_to_an_object_no_wrong_byte_is_read() {
    let (objects, bucket) = made(Some(1));
    let mut hosts = Hosts::new();
    let volume = try_open(&bucket, &hosts.fresh()).unwrap();
    fill(&volume);
    root(&volume).put("more", &[5; 300_000]).unwrap();
    sync(&volume);
    drop(volume);
    let whole = read_all(
        &with_key(&Arc::new(objects.fork()), Some(1)),
        &hosts.fresh(),
    )
    .unwrap();
    assert_eq!(whole[NAME], CONTENT);
    let all = stored(&objects);
    let sealed: Vec<&String> = all.keys().filter(|key| key.contains('/')).collect();
    let sealed: Vec<&String> = sealed
        .into_iter()
        .filter(|key| {
            ["log/", "seg/", "ckpt/"]
                .iter()
                .any(|kind| key.contains(kind))
        })
        .collect();
    let mut changes: Vec<(String, Bytes)> = Vec::new();
    for key in &sealed {
        let bytes = &all[*key];
        for part in 0..6 {
            let at = (bytes.len() - 1) * part / 5;
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << part;
            changes.push(((*key).clone(), flipped.into()));
        }
        changes.push(((*key).clone(), bytes.slice(..bytes.len() / 2)));
        // Another object of its kind.
        let kind = &key[..key.rfind('/').unwrap() - 2];
        let other = |other: &&&String| other.starts_with(kind) && *other != key;
        let other = sealed.iter().rfind(other);
        changes.extend(other.map(|other| ((*key).clone(), all[*other].clone())));
    }
    assert!(changes.len() > 30, "{}", changes.len());
    let (mut refused, mut unused) = (0, 0);
    for (key, bytes) in changes {
        let damaged = Arc::new(objects.fork());
        let put = async { damaged.put(&key.as_str().into(), bytes.into()).await };
        vfsd_testkit::block_on(put).unwrap();
        let host = hosts.fresh();
        match read_all(&with_key(&damaged, Some(1)), &host) {
            Ok(found) => {
                assert!(found == whole, "{key}");
                unused += 1;
            }
            Err(_) => refused += 1,
        }
        std::fs::remove_dir_all(host).unwrap();
    }
    assert!(refused > unused, "{refused} refused, {unused} not used");
}

#[test]
fn an_encrypted_volume_is_checked_cleaned_kept_and_copied() {
    let (objects, bucket) = made(Some(1));
    let mut hosts = Hosts::new();
    let runtime = vfsd_testkit::runtime().handle();
    let volume = try_open(&bucket, &hosts.fresh()).unwrap();
    fill(&volume);
    let at = scratch(&mut hosts);
    Volume::snapshot_remote(&bucket, PREFIX, "before", &at, runtime).unwrap();
    root(&volume).put("large2", &[7; 300_000]).unwrap();
    root(&volume).unlink("large").unwrap();
    sync(&volume);
    drop(volume);
    let copied = |snapshot, to, hosts: &mut Hosts| {
        let (from, to) = ((&bucket, PREFIX), (&bucket, to));
        Volume::copy_remote(from, snapshot, to, &scratch(hosts), runtime).unwrap();
    };
    copied(Some("before"), "then", &mut hosts);
    copied(None, "now", &mut hosts);
    let forget = Volume::delete_snapshot_remote(&bucket, PREFIX, "before");
    vfsd_testkit::block_on(forget).unwrap();
    let at = scratch(&mut hosts);
    let cleaned =
        Volume::clean_remote(&bucket, PREFIX, &at, Duration::ZERO, false, runtime).unwrap();
    assert!(cleaned.removed().bytes > 300_000, "{cleaned:?}");
    for (prefix, large) in [(PREFIX, false), ("then", true), ("now", false)] {
        let at = scratch(&mut hosts);
        let level = CheckLevel::Content;
        let report = Volume::check_remote(&bucket, prefix, &at, level, runtime).unwrap();
        assert!(report.is_clean(), "{prefix} {report:#?}");
        let host = hosts.fresh();
        let volume = Volume::open_remote(&bucket, prefix, &host, &when_synced()).unwrap();
        let found = root(&volume).lookup(NAME).unwrap().content().unwrap();
        assert_eq!(found, CONTENT);
        assert_eq!(root(&volume).has("large"), large);
        let without = with_key(&objects, None);
        let refused = Volume::open_remote(&without, prefix, &hosts.fresh(), &when_synced());
        assert!(refused.is_err(), "{prefix}");
    }
}

/// Each takes more room than without a key: all of them together still are one log object, or are in a segment.
#[test]
fn many_small_files_are_brought_into_the_bucket_at_once() {
    let (_, bucket) = made(Some(1));
    let mut hosts = Hosts::new();
    for (round, size) in [(0, 30), (1, 100), (2, 43)] {
        let volume = Volume::open_remote(&bucket, PREFIX, &hosts.fresh(), &when_synced()).unwrap();
        let content = |file: u32| format!("{file:size$}").into_bytes();
        for file in 0..3_000 {
            let name = format!("{round}-{file}");
            root(&volume).put(&name, &content(file)).unwrap();
        }
        sync(&volume);
        drop(volume);
        let volume = try_open(&bucket, &hosts.fresh()).unwrap();
        let found = root(&volume).lookup(&format!("{round}-2999")).unwrap();
        assert_eq!(found.content().unwrap(), content(2999));
    }
}
