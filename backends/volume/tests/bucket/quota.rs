//! What a quota lets through, in a directory and in a bucket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use vfsd_backend::{Backend, Errno, FallocateMode};
use vfsd_testkit::place::wait;
use vfsd_volume::{Quota, Volume, VolumeOptions};

use crate::bench::{Hosts, PREFIX, open, root, store, sync};

const MIB: usize = 1 << 20;
const QUOTA: Quota = Quota {
    bytes: Some(4 << 20),
    files: Some(6),
};

fn of_quota() -> VolumeOptions {
    VolumeOptions {
        quota: QUOTA,
        ..VolumeOptions::default()
    }
}

/// Blocks of a volume that are free, and inodes.
fn free(volume: &Volume) -> (u64, u64) {
    let told = wait(volume.root().statfs()).unwrap();
    assert_eq!((told.blocks, told.files), (1024, 6));
    assert_eq!(told.blocks_free, told.blocks_available);
    (told.blocks_free, told.files_free)
}

/// What was removed may be in use for a moment.
fn wait_until_free(volume: &Volume, expected: (u64, u64)) {
    for _ in 0..6000 {
        if free(volume) == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?} are free, not {expected:?}", free(volume));
}

fn refused<T>(result: vfsd_testkit::place::Outcome<T>) -> bool {
    result.map(drop).is_err_and(|errno| errno == Errno::NOSPC)
}

/// Fills a volume to its end in all ways, and makes room again.
fn fill(volume: &Volume) {
    assert_eq!(free(volume), (1024, 5));
    let root = root(volume);
    let file = root.put("file", &vec![1; 3 * MIB]).unwrap();
    assert_eq!(free(volume), (256, 4));
    let handle = file.open_both().unwrap();
    assert!(refused(root.put("second", &vec![2; 2 * MIB])));
    let second = root.lookup("second").unwrap();
    // What there was room for may be there: that of a write is all or nothing here.
    second.truncate(0).unwrap();
    assert_eq!(free(volume), (256, 3));
    second.truncate(MIB as u64).unwrap();
    assert_eq!(free(volume), (0, 3));
    assert!(refused(second.truncate(MIB as u64 + 1)));
    assert!(refused(handle.write(3 * MIB as u64, b"x")));
    let end = 3 * MIB as u64;
    assert!(refused(handle.fallocate(FallocateMode::empty(), end, 1)));
    // What is there is written over, and what frees anything is done.
    handle.write_all(0, b"over").unwrap();
    let other = second.open_both().unwrap();
    assert!(refused(handle.copy_range(0, &other, MIB as u64, 10)));
    handle.copy_range(0, &other, 0, 10).unwrap();
    second.truncate(4096).unwrap();
    handle.write_all(end, &[3; 4096]).unwrap();
    drop(other);
    for number in 0..3 {
        root.mkdir(&format!("directory{number}")).unwrap();
    }
    assert_eq!(free(volume).1, 0);
    assert!(refused(root.put("more", b"")));
    assert!(refused(root.mkdir("more")));
    assert!(!root.has("more"));
    root.link(&second, "name").unwrap();
    root.unlink("name").unwrap();
    root.rmdir("directory2").unwrap();
    root.unlink("second").unwrap();
    drop(second);
    wait_until_free(volume, (255, 2));
    // An open file takes its room until it is closed.
    root.unlink("file").unwrap();
    drop(file);
    assert_eq!(free(volume), (255, 2));
    drop(handle);
    wait_until_free(volume, (1024, 3));
    root.put("last", &vec![4; MIB]).unwrap();
}

/// The same after a start: three directories, of which one is the root, and a file.
fn again(volume: &Volume) {
    assert_eq!(free(volume), (768, 2));
}

#[test]
fn a_volume_in_a_directory_holds_as_much_as_its_quota_says() {
    let mut hosts = Hosts::new();
    let host = hosts.fresh();
    Volume::create(&host, &of_quota()).unwrap();
    let at = |host: &Path| Volume::open(host, &VolumeOptions::default()).unwrap();
    fill(&at(&host));
    again(&at(&host));
    assert_eq!(Volume::stat(&host).unwrap().quota, QUOTA);
    Volume::change_quota(&host, |quota| quota.bytes = None).unwrap();
    let volume = at(&host);
    root(&volume).put("large", &vec![5; 5 * MIB]).unwrap();
    assert_eq!(wait(volume.root().statfs()).unwrap().files, 6);
    let left = Volume::stat(&host).unwrap().quota;
    assert_eq!((left.bytes, left.files), (None, Some(6)));
}

#[test]
fn a_volume_in_a_bucket_holds_as_much_as_its_quota_says() {
    let bucket = store(Arc::new(InMemory::new()));
    let options = of_quota();
    let made = Volume::create_remote(&bucket, PREFIX, &options);
    vfsd_testkit::block_on(made).unwrap();
    let mut hosts = Hosts::new();
    let here = hosts.fresh();
    fill(&open(&bucket, &here));
    again(&open(&bucket, &here));
    let volume = open(&bucket, &hosts.fresh());
    again(&volume);
    // Also while a daemon has it, which then goes on.
    let changed = Volume::change_remote_quota(&bucket, PREFIX, |quota| quota.bytes = Some(8 << 20));
    vfsd_testkit::block_on(changed).unwrap();
    root(&volume).put("small", b"small").unwrap();
    sync(&volume);
    drop(volume);
    let told = vfsd_testkit::block_on(Volume::stat_remote(&bucket, PREFIX)).unwrap();
    let quota = Quota {
        bytes: Some(8 << 20),
        ..QUOTA
    };
    assert_eq!((told.quota, told.owner), (quota, None));
    let volume = open(&bucket, &hosts.fresh());
    root(&volume).put("large", &vec![6; 5 * MIB]).unwrap();
    assert!(refused(root(&volume).put("more", &vec![7; 5 * MIB])));
}
