use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vfsd_backend::{Error, Lookup, Name, Wait};

use super::*;
use crate::{Options, Passthrough};

fn shared(options: Options) -> (TempDir, Passthrough) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), b"content").unwrap();
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    symlink("file", directory.path().join("link")).unwrap();
    let fs = Passthrough::open(directory.path(), options).unwrap();
    (directory, fs)
}

fn with<T>(fs: &Passthrough, name: &str, work: impl FnOnce(&Inode) -> T) -> T {
    let name = Name::new(name.as_bytes()).unwrap();
    let Lookup::Found(entry) = fs.root.find(name, Wait::Allowed).unwrap() else {
        panic!("missing");
    };
    let node: &dyn std::any::Any = &*entry.node;
    work(node.downcast_ref().unwrap())
}

fn set(fs: &Passthrough, file: &str, name: &str, value: &[u8]) -> Result<(), Error> {
    let name = XattrName::new(name.as_bytes()).unwrap();
    with(fs, file, |node| {
        node.set_xattr(name, value, XattrFlags::empty())
    })
}

fn get(fs: &Passthrough, file: &str, name: &str) -> Result<Vec<u8>, Error> {
    let name = XattrName::new(name.as_bytes()).unwrap();
    with(fs, file, |node| node.xattr(name))
}

fn remove(fs: &Passthrough, file: &str, name: &str) -> Result<(), Error> {
    let name = XattrName::new(name.as_bytes()).unwrap();
    with(fs, file, |node| node.remove_xattr(name))
}

fn list(fs: &Passthrough, file: &str) -> String {
    let names = with(fs, file, Inode::xattr_names).unwrap();
    let names = String::from_utf8(names).unwrap();
    let mut names: Vec<_> = names.split_terminator('\0').collect();
    names.sort_unstable();
    names.join(" ")
}

fn on_host(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; LONGEST];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn errno<T>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Errno(errno)) => errno,
        _ => panic!("no errno"),
    }
}

/// On kernels with getxattrat(2) and, by the other way, without.
fn both_ways(options: &Options, test: impl Fn(&TempDir, &Passthrough)) {
    for new_calls in [true, false] {
        let (directory, fs) = shared(options.clone());
        if !new_calls {
            let access = &fs.root.share().xattrs;
            access.has_xattrat.store(false, Ordering::Relaxed);
        }
        test(&directory, &fs);
    }
}

#[test]
fn attributes_of_files_and_directories_are_set_read_listed_and_removed() {
    both_ways(&Options::default(), |directory, fs| {
        let long = vec![b'x'; 2000];
        for file in ["file", "directory"] {
            set(fs, file, "user.a", b"1").unwrap();
            set(fs, file, "user.long", &long).unwrap();
            assert_eq!(get(fs, file, "user.a").unwrap(), b"1");
            assert_eq!(get(fs, file, "user.long").unwrap(), long);
            assert_eq!(
                on_host(&directory.path().join(file), "user.a").unwrap(),
                b"1"
            );
            assert_eq!(list(fs, file), "user.a user.long");
            remove(fs, file, "user.a").unwrap();
            assert_eq!(errno(get(fs, file, "user.a")), Errno::NODATA);
            assert_eq!(errno(remove(fs, file, "user.a")), Errno::NODATA);
        }
    });
}

#[test]
fn create_and_replace_are_kept_apart() {
    both_ways(&Options::default(), |_, fs| {
        let name = XattrName::new(b"user.a").unwrap();
        let set = |flags| with(fs, "file", |node| node.set_xattr(name, b"", flags));
        assert_eq!(errno(set(XattrFlags::REPLACE)), Errno::NODATA);
        set(XattrFlags::CREATE).unwrap();
        assert_eq!(errno(set(XattrFlags::CREATE)), Errno::EXIST);
        set(XattrFlags::REPLACE).unwrap();
    });
}

#[test]
fn attributes_of_a_symlink_are_its_own() {
    if !is_root() {
        return;
    }
    both_ways(&Options::default(), |directory, fs| {
        set(fs, "link", "trusted.a", b"link").unwrap();
        assert_eq!(get(fs, "link", "trusted.a").unwrap(), b"link");
        assert_eq!(list(fs, "link"), "trusted.a");
        assert_eq!(on_host(&directory.path().join("file"), "trusted.a"), None);
        assert_eq!(
            on_host(&directory.path().join("link"), "trusted.a").unwrap(),
            b"link"
        );
    });
}

#[test]
fn attributes_of_special_files_need_no_open() {
    if !is_root() {
        return;
    }
    both_ways(&Options::default(), |directory, fs| {
        let path = directory.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        set(fs, "fifo", "trusted.a", b"1").unwrap();
        assert_eq!(get(fs, "fifo", "trusted.a").unwrap(), b"1");
    });
}

#[test]
fn the_working_directory_is_what_it_was() {
    let before = std::fs::read_link("/proc/thread-self/cwd").unwrap();
    both_ways(&Options::default(), |_, fs| {
        set(fs, "file", "user.a", b"1").unwrap();
        let after = std::fs::read_link("/proc/thread-self/cwd").unwrap();
        assert_eq!(after, before);
    });
}

#[test]
fn names_go_through_the_map() {
    let options = Options {
        xattr_map: Some(":map:trusted.:user.virtiofs.:".parse().unwrap()),
        ..Options::default()
    };
    both_ways(&options, |directory, fs| {
        set(fs, "file", "trusted.a", b"1").unwrap();
        set(fs, "file", "user.b", b"2").unwrap();
        let host = on_host(&directory.path().join("file"), "user.virtiofs.trusted.a");
        assert_eq!(host.unwrap(), b"1");
        assert_eq!(get(fs, "file", "trusted.a").unwrap(), b"1");
        assert_eq!(list(fs, "file"), "trusted.a user.b");
        let hidden = "user.virtiofs.trusted.a";
        assert_eq!(errno(get(fs, "file", hidden)), Errno::NODATA);
        assert_eq!(errno(set(fs, "file", hidden, b"")), Errno::PERM);
        assert_eq!(errno(remove(fs, "file", hidden)), Errno::PERM);
    });
}

#[test]
fn acls_are_served_only_when_asked_for() {
    let acl_of_0644 = [
        2, 0, 0, 0, // version
        1, 0, 6, 0, 255, 255, 255, 255, // owner
        4, 0, 4, 0, 255, 255, 255, 255, // group
        32, 0, 4, 0, 255, 255, 255, 255, // others
    ];
    both_ways(&Options::default(), |_, fs| {
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!(
                errno(set(fs, "directory", name, &acl_of_0644)),
                Errno::OPNOTSUPP
            );
            assert_eq!(errno(get(fs, "directory", name)), Errno::OPNOTSUPP);
            assert_eq!(errno(remove(fs, "directory", name)), Errno::OPNOTSUPP);
        }
    });
    let options = Options {
        posix_acl: true,
        ..Options::default()
    };
    both_ways(&options, |_, fs| {
        set(fs, "directory", "system.posix_acl_default", &acl_of_0644).unwrap();
        assert_eq!(list(fs, "directory"), "system.posix_acl_default");
    });
}

#[test]
fn an_access_acl_takes_set_group_id_away_when_told_so() {
    let options = Options {
        posix_acl: true,
        ..Options::default()
    };
    let acl = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 4, 0,
        255, 255, 255, 255,
    ];
    both_ways(&options, |_, fs| {
        with(fs, "file", |node| {
            let changes = vfsd_backend::AttributeChanges {
                permissions: Some(0o2755),
                ..Default::default()
            };
            let name = XattrName::new(ACL_ACCESS).unwrap();
            node.change(&changes).unwrap();
            node.set_xattr(name, &acl, XattrFlags::KILL_SGID).unwrap();
            assert_eq!(node.attributes().unwrap().permissions, 0o654);
        });
    });
}

#[test]
fn without_the_option_there_are_no_attributes() {
    let (_directory, fs) = shared(Options {
        xattr: false,
        ..Options::default()
    });
    assert!(matches!(
        get(&fs, "file", "user.a"),
        Err(Error::NotSupported)
    ));
    let capabilities = vfsd_backend::Backend::capabilities(&fs);
    assert!(!capabilities.contains(vfsd_backend::Capabilities::XATTR));
}
