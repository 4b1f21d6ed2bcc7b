//! Names: the hostile ones against every opcode that takes one, and links the host swaps in.

use std::fs;
use std::os::unix::fs::symlink;

use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::guest::created;
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::{Answer, EINVAL, Row};
use crate::opcodes::{Target, samples};
use crate::scene::{Scene, Setting};

const ENAMETOOLONG: Answer = Answer::Refused(&[libc::ENAMETOOLONG]);

/// Bytes in place of a component and its NUL, and the only answer to them. `outside` is the
/// absolute path of the tree the guest must not reach.
fn hostile_names(outside: &str) -> Vec<(String, Vec<u8>, Answer)> {
    let nul = |name: &[u8]| [name, b"\0"].concat();
    let fixed: [&[u8]; 17] = [
        b"",
        b".",
        b"..",
        b"/",
        b"//",
        b"./file",
        b"../outside/file",
        b"../../etc/passwd",
        b"dir/file",
        b"dir/",
        b"file/.",
        b"file/..",
        b"/etc/passwd",
        b"/proc/self/root",
        b"link-out/file",
        b"link-out/new",
        b"...//",
    ];
    let mut table: Vec<_> = fixed
        .into_iter()
        .map(|name| {
            (
                String::from_utf8_lossy(name).into_owned(),
                nul(name),
                EINVAL,
            )
        })
        .collect();
    for absolute in [format!("{outside}/file"), format!("{outside}/new")] {
        table.push((absolute.clone(), nul(absolute.as_bytes()), EINVAL));
    }
    table.push(("nothing at all".into(), Vec::new(), EINVAL));
    table.push(("no NUL".into(), b"unterminated".to_vec(), EINVAL));
    table.push(("256 bytes".into(), nul(&[b'a'; 256]), ENAMETOOLONG));
    table.push(("1024 bytes".into(), nul(&[b'a'; 1024]), ENAMETOOLONG));
    table.push(("4095 bytes".into(), nul(&[b'a'; 4095]), ENAMETOOLONG));
    // Long and with a slash: refused for either reason.
    let either = Answer::Refused(&[libc::EINVAL, libc::ENAMETOOLONG]);
    let deep = [b"a/".repeat(300), b"b".to_vec()].concat();
    table.push(("601 bytes with slashes".into(), nul(&deep), either));
    table
}

/// Whether `bytes` still hold a NUL-terminated string when the next one follows: a missing
/// terminator then takes the following name in, which is another row's business.
fn joins_the_next(bytes: &[u8], which: usize, names: usize) -> bool {
    which + 1 < names && bytes.last() != Some(&0)
}

fn hostile_names_are_refused(arguments: &[&str]) {
    let mut scene = Scene::set(Setting::launched_with(arguments));
    let outside = scene.ground.outside().to_string_lossy().into_owned();
    let target = Target::open(&mut scene.guest);
    let names = hostile_names(&outside);
    for sample in samples(&target) {
        for which in 0..sample.name_count() {
            let rows = names.iter().filter_map(|(what, bytes, answer)| {
                if joins_the_next(bytes, which, sample.name_count())
                    || (sample.opcode == opcode::SYMLINK && bytes.last() != Some(&0))
                {
                    return None;
                }
                let name = format!("{}, name {} is {what}", sample.name, which + 1);
                Some(Row::new(name, sample.with_name(which, bytes), *answer))
            });
            scene.play_all(sample.name, rows);
        }
    }
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn hostile_names_are_refused_by_every_opcode_in_the_sandbox() {
    hostile_names_are_refused(&[]);
}

#[test]
fn hostile_names_are_refused_by_every_opcode_without_sandbox() {
    hostile_names_are_refused(&["--sandbox", "none"]);
}

#[test]
fn a_nul_inside_a_name_ends_it_and_the_rest_is_refused_or_ignored() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    for sample in samples(&target) {
        if sample.name_count() == 1 && sample.opcode != opcode::SYMLINK {
            let request = sample.with_name(0, b"absent\0/../../outside/file\0");
            let returned = scene.guest.channel.exchange(&request).unwrap();
            const ENDED: Answer = Answer::FineOr(&[libc::EINVAL, libc::ENOENT, libc::EEXIST]);
            ENDED.judge(sample.name, &returned);
            scene.check(sample.name);
        }
    }
    scene.finish();
}

#[test]
fn names_of_255_bytes_and_odd_ones_are_names() {
    let mut scene = Scene::new();
    let longest = "n".repeat(255);
    for name in [
        longest.as_str(),
        "...",
        "..a",
        ".a",
        " ",
        "\\",
        "\n",
        "a:b",
        "\u{fffd}",
        "*",
    ] {
        let entry = scene.guest.put(ROOT, name, b"x").unwrap();
        assert_eq!(
            scene.guest.lookup(ROOT, name).unwrap().node,
            entry.node,
            "{name:?}"
        );
        let names = scene.guest.list(ROOT).unwrap();
        assert!(names.contains(&name.as_bytes().to_vec()), "{name:?}");
        scene.guest.unlink(ROOT, name).unwrap();
        scene.guest.forget(entry.node, 2).unwrap();
    }
    let raw = Encoder::new()
        .u32(0o755)
        .u32(0)
        .name(b"\xff\xfe\x80")
        .bytes();
    scene.play([Row::new(
        "not UTF-8",
        Request::new(opcode::MKDIR, ROOT, raw),
        Answer::Fine,
    )]);
    scene.finish();
}

#[test]
fn a_tmpfile_is_made_whatever_its_name_says() {
    // Linux sends the name of the dentry it made for the file, which is "/".
    let mut scene = Scene::new();
    for name in [&b"/"[..], b"#1", b"", b".."] {
        let body = Encoder::new()
            .u32(libc::O_RDWR as u32)
            .u32(0o100_600)
            .u32(0)
            .u32(0);
        let request = Request::new(opcode::TMPFILE, ROOT, body.name(name).bytes());
        let returned = scene.guest.channel.exchange(&request).unwrap();
        match returned.reply() {
            Ok(reply) => {
                let (entry, opened) = created(reply).unwrap();
                assert_eq!(entry.attr.nlink, 0, "a file without a name");
                scene.guest.release(entry.node, opened.fh).unwrap();
                scene.guest.forget(entry.node, 1).unwrap();
            }
            // Only the name that Linux sends has to be taken.
            Err(error) => {
                assert!(
                    name != b"/" && error.errno() == Some(libc::EINVAL),
                    "{name:?}: {error}"
                );
            }
        }
        scene.check("TMPFILE");
    }
    scene.finish();
}

#[test]
fn targets_of_symlinks_are_data_and_are_never_followed() {
    let mut scene = Scene::new();
    let outside = scene.ground.outside().to_string_lossy().into_owned();
    let longest = "t".repeat(4095);
    for target in [
        outside.as_str(),
        "/",
        "..",
        "../outside",
        "/proc/self/root/etc",
        &longest,
    ] {
        let entry = scene.guest.symlink(ROOT, "link", target).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(scene.guest.readlink(entry.node).unwrap(), target.as_bytes());
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC] {
            let refused = scene
                .guest
                .open(entry.node, flags as u32)
                .unwrap_err()
                .errno();
            assert!(
                matches!(refused, Some(libc::EBADF | libc::ELOOP | libc::EINVAL)),
                "{refused:?}"
            );
        }
        let through = scene.guest.lookup(entry.node, "file").unwrap_err().errno();
        assert!(
            matches!(through, Some(libc::ENOTDIR | libc::ELOOP)),
            "{through:?}"
        );
        assert!(scene.guest.opendir(entry.node).is_err());
        assert!(scene.guest.truncate(entry.node, 0).is_err());
        let create = scene.guest.create(
            ROOT,
            "link",
            0o100_644,
            (libc::O_RDWR | libc::O_TRUNC) as u32,
        );
        assert!(create.is_err(), "CREATE through a symlink");
        scene.guest.unlink(ROOT, "link").unwrap();
        scene.guest.forget(entry.node, 1).unwrap();
        scene.check(target);
    }
    scene.finish();
}

#[test]
fn symlink_targets_that_cannot_be_are_refused() {
    let mut scene = Scene::new();
    let row = |what: &str, bytes: &[u8], answer| {
        let body = Encoder::new().name(b"link").raw(bytes).bytes();
        Row::new(
            format!("target: {what}"),
            Request::new(opcode::SYMLINK, ROOT, body),
            answer,
        )
    };
    let nul = |len: usize| [vec![b't'; len], vec![0]].concat();
    let empty = Answer::Refused(&[libc::EINVAL, libc::ENOENT]);
    scene.play([
        row("missing", b"", EINVAL),
        row("empty", b"\0", empty),
        row("without NUL", b"target", EINVAL),
        row("4096 bytes", &nul(4096), ENAMETOOLONG),
        row("10,000 bytes", &nul(10_000), ENAMETOOLONG),
    ]);
    scene.finish();
}

#[test]
fn a_directory_the_host_replaces_by_a_link_leads_nowhere() {
    for arguments in [&[][..], &["--sandbox", "none"]] {
        let mut scene = Scene::set(Setting::launched_with(arguments));
        let target = Target::open(&mut scene.guest);
        let share = scene.ground.share();
        fs::rename(share.join("dir"), share.join("moved")).unwrap();
        symlink(scene.ground.outside(), share.join("dir")).unwrap();
        // The old node is the old directory or gone, never what the link points to.
        for sample in samples(&target) {
            if sample.name_count() > 0 {
                let returned = scene.guest.channel.exchange(&sample.request()).unwrap();
                let broken = matches!(returned.reply(), Err(error) if error.errno().is_none());
                assert!(!broken, "{}: {:?}", sample.name, returned.reply());
                scene.check(sample.name);
            }
        }
        if let Ok(names) = scene.guest.list(target.dir) {
            assert!(names.contains(&b"inner".to_vec()), "the old directory");
        }
        let entry = scene.guest.lookup(ROOT, "dir").unwrap();
        assert_eq!(
            entry.attr.mode & libc::S_IFMT,
            libc::S_IFLNK,
            "the new one is a link"
        );
        assert!(scene.guest.lookup(entry.node, "file").is_err());
        scene.finish();
    }
}

#[test]
fn a_file_the_host_replaces_by_a_link_while_open_stays_the_old_one() {
    let mut scene = Scene::set(Setting::launched_with(&["--sandbox", "none"]));
    let target = Target::open(&mut scene.guest);
    let share = scene.ground.share();
    fs::remove_file(share.join("file")).unwrap();
    symlink(scene.ground.outside().join("file"), share.join("file")).unwrap();
    let old = Answer::FineOr(&[libc::ESTALE, libc::ENOENT]);
    let data = scene.guest.read(target.file, target.fh, 0, 64).unwrap();
    assert_eq!(data, b"inside");
    for sample in samples(&target) {
        if sample.node == target.file && sample.name.contains("ATTR") {
            let returned = scene.guest.channel.exchange(&sample.request()).unwrap();
            match returned.reply() {
                Err(error) if error.errno() == Some(libc::ENODATA) => {}
                _ => old.judge(sample.name, &returned),
            }
            scene.check(sample.name);
        }
    }
    if let Ok(opened) = scene.guest.open(target.file, libc::O_RDWR as u32) {
        assert_eq!(
            scene.guest.read(target.file, opened.fh, 0, 64).unwrap(),
            b"inside"
        );
        scene
            .guest
            .write(target.file, opened.fh, 0, b"guest")
            .unwrap();
        scene.guest.release(target.file, opened.fh).unwrap();
    }
    scene.check("written to the old file");
    scene.finish();
}

#[test]
fn names_that_host_and_guest_race_for_never_lead_outside() {
    let mut scene = Scene::set(Setting::launched_with(&["--sandbox", "none"]));
    let share = scene.ground.share();
    let outside = scene.ground.outside();
    fs::create_dir(share.join("swap")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::sync::atomic::Ordering::Relaxed;
            let (swap, aside) = (share.join("swap"), share.join("aside"));
            while !stop.load(Relaxed) {
                // Each step may fail when the guest was there first.
                let _ = fs::rename(&swap, &aside);
                let _ = symlink(&outside, &swap);
                let _ = fs::remove_file(&swap);
                let _ = fs::rename(&aside, &swap);
            }
        });
        for round in 0..2000 {
            let Ok(entry) = scene.guest.lookup(ROOT, "swap") else {
                continue;
            };
            let name = format!("f{round}");
            if let Ok((file, opened)) = scene.guest.create(entry.node, &name, 0o100_644, 2) {
                scene.guest.release(file.node, opened.fh).unwrap();
                scene.guest.forget(file.node, 1).unwrap();
            }
            // Most of these fail; none may reach the tree outside.
            let _ = scene.guest.mkdir(entry.node, "made", 0o755);
            let _ = scene.guest.rename((entry.node, "made"), (ROOT, "made"), 0);
            let _ = scene.guest.rmdir(ROOT, "made");
            let _ = scene.guest.unlink(entry.node, "file");
            scene.guest.forget(entry.node, 1).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    scene.check_served("a race of renames");
    scene.finish();
}
