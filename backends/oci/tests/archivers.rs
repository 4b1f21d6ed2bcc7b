//! Archives of GNU tar and of Python's tarfile, read here and by Python.
//!
//! A row whose tool is not installed is reported as ignored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use vfsd_oci::tar::{TarLimits, TarParser};
use vfsd_oci::{EntryKind, LayerEntry};

fn main() -> ExitCode {
    let mut rows = Vec::new();
    let gnu = |format: &'static str| move || gnu_tar_is_read(&["--format", format]);
    for format in ["v7", "ustar", "oldgnu", "gnu", "pax"] {
        rows.push(row(
            format!("archives of gnu tar in format {format} are read"),
            &["tar", "python3"],
            gnu(format),
        ));
    }
    for options in [
        &["--format", "gnu", "--sparse", "--hole-detection=raw"][..],
        &[
            "--format",
            "pax",
            "--sparse",
            "--sparse-version=0.0",
            "--hole-detection=raw",
        ],
        &[
            "--format",
            "pax",
            "--sparse",
            "--sparse-version=0.1",
            "--hole-detection=raw",
        ],
        &[
            "--format",
            "pax",
            "--sparse",
            "--sparse-version=1.0",
            "--hole-detection=raw",
        ],
    ] {
        rows.push(row(
            format!(
                "sparse files of gnu tar {} are read",
                options[1..].join(" ")
            ),
            &["tar", "python3"],
            move || gnu_tar_is_read(options),
        ));
    }
    for format in ["USTAR", "GNU", "PAX"] {
        rows.push(row(
            format!("archives of tarfile in format {format} are read"),
            &["python3"],
            move || tarfile_is_read(format),
        ));
    }
    libtest_mimic::run(&Arguments::from_args(), rows).exit_code()
}

fn row(
    name: String,
    tools: &[&str],
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !is_there(tool))
        .collect();
    if missing.is_empty() {
        return Trial::test(name, test);
    }
    let name = format!("{name} (not installed: {})", missing.join(", "));
    Trial::test(name, test).with_ignored_flag(true)
}

fn is_there(tool: &str) -> bool {
    let output = Command::new(tool).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Entries of a folder with one of everything, archived by GNU tar.
fn gnu_tar_is_read(options: &[&str]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    let is_v7 = options.contains(&"v7");
    let is_ustar = options.contains(&"ustar");
    make_tree(&root, is_v7 || is_ustar, is_v7)?;
    let archive = folder.path().join("layer.tar");
    let status = Command::new("tar")
        .args(options)
        .args(["--sort=name", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status()?;
    assert!(status.success());
    let tar = fs::read(&archive)?;
    let found = parse(&tar);
    let mut links: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in &found {
        let path = root.join(std::str::from_utf8(&entry.path)?);
        let stat = fs::symlink_metadata(&path)?;
        assert_eq!(
            entry.permissions,
            stat.permissions().mode() & 0o7777,
            "{path:?}"
        );
        assert_eq!((entry.uid, entry.gid), (stat.uid(), stat.gid()), "{path:?}");
        assert_eq!(entry.modified.seconds, stat.mtime(), "{path:?}");
        if options.contains(&"pax") {
            assert_eq!(
                i64::from(entry.modified.nanoseconds),
                stat.mtime_nsec(),
                "{path:?}"
            );
        }
        match &entry.kind {
            EntryKind::Regular { size, data } => {
                assert_eq!(*size, stat.len(), "{path:?}");
                assert!(content(&tar, entry) == fs::read(&path)?, "{path:?}");
                if options.contains(&"--sparse") && path.ends_with("sparse") {
                    let stored: u64 = data.iter().map(|extent| extent.length).sum();
                    assert!(data.len() > 30 && stored < size / 10, "{data:?}");
                }
                *links.entry(stat.ino()).or_default() += 1;
            }
            EntryKind::Symlink { target } => {
                assert_eq!(fs::read_link(&path)?.as_os_str().as_encoded_bytes(), target);
            }
            EntryKind::HardLink { target } => {
                let target = fs::metadata(root.join(std::str::from_utf8(target)?))?;
                assert_eq!(target.ino(), stat.ino());
            }
            EntryKind::Directory => assert!(stat.is_dir()),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        links.values().all(|names| *names == 1),
        "the others are links"
    );
    assert_as_python_reads(&archive, &tar, &found)
}

fn make_tree(root: &Path, short_names: bool, shorter: bool) -> Result<(), Failed> {
    let deep = match (short_names, shorter) {
        (_, true) => root.join("directory"),
        (true, _) => root.join("d".repeat(90)).join("e".repeat(60)),
        (false, _) => root.join("d".repeat(200)).join("e".repeat(200)),
    };
    fs::create_dir_all(&deep)?;
    fs::write(
        deep.join("f".repeat(if shorter { 50 } else { 90 })),
        b"deep",
    )?;
    fs::write(root.join("empty"), b"")?;
    fs::write(root.join("block"), [7; 512])?;
    fs::write(root.join("more"), [9; 513])?;
    fs::hard_link(root.join("more"), root.join("same"))?;
    let target = "t".repeat(if short_names { 90 } else { 300 });
    symlink(target, root.join("symlink"))?;
    fs::set_permissions(root.join("block"), fs::Permissions::from_mode(0o4751))?;
    let sparse = fs::File::create(root.join("sparse"))?;
    for piece in 0..40_u64 {
        use std::os::unix::fs::FileExt as _;
        sparse.write_all_at(&[1; 700], piece * 65_536 + 123)?;
    }
    sparse.set_len(5_000_000)?;
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(5, 123_456_789);
    sparse.set_modified(old)?;
    Ok(())
}

/// Archives with values that no folder has, made by Python.
fn tarfile_is_read(format: &str) -> Result<(), Failed> {
    const MAKE: &str = r#"
import io, sys, tarfile
path, format = sys.argv[1], sys.argv[2]
with tarfile.open(path, "w", format=getattr(tarfile, format + "_FORMAT")) as tar:
    def add(name, content=b"", **fields):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in fields.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content))
    add("file", b"hello" * 1000, mode=0o4755, uid=1000, gid=2000, mtime=1700000000)
    add("p" * 100 + "/" + "n" * 90, b"x", mtime=12)
    add("dir", type=tarfile.DIRTYPE, mode=0o1777)
    add("symlink", type=tarfile.SYMTYPE, linkname="../../etc")
    add("hard", type=tarfile.LNKTYPE, linkname="file")
    add("fifo", type=tarfile.FIFOTYPE)
    add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
    add("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=17)
    if format != "USTAR":
        add("owner", uid=3000000000, gid=4000000000, mtime=-7)
        add("\u00e4" * 200, b"y", mtime=2**34)
        add("link", type=tarfile.SYMTYPE, linkname="t" * 500)
    if format == "PAX":
        add("times", pax_headers={"mtime": "-12.25", "SCHILY.xattr.user.x": "1"})
"#;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("layer.tar");
    let status = Command::new("python3")
        .args(["-c", MAKE])
        .arg(&archive)
        .arg(format)
        .status()?;
    assert!(status.success());
    let tar = fs::read(&archive)?;
    let found = parse(&tar);
    assert_eq!(
        found.len(),
        [8, 11, 12][usize::from(format != "USTAR") + usize::from(format == "PAX")]
    );
    if let Some(times) = found.iter().find(|entry| entry.path == b"times") {
        assert_eq!(
            (times.modified.seconds, times.modified.nanoseconds),
            (-13, 750_000_000)
        );
        assert_eq!(times.xattrs, [(b"user.x".to_vec(), b"1".to_vec())]);
    }
    assert_as_python_reads(&archive, &tar, &found)
}

/// Python reads the same names, types, owners, times, targets, numbers and contents.
fn assert_as_python_reads(archive: &Path, tar: &[u8], found: &[LayerEntry]) -> Result<(), Failed> {
    const READ: &str = r#"
import hashlib, math, sys, tarfile
raw = lambda text: text.encode("utf-8", "surrogateescape").hex() or "-"
with tarfile.open(sys.argv[1]) as tar:
    for info in tar:
        content = hashlib.sha256(tar.extractfile(info).read()).hexdigest() if info.isreg() else "-"
        device = (info.devmajor, info.devminor) if info.ischr() or info.isblk() else (0, 0)
        link = raw(info.linkname) if info.issym() or info.islnk() else "-"
        kind = "0" if info.isreg() else info.type.decode()
        print(raw(info.name), kind, info.mode & 0o7777, info.uid, info.gid, math.floor(info.mtime),
              link, *device, content)
"#;
    let output = Command::new("python3")
        .args(["-c", READ])
        .arg(archive)
        .output()?;
    std::io::stderr().write_all(&output.stderr)?;
    assert!(output.status.success());
    let theirs = String::from_utf8(output.stdout)?;
    let ours = found.iter().map(|entry| line(tar, entry));
    let ours: Vec<String> = ours.collect();
    assert_eq!(theirs.lines().collect::<Vec<_>>(), ours);
    Ok(())
}

fn line(tar: &[u8], entry: &LayerEntry) -> String {
    let (mut link, mut device, mut sum) = ("-".to_owned(), (0, 0), "-".to_owned());
    let kind = match &entry.kind {
        EntryKind::Regular { .. } => {
            sum = vfsd_oci::blob::Sha256Digest::of(&content(tar, entry)).hex();
            '0'
        }
        EntryKind::HardLink { target } => {
            link = hex(target);
            '1'
        }
        EntryKind::Symlink { target } => {
            link = hex(target);
            '2'
        }
        EntryKind::CharDevice(number) => {
            device = (number.major, number.minor);
            '3'
        }
        EntryKind::BlockDevice(number) => {
            device = (number.major, number.minor);
            '4'
        }
        EntryKind::Directory => '5',
        EntryKind::Fifo => '6',
    };
    let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    format!(
        "{} {kind} {} {} {} {} {link} {} {} {sum}",
        hex(path),
        entry.permissions,
        entry.uid,
        entry.gid,
        entry.modified.seconds,
        device.0,
        device.1,
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(tar: &[u8]) -> Vec<LayerEntry> {
    let mut parser = TarParser::new(TarLimits::default());
    for piece in tar.chunks(1000) {
        parser.push(piece).unwrap();
    }
    let contents = parser.finish().unwrap();
    assert_eq!(contents.notes, [""; 0]);
    contents.entries
}

/// The content of a regular file, with zeros for holes.
fn content(tar: &[u8], entry: &LayerEntry) -> Vec<u8> {
    let EntryKind::Regular { size, data } = &entry.kind else {
        panic!("a regular file");
    };
    let place = |number: u64| usize::try_from(number).unwrap();
    let mut content = vec![0; place(*size)];
    for extent in data {
        let (from, to) = (place(extent.tar_offset), place(extent.file_offset));
        let length = place(extent.length);
        content[to..to + length].copy_from_slice(&tar[from..from + length]);
    }
    content
}
