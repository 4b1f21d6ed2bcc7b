//! Users, groups and the extensions of requests that carry them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use vfsd_testkit::frontend::bodies::SetAttr;
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::wire::{EXT_GROUPS, Encoder, ROOT, init, opcode, valid};

use crate::answer::{Answer, EINVAL, Row};
use crate::daemon::Launch;
use crate::opcodes::{Target, samples};
use crate::scene::{Scene, Setting};

const CREATING: [&str; 4] = ["SYMLINK", "MKNOD", "MKDIR", "CREATE"];

fn mkdir(name: &str) -> Request {
    let body = Encoder::new()
        .u32(0o755)
        .u32(0)
        .name(name.as_bytes())
        .bytes();
    Request::new(opcode::MKDIR, ROOT, body)
}

fn groups(claimed_size: u32, claimed_count: u32, groups: &[u32]) -> Vec<u8> {
    let head = Encoder::new()
        .u32(claimed_size)
        .u32(EXT_GROUPS)
        .u32(claimed_count);
    groups
        .iter()
        .fold(head, |bytes, group| bytes.u32(*group))
        .bytes()
}

fn context(claimed_size: u32, claimed_count: u32, one_size: u32, rest: &[u8]) -> Vec<u8> {
    Encoder::new()
        .u32(claimed_size)
        .u32(claimed_count)
        .u32(one_size)
        .u32(0)
        .raw(rest)
        .bytes()
}

#[test]
fn nobody_is_made_an_owner() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let mut rows = Vec::new();
    for sample in samples(&target) {
        if CREATING.contains(&sample.name) {
            for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
                let request = sample.with_name(0, b"unowned\0").by(uid, gid);
                rows.push(Row::new(
                    format!("{} by {uid}:{gid}", sample.name),
                    request,
                    EINVAL,
                ));
            }
        }
    }
    assert_eq!(rows.len(), 12);
    scene.play(rows);
    assert!(!scene.ground.share().join("dir/unowned").exists());
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn nobody_may_do_what_the_guest_has_checked_with_idmaps_only() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    for offer in [init::LINUX_7_2, init::LINUX_7_2 & !init::ALLOW_IDMAP] {
        scene.guest.destroy().unwrap();
        let agreed = scene.guest.init_with(7, 45, offer).unwrap().flags;
        let idmap = agreed & init::ALLOW_IDMAP != 0;
        let answer = if idmap { Answer::Fine } else { EINVAL };
        let getattr = Request::new(opcode::GETATTR, ROOT, vec![0; 16]).by(u32::MAX, u32::MAX);
        scene.play([Row::new(
            format!("GETATTR by nobody, idmap {idmap}"),
            getattr,
            answer,
        )]);
    }
    scene.guest.destroy().unwrap();
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn what_a_user_creates_belongs_to_that_user() {
    let mut scene = Scene::new();
    fs::set_permissions(scene.ground.share(), fs::Permissions::from_mode(0o777)).unwrap();
    for (uid, gid) in [
        (1000, 1000),
        (0, 0),
        (65534, 1),
        (4_000_000_000, 4_000_000_001),
    ] {
        (scene.guest.uid, scene.guest.gid) = (uid, gid);
        let entry = scene.guest.mkdir(ROOT, "owned", 0o755).unwrap();
        assert_eq!((entry.attr.uid, entry.attr.gid), (uid, gid));
        let meta = fs::metadata(scene.ground.share().join("owned")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid));
        scene.guest.rmdir(ROOT, "owned").unwrap();
        scene.guest.forget(entry.node, 1).unwrap();
        scene.check("an owner");
    }
    (scene.guest.uid, scene.guest.gid) = (0, 0);
    scene.finish();
}

#[test]
fn groups_of_a_request_are_gone_after_it() {
    // A daemon that starts with groups of its own must not lend them to anyone.
    let launch = Launch {
        groups: Some("4321,4322".into()),
        ..Launch::default()
    };
    let mut scene = Scene::set(Setting {
        launch,
        ..Setting::default()
    });
    fs::set_permissions(scene.ground.share(), fs::Permissions::from_mode(0o777)).unwrap();
    let assert_none = |scene: &Scene, when: &str| {
        let threads = scene.daemon.groups_of_threads();
        assert!(threads.iter().all(String::is_empty), "{when}: {threads:?}");
    };
    scene.pause_neighbour();
    assert_none(&scene, "after the start");
    let offered = scene.guest.agreed & init::CREATE_SUPP_GROUP != 0;
    let allowed = if offered { Answer::Fine } else { EINVAL };
    for (uid, gid) in [(0, 0), (1000, 1000), (0, 1000), (1000, 0)] {
        let name = format!("by-{uid}-{gid}");
        let request = mkdir(&name)
            .by(uid, gid)
            .with_extensions(&groups(16, 1, &[777]));
        scene.ask(&Row::new(name, request, allowed));
        assert_none(&scene, "after a request with groups");
        scene.guest.getattr(ROOT).unwrap();
        assert_none(&scene, "after a request without");
    }
    scene.finish();
}

#[test]
fn a_group_of_the_request_opens_a_directory_of_that_group() {
    let mut scene = Scene::new();
    if scene.guest.agreed & init::CREATE_SUPP_GROUP == 0 {
        panic!("the daemon does not offer CREATE_SUPP_GROUP");
    }
    let shared = scene.ground.share().join("of-group");
    fs::create_dir(&shared).unwrap();
    chown(&shared, Some(0), Some(777)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2770)).unwrap();
    let node = scene.guest.lookup(ROOT, "of-group").unwrap().node;
    let by = |name: &[u8], extension: &[u8]| {
        let body = Encoder::new().u32(0o755).u32(0).name(name).bytes();
        Request::new(opcode::MKDIR, node, body)
            .by(1000, 1000)
            .with_extensions(extension)
    };
    // The guest has checked permissions; the daemon may check again.
    let checked = Answer::FineOr(&[libc::EACCES]);
    scene.play([
        Row::new(
            "a member",
            by(b"member", &groups(16, 1, &[777])),
            Answer::Fine,
        ),
        Row::new(
            "a stranger",
            by(b"stranger", &groups(16, 1, &[778])),
            checked,
        ),
    ]);
    let made = fs::metadata(shared.join("member")).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o2000),
        (1000, 777, 0o2000)
    );
    scene.finish();
}

#[test]
fn a_setgid_bit_is_lost_by_those_outside_the_group() {
    // CVE-2022-0358: a file made in a setgid directory by someone outside its group keeps the
    // group, but not the setgid bit that would let it act as the group.
    let launch = Launch {
        groups: Some("777".into()),
        ..Launch::default()
    };
    let mut scene = Scene::set(Setting {
        launch,
        ..Setting::default()
    });
    let shared = scene.ground.share().join("setgid");
    fs::create_dir(&shared).unwrap();
    chown(&shared, Some(0), Some(777)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2777)).unwrap();
    let node = scene.guest.lookup(ROOT, "setgid").unwrap().node;
    (scene.guest.uid, scene.guest.gid) = (1000, 1000);
    let (entry, opened) = scene
        .guest
        .create(node, "tool", 0o102_755, libc::O_RDWR as u32)
        .unwrap();
    let made = fs::metadata(shared.join("tool")).unwrap();
    assert_eq!(made.gid(), 777);
    assert_eq!(made.mode() & 0o7777, 0o755, "what ext4 leaves of 02755");
    scene.guest.release(entry.node, opened.fh).unwrap();
    (scene.guest.uid, scene.guest.gid) = (0, 0);
    scene.finish();
}

#[test]
fn extensions_that_do_not_fit_are_refused() {
    let mut scene = Scene::new();
    let rows = [
        ("groups longer than the body", groups(1 << 20, 1, &[1])),
        ("groups of size 0", groups(0, 1, &[1])),
        ("groups shorter than a header", groups(7, 1, &[1])),
        ("groups of an unaligned size", groups(17, 1, &[1])),
        ("groups of u32::MAX bytes", groups(u32::MAX, 1, &[1])),
        ("more groups than fit", groups(16, 2, &[1])),
        ("u32::MAX groups", groups(16, u32::MAX, &[1])),
        ("groups that wrap", groups(16, 1 << 30, &[1])),
        (
            "groups twice",
            [groups(16, 1, &[1]), groups(16, 1, &[2])].concat(),
        ),
        (
            "an unknown record",
            Encoder::new().u32(16).u32(33).u64(0).bytes(),
        ),
        (
            "a record of u32::MAX",
            Encoder::new().u32(16).u32(u32::MAX).u64(0).bytes(),
        ),
        (
            "a header cut off",
            Encoder::new().u32(16).u32(EXT_GROUPS).bytes(),
        ),
        ("two contexts", context(32, 2, 4, b"name\0ctx\0")),
        ("31 contexts", context(32, 31, 4, b"name\0ctx\0")),
        (
            "a context longer than the body",
            context(1 << 16, 1, 4, b"name\0ctx\0"),
        ),
        (
            "a context longer than its record",
            context(32, 1, 400, b"name\0ctx\0"),
        ),
        (
            "a context of u32::MAX",
            context(32, 1, u32::MAX, b"name\0ctx\0"),
        ),
        (
            "a context without a name",
            context(32, 1, 4, b"\0ctx\0\0\0\0\0"),
        ),
        ("a name without NUL", context(32, 1, 4, &[b'n'; 16])),
        (
            "a context shorter than its header",
            context(4, 1, 4, b"name\0ctx\0"),
        ),
        (
            "a header of a context cut off",
            Encoder::new().u32(32).u32(1).bytes(),
        ),
    ]
    .map(|(what, bytes)| Row::new(what, mkdir("extended").with_extensions(&bytes), EINVAL));
    scene.play(rows);
    // What the header says of the length.
    for words in [3, 100, u16::MAX] {
        let mut request = mkdir("extended").with_extensions(&groups(16, 1, &[1]));
        request.extension_words = words;
        scene.play([Row::new(
            format!("{words} words of extensions"),
            request,
            EINVAL,
        )]);
    }
    let mut request = Request::new(opcode::GETATTR, ROOT, vec![0; 16]);
    request.extension_words = 1000;
    let ignored = Answer::FineOr(&[libc::EINVAL]);
    scene.play([Row::new(
        "extensions of GETATTR beyond its body",
        request,
        ignored,
    )]);
    assert!(!scene.ground.share().join("extended").exists());
    scene.finish();
}

#[test]
fn extensions_that_were_not_agreed_on_are_refused() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    let without = !(init::CREATE_SUPP_GROUP | init::SECURITY_CTX);
    scene
        .guest
        .init_with(7, 45, init::LINUX_7_2 & without)
        .unwrap();
    let padded = context(32, 1, 4, b"name\0ctx\0");
    scene.play([
        Row::new(
            "groups",
            mkdir("extended").with_extensions(&groups(16, 1, &[1])),
            EINVAL,
        ),
        Row::new(
            "a context",
            mkdir("extended").with_extensions(&padded),
            EINVAL,
        ),
    ]);
    assert!(!scene.ground.share().join("extended").exists());
    scene.guest.destroy().unwrap();
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn a_capability_stored_under_another_name_is_lost_when_the_file_changes() {
    // CVE-2021-20263: the host's kernel does not know the attribute it should remove.
    let arguments = ["--killpriv-v2", "--xattr-map", ":map::user.mapped.:"];
    let mut scene = Scene::set(Setting::launched_with(&arguments));
    assert_ne!(scene.guest.agreed & init::HANDLE_KILLPRIV_V2, 0);
    let entry = scene.guest.put(ROOT, "tool", b"program").unwrap();
    let (node, name) = (entry.node, "security.capability");
    // Revision 2, effective, CAP_SYS_ADMIN (linux/capability.h).
    let words = [0x0200_0001, 1 << 21, 0, 0, 0];
    let capability = words.into_iter().fold(Encoder::new(), Encoder::u32).bytes();
    type Change = fn(&mut Guest, u64);
    let changes: [(&str, Change); 4] = [
        ("write", |guest, node| {
            let fh = guest.open(node, libc::O_RDWR as u32).unwrap().fh;
            guest.write(node, fh, 0, b"other").unwrap();
            guest.release(node, fh).unwrap();
        }),
        ("truncate", |guest, node| {
            guest.truncate(node, 3).unwrap();
        }),
        ("chown", |guest, node| {
            let valid = valid::UID | valid::GID;
            let owner = SetAttr {
                valid,
                uid: 1000,
                gid: 1000,
                ..SetAttr::default()
            };
            guest.setattr(node, &owner).unwrap();
        }),
        ("open with O_TRUNC", |guest, node| {
            let flags = libc::O_RDWR | libc::O_TRUNC;
            let fh = guest.open(node, flags as u32).unwrap().fh;
            guest.release(node, fh).unwrap();
        }),
    ];
    for (row, change) in changes {
        scene.guest.setxattr(node, name, &capability, 0).unwrap();
        assert_eq!(
            scene.guest.getxattr(node, name, 64).unwrap(),
            capability,
            "{row}"
        );
        change(&mut scene.guest, node);
        let after = scene
            .guest
            .getxattr(node, name, 64)
            .map_err(|error| error.errno());
        assert_eq!(after, Err(Some(libc::ENODATA)), "after {row}");
        scene.check(row);
    }
    scene.finish();
}

#[test]
fn create_and_open_treat_their_flags_alike() {
    // A guest's page cache is no buffer for O_DIRECT, and O_NOATIME is the owner's to ask for.
    let mut scene = Scene::new();
    let odd = libc::O_RDWR | libc::O_DIRECT | libc::O_NOATIME;
    let made = scene.guest.create(ROOT, "direct", 0o100_644, odd as u32);
    let (entry, opened) = made.unwrap();
    let again = scene.guest.open(entry.node, odd as u32).unwrap();
    let proc = format!("/proc/{}/fdinfo", scene.daemon.pid());
    let link = scene.ground.share().join("direct");
    let mut flags = Vec::new();
    for fd in fs::read_dir(format!("/proc/{}/fd", scene.daemon.pid())).unwrap() {
        let fd = fd.unwrap();
        let same = fs::metadata(fd.path())
            .ok()
            .map(|meta| (meta.dev(), meta.ino()));
        let meta = fs::metadata(&link).unwrap();
        if same == Some((meta.dev(), meta.ino())) {
            let info = fs::read_to_string(format!("{proc}/{}", fd.file_name().to_string_lossy()));
            let info = info.unwrap();
            let octal = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .unwrap()
                .trim();
            let bits = i32::from_str_radix(octal, 8).unwrap();
            if bits & libc::O_PATH == 0 {
                flags.push(bits & (libc::O_DIRECT | libc::O_NOATIME));
            }
        }
    }
    assert!(
        flags.len() >= 2 && flags.iter().all(|bits| *bits == flags[0]),
        "{flags:?}"
    );
    // 5 bytes at offset 3 suit no O_DIRECT.
    for fh in [opened.fh, again.fh] {
        assert_eq!(scene.guest.write(entry.node, fh, 3, b"bytes").unwrap(), 5);
        assert_eq!(scene.guest.read(entry.node, fh, 3, 64).unwrap(), b"bytes");
        scene.guest.release(entry.node, fh).unwrap();
    }
    scene.check("flags of CREATE and OPEN");
    scene.finish();
}
