//! Descriptor chains that loop, lie, leave guest memory or never end.

use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::memory::Extent;
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::Answer;
use crate::raw::{Link, Next, Placed, indirect, line, readable, writable};
use crate::scene::{Scene, Setting};

/// A fault behind a readable header and room for a reply.
pub(crate) const REFUSED: Answer = Answer::Refused(&[libc::EIO]);
/// A bad address behind them.
const FAULT: Answer = Answer::Refused(&[libc::EIO, libc::EFAULT]);
/// A length in the header that cannot be.
pub(crate) const BAD_LENGTH: Answer = Answer::Refused(&[libc::EIO, libc::EINVAL]);
/// A fault before them.
pub(crate) const HIDDEN: Answer = Answer::RefusedOrSilent(&[libc::EIO, libc::EINVAL, libc::EFAULT]);

pub(crate) fn getattr() -> Request {
    Request::new(opcode::GETATTR, ROOT, vec![0; 16]).with_room(104)
}

/// What to call it, how to build it, what to answer it with.
type Row = (&'static str, fn(&Placed) -> Vec<Link>, Answer);

/// Plays rows that each turn a well-formed GETATTR into a chain.
fn play(scene: &mut Scene, rows: &[Row]) {
    for (name, chain, answer) in rows {
        let placed = scene.place(&getattr());
        scene.play_chain(name, &placed, &chain(&placed), *answer);
    }
}

#[test]
fn chains_that_loop_or_leave_the_table_are_returned() {
    let mut scene = Scene::new();
    play(
        &mut scene,
        &[
            (
                "to itself",
                |p| vec![p.links()[0].to(Next::To(0)), p.links()[1]],
                HIDDEN,
            ),
            (
                "reply to itself",
                |p| vec![p.links()[0].to(Next::To(1)), p.links()[1].to(Next::To(1))],
                REFUSED,
            ),
            (
                "reply to request",
                |p| vec![p.links()[0].to(Next::To(1)), p.links()[1].to(Next::To(0))],
                REFUSED,
            ),
            (
                "to the table's size",
                |p| vec![p.links()[0].to(Next::Entry(128)), p.links()[1]],
                HIDDEN,
            ),
            (
                "to 65,535",
                |p| vec![p.links()[0].to(Next::Entry(u16::MAX)), p.links()[1]],
                HIDDEN,
            ),
            (
                "reply to the size",
                |p| {
                    vec![
                        p.links()[0].to(Next::To(1)),
                        p.links()[1].to(Next::Entry(128)),
                    ]
                },
                REFUSED,
            ),
            (
                "reply to 65,535",
                |p| {
                    vec![
                        p.links()[0].to(Next::To(1)),
                        p.links()[1].to(Next::Entry(u16::MAX)),
                    ]
                },
                REFUSED,
            ),
        ],
    );
    scene.finish();
}

#[test]
fn what_the_device_reads_comes_before_what_it_writes() {
    let mut scene = Scene::new();
    play(
        &mut scene,
        &[
            (
                "read after write",
                |p| line([p.links()[0], p.links()[1], readable(p.request, 8)]),
                REFUSED,
            ),
            (
                "write first",
                |p| line([p.links()[1], p.links()[0]]),
                HIDDEN,
            ),
            ("only writable", |p| vec![p.links()[1]], HIDDEN),
            ("only readable", |p| vec![p.links()[0]], Answer::Silence),
            (
                "write, read, write",
                |p| {
                    line([
                        p.links()[0],
                        writable(p.reply, 16),
                        readable(p.request, 8),
                        p.links()[1],
                    ])
                },
                REFUSED,
            ),
        ],
    );
    scene.finish();
}

#[test]
fn addresses_outside_guest_memory_are_refused() {
    let mut scene = Scene::new();
    // Guest memory is 1 MiB to 17 MiB.
    let end = 0x110_0000;
    let bad = [
        0,
        0xf_fff0,
        end,
        end - 8,
        1 << 40,
        1 << 63,
        u64::MAX - 8,
        u64::MAX,
    ];
    for address in bad {
        let placed = scene.place(&getattr());
        let [_, reply] = placed.links();
        let name = format!("a request at {address:#x}");
        scene.play_chain(
            &name,
            &placed,
            &line([readable(address, 56), reply]),
            HIDDEN,
        );
        let placed = scene.place(&getattr());
        let [request, reply] = placed.links();
        let name = format!("more of the request at {address:#x}");
        let chain = line([request, readable(address, 64), reply]);
        scene.play_chain(&name, &placed, &chain, HIDDEN);
        let placed = scene.place(&getattr());
        let name = format!("a reply at {address:#x}");
        let chain = line([placed.links()[0], writable(address, 120)]);
        scene.play_chain(&name, &placed, &chain, HIDDEN);
        let placed = scene.place(&getattr());
        let name = format!("more of the reply at {address:#x}");
        let chain = line([placed.links()[0], placed.links()[1], writable(address, 64)]);
        scene.play_chain(&name, &placed, &chain, FAULT);
    }
    for len in [u32::MAX, i32::MAX as u32, (16 << 20) + 1] {
        let placed = scene.place(&getattr());
        let chain = line([readable(placed.request, len), placed.links()[1]]);
        scene.play_chain(
            &format!("a request of {len} bytes"),
            &placed,
            &chain,
            HIDDEN,
        );
        let placed = scene.place(&getattr());
        let chain = line([placed.links()[0], writable(placed.reply, len)]);
        scene.play_chain(&format!("a reply of {len} bytes"), &placed, &chain, HIDDEN);
    }
    scene.finish();
}

#[test]
fn buffers_may_end_with_guest_memory_and_not_one_byte_later() {
    let mut scene = Scene::new();
    let end = 0x110_0000;
    for (over, answer) in [(0, Answer::Fine), (1, HIDDEN)] {
        let placed = scene.place_at(&getattr(), end - 56, 0x10f_0000);
        let chain = line([readable(placed.request + over, 56), placed.links()[1]]);
        scene.play_chain(
            &format!("a request {over} past the end"),
            &placed,
            &chain,
            answer,
        );
        let placed = scene.place_at(&getattr(), 0x10f_0000, end - 120);
        let chain = line([placed.links()[0], writable(placed.reply + over, 120)]);
        scene.play_chain(
            &format!("a reply {over} past the end"),
            &placed,
            &chain,
            answer,
        );
    }
    scene.finish();
}

#[test]
fn buffers_may_lie_across_two_regions_that_touch() {
    let half = 8 << 20;
    let regions = vec![
        Extent {
            start: 0x10_0000,
            size: half,
        },
        Extent {
            start: 0x10_0000 + half,
            size: half,
        },
        Extent {
            start: 1 << 32,
            size: half,
        },
    ];
    let device = Options {
        regions,
        ..Options::default()
    };
    let mut scene = Scene::set(Setting {
        device,
        ..Setting::default()
    });
    let seam = 0x10_0000 + half;
    for before in [1, 8, 39, 40, 41, 55] {
        let placed = scene.place_at(&getattr(), seam - before, seam + 4096);
        let chain = line(placed.links());
        scene.play_chain(
            &format!("a request {before} before the seam"),
            &placed,
            &chain,
            Answer::Fine,
        );
    }
    for before in [1, 8, 15, 16, 17, 119] {
        let placed = scene.place_at(&getattr(), seam + 4096, seam - before);
        let chain = line(placed.links());
        scene.play_chain(
            &format!("a reply {before} before the seam"),
            &placed,
            &chain,
            Answer::Fine,
        );
    }
    // A payload across the seam goes to and from the file whole.
    let data: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let entry = scene.guest.put(ROOT, "seam", b"").unwrap();
    let fh = scene
        .guest
        .open(entry.node, libc::O_RDWR as u32)
        .unwrap()
        .fh;
    let body = vfsd_testkit::frontend::bodies::write_body(fh, 0, 100_000, &data);
    let write = Request::new(opcode::WRITE, entry.node, body).with_room(8);
    let placed = scene.place_at(&write, seam - 50_000, seam + 200_000);
    scene.play_chain(
        "a WRITE across the seam",
        &placed,
        &line(placed.links()),
        Answer::Fine,
    );
    let body = vfsd_testkit::frontend::bodies::read_body(fh, 0, 100_000);
    let read = Request::new(opcode::READ, entry.node, body).with_room(100_000);
    let placed = scene.place_at(&read, seam + 200_000, seam - 50_000);
    let head = scene.send(&line(placed.links()));
    let returned = scene.receive("a READ across the seam", &placed, head);
    assert!(
        returned.reply().unwrap() == data,
        "bytes read across the seam"
    );
    scene.guest.release(entry.node, fh).unwrap();
    scene.finish();
}

#[test]
fn empty_descriptors_are_skipped() {
    let mut scene = Scene::new();
    play(
        &mut scene,
        &[
            (
                "around the request",
                |p| {
                    line([
                        readable(p.request, 0),
                        p.links()[0],
                        readable(p.request, 0),
                        p.links()[1],
                    ])
                },
                Answer::Fine,
            ),
            (
                "around the reply",
                |p| {
                    line([
                        p.links()[0],
                        writable(p.reply, 0),
                        p.links()[1],
                        writable(p.reply, 0),
                    ])
                },
                Answer::Fine,
            ),
            (
                "nothing else",
                |p| line([readable(p.request, 0), writable(p.reply, 0)]),
                Answer::Silence,
            ),
            (
                "one, readable",
                |p| vec![readable(p.request, 0)],
                Answer::Silence,
            ),
            (
                "one, writable",
                |p| vec![writable(p.reply, 0)],
                Answer::Silence,
            ),
            (
                "no room",
                |p| line([p.links()[0], writable(p.reply, 0)]),
                Answer::Silence,
            ),
        ],
    );
    scene.finish();
}

#[test]
fn a_reply_without_room_for_its_header_is_not_written() {
    let mut scene = Scene::new();
    for room in 0..16 {
        for request in [
            getattr(),
            Request::new(999, ROOT, Vec::new()),
            Request::new(opcode::READ, ROOT, vec![0; 40]),
        ] {
            let placed = scene.place(&request);
            let chain = line([placed.links()[0], writable(placed.reply, room)]);
            let name = format!("opcode {} with {room} writable bytes", request.opcode);
            scene.play_chain(&name, &placed, &chain, Answer::Silence);
        }
    }
    // 16 bytes in pieces are 16 bytes.
    let placed = scene.place(&Request::new(999, ROOT, Vec::new()));
    let pieces = (0..16).map(|at| writable(placed.reply + at, 1));
    let chain = line([placed.links()[0]].into_iter().chain(pieces));
    scene.play_chain("16 pieces", &placed, &chain, crate::answer::ENOSYS);
    // A body that does not fit is not cut to fit: the guest would take what lay there before.
    for room in [0, 1, 103] {
        let placed = scene.place(&getattr().with_room(room));
        let name = format!("attributes into {room} bytes");
        scene.play_chain(&name, &placed, &line(placed.links()), BAD_LENGTH);
    }
    scene.finish();
}

#[test]
fn headers_that_are_cut_off_or_lie_about_their_length_are_refused() {
    let mut scene = Scene::new();
    for len in 0..40 {
        let placed = scene.place(&getattr());
        let chain = line([readable(placed.request, len), placed.links()[1]]);
        scene.play_chain(&format!("{len} bytes of header"), &placed, &chain, HIDDEN);
    }
    for claimed in [
        0,
        1,
        16,
        39,
        57,
        64,
        4096,
        1 << 20,
        i32::MAX as u32,
        u32::MAX,
    ] {
        let mut request = getattr();
        request.len = Some(claimed);
        let placed = scene.place(&request);
        let name = format!("56 bytes that claim {claimed}");
        scene.play_chain(&name, &placed, &line(placed.links()), BAD_LENGTH);
    }
    // What lies behind the length claimed does not count.
    let mut request = Request::new(opcode::LOOKUP, ROOT, b"file\0/../outside\0".to_vec());
    request.len = Some(45);
    let placed = scene.place(&request.with_room(128));
    scene.play_chain(
        "less than there is",
        &placed,
        &line(placed.links()),
        Answer::Fine,
    );
    scene.finish();
}

#[test]
fn requests_in_many_pieces_are_put_together() {
    let mut scene = Scene::new();
    let placed = scene.place(&getattr());
    let request = (0..56).map(|at| readable(placed.request + at, 1));
    let reply = (0..60).map(|at| writable(placed.reply + at * 2, 2));
    let chain = line(request.chain(reply));
    scene.play_chain("116 pieces", &placed, &chain, Answer::Fine);

    let placed = scene.place(&getattr());
    let request = (0..56).map(|at| readable(placed.request + at, 1));
    let reply = (0..120).map(|at| writable(placed.reply + at, 1));
    let table = scene.table(&line(request.chain(reply)));
    let chain = [indirect(table, 176 * 16)];
    scene.play_chain("176 pieces in a table", &placed, &chain, Answer::Fine);
    scene.finish();
}

#[test]
fn flags_nobody_knows_do_no_harm() {
    let mut scene = Scene::new();
    for flag in 3..16 {
        let placed = scene.place(&getattr());
        let chain = line(placed.links().map(|link| link.flag(1 << flag)));
        let head = scene.send(&chain);
        let returned = scene.receive("unknown flags", &placed, head);
        Answer::FineOr(&[libc::EIO]).judge("unknown flags", &returned);
        scene.check_served("unknown flags");
    }
    scene.finish();
}

#[test]
fn a_reply_over_its_own_request_is_the_reply_to_what_was_asked() {
    let mut scene = Scene::new();
    for shift in [0, 8, 16, 39] {
        let placed = scene.place_at(&getattr(), 0x10f_0000, 0x10e_0000);
        let mut placed = placed;
        placed.reply = placed.request + shift;
        scene.play_chain(
            "a reply over its request",
            &placed,
            &line(placed.links()),
            Answer::Fine,
        );
    }
    let body = Encoder::new()
        .name(b"link")
        .name(&b"target".repeat(50))
        .bytes();
    let link = scene.place_at(
        &Request::new(opcode::SYMLINK, ROOT, body),
        0x10f_0000,
        0x10e_0000,
    );
    let mut link = link;
    link.reply = link.request + 40;
    scene.play_chain(
        "a reply over names",
        &link,
        &line(link.links()),
        Answer::Fine,
    );
    let node = scene.guest.lookup(ROOT, "link").unwrap().node;
    assert_eq!(scene.guest.readlink(node).unwrap(), b"target".repeat(50));
    scene.finish();
}

#[test]
fn bytes_that_change_after_submission_are_read_once() {
    let mut scene = Scene::new();
    let memory = std::sync::Arc::clone(scene.device.memory());
    let (at, reply) = (0x10f_0000, 0x10f_8000);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::sync::atomic::Ordering::Relaxed;
            let flips: [(u64, &[u8]); 8] = [
                (0, &u32::MAX.to_le_bytes()),
                (40, b"../outsid"),
                (0, &49_u32.to_le_bytes()),
                (40, b"/absolute"),
                (36, &u16::MAX.to_le_bytes()),
                (40, b"innername"),
                (36, &0_u16.to_le_bytes()),
                (40, b"inner\0nam"),
            ];
            while !stop.load(Relaxed) {
                for (offset, bytes) in flips {
                    memory.write(at + offset, bytes).unwrap();
                }
            }
        });
        let ops = [opcode::LOOKUP, opcode::UNLINK, opcode::RMDIR];
        for round in 0..3000 {
            let request = Request::new(ops[round % 3], ROOT, b"innernam\0".to_vec()).with_room(128);
            let placed = scene.place_at(&request, at, reply);
            let head = scene.send(&line(placed.links()));
            // The unique number is not flipped, so whatever was read, this is its reply.
            let returned = scene.receive("a double fetch", &placed, head);
            const GONE: Answer = Answer::Refused(&[libc::EINVAL, libc::EIO, libc::ENOENT]);
            GONE.judge("a double fetch", &returned);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    scene.check_served("a double fetch");
    scene.finish();
}
