//! A host that no longer has, or was not given, the directory that it had a volume in.

use object_store::memory::InMemory;

use super::kills::{make_volume, store};
use crate::{RemoteOptions, Volume, VolumeError};

#[test]
fn a_host_that_has_the_volume_in_another_directory_is_told_so() {
    let (objects, folder) = (InMemory::new(), tempfile::tempdir().unwrap());
    make_volume(&objects);
    let options = RemoteOptions::new(vfsd_testkit::runtime().handle().clone());
    let open = |name: &str, options: &RemoteOptions| {
        let bucket = store(objects.clone());
        Volume::open_remote(&bucket, "vol", &folder.path().join(name), options)
    };
    let first = open("first", &options).unwrap();
    // The second attempt is told the same: the directory has still had no volume.
    for _ in 0..2 {
        let refused = open("second", &options).err().unwrap();
        assert!(
            matches!(refused, VolumeError::OtherDirectory { .. }),
            "{refused:?}"
        );
        let told = refused.to_string();
        for part in [
            "this host",
            "second is new",
            "--state-dir",
            "--takeover",
            "not in the bucket yet",
        ] {
            assert!(told.contains(part) && !told.contains('\n'), "{told}");
        }
    }
    drop(first);
    drop(open("second", &options).unwrap());
    // One that knows the volume is told who has it now.
    let first = open("first", &options).unwrap();
    let refused = open("second", &options).err().unwrap().to_string();
    assert!(refused.contains("stop vfsd there"), "{refused}");
    drop(first);
}
