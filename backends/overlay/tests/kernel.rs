//! The kernel's overlayfs and ours serve each other's uppers, and do the same with random operations.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod stack;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use rustix::fs::{CWD, RenameFlags as HostFlags, lgetxattr, llistxattr, lsetxattr, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use stack::{is_root, passthrough, upper_of};
use tempfile::TempDir;
use vfsd_backend::{Backend, Errno, FileKind, RenameFlags};
use vfsd_overlay::{Namespace, Options, Overlay};
use vfsd_testkit::block_on;
use vfsd_testkit::place::{Outcome, Place};

/// Operations of each random sequence.
const STEPS: usize = 120;
const SEQUENCES: u64 = 12;
const NAMES: [&str; 5] = ["a", "b", "dir", "sub", "new"];

/// A lower layer, an upper and a work directory of the host.
struct Layers {
    dir: TempDir,
    format: Format,
}

/// How the kernel is asked to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `trusted.overlay.*`, and hard links of the lower layer stay one file.
    Index,
    /// `trusted.overlay.*`. There are no hard links in the lower layer: the kernel would take them apart.
    NoIndex,
    /// `user.overlay.*`.
    User,
}

impl Format {
    fn namespace(self) -> Namespace {
        match self {
            Self::Index | Self::NoIndex => Namespace::Trusted,
            Self::User => Namespace::User,
        }
    }

    /// What the kernel is told.
    fn mount_options(self) -> &'static str {
        match self {
            Self::Index => "redirect_dir=on,index=on,metacopy=off,xino=off",
            Self::NoIndex => "redirect_dir=on,index=off,metacopy=off,xino=off",
            Self::User => "userxattr",
        }
    }
}

/// The kernel's overlay of them, while it is mounted.
///
/// No program is started to mount or unmount: until it has begun, it has open what other threads of this one have
/// open at the time, and what they have mounted is in use.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = unmount(&self.0, UnmountFlags::empty());
        if !std::thread::panicking() {
            unmounted.expect("nothing is open in the mount any more");
        }
    }
}

impl Layers {
    fn new(format: Format) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["lower", "both/upper", "both/work", "mount"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let lower = dir.path().join("lower");
        fs::create_dir_all(lower.join("dir/sub")).unwrap();
        fs::create_dir(lower.join("sub")).unwrap();
        fs::write(lower.join("a"), b"content").unwrap();
        fs::write(lower.join("dir/a"), vec![7; 9000]).unwrap();
        fs::write(lower.join("dir/sub/b"), b"deep").unwrap();
        symlink("nowhere", lower.join("b")).unwrap();
        lsetxattr(
            lower.join("a"),
            "user.x",
            b"value",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::set_permissions(lower.join("dir/a"), fs::Permissions::from_mode(0o4711)).unwrap();
        if format == Format::Index {
            fs::hard_link(lower.join("dir/sub/b"), lower.join("dir/new")).unwrap();
            fs::hard_link(lower.join("dir/sub/b"), lower.join("sub/b")).unwrap();
            fs::hard_link(lower.join("b"), lower.join("sub/new")).unwrap();
        }
        Self { dir, format }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self) -> Mounted {
        let marks = self.format.mount_options();
        let [lower, upper, work] =
            ["lower", "both/upper", "both/work"].map(|name| self.path(name).display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work},{marks}");
        let point = self.path("mount");
        let data = CString::new(options).unwrap();
        mount("overlay", &point, "overlay", MountFlags::empty(), &*data)
            .expect("the kernel mounts it");
        Mounted(point)
    }

    fn serve<T>(&self, work: impl FnOnce(Place) -> T) -> T {
        let tree = passthrough(&self.path("both"));
        let options = Options {
            namespace: self.format.namespace(),
            one_file_system: true,
            upper: Some(upper_of(&tree)),
            redirects: self.format != Format::User,
            ..Options::new(vec![passthrough(&self.path("lower"))])
        };
        let overlay = block_on(Overlay::open(options)).expect("an overlay");
        work(Place(overlay.root()))
    }
}

/// What is seen of a file.
type Seen = BTreeMap<String, String>;

/// Inode number and, but of directories, links. What has no place for `user.overlay.*` may get another number by
/// being copied; the root has the lower's with us, the upper's with the kernel.
fn identity(format: Format, name: &str, is_dir: bool, inode: u64, links: u64) -> String {
    match (format, is_dir) {
        (Format::User, _) => String::new(),
        _ if name.is_empty() => String::new(),
        (_, true) => format!("inode {inode}"),
        (_, false) => format!("inode {inode} links {links}"),
    }
}

fn look_at_host(format: Format, root: &Path, path: &Path, seen: &mut Seen) {
    let meta = fs::symlink_metadata(path).unwrap();
    let mut xattrs = BTreeMap::new();
    let mut list = vec![0; 1 << 16];
    let length = llistxattr(path, &mut list).unwrap();
    for name in list[..length].split(|&byte| byte == 0) {
        if !name.is_empty() && !name.starts_with(b"security.") {
            let mut value = vec![0; 1 << 16];
            let length = lgetxattr(path, name, &mut value).unwrap();
            xattrs.insert(name.escape_ascii().to_string(), value[..length].to_vec());
        }
    }
    let content = match meta.file_type() {
        kind if kind.is_file() => fs::read(path).unwrap(),
        kind if kind.is_symlink() => fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        _ => Vec::new(),
    };
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let identity = identity(format, &name, meta.is_dir(), meta.ino(), meta.nlink());
    let shown = format!(
        "{identity} {:o} {}:{} {size} {}.{} {xattrs:?} {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        content.escape_ascii()
    );
    seen.insert(name, shown);
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if format != Format::User {
                let path = entry.path();
                let meta = fs::symlink_metadata(&path).unwrap();
                assert_eq!(entry.ino(), meta.ino(), "as listed: {}", path.display());
            }
            look_at_host(format, root, &entry.path(), seen);
        }
    }
}

fn look_at_ours(format: Format, name: String, place: &Place, seen: &mut Seen) {
    let meta = place.attributes().unwrap();
    let mut xattrs = place.xattrs("").unwrap();
    xattrs.retain(|name, _| !name.starts_with("security."));
    let content = match meta.kind {
        FileKind::Regular => place.content().unwrap(),
        FileKind::Symlink => place.readlink().unwrap(),
        _ => Vec::new(),
    };
    let is_dir = meta.kind == FileKind::Directory;
    let size = if is_dir { 0 } else { meta.size };
    let identity = identity(format, &name, is_dir, meta.inode, meta.links.into());
    let shown = format!(
        "{identity} {:o} {}:{} {size} {}.{} {xattrs:?} {}",
        meta.mode(),
        meta.uid,
        meta.gid,
        meta.modified.seconds,
        meta.modified.nanoseconds,
        content.escape_ascii()
    );
    if is_dir {
        for inner in place.names().unwrap() {
            let path = match name.as_str() {
                "" => inner.clone(),
                above => format!("{above}/{inner}"),
            };
            look_at_ours(format, path, &place.lookup(&inner).unwrap(), seen);
        }
    }
    seen.insert(name, shown);
}

fn host_tree(format: Format, root: &Path) -> Seen {
    let mut seen = Seen::new();
    look_at_host(format, root, root, &mut seen);
    seen
}

fn our_tree(format: Format, root: &Place) -> Seen {
    let mut seen = Seen::new();
    look_at_ours(format, String::new(), root, &mut seen);
    seen
}

fn same(what: &str, ours: &Seen, kernel: &Seen) {
    let names = ours.keys().chain(kernel.keys());
    for name in names {
        assert_eq!(
            ours.get(name),
            kernel.get(name),
            "{what}: ours and the kernel's {name:?}"
        );
    }
}

/// Numbers that follow from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % end
    }

    /// A path of one to three names.
    fn path(&mut self) -> Vec<&'static str> {
        let length = 1 + self.below(3);
        (0..length)
            .map(|_| NAMES[self.below(NAMES.len())])
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<&'static str>),
    Write(Vec<&'static str>),
    Mkdir(Vec<&'static str>),
    Symlink(Vec<&'static str>),
    Unlink(Vec<&'static str>),
    Rmdir(Vec<&'static str>),
    Chmod(Vec<&'static str>),
    Link(Vec<&'static str>, Vec<&'static str>),
    Rename(Vec<&'static str>, Vec<&'static str>),
    Exchange(Vec<&'static str>, Vec<&'static str>),
}

impl Step {
    fn random(random: &mut Random) -> Self {
        let (one, two) = (random.path(), random.path());
        match random.below(13) {
            0 | 1 => Self::Put(one),
            2 => Self::Write(one),
            3 => Self::Mkdir(one),
            4 => Self::Symlink(one),
            5 | 6 => Self::Unlink(one),
            7 => Self::Rmdir(one),
            8 => Self::Chmod(one),
            9 => Self::Link(one, two),
            10 | 11 => Self::Rename(one, two),
            _ => Self::Exchange(one, two),
        }
    }

    fn on_host(&self, root: &Path) -> Outcome<()> {
        let path = |names: &[&str]| root.join(names.join("/"));
        let io = |result: std::io::Result<()>| {
            result.map_err(|error| Errno::from_io_error(&error).unwrap())
        };
        let rename = |one: &[&str], two: &[&str], flags| {
            renameat_with(CWD, path(one), CWD, path(two), flags)
        };
        match self {
            Self::Put(at) => io(fs::File::create_new(path(at)).map(drop)),
            Self::Write(at) => {
                let meta = io_meta(&path(at))?;
                if !meta.is_file() {
                    return Err(Errno::INVAL);
                }
                io(fs::write(path(at), b"written"))
            }
            Self::Mkdir(at) => io(fs::create_dir(path(at))),
            Self::Symlink(at) => io(symlink("target", path(at))),
            Self::Unlink(at) => rustix::fs::unlinkat(CWD, path(at), rustix::fs::AtFlags::empty()),
            Self::Rmdir(at) => io(fs::remove_dir(path(at))),
            Self::Chmod(at) => {
                if io_meta(&path(at))?.is_symlink() {
                    return Err(Errno::INVAL);
                }
                io(fs::set_permissions(
                    path(at),
                    fs::Permissions::from_mode(0o750),
                ))
            }
            Self::Link(one, two) => io(fs::hard_link(path(one), path(two))),
            Self::Rename(one, two) => rename(one, two, HostFlags::empty()),
            Self::Exchange(one, two) => rename(one, two, HostFlags::EXCHANGE),
        }
    }

    fn on_ours(&self, root: &Place) -> Outcome<()> {
        match self {
            Self::Put(at) => {
                let (parent, name) = parent(root, at)?;
                parent.create(name).map(drop)
            }
            Self::Write(at) => {
                let file = find(root, at)?;
                if file.0.kind() != FileKind::Regular {
                    return Err(Errno::INVAL);
                }
                use vfsd_backend::OpenFlags;
                file.open(OpenFlags::WRITE | OpenFlags::TRUNCATE)?
                    .write_all(0, b"written")
            }
            Self::Mkdir(at) => parent(root, at)
                .and_then(|(dir, name)| dir.mkdir(name))
                .map(drop),
            Self::Symlink(at) => {
                let (dir, name) = parent(root, at)?;
                dir.symlink(name, "target").map(drop)
            }
            Self::Unlink(at) => parent(root, at).and_then(|(dir, name)| dir.unlink(name)),
            Self::Rmdir(at) => parent(root, at).and_then(|(dir, name)| dir.rmdir(name)),
            Self::Chmod(at) => {
                let file = find(root, at)?;
                if file.0.kind() == FileKind::Symlink {
                    return Err(Errno::INVAL);
                }
                file.chmod(0o750).map(drop)
            }
            Self::Link(one, two) => {
                let file = find(root, one)?;
                let (dir, name) = parent(root, two)?;
                dir.link(&file, name).map(drop)
            }
            Self::Rename(one, two) => self.rename(root, one, two, RenameFlags::empty()),
            Self::Exchange(one, two) => self.rename(root, one, two, RenameFlags::EXCHANGE),
        }
    }

    fn rename(&self, root: &Place, one: &[&str], two: &[&str], flags: RenameFlags) -> Outcome<()> {
        let (from, name) = parent(root, one)?;
        let (to, new_name) = parent(root, two)?;
        from.rename_with(name, &to, new_name, flags)
    }
}

fn io_meta(path: &Path) -> Outcome<fs::Metadata> {
    fs::symlink_metadata(path).map_err(|error| Errno::from_io_error(&error).unwrap())
}

fn find(root: &Place, path: &[&str]) -> Outcome<Place> {
    path.iter()
        .try_fold(root.clone(), |place, name| match place.0.kind() {
            // A path's resolution follows it, to what is not there.
            FileKind::Symlink => Err(Errno::NOENT),
            _ => place.lookup(name),
        })
}

fn parent<'a>(root: &Place, path: &[&'a str]) -> Outcome<(Place, &'a str)> {
    let (name, above) = path.split_last().unwrap();
    let place = find(root, above)?;
    match place.0.kind() {
        FileKind::Symlink => Err(Errno::NOENT),
        FileKind::Directory => Ok((place, name)),
        _ => Err(Errno::NOTDIR),
    }
}

fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random(seed | 1);
    (0..STEPS).map(|_| Step::random(&mut random)).collect()
}

/// Does the same on both, compares what is answered, and then lets each serve what the other has made. False
/// if the kernel gave up: with `userxattr` a rename of what it has copied up can be ESTALE.
fn differ(format: Format, seed: u64) -> bool {
    let (ours, kernels) = (Layers::new(format), Layers::new(format));
    let mount = kernels.mount();
    let went_on = ours.serve(|root| {
        for (number, step) in steps(seed).iter().enumerate() {
            let (left, right) = (step.on_ours(&root), step.on_host(&mount.0));
            if format == Format::User && right == Err(Errno::STALE) {
                return false;
            }
            assert_eq!(
                left, right,
                "seed {seed}, step {number}: {step:?}, ours and the kernel's"
            );
        }
        let names = |seen: Seen| seen.into_keys().collect::<Vec<_>>();
        assert_eq!(
            names(our_tree(format, &root)),
            names(host_tree(format, &mount.0)),
            "seed {seed}"
        );
        true
    });
    if !went_on {
        return false;
    }
    let kernels_own = host_tree(format, &mount.0);
    drop(mount);
    let what = format!("seed {seed}, the kernel's upper");
    same(
        &what,
        &kernels.serve(|root| our_tree(format, &root)),
        &kernels_own,
    );
    let own = ours.serve(|root| our_tree(format, &root));
    let mount = ours.mount();
    let what = format!("seed {seed}, our upper");
    same(&what, &own, &host_tree(format, &mount.0));
    true
}

fn main() -> ExitCode {
    // The same each time, unless others are asked for.
    let first: u64 = std::env::var("VFSD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let formats = [
        ("trusted_attributes_and_an_index", Format::Index),
        ("trusted_attributes", Format::NoIndex),
        ("user_attributes", Format::User),
    ];
    let trials = formats
        .into_iter()
        .map(|(name, format)| {
            let name = format!("the_kernel_agrees_with_{name}");
            let trial = Trial::test(name, move || {
                let seeds = first..first + SEQUENCES;
                let compared = seeds.filter(|seed| differ(format, *seed)).count();
                match compared {
                    0 => Err("the kernel gave up each time".into()),
                    _ => Ok(()),
                }
            });
            match is_root() {
                true => trial,
                false => trial
                    .with_kind("needs root to mount")
                    .with_ignored_flag(true),
            }
        })
        .collect();
    let mut arguments = Arguments::from_args();
    // A program that another thread starts has, for a moment, what is open here: a mount would be busy.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}
