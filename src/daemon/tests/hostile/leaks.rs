//! What piles up when the same is done very often.

use std::fs::{self, File};

use vfsd_testkit::frontend::channel::{Channel, Request};
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::guest::entry_of;
use vfsd_testkit::frontend::load::{self, Load};
use vfsd_testkit::frontend::wire::{Encoder, ROOT, init, opcode};

use crate::daemon::Census;
use crate::opcodes::{Target, samples};
use crate::scene::{Scene, Setting};

/// Descriptors the daemon may have more at the end of a round than at the start of it: those of
/// the neighbour's request under way.
const IN_PASSING: usize = 8;

/// Memory in KiB that may stay with the allocator after a million nodes are gone.
const MEMORY_KEPT: u64 = 64 << 10;

fn assert_no_more(scene: &Scene, start: &Census, row: &str) {
    let now = scene.daemon.census();
    assert!(
        now.descriptor_count() <= start.descriptor_count() + IN_PASSING,
        "{row}: {} descriptors, {} at the start; new: {:#?}",
        now.descriptor_count(),
        start.descriptor_count(),
        now.new_since(start)
    );
}

/// A request that creates an object: with a security label if its number is even.
fn creating(kind: u32, number: u32) -> Request {
    let name = format!("made-{number}");
    let new = Encoder::new;
    let name = name.as_bytes();
    let body = match kind {
        opcode::MKDIR => new().u32(0o755).u32(0).name(name),
        opcode::MKNOD => new().u32(0o100_644).u32(0).u32(0).u32(0).name(name),
        opcode::SYMLINK => new().name(name).name(b"target"),
        _ => new()
            .u32(libc::O_RDWR as u32)
            .u32(0o100_644)
            .u32(0)
            .u32(0)
            .name(name),
    };
    let request = Request::new(kind, ROOT, body.bytes());
    if number % 2 == 1 {
        return request;
    }
    let context = new()
        .u32(40)
        .u32(1)
        .u32(6)
        .u32(0)
        .name(b"security.selinux")
        .raw(b"label\0");
    request.with_extensions(&context.bytes())
}

#[test]
fn ten_thousand_creations_of_each_kind_leave_no_descriptor_behind() {
    // Mapped, labels can be stored without a security module; not so those of symbolic links.
    let labels = [
        "--security-label=auto",
        "--xattr-map",
        ":map::user.mapped.:",
    ];
    let mut scene = Scene::set(Setting::launched_with(&labels));
    assert_ne!(
        scene.guest.agreed & init::SECURITY_CTX,
        0,
        "labels are agreed on"
    );
    for kind in [
        opcode::MKDIR,
        opcode::MKNOD,
        opcode::SYMLINK,
        opcode::CREATE,
    ] {
        let row = format!("opcode {kind}");
        let start = scene.daemon.census();
        for number in 0..10_000 {
            let request = creating(kind, number);
            let returned = scene.guest.channel.exchange(&request).unwrap();
            let reply = match returned.reply() {
                Ok(reply) => reply.to_vec(),
                // A label the host does not store, and nothing is left of what was begun.
                Err(error) => {
                    let refused = [Some(libc::EPERM), Some(libc::EOPNOTSUPP)];
                    assert!(refused.contains(&error.errno()), "{row}: {error}");
                    let name = format!("made-{number}");
                    assert_eq!(
                        scene.guest.lookup(ROOT, &name).unwrap_err().errno(),
                        Some(libc::ENOENT)
                    );
                    continue;
                }
            };
            let entry = entry_of(&reply[..128]).unwrap();
            if kind == opcode::CREATE {
                let fh = u64::from_le_bytes(reply[128..136].try_into().unwrap());
                scene.guest.release(entry.node, fh).unwrap();
            }
            let name = format!("made-{number}");
            match kind {
                opcode::MKDIR => scene.guest.rmdir(ROOT, &name).unwrap(),
                _ => scene.guest.unlink(ROOT, &name).unwrap(),
            }
            scene.guest.forget(entry.node, 1).unwrap();
        }
        assert_no_more(&scene, &start, &row);
        scene.check(&row);
    }
    scene.finish();
}

#[test]
fn creations_that_fail_leave_no_descriptor_behind() {
    let mut scene = Scene::new();
    let target = Target::open(&mut scene.guest);
    let start = scene.daemon.census();
    for sample in samples(&target) {
        if sample.name_count() == 0 || sample.name == "LOOKUP" {
            continue;
        }
        for _ in 0..500 {
            // Names exist or do not, so that none of these can succeed.
            let returned = scene.guest.channel.exchange(&sample.request()).unwrap();
            match returned.reply() {
                Ok(_) if sample.name == "MKNOD" || sample.name == "SYMLINK" => {
                    panic!("{}", sample.name)
                }
                Err(error) => assert!(error.errno().is_some(), "{}: {error}", sample.name),
                Ok(_) => panic!("{} succeeded", sample.name),
            }
        }
        assert_no_more(&scene, &start, sample.name);
    }
    // To a reply that does not fit, the handle and the lookup are taken back.
    let (dir, name) = (target.dir, b"file\0".to_vec());
    for (number, node, body) in [
        (opcode::LOOKUP, dir, name),
        (opcode::OPEN, target.file, vec![0; 8]),
        (opcode::OPENDIR, target.dir, vec![0; 8]),
    ] {
        for room in [0, 1, 15] {
            for _ in 0..500 {
                let request = Request::new(number, node, body.clone()).with_room(room);
                let returned = scene.guest.channel.exchange(&request).unwrap();
                assert!(
                    returned.reply().is_err(),
                    "opcode {number} into {room} bytes"
                );
            }
        }
        assert_no_more(&scene, &start, &format!("opcode {number} without room"));
    }
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_million_files_looked_up_and_forgotten_leave_nothing_behind() {
    const DIRS: u64 = 1000;
    const FILES: u64 = 1000;
    let device = Options {
        request_queues: 4,
        queue_size: 256,
        regions: vec![vfsd_testkit::frontend::memory::Extent {
            start: 0x10_0000,
            size: 64 << 20,
        }],
        ..Options::default()
    };
    let mut scene = Scene::set(Setting {
        device,
        in_memory: true,
        ..Setting::default()
    });
    let tree = scene.ground.share().join("tree");
    fs::create_dir(&tree).unwrap();
    for dir in 0..DIRS {
        let dir = tree.join(dir.to_string());
        fs::create_dir(&dir).unwrap();
        let handle = File::open(&dir).unwrap();
        for file in 0..FILES {
            let name = file.to_string();
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            rustix::fs::openat(&handle, name, flags, rustix::fs::Mode::RUSR).unwrap();
        }
    }
    let root = scene.guest.lookup(ROOT, "tree").unwrap().node;
    let dirs: Vec<u64> = (0..DIRS)
        .map(|dir| scene.guest.lookup(root, &dir.to_string()).unwrap().node)
        .collect();
    let known: Vec<(u64, u64)> = dirs.iter().chain([&root]).map(|node| (*node, 1)).collect();
    let mut channels =
        [3, 4].map(|ring| Channel::new(scene.device.ring(ring).unwrap(), u64::from(ring) << 50));
    // Ten directories first, so that tables and caches have a size before the census.
    let mut start = None;
    for (what, files) in [
        ("ten directories", 10 * FILES),
        ("a million files", DIRS * FILES),
    ] {
        let nodes: Vec<std::sync::atomic::AtomicU64> = (0..files)
            .map(|_| std::sync::atomic::AtomicU64::new(0))
            .collect();
        use std::sync::atomic::Ordering::Relaxed;
        let lookup = |number: u64| {
            let dir = dirs[usize::try_from(number / FILES).unwrap()];
            let name = format!("{}\0", number % FILES).into_bytes();
            Request::new(opcode::LOOKUP, dir, name).with_room(128)
        };
        let load = Load {
            requests: files,
            depth: 64,
        };
        load::run(&mut channels, load, lookup, |number, returned| {
            let entry = entry_of(returned.reply()?)?;
            nodes[usize::try_from(number).unwrap()].store(entry.node, Relaxed);
            Ok(())
        })
        .unwrap();
        scene.check_others(what);
        let held = scene.daemon.census().descriptor_count();
        assert!(held < 20_000, "{what}: {held} descriptors for nodes");

        let batches = files.div_ceil(200);
        let forget = |batch: u64| {
            let from = usize::try_from(batch * 200).unwrap();
            let part = &nodes[from..nodes.len().min(from + 200)];
            let head = Encoder::new()
                .u32(u32::try_from(part.len()).unwrap())
                .u32(0);
            let body = part
                .iter()
                .fold(head, |body, node| body.u64(node.load(Relaxed)).u64(1));
            Request::new(opcode::BATCH_FORGET, 0, body.bytes()).without_reply()
        };
        let load = Load {
            requests: batches,
            depth: 64,
        };
        load::run(&mut channels, load, forget, |_, returned| {
            returned.silence()
        })
        .unwrap();
        for node in [0, files / 2, files - 1] {
            let node = nodes[usize::try_from(node).unwrap()].load(Relaxed);
            assert_eq!(
                scene.guest.getattr(node).unwrap_err().errno(),
                Some(libc::ESTALE)
            );
        }
        start.get_or_insert_with(|| scene.daemon.census());
    }
    scene.guest.batch_forget(&known).unwrap();
    let neighbour = scene.pause_neighbour();
    scene.assert_returns_to(&start.unwrap(), MEMORY_KEPT, "a million files");
    scene.resume_neighbour(neighbour);
    scene.finish_within(MEMORY_KEPT);
}
