//! The directories of a writable layer: where changes go, and where they are prepared.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use vfsd_backend::{Errno, Lookup, Name, Node};
use vfsd_overlay::Namespace;

use crate::exit::Failure;
use crate::sandbox::Share;

/// A writable layer, as an operator names it.
#[derive(Debug, Clone)]
pub(crate) struct Upper {
    /// Where changes go.
    pub(crate) dir: PathBuf,
    /// Where they are prepared: beside `dir`, unless it is named.
    pub(crate) work: Option<PathBuf>,
    /// Where the layer's own extended attributes are; by default as the daemon may.
    pub(crate) namespace: Option<Namespace>,
    /// Others than the guest use its files, too.
    pub(crate) shared: bool,
}

/// The two directories, there and locked.
///
/// Files are moved from one to the other, which only works inside one mount. So what the sandbox
/// takes along is the directory above both.
#[derive(Debug)]
pub(super) struct Place {
    above: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

impl Place {
    /// Makes what is missing, and looks whether a second daemon uses them.
    ///
    /// # Errors
    /// When one cannot be made, is in use, or lies in the other.
    pub(super) fn prepare(upper: &Upper) -> Result<Self, Failure> {
        let dir = directory("--upper", &upper.dir, 0o755)?;
        let work = match &upper.work {
            Some(work) => directory("--work", work, 0o700)?,
            None => directory("--work", &beside(&dir)?, 0o700)?,
        };
        if dir.starts_with(&work) || work.starts_with(&dir) {
            return Err(Failure::run(format!(
                "--upper {} and --work {} lie in one another: choose two directories side by side",
                dir.display(),
                work.display()
            )));
        }
        let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
        if device(&dir) != device(&work) {
            return Err(Failure::run(format!(
                "--work {} is on another file system than --upper {}: choose one on the same",
                work.display(),
                dir.display()
            )));
        }
        // Held only inside the sandbox: a descriptor from outside would be a way out of it.
        drop([lock("--upper", &dir)?, lock("--work", &work)?]);
        let above = dir
            .components()
            .zip(work.components())
            .take_while(|(one, other)| one == other)
            .map(|(component, _)| component)
            .collect();
        Ok(Self {
            above,
            upper: dir,
            work,
        })
    }

    /// Looks whether the directories are there, or can be made, and free, without making them.
    ///
    /// # Errors
    /// As those of [`prepare`](Self::prepare) that are seen so.
    pub(super) fn check(upper: &Upper) -> Result<(), Failure> {
        let dir = match upper.dir.canonicalize() {
            Ok(dir) => dir,
            // It is made, if what it is to be in is there.
            Err(error) => {
                let parent = upper.dir.parent().filter(|it| !it.as_os_str().is_empty());
                return match parent.is_none_or(Path::exists) {
                    true => Ok(()),
                    false => Err(unusable("--upper", &upper.dir, &error)),
                };
            }
        };
        match dir.is_dir() {
            true => lock("--upper", &dir).map(drop),
            false => Err(unusable(
                "--upper",
                &dir,
                &io::ErrorKind::NotADirectory.into(),
            )),
        }
    }

    /// Where the layer's marks are: as `given`; without that where it has some, else `usual`.
    ///
    /// # Errors
    /// When it has some elsewhere alone: what they say of its files would not be seen.
    pub(super) fn namespace(
        &self,
        given: Option<Namespace>,
        usual: Namespace,
    ) -> Result<Namespace, Failure> {
        let wanted = given.unwrap_or(usual);
        let has = |namespace: Namespace| has_marks(&self.upper, namespace.prefix());
        let other = match wanted {
            Namespace::Trusted => Namespace::User,
            Namespace::User => Namespace::Trusted,
        };
        if has(wanted) || !has(other) {
            return Ok(wanted);
        }
        if given.is_none() && other == Namespace::User {
            tracing::info!(
                "the marks of {} are in user.overlay.*",
                self.upper.display()
            );
            return Ok(other);
        }
        Err(Failure::run(format!(
            "the upper {} keeps its marks in {}*, which are not read where those in {}* are: choose the other \
             --upper-xattr, or an empty upper",
            self.upper.display(),
            other.prefix().escape_ascii(),
            wanted.prefix().escape_ascii()
        )))
    }

    /// Locks both against a second daemon, as long as the descriptors are open. `above` is
    /// [`share`](Self::share), inside the sandbox.
    ///
    /// # Errors
    /// When another daemon was quicker.
    pub(super) fn lock(&self, above: BorrowedFd<'_>) -> io::Result<[OwnedFd; 2]> {
        let lock = |path: &Path| {
            let below = path.strip_prefix(&self.above).map_err(io::Error::other)?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let opened = rustix::fs::openat(above, below, flags, Mode::empty())?;
            rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
            Ok::<_, io::Error>(opened)
        };
        Ok([lock(&self.upper)?, lock(&self.work)?])
    }

    /// Makes sure that a lower layer does not change with the upper.
    ///
    /// # Errors
    /// When one lies in the other.
    pub(super) fn check_apart_from<'a>(
        &self,
        lowers: impl Iterator<Item = &'a Path>,
    ) -> Result<(), Failure> {
        for lower in lowers {
            for own in [&self.upper, &self.work] {
                if own.starts_with(lower) || lower.starts_with(own) {
                    return Err(Failure::run(format!(
                        "the writable layer {} and the source {} lie in one another: choose a \
                         directory outside",
                        own.display(),
                        lower.display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// What the sandbox takes along.
    pub(super) fn share(&self) -> Share {
        Share {
            used: vec![self.upper.clone(), self.work.clone()],
            ..Share::alone_at(self.above.clone())
        }
    }

    /// The directory of changes, below the node of [`share`](Self::share).
    ///
    /// # Errors
    /// When it is not there any more.
    pub(super) async fn upper(&self, above: Arc<dyn Node>) -> vfsd_backend::Result<Arc<dyn Node>> {
        walk(above, self.upper.strip_prefix(&self.above)).await
    }

    /// The directory where changes are prepared.
    ///
    /// # Errors
    /// When it is not there any more.
    pub(super) async fn work(&self, above: Arc<dyn Node>) -> vfsd_backend::Result<Arc<dyn Node>> {
        walk(above, self.work.strip_prefix(&self.above)).await
    }
}

/// Whether a directory has attributes whose names begin so, as far as this process may see them.
fn has_marks(path: &Path, prefix: &[u8]) -> bool {
    // More than a file system keeps.
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names.get(..length).unwrap_or_default();
    names
        .split(|byte| *byte == 0)
        .any(|name| name.starts_with(prefix))
}

async fn walk(
    from: Arc<dyn Node>,
    path: Result<&Path, std::path::StripPrefixError>,
) -> vfsd_backend::Result<Arc<dyn Node>> {
    let mut node = from;
    for component in path.map_err(|_| Errno::NOENT)?.components() {
        let Component::Normal(name) = component else {
            return Err(Errno::NOENT.into());
        };
        let found = node.lookup(Name::new(name.as_bytes())?).await?;
        node = match found {
            Lookup::Found(entry) => entry.node,
            Lookup::Missing { .. } => return Err(Errno::NOENT.into()),
        };
    }
    Ok(node)
}

/// The absolute path of a directory, made unless it is there.
fn directory(option: &str, path: &Path, mode: u32) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| unusable(option, path, &error);
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let absolute = path.canonicalize().map_err(failed)?;
    match absolute.is_dir() {
        true => Ok(absolute),
        false => Err(failed(io::ErrorKind::NotADirectory.into())),
    }
}

fn unusable(option: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::run(format!(
        "cannot use {option} {}: {error}; name a directory on a file system that can be written",
        path.display()
    ))
}

/// `DIR.work`.
fn beside(dir: &Path) -> Result<PathBuf, Failure> {
    let name = dir.file_name().ok_or_else(|| {
        Failure::run("--upper / has nothing beside it: name a directory below the root")
    })?;
    let mut work = OsString::from(name);
    work.push(".work");
    Ok(dir.with_file_name(work))
}

/// Locks a directory of the host as long as the file is open.
fn lock(option: &str, path: &Path) -> Result<File, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::run(format!("cannot lock {option} {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN) => Err(failed(&format_args!(
            "{} uses it; choose another directory, or stop the other daemon",
            holder(path)
        ))),
        Err(errno) => Err(failed(&errno)),
    }
}

/// Who holds a lock, as /proc/locks has it: `1: FLOCK ADVISORY WRITE 1234 fd:01:5678 0 EOF`.
fn holder(path: &Path) -> String {
    let inode = std::fs::metadata(path).map_or(0, |metadata| metadata.ino());
    let suffix = format!(":{inode}");
    std::fs::read_to_string("/proc/locks")
        .ok()
        .and_then(|locks| {
            locks.lines().find_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    [_, "FLOCK", _, _, pid, file, ..] if file.ends_with(&suffix) => {
                        Some(format!("the process {pid}"))
                    }
                    _ => None,
                }
            })
        })
        .unwrap_or_else(|| "another process".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn upper(dir: PathBuf) -> Upper {
        Upper {
            dir,
            work: None,
            namespace: None,
            shared: false,
        }
    }

    fn refusal(result: Result<Place, Failure>) -> String {
        match result {
            Err(Failure::Run(advice)) => advice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_are_made_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::prepare(&upper(folder.path().join("vm"))).unwrap();
        let above = folder.path().canonicalize().unwrap();
        assert_eq!(place.share().path, above);
        assert!(above.join("vm").is_dir() && above.join("vm.work").is_dir());
    }

    #[test]
    fn a_second_daemon_is_told_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Place::prepare(&upper(folder.path().join("vm"))).unwrap();
        let above = File::open(folder.path()).unwrap();
        let first = first.lock(above.as_fd()).unwrap();
        let second = refusal(Place::prepare(&upper(folder.path().join("vm"))));
        let me = format!("process {}", std::process::id());
        assert!(
            second.contains(&me) || second.contains("another process"),
            "{second}"
        );
        drop(first);
        assert!(Place::prepare(&upper(folder.path().join("vm"))).is_ok());
    }

    #[test]
    fn directories_that_cannot_serve_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let inside = Upper {
            work: Some(folder.path().join("vm/work")),
            ..upper(folder.path().join("vm"))
        };
        assert!(refusal(Place::prepare(&inside)).contains("one another"));
        let elsewhere = Upper {
            work: Some("/dev/shm/vfsd-test-work".into()),
            ..upper(folder.path().join("vm"))
        };
        let on_disk = std::fs::metadata(folder.path()).unwrap().dev();
        if std::fs::metadata("/dev/shm").is_ok_and(|shm| shm.dev() != on_disk) {
            assert!(refusal(Place::prepare(&elsewhere)).contains("another file system"));
            std::fs::remove_dir("/dev/shm/vfsd-test-work").unwrap();
        }
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(refusal(Place::prepare(&upper(folder.path().join("file")))).contains("--upper"));
        let missing = upper(folder.path().join("no/such"));
        assert!(refusal(Place::prepare(&missing)).contains("--upper"));
        let place = Place::prepare(&upper(folder.path().join("vm"))).unwrap();
        let above = folder.path().canonicalize().unwrap();
        assert!(
            place
                .check_apart_from([above.as_path()].into_iter())
                .is_err()
        );
        assert!(
            place
                .check_apart_from([above.join("lower").as_path()].into_iter())
                .is_ok()
        );
    }

    #[test]
    fn marks_are_looked_for_where_the_layer_has_them() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = folder.path().join("upper");
        let place = Place::prepare(&upper(dir.clone())).unwrap();
        let (trusted, user) = (Namespace::Trusted, Namespace::User);
        for usual in [trusted, user] {
            assert_eq!(place.namespace(None, usual).unwrap(), usual, "a new one");
        }
        let set =
            |name: &str| rustix::fs::lsetxattr(&dir, name, b"y", rustix::fs::XattrFlags::empty());
        set("user.overlay.impure").unwrap();
        assert_eq!(place.namespace(None, trusted).unwrap(), user);
        assert_eq!(place.namespace(Some(user), trusted).unwrap(), user);
        let refused = place.namespace(Some(trusted), trusted).unwrap_err();
        assert!(
            matches!(&refused, Failure::Run(advice) if advice.contains("user.overlay.*") && advice.contains("--upper-xattr")),
            "{refused:?}"
        );
        // What is of the guest's own overlays stays the guest's.
        if set("trusted.overlay.vfsd.lowers").is_ok() {
            assert_eq!(place.namespace(None, trusted).unwrap(), trusted);
        }
    }
}
