//! Mounts of other clients: what they wrote is read, and they read what was written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, getxattr, setxattr, utimensat};
use rustix::process::{Pid, Signal, kill_process};
use vfsd_backend::{AttributeChanges, SetTime, Timestamp};
use vfsd_testkit::place::wait;
use vfsd_testkit::servers::{ACCESS_KEY, SECRET_KEY, StoreServer, program};

use crate::scene::{Scene, Servers};
use crate::write::{put_file, writable};
use crate::{GOOD, Test, Tool, test};

pub(crate) const TESTS: &[Test] = &[
    Test {
        tool: Some(S3FS),
        ..test("what_s3fs_wrote_is_read", GOOD, s3fs_wrote)
    },
    Test {
        tool: Some(S3FS),
        ..test("what_was_written_is_read_by_s3fs", GOOD, s3fs_reads)
    },
    Test {
        tool: Some(RCLONE),
        ..test(
            "a_mount_of_rclone_reads_and_is_read",
            SEAWEEDFS,
            rclone_mount,
        )
    },
];

/// On a busy machine rclone's own uploads to moto fail now and then ("md5 hashes differ").
const SEAWEEDFS: &[StoreServer] = &[StoreServer::SeaweedFs];

const S3FS: Tool = || can_mount().and_then(|()| s3fs());
const RCLONE: Tool = || {
    can_mount()?;
    // It does not mount by itself.
    program("VFSD_TEST_FUSERMOUNT", "fusermount3").ok_or("needs fusermount3: install fuse3")?;
    StoreServer::Rclone.find()
};

/// However a test ends, a mount lives no longer than this.
const TIME_LIMIT: &str = "300";
/// What another client does in the background is done by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// 2001-02-03 04:05:06.
const LONG_AGO: i64 = 981_173_106;

fn s3fs() -> Result<PathBuf, String> {
    let found = program("VFSD_TEST_S3FS", "s3fs");
    found.ok_or_else(|| "needs s3fs: set VFSD_TEST_S3FS, or install it".to_owned())
}

/// Whether this process may mount.
fn can_mount() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root mounts".to_owned());
    }
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("needs /dev/fuse: {error}")),
    }
}

/// A bucket that another client has mounted, until it is dropped.
struct Mount {
    child: Child,
    point: PathBuf,
}

impl Mount {
    fn start(command: &Command, folder: &Path) -> Self {
        let point = folder.join("mount");
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut limited = Command::new("timeout");
        limited
            .args(["--kill-after=5", TIME_LIMIT])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = limited.spawn().unwrap();
        let mut mount = Self { child, point };
        until("the mount", || {
            if mount.is_there() {
                return Ok(());
            }
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(mount.child.try_wait().unwrap().is_none(), "it ended: {log}");
            Err(log)
        });
        mount
    }

    fn is_there(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        points.any(|point| Path::new(point) == self.point)
    }

    fn s3fs(scene: &Scene, folder: &Path) -> Self {
        let keys = folder.join("keys");
        fs::write(&keys, format!("{ACCESS_KEY}:{SECRET_KEY}")).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(folder.join("mount")).unwrap();
        let mut command = Command::new(s3fs().unwrap());
        command
            .arg(scene.bucket())
            .arg(folder.join("mount"))
            .arg("-f");
        for option in [
            format!("passwd_file={}", keys.display()),
            format!("url={}", scene.server().endpoint()),
            "use_path_request_style".to_owned(),
            "use_xattr".to_owned(),
            "multipart_size=10".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        Self::start(&command, folder)
    }

    fn rclone(scene: &Scene, folder: &Path) -> Self {
        fs::create_dir(folder.join("mount")).unwrap();
        let mut command = Command::new(StoreServer::Rclone.find().unwrap());
        command
            .args([
                "mount",
                "--vfs-cache-mode",
                "full",
                "--vfs-write-back",
                "0s",
            ])
            .args(["--s3-no-check-bucket", "--cache-dir"])
            .arg(folder.join("cache"))
            .arg(format!("w:{}", scene.bucket()))
            .arg(folder.join("mount"));
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("ENDPOINT", &scene.server().endpoint()),
            ("ACCESS_KEY_ID", ACCESS_KEY),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
        ] {
            command.env(format!("RCLONE_CONFIG_W_{name}"), value);
        }
        Self::start(&command, folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // `timeout` passes it on, and the client unmounts as it ends.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        if self.is_there() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&self.point, flags);
        }
    }
}

/// Waits until it is so. What it was instead is told when it never is.
fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(seen) = is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come: {seen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn s3fs_wrote(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let large = b"0123456789abcdefg".repeat(1_500_000);
    {
        let mount = Mount::s3fs(&scene, folder.path());
        fs::write(mount.path("f"), "of s3fs").unwrap();
        let f = mount.path("f");
        setxattr(&f, "user.colour", b"blue\0\xff", XattrFlags::empty()).unwrap();
        setxattr(&f, "user.shape", b"round", XattrFlags::empty()).unwrap();
        fs::set_permissions(&f, fs::Permissions::from_mode(0o640)).unwrap();
        chown(&f, Some(7), Some(8)).unwrap();
        let long_ago = Timespec {
            tv_sec: LONG_AGO,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        };
        utimensat(CWD, &f, &times, AtFlags::empty()).unwrap();
        symlink("f", mount.path("l")).unwrap();
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/large"), &large).unwrap();
        fs::create_dir(mount.path("empty")).unwrap();
        if kind == StoreServer::Moto {
            // SeaweedFS keeps no metadata of markers.
            fs::set_permissions(mount.path("empty"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
    let staging = tempfile::tempdir().unwrap();
    let (_bucket, root) = writable(&scene, staging.path());
    let f = root.lookup("f").unwrap();
    let seen = f.attributes().unwrap();
    assert_eq!((seen.mode(), seen.uid, seen.gid), (0o100_640, 7, 8));
    assert_eq!(seen.modified.seconds, LONG_AGO);
    assert_eq!(f.content().unwrap(), b"of s3fs");
    assert_eq!(f.xattr_names().unwrap(), ["user.colour", "user.shape"]);
    assert_eq!(f.getxattr("user.colour").unwrap(), b"blue\0\xff");
    assert_eq!(root.lookup("l").unwrap().readlink().unwrap(), b"f");
    let d = root.lookup("d").unwrap();
    assert!(d.lookup("large").unwrap().content().unwrap() == large);
    let empty = root.lookup("empty").unwrap().attributes().unwrap();
    if kind == StoreServer::Moto {
        assert_eq!(empty.mode(), 0o040_700);
    }
}

fn s3fs_reads(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let staging = tempfile::tempdir().unwrap();
    let (_bucket, root) = writable(&scene, staging.path());
    put_file(&root, "f", b"of vfsd");
    let f = root.lookup("f").unwrap();
    f.setxattr("user.colour", b"blue\0\xff").unwrap();
    f.chmod(0o640).unwrap();
    f.chown(7, 8).unwrap();
    let modified = Timestamp {
        seconds: LONG_AGO,
        nanoseconds: 0,
    };
    f.set(AttributeChanges {
        modified: Some(SetTime::At(modified)),
        ..AttributeChanges::default()
    })
    .unwrap();
    wait(f.0.syncfs()).unwrap();
    root.symlink("l", "f").unwrap();
    let d = root.mkdir("d").unwrap();
    let large = b"0123456789abcdefg".repeat(1_500_000);
    put_file(&d, "large", &large);
    root.mkdir("empty").unwrap().chmod(0o700).unwrap();

    let mount = Mount::s3fs(&scene, folder.path());
    let f = mount.path("f");
    let seen = fs::metadata(&f).unwrap();
    assert_eq!((seen.mode(), seen.uid(), seen.gid()), (0o100_640, 7, 8));
    assert_eq!(seen.mtime(), LONG_AGO);
    assert_eq!(fs::read(&f).unwrap(), b"of vfsd");
    let mut value = [0; 64];
    let length = getxattr(&f, "user.colour", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"blue\0\xff");
    assert_eq!(fs::read_link(mount.path("l")).unwrap(), Path::new("f"));
    assert!(fs::read(mount.path("d/large")).unwrap() == large);
    let empty = fs::metadata(mount.path("empty")).unwrap();
    assert!(empty.is_dir());
    if kind == StoreServer::Moto {
        assert_eq!(empty.mode(), 0o040_700);
    }
    let names = fs::read_dir(&mount.point).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "empty", "f", "l"]);
}

fn rclone_mount(servers: &Servers, kind: StoreServer) {
    let (scene, folder) = (servers.bucket(kind), tempfile::tempdir().unwrap());
    let staging = tempfile::tempdir().unwrap();
    let (_bucket, root) = writable(&scene, staging.path());
    let d = root.mkdir("d").unwrap();
    let large = b"0123456789abcdefg".repeat(1_500_000);
    put_file(&d, "ours", &large);
    let mount = Mount::rclone(&scene, folder.path());
    assert!(fs::read(mount.path("d/ours")).unwrap() == large);
    fs::write(mount.path("d/theirs"), &large).unwrap();
    // It copies the object onto itself afterwards, for its time.
    until("what rclone wrote", || {
        let content = d.lookup("theirs").and_then(|theirs| theirs.content());
        match content {
            Ok(content) if content == large => Ok(()),
            Ok(content) => Err(format!("{} bytes", content.len())),
            Err(errno) => Err(errno.to_string()),
        }
    });
}
