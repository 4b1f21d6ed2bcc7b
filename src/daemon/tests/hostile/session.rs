//! INIT, DESTROY and what comes before, after and between them.

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::bodies::init_body;
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::guest::Guest;
use vfsd_testkit::frontend::wire::{Decoder, Encoder, ROOT, init, opcode};

use crate::answer::{Answer, EIO, Row};
use crate::opcodes::{Target, samples};
use crate::scene::{NEIGHBOUR, Scene};

const EPROTO: Answer = Answer::Refused(&[libc::EPROTO]);

/// Rows for a device without a session: every opcode gets EIO, and what has no reply gets none.
fn rows_without_session(when: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = samples(&Target::NONE)
        .into_iter()
        .map(|sample| Row::new(format!("{} {when}", sample.name), sample.request(), EIO))
        .collect();
    let forget = Request::new(opcode::FORGET, ROOT, Encoder::new().u64(1).bytes());
    rows.push(Row::new(format!("FORGET {when}"), forget, Answer::Silence));
    let batch = Encoder::new().u32(1).u32(0).u64(ROOT).u64(1).bytes();
    let batch = Request::new(opcode::BATCH_FORGET, 0, batch);
    rows.push(Row::new(
        format!("BATCH_FORGET {when}"),
        batch,
        Answer::Silence,
    ));
    rows
}

#[test]
fn nothing_but_init_is_served_without_a_session() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    scene.play(rows_without_session("after DESTROY"));
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();

    // A device that never had a session: the neighbour has none on it either.
    let ground = crate::scene::Ground::new();
    let mut daemon = ground.start(&crate::daemon::Launch::default());
    let device = vfsd_testkit::frontend::device::Device::connect(
        daemon.socket(),
        &vfsd_testkit::frontend::device::Options::default(),
    )
    .unwrap();
    let pid = daemon.pid();
    let mut guest = crate::scene::guest_on(&device, 1);
    for row in rows_without_session("before INIT") {
        let returned = guest.channel.exchange(&row.request).unwrap();
        row.answer.judge(&row.name, &returned);
    }
    guest.init().unwrap();
    guest.getattr(ROOT).unwrap();
    daemon.assert_alive(pid, "requests before INIT");
}

#[test]
fn init_refuses_versions_that_no_driver_has() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    let row = |major, minor, answer| {
        let request = Request::new(opcode::INIT, 0, init_body(major, minor, init::LINUX_7_2));
        Row::new(format!("INIT {major}.{minor}"), request, answer)
    };
    scene.guest.destroy().unwrap();
    scene.play([
        row(0, 0, EPROTO),
        row(6, 45, EPROTO),
        row(7, 0, EPROTO),
        row(7, 26, EPROTO),
        row(7, 31, Answer::Fine),
        row(7, 46, Answer::Fine),
        row(7, u32::MAX, Answer::Fine),
        row(7, 45, Answer::Fine),
    ]);
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn init_with_a_later_major_is_answered_with_ours_and_waits() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    for major in [8, 9, u32::MAX] {
        let request = Request::new(opcode::INIT, 0, init_body(major, 45, init::LINUX_7_2));
        let row = Row::new(format!("INIT {major}"), request, Answer::Fine);
        let returned = scene.ask(&row);
        let body = returned.reply().unwrap();
        assert_eq!(Decoder::new(body).u32(), Some(7), "{}", row.name);
    }
    // No session has begun by that.
    assert_eq!(
        scene.guest.getattr(ROOT).unwrap_err().errno(),
        Some(libc::EIO)
    );
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn init_in_its_oldest_form_lacks_the_flags_of_the_newer() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    let mut body = init_body(7, 31, init::LINUX_6_1);
    body.truncate(16);
    let row = Row::new(
        "INIT of 16 bytes",
        Request::new(opcode::INIT, 0, body),
        Answer::Fine,
    );
    let returned = scene.ask(&row);
    let answer = vfsd_testkit::frontend::wire::InitOut::decode(returned.reply().unwrap()).unwrap();
    assert_eq!(
        answer.flags >> 32,
        0,
        "flags that a 16-byte request has no room for"
    );
    scene.guest.agreed = answer.flags;
    scene.guest.getattr(ROOT).unwrap();
    scene.guest.destroy().unwrap();
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn init_agrees_to_nothing_that_was_not_offered() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    let mut offers: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
    offers.extend((0..64).map(|bit| 1 << bit | init::INIT_EXT));
    offers.extend([0, u64::MAX, init::LINUX_6_1, !init::INIT_EXT]);
    for offer in offers {
        scene.guest.destroy().unwrap();
        // `init_with` refuses an answer with a flag more than was offered.
        let answer = scene.guest.init_with(7, 45, offer).unwrap();
        if offer & init::INIT_EXT == 0 {
            assert_eq!(answer.flags >> 32, 0, "offer {offer:#x}");
        }
        assert_eq!(answer.flags & init::HAS_INODE_DAX, 0, "there is no window");
        scene.guest.getattr(ROOT).unwrap();
    }
    scene.guest.destroy().unwrap();
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn a_second_init_ends_the_session_before_it() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    let file = scene.guest.lookup(ROOT, "file").unwrap().node;
    let opened = scene.guest.open(file, 0).unwrap();
    for _ in 0..50 {
        scene.guest.init().unwrap();
        let stale = scene
            .guest
            .read(file, opened.fh, 0, 64)
            .unwrap_err()
            .errno();
        assert!(
            matches!(stale, Some(libc::EBADF | libc::ESTALE)),
            "{stale:?}"
        );
        scene.guest.lookup(ROOT, "file").unwrap();
        scene.guest.opendir(ROOT).unwrap();
    }
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn of_two_inits_at_once_at_least_one_succeeds_and_the_session_works() {
    let mut scene = Scene::new();
    let mut other = scene.pause_neighbour();
    let request = || Request::new(opcode::INIT, 0, init_body(7, 45, init::LINUX_7_2));
    for _ in 0..100 {
        scene.guest.destroy().unwrap();
        scene.guest.channel.submit(&request()).unwrap();
        other.channel.submit(&request()).unwrap();
        let outcomes = [&mut scene.guest, &mut other].map(|guest| {
            let returned = guest.channel.wait_any().unwrap();
            Answer::FineOr(&[libc::EIO]).judge("INIT beside INIT", &returned);
            returned.reply().is_ok()
        });
        assert!(outcomes.contains(&true), "both were refused");
        other.getattr(ROOT).unwrap();
    }
    scene.resume_neighbour(other);
    scene.finish();
}

#[test]
fn destroy_is_answered_with_an_empty_header_each_time() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    for _ in 0..20 {
        scene.guest.lookup(ROOT, "file").unwrap();
        scene.guest.opendir(ROOT).unwrap();
        let request = Request::new(opcode::DESTROY, 0, Vec::new()).with_room(0);
        let returned = scene.guest.channel.exchange(&request).unwrap();
        assert_eq!(returned.reply().unwrap(), b"", "DESTROY");
        assert_eq!(returned.used, 16);
        scene.guest.init().unwrap();
    }
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn init_without_room_for_its_answer_writes_nothing() {
    let mut scene = Scene::new();
    let neighbour = scene.pause_neighbour();
    scene.guest.destroy().unwrap();
    let request = Request::new(opcode::INIT, 0, init_body(7, 45, init::LINUX_7_2));
    for room in [0, 1, 7, 63] {
        let name = format!("INIT with room for {room} bytes");
        let returned = scene
            .guest
            .channel
            .exchange(&request.clone().with_room(room))
            .unwrap();
        // A short answer would hand the guest stale bytes: an errno, or the old short form.
        match returned.reply() {
            Err(Error::Errno(libc::EINVAL | libc::EIO)) => {}
            outcome => panic!("{name}: {outcome:?}"),
        }
    }
    scene.guest.init().unwrap();
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn requests_that_have_no_reply_get_none() {
    let mut scene = Scene::new();
    let silent = |name: &str, opcode, body: Vec<u8>| {
        [true, false].map(|room| {
            let request = Request::new(opcode, 0, body.clone());
            let request = if room {
                request
            } else {
                request.without_reply()
            };
            Row::new(format!("{name}, room {room}"), request, Answer::Silence)
        })
    };
    let batch = |count: u32, entries: usize| {
        Encoder::new()
            .u32(count)
            .u32(0)
            .raw(&vec![0x77; entries * 16])
            .bytes()
    };
    let rows = [
        silent(
            "INTERRUPT of nothing",
            opcode::INTERRUPT,
            1_u64.to_le_bytes().to_vec(),
        ),
        silent("INTERRUPT cut off", opcode::INTERRUPT, vec![0; 3]),
        silent("NOTIFY_REPLY", opcode::NOTIFY_REPLY, vec![0; 40]),
        silent("FORGET cut off", opcode::FORGET, vec![0; 3]),
        silent("FORGET of node 0", opcode::FORGET, vec![0xff; 8]),
        silent("BATCH_FORGET cut off", opcode::BATCH_FORGET, vec![0; 7]),
        silent("BATCH_FORGET of none", opcode::BATCH_FORGET, batch(0, 0)),
        silent(
            "BATCH_FORGET beyond its body",
            opcode::BATCH_FORGET,
            batch(1000, 2),
        ),
        silent(
            "BATCH_FORGET of u32::MAX",
            opcode::BATCH_FORGET,
            batch(u32::MAX, 1),
        ),
        silent(
            "BATCH_FORGET of unknown nodes",
            opcode::BATCH_FORGET,
            batch(100, 100),
        ),
    ];
    scene.play(rows.into_iter().flatten());
    scene.finish();
}

#[test]
fn two_requests_may_have_the_same_unique_number() {
    let mut scene = Scene::new();
    let request = scene.guest.request(opcode::GETATTR, ROOT, vec![0; 16]);
    for unique in [0, 1, 42, u64::MAX] {
        for _ in 0..8 {
            scene.guest.channel.submit_as(&request, unique).unwrap();
        }
        for _ in 0..8 {
            let returned = scene.guest.channel.wait_any().unwrap();
            Answer::Fine.judge("a unique number used eight times", &returned);
        }
    }
    scene.check("the same unique number");
    scene.finish();
}

#[test]
fn a_device_reset_ends_the_session_and_closes_what_it_had_open() {
    let mut scene = Scene::new();
    drop(scene.pause_neighbour());
    for _ in 0..10 {
        let file = scene.guest.lookup(ROOT, "file").unwrap().node;
        scene.guest.open(file, 0).unwrap();
        scene.device.reset().unwrap();
        scene.guest.channel.reset().unwrap();
        scene.device.start_ring(crate::scene::HOSTILE).unwrap();
        // By one written policy the session is kept or dropped; INIT begins a new one either way.
        scene.guest.init().unwrap();
        scene.check("RESET_DEVICE");
    }
    let parts = scene.device.ring_parts(NEIGHBOUR).unwrap();
    parts.0.clear(scene.device.memory()).unwrap();
    scene.device.start_ring(NEIGHBOUR).unwrap();
    let neighbour: Guest = scene.guest_on(NEIGHBOUR);
    scene.resume_neighbour(neighbour);
    scene.finish();
}

#[test]
fn bodies_longer_than_their_structure_are_answered() {
    let mut scene = Scene::new();
    let mut target = Target::open(&mut scene.guest);
    for sample in samples(&target) {
        let mut request = sample.request();
        request.body.extend_from_slice(&[0x41; 512]);
        let returned = scene.guest.channel.exchange(&request).unwrap();
        let broken = matches!(returned.reply(), Err(error) if error.errno().is_none());
        assert!(
            !broken,
            "{} with more bytes: {:?}",
            sample.name,
            returned.reply()
        );
        match (sample.name, returned.reply()) {
            ("RELEASE", Ok(_)) => {
                target.fh = scene
                    .guest
                    .open(target.file, libc::O_RDWR as u32)
                    .unwrap()
                    .fh;
            }
            ("RELEASEDIR", Ok(_)) => {
                target.dir_fh = scene.guest.opendir(target.dir).unwrap().fh;
            }
            _ => {}
        }
        scene.check(sample.name);
    }
    scene.finish();
}

#[test]
fn a_guest_that_mounts_in_a_loop_does_not_fill_the_log() {
    let mut scene = Scene::new();
    let told = |scene: &Scene| scene.daemon.log().matches("session starts").count();
    let neighbour = scene.pause_neighbour();
    let before = told(&scene);
    for _ in 0..2000 {
        scene.guest.init().unwrap();
    }
    scene.resume_neighbour(neighbour);
    let lines = told(&scene) - before;
    assert!(lines < 200, "{lines} lines");
    scene.finish();
}
