//! A cache, from the first image to the last.

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use vfsd_testkit::place::Place;

use super::*;
use crate::content::LayerContent;
use crate::image::ImageName;
use crate::testing::{Layout, Tar};
use crate::{OciImage, Options};
use vfsd_backend::{Backend as _, OpenFlags};

/// A layout with several images, and a cache.
struct Kept {
    layout: Layout,
    cache: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        Self {
            layout: Layout::new(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    /// Makes an image of a layer that all have, and one with `content` in its file `own`.
    fn image(&mut self, tag: &str, content: &str) {
        let common = Tar::default().file("common", b"common").finish();
        let own = Tar::default().file("own", content.as_bytes()).finish();
        let manifest = self.layout.image("amd64", &[common, own], <[u8]>::to_vec);
        self.layout.name(manifest, Some(tag));
    }

    fn options(&self, tag: &str) -> Options {
        let name = format!("{}:{tag}", self.layout.path().display());
        let mut options = Options::new(ImageName::layout(name.as_ref()), self.cache.path().into());
        options.known_as = Some(format!("oci:x:{tag}"));
        options
    }

    fn open(&self, tag: &str) -> OciImage {
        OciImage::open(&self.options(tag)).unwrap()
    }

    fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.cache.path())
    }

    fn names(&self) -> Vec<String> {
        let images = self.catalogue().images().unwrap();
        images.into_iter().flat_map(|image| image.names).collect()
    }

    /// The files of a folder of the cache, by the end of their names.
    fn files(&self, folder: &str, end: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.cache.path().join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.to_str().unwrap().ends_with(end))
            .collect()
    }

    /// Makes everything in the cache older.
    fn age(&self, by: Duration) {
        let then = SystemTime::now() - by;
        for folder in ["images", "layers", "trees"] {
            for path in self.files(folder, "") {
                let file = File::options().write(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(then)).unwrap();
            }
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn unused_for(unused_for: Duration) -> PruneOptions {
    PruneOptions {
        unused_for,
        dry_run: false,
    }
}

fn read(image: &OciImage, name: &str) -> Vec<u8> {
    Place(image.root()).lookup(name).unwrap().content().unwrap()
}

fn damage(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn an_image_is_listed_with_its_names_and_with_how_much_of_it_is_there() {
    let mut kept = Kept::new();
    assert_eq!(kept.catalogue().images().unwrap(), []);
    kept.image("a", &"a".repeat(10_000));
    let opened = kept.open("a");
    let listed = kept.catalogue().images().unwrap();
    let [image] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(image.digest, opened.digest());
    assert_eq!(image.names, ["oci:x:a"]);
    assert_eq!(image.platform, "linux/amd64");
    assert_eq!((image.layers, image.here, image.in_use), (2, 0, true));
    assert!(image.disk > 0 && image.size > 10_000);
    assert_eq!(read(&opened, "own").len(), 10_000);
    drop(opened);
    let image = &kept.catalogue().images().unwrap()[0];
    assert!(!image.in_use);
    assert!(0 < image.here && image.here < image.size, "{image:?}");
    assert_eq!(read(&kept.open("a"), "common"), b"common");
    let image = &kept.catalogue().images().unwrap()[0];
    assert_eq!(image.here, image.size);
}

#[test]
fn a_name_leads_to_the_image_that_it_was_given_last() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    kept.image("b", "two");
    let known_as = |tag: &str, name: &str| {
        let mut options = kept.options(tag);
        options.known_as = Some(name.to_owned());
        OciImage::open(&options).unwrap().digest()
    };
    let (one, two) = (known_as("a", "x"), known_as("b", "x"));
    known_as("b", "y");
    let names = |digest| {
        let images = kept.catalogue().images().unwrap();
        let image = images.into_iter().find(|image| image.digest == digest);
        image.unwrap().names
    };
    assert_eq!(names(one), [] as [&str; 0]);
    assert_eq!(names(two), ["x", "y"]);
    let pruned = kept.catalogue().prune(&unused_for(DAY)).unwrap();
    assert_eq!(pruned.images, [one.to_string()]);
    assert_eq!(names(two), ["x", "y"]);
}

#[test]
fn what_was_not_used_lately_is_removed_and_nothing_that_others_need() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    kept.image("b", "two");
    kept.image("c", "three");
    for tag in ["a", "b", "c"] {
        read(&kept.open(tag), "common");
    }
    kept.age(10 * DAY);
    let used = kept.open("b");
    drop(kept.open("c"));
    assert_eq!(kept.names(), ["oci:x:a", "oci:x:b", "oci:x:c"]);
    assert_eq!(kept.files("layers", ".index").len(), 4);

    let dry = PruneOptions {
        dry_run: true,
        ..unused_for(7 * DAY)
    };
    let would = kept.catalogue().prune(&dry).unwrap();
    assert_eq!(kept.files("layers", ".index").len(), 4);
    let pruned = kept.catalogue().prune(&unused_for(7 * DAY)).unwrap();
    assert_eq!(pruned, would);
    assert_eq!(pruned.images, ["oci:x:a"]);
    assert!(pruned.bytes > 0);
    assert_eq!(kept.names(), ["oci:x:b", "oci:x:c"]);
    assert_eq!(kept.files("layers", ".index").len(), 3);
    assert_eq!(kept.files("trees", ".tree").len(), 2);

    // All that are not in use; the one that is can be read on.
    let pruned = kept.catalogue().prune(&unused_for(Duration::ZERO)).unwrap();
    assert_eq!(pruned.images, ["oci:x:c"]);
    assert_eq!(kept.files("layers", ".content").len(), 2);
    assert_eq!(read(&used, "own"), b"two");
    drop(used);
    kept.catalogue().prune(&unused_for(Duration::ZERO)).unwrap();
    for (folder, end) in [("layers", ""), ("trees", ""), ("images", "")] {
        assert_eq!(kept.files(folder, end), [] as [PathBuf; 0]);
    }
    assert_eq!(read(&kept.open("a"), "own"), b"one");
}

#[test]
fn what_belongs_to_no_image_is_removed_unless_it_is_young() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    let image = kept.open("a");
    for path in kept.files("images", ".json") {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(kept.cache.path().join("trees/.tmpabc"), "begun").unwrap();
    std::fs::write(kept.cache.path().join("trees/other"), "not ours").unwrap();
    let pruned = kept.catalogue().prune(&unused_for(Duration::ZERO)).unwrap();
    assert_eq!(pruned, Pruned::default());
    assert_eq!(read(&image, "own"), b"one");
    kept.age(DAY);
    kept.catalogue().prune(&unused_for(DAY)).unwrap();
    assert_eq!(kept.files("layers", ""), [] as [PathBuf; 0]);
    let left = kept.files("trees", "");
    assert_eq!(left, [kept.cache.path().join("trees/other")]);
    assert_eq!(read(&image, "common"), b"common", "what is open stays");
}

#[test]
fn a_record_that_is_damaged_is_none_and_is_made_again() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    drop(kept.open("a"));
    for path in kept.files("images", ".json") {
        std::fs::write(path, "{\"digest\": 1").unwrap();
    }
    assert_eq!(kept.names(), [] as [&str; 0]);
    drop(kept.open("a"));
    assert_eq!(kept.names(), ["oci:x:a"]);
}

#[test]
fn damage_is_found_and_removed_and_the_image_is_whole_again() {
    let mut kept = Kept::new();
    kept.image("a", &"long ".repeat(4000));
    let image = kept.open("a");
    for name in ["own", "common"] {
        read(&image, name);
    }
    let verified = kept.catalogue().verify(None).unwrap();
    assert_eq!(verified.problems, []);
    assert_eq!((verified.spans, verified.indexes), (2, 3));

    let contents = kept.files("layers", ".content");
    let longest = contents
        .iter()
        .max_by_key(|path| path.metadata().unwrap().len());
    let longest = longest.unwrap();
    damage(longest, longest.metadata().unwrap().len() - 4096);
    let verified = kept.catalogue().verify(None).unwrap();
    assert_eq!(verified.spans, 1);
    let [problem] = &verified.problems[..] else {
        panic!("{:?}", verified.problems);
    };
    assert!(problem.what.contains("span 0"), "{problem:?}");
    assert!(problem.in_use);
    drop(image);
    assert_eq!(
        read(&kept.open("a"), "own"),
        "long ".repeat(4000).as_bytes()
    );

    for end in [".index", ".tree"] {
        let folder = if end == ".tree" { "trees" } else { "layers" };
        damage(&kept.files(folder, end)[0], 20);
        let verified = kept.catalogue().verify(None).unwrap();
        assert_eq!(verified.problems.len(), 1, "{end}: {verified:?}");
        assert!(!verified.problems[0].in_use);
        assert_eq!(read(&kept.open("a"), "common"), b"common");
        assert_eq!(kept.catalogue().verify(None).unwrap().problems, []);
    }
}

#[test]
fn a_blob_that_is_damaged_is_removed_and_one_of_another_image_is_not_looked_at() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    let digest = kept.open("a").digest();
    let folder = kept.cache.path().join("blobs/sha256");
    std::fs::create_dir_all(&folder).unwrap();
    let blob = folder.join(Sha256Digest::of(b"blob").hex());
    std::fs::write(&blob, "blob").unwrap();
    assert_eq!(kept.catalogue().verify(None).unwrap().blobs, 1);
    std::fs::write(&blob, "blot").unwrap();
    assert_eq!(kept.catalogue().verify(Some(digest)).unwrap().problems, []);
    assert!(blob.exists());
    let verified = kept.catalogue().verify(None).unwrap();
    assert!(
        verified.problems[0].what.contains("damaged"),
        "{verified:?}"
    );
    assert!(!blob.exists());
}

/// Bytes that the cache takes.
fn disk(kept: &Kept) -> u64 {
    kept.catalogue().evict(u64::MAX).unwrap().left
}

#[test]
fn what_was_used_the_longest_time_ago_goes_first_and_indexes_stay() {
    let mut kept = Kept::new();
    for (tag, days) in [("a", 3), ("b", 2), ("c", 1)] {
        kept.image(tag, &tag.repeat(200_000));
        read(&kept.open(tag), "own");
        kept.age(DAY * days);
    }
    // The ages were given to all that was there: each image anew, from the oldest on.
    for (tag, days) in [("a", 3), ("b", 2), ("c", 1)] {
        let lease = kept.open(tag);
        let then = SystemTime::now() - DAY * days;
        lease.lease().lock.set_modified(then).unwrap();
    }
    let here = |tag: &str| {
        let images = kept.catalogue().images().unwrap();
        let name = format!("oci:x:{tag}");
        let image = images
            .into_iter()
            .find(|image| image.names == [name.clone()]);
        image.unwrap().here
    };
    let all = disk(&kept);
    let evicted = kept.catalogue().evict(all - 1).unwrap();
    assert_eq!(evicted.left, all - evicted.bytes);
    assert!(
        evicted.bytes > 200_000 && evicted.bytes < 300_000,
        "{evicted:?}"
    );
    assert_eq!((here("a"), here("b") > 0, here("c") > 0), (0, true, true));
    kept.catalogue().evict(all - 250_000).unwrap();
    assert_eq!((here("b"), here("c") > 0), (0, true));
    assert_eq!(kept.files("layers", ".index").len(), 4);
    for tag in ["a", "b", "c"] {
        assert_eq!(read(&kept.open(tag), "own"), tag.repeat(200_000).as_bytes());
    }
    let evicted = kept.catalogue().evict(0).unwrap();
    assert_eq!(evicted.left, 0, "also the indexes, in the end");
    assert_eq!(read(&kept.open("b"), "own"), "b".repeat(200_000).as_bytes());
}

/// An image whose file `own` has several spans, all of which are there.
fn large(kept: &mut Kept) -> String {
    let content = "0123456789abcdef".repeat((6 << 20) / 16);
    kept.image("a", &content);
    assert_eq!(read(&kept.open("a"), "own"), content.as_bytes());
    content
}

/// The layer with `own`.
fn own(image: &OciImage) -> &LayerContent {
    image.contents().nth(1).unwrap()
}

#[test]
fn content_goes_piece_by_piece_and_what_a_start_needs_last() {
    let mut kept = Kept::new();
    let content = large(&mut kept);
    let last = (5 << 20)..(6 << 20);
    // The last start needed the end of the file.
    let image = kept.open("a");
    let file = Place(image.root()).lookup("own").unwrap();
    file.open(OpenFlags::READ)
        .unwrap()
        .read(last.start, 1 << 20)
        .unwrap();
    let all = own(&image).resident_spans();
    drop((file, image));
    let evicted = kept.catalogue().evict(disk(&kept) - (2 << 20)).unwrap();
    // A page that is shared with what stays stays, too.
    let pages = 2 * 4096;
    assert!(
        evicted.bytes >= (2 << 20) - pages && evicted.bytes < 3 << 20,
        "{evicted:?}"
    );
    assert_eq!(disk(&kept), evicted.left);
    let image = kept.open("a");
    let left = own(&image).resident_spans();
    assert!(left < all && left >= all - 9, "{left} of {all}");
    assert!(own(&image).is_resident(0, last));
    assert!(
        own(&image).is_resident(0, 0..1),
        "the later pieces go first"
    );
    assert_eq!(read(&image, "own"), content.as_bytes());
}

#[test]
fn what_an_eviction_that_was_cut_off_has_left_goes_with_the_next() {
    let mut kept = Kept::new();
    let content = large(&mut kept);
    let all = disk(&kept);
    // It had said that all is gone, and no more.
    for path in kept.files("layers", ".content") {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0; 8], 4096).unwrap();
    }
    kept.catalogue().evict(all - 1).unwrap();
    assert!(disk(&kept) <= all - (1 << 20));
    assert_eq!(read(&kept.open("a"), "own"), content.as_bytes());
}

#[test]
fn what_is_in_use_is_not_evicted_however_small_the_limit() {
    let mut kept = Kept::new();
    for tag in ["a", "b"] {
        kept.image(tag, &tag.repeat(200_000));
        read(&kept.open(tag), "own");
    }
    let used = kept.open("a");
    let evicted = kept.catalogue().evict(0).unwrap();
    assert!(evicted.left > 200_000, "{evicted:?}");
    assert_eq!(kept.files("layers", ".content").len(), 2);
    assert_eq!(kept.files("layers", ".index").len(), 2);
    assert_eq!(kept.files("trees", ".tree").len(), 1);
    assert_eq!(read(&used, "own"), "a".repeat(200_000).as_bytes());
    assert_eq!(disk(&kept), kept.catalogue().evict(0).unwrap().left);
}

#[test]
fn an_eviction_that_is_cut_off_anywhere_leaves_an_image_that_can_be_read() {
    let mut kept = Kept::new();
    kept.image("a", "one");
    let whole = |kept: &Kept| {
        let image = kept.open("a");
        read(&image, "own") == b"one" && read(&image, "common") == b"common"
    };
    assert!(whole(&kept));
    for folder in ["layers", "trees", "images"] {
        for path in kept.files(folder, "") {
            std::fs::remove_file(&path).unwrap();
            assert!(whole(&kept), "without {}", path.display());
        }
    }
}

#[test]
fn daemons_that_evict_and_open_at_once_do_not_harm_each_other() {
    let mut kept = Kept::new();
    for tag in ["a", "b"] {
        kept.image(tag, &tag.repeat(50_000));
    }
    let kept = &kept;
    std::thread::scope(|scope| {
        for tag in ["a", "b"] {
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(read(&kept.open(tag), "own"), tag.repeat(50_000).as_bytes());
                }
            });
            scope.spawn(move || {
                for _ in 0..40 {
                    kept.catalogue().evict(60_000).unwrap();
                }
            });
        }
    });
}
