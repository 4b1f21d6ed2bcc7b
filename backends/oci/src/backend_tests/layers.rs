//! What of an image's layers is kept, and what of them is believed.

use std::path::PathBuf;

use super::*;

#[test]
fn layers_are_indexed_once_and_read_from_the_cache_without_their_blobs() {
    let served = Served::new(&tars(), gzip);
    let told = Arc::new(AtomicU64::new(0));
    let options = || {
        let told = told.clone();
        Options {
            progress: Box::new(move |progress| {
                assert!(progress.read <= progress.size && progress.layer < progress.layers);
                told.fetch_add(1, Ordering::Relaxed);
            }),
            ..served.options()
        }
    };
    let image = OciImage::open(&options()).unwrap();
    let first = told.load(Ordering::Relaxed);
    assert!(first >= 2, "of both layers: {first}");
    let numbers: Vec<u64> = image.tree().nodes().map(NodeId::inode).collect();
    let big = at(&image, "usr/lib/big").content().unwrap();
    drop(image);
    // What was read before is served whatever became of the layer, as long as a file is there to be opened.
    let blob = served.layout.blob_path(served.layer(0));
    let length = std::fs::metadata(&blob).unwrap().len();
    std::fs::write(&blob, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let image = OciImage::open(&options()).unwrap();
    assert_eq!(
        told.load(Ordering::Relaxed),
        first,
        "nothing is indexed again"
    );
    assert_eq!(
        image.tree().nodes().map(NodeId::inode).collect::<Vec<_>>(),
        numbers
    );
    assert!(at(&image, "usr/lib/big").content().unwrap() == big);
}

#[test]
fn what_an_earlier_version_has_kept_is_made_again() {
    let served = Served::new(&tars(), gzip);
    let image = served.open().unwrap();
    let big = at(&image, "usr/lib/big").content().unwrap();
    drop(image);
    let kept = || -> Vec<PathBuf> {
        let folder = std::fs::read_dir(served.options().cache.join("layers")).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        let mut kept: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|it| it != "lock"))
            .collect();
        kept.sort();
        kept
    };
    let versions = || -> Vec<u8> {
        let version = |path: &PathBuf| std::fs::read(path).unwrap()[8];
        kept().iter().map(version).collect()
    };
    let (files, ours) = (kept(), versions());
    assert_eq!(files.len(), 4, "{files:?}: two indexes and two contents");
    for path in &files {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[8] -= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let image = served.open().unwrap();
    assert!(at(&image, "usr/lib/big").content().unwrap() == big);
    drop(image);
    assert_eq!((kept(), versions()), (files, ours));
}

#[test]
fn of_many_who_open_an_image_at_once_one_indexes_each_layer() {
    let served = Served::new(&tars(), gzip);
    let of_one = told_while_opened(&[&served]);
    let again = Served::new(&tars(), gzip);
    assert_eq!(told_while_opened(&[&again; 8]), of_one);
}

/// How often progress is told while these are opened at the same time.
fn told_while_opened(served: &[&Served]) -> u64 {
    let told = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for served in served {
            let told = told.clone();
            scope.spawn(move || {
                let options = Options {
                    progress: Box::new(move |_| {
                        told.fetch_add(1, Ordering::Relaxed);
                    }),
                    ..served.options()
                };
                OciImage::open(&options).unwrap();
            });
        }
    });
    told.load(Ordering::Relaxed)
}

#[test]
fn content_that_is_not_what_it_was_is_an_error_and_never_data() {
    let served = Served::new(&tars(), gzip);
    drop(served.open().unwrap());
    let blob = served.layout.blob_path(served.layer(0));
    let mut changed = std::fs::read(&blob).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&blob, changed).unwrap();
    let image = served.open().unwrap();
    assert_eq!(at(&image, "usr/lib/big").content(), Err(Errno::IO));
    assert_eq!(
        at(&image, "usr/lib/small").content().unwrap(),
        b"small",
        "of the other layer"
    );
}

#[test]
fn a_layer_that_is_not_what_the_image_says_is_refused() {
    let served = Served::new(&tars(), gzip);
    let layer = served.layer(1);
    let blob = served.layout.blob_path(layer);
    let whole = std::fs::read(&blob).unwrap();
    let mut changed = whole.clone();
    // The time in the header of gzip is covered by the digest alone.
    changed[4] ^= 1;
    std::fs::write(&blob, &changed).unwrap();
    let message = served.open().unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("layer {layer} is damaged, it is sha256:")),
        "{message}"
    );
    std::fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
    let message = served.open().unwrap_err().to_string();
    assert!(
        message.ends_with("is damaged: copy the image again"),
        "{message}"
    );
    std::fs::write(&blob, &whole).unwrap();
    served.open().unwrap();
}

#[test]
fn a_layer_of_another_diff_id_is_refused() {
    let mut layout = Layout::new();
    // Decodes well, and is what its digest says, but not what the configuration says.
    let other = |_: &[u8]| gzip(&Tar::default().file("a", b"other").finish());
    let descriptor = layout.image("amd64", &tars(), other);
    layout.name(descriptor, None);
    let cache = tempfile::tempdir().unwrap();
    let name = ImageName::layout(layout.path().as_os_str());
    let error = OciImage::open(&Options::new(name, cache.path().into())).unwrap_err();
    assert!(matches!(error, OpenError::DiffId { .. }), "{error}");
}

#[test]
fn what_the_cache_holds_is_made_again_where_it_is_damaged() {
    let served = Served::new(&tars(), gzip);
    drop(served.open().unwrap());
    let damage = |folder: &Path| {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end != "content") {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    };
    damage(&served.cache.path().join("vfsd/layers"));
    damage(&served.cache.path().join("vfsd/trees"));
    let image = served.open().unwrap();
    assert_eq!(at(&image, "usr/lib/small").content().unwrap(), b"small");
    assert_eq!(root(&image).names().unwrap().len(), 6);
}

#[test]
fn a_layer_that_an_image_has_twice_is_cached_once() {
    let tar = Tar::default().file("a", b"a").finish();
    let served = Served::new(&[tar.clone(), tar], gzip);
    let image = served.open().unwrap();
    let contents: Vec<_> = image.contents().collect();
    assert!(Arc::ptr_eq(contents[0], contents[1]));
    assert_eq!(at(&image, "a").content().unwrap(), b"a");
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let served = Served::new(&tars(), gzip);
    let file = served.cache.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options = Options {
        cache: file.clone(),
        ..served.options()
    };
    let message = OciImage::open(&options).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("the cache {}: ", file.display())),
        "{message}"
    );
}
