//! Indices, heads and kicks that no driver produces.

use vfsd_testkit::frontend::channel::{Channel, Request};
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::load::{self, Load};
use vfsd_testkit::frontend::wire::{Encoder, ROOT, opcode};

use crate::answer::{Answer, Row};
use crate::opcodes::Target;
use crate::scene::{HOSTILE, Scene, Setting};

fn getattr() -> Request {
    Request::new(opcode::GETATTR, ROOT, vec![0; 16]).with_room(104)
}

fn queues(request_queues: u16) -> Setting {
    Setting {
        device: Options {
            request_queues,
            ..Options::default()
        },
        ..Setting::default()
    }
}

/// Asserts that the device has stopped the hostile ring and nothing else, then sets it up again.
fn assert_stopped(scene: &mut Scene, row: &str) {
    scene.check(row);
    let used = scene.guest.channel.ring.used_index().unwrap();
    scene.guest.channel.submit(&getattr()).unwrap();
    for _ in 0..100 {
        scene.guest.channel.ring.kick().unwrap();
    }
    scene.check(row);
    let now = scene.guest.channel.ring.used_index().unwrap();
    assert_eq!(now, used, "{row}: a broken ring is served");
    scene.revive_ring(row);
}

#[test]
fn an_available_index_that_jumps_stops_its_ring() {
    let mut scene = Scene::new();
    for jump in [129, 256, 0x8000, 0xff00, u16::MAX] {
        let row = format!("a jump by {jump}");
        let ring = &mut scene.guest.channel.ring;
        let index = ring.available_index().wrapping_add(jump);
        ring.set_available_index(index).unwrap();
        ring.kick().unwrap();
        assert_stopped(&mut scene, &row);
    }
    scene.finish();
}

#[test]
fn a_head_beyond_the_table_stops_its_ring() {
    let mut scene = Scene::new();
    for head in [128, 129, 0x7fff, 0x8000, u16::MAX] {
        let row = format!("head {head}");
        scene.guest.channel.ring.offer(head).unwrap();
        scene.guest.channel.ring.kick().unwrap();
        assert_stopped(&mut scene, &row);
    }
    scene.finish();
}

#[test]
fn a_head_that_is_in_flight_already_stops_its_ring() {
    let mut scene = Scene::set(queues(3));
    let mut holder = scene.guest_on(3);
    let target = Target::open(&mut holder);
    let lock = |number, owner: u64, kind: i32| {
        let body = Encoder::new().u64(target.fh).u64(owner).u64(0).u64(9);
        let body = body.u32(kind as u32).u32(1).u64(0).bytes();
        Request::new(number, target.file, body)
    };
    for row in ["the first time", "the second time"] {
        holder
            .channel
            .call(&lock(opcode::SETLK, 1, libc::F_WRLCK))
            .unwrap();
        // A request that stays with the device until the lock is free.
        scene
            .guest
            .channel
            .submit(&lock(opcode::SETLKW, 2, libc::F_WRLCK))
            .unwrap();
        scene.check(row);
        let ring = &mut scene.guest.channel.ring;
        let before = ring.used_index().unwrap();
        let head = ring.heads_in_flight()[0];
        for _ in 0..3 {
            ring.offer(head).unwrap();
        }
        ring.kick().unwrap();
        scene.check(row);
        holder
            .channel
            .call(&lock(opcode::SETLK, 1, libc::F_UNLCK))
            .unwrap();
        scene.check(row);
        let returned = scene
            .guest
            .channel
            .ring
            .used_index()
            .unwrap()
            .wrapping_sub(before);
        assert!(returned <= 1, "{row}: the head came back {returned} times");
        scene.revive_ring(row);
        holder
            .channel
            .call(&lock(opcode::SETLK, 2, libc::F_UNLCK))
            .unwrap();
    }
    scene.finish();
}

#[test]
fn kicks_without_end_starve_nobody() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        for _ in 0..10_000 {
            scene.guest.channel.ring.kick().unwrap();
        }
        scene.check_served("10,000 kicks");
    }
    scene.finish();
}

#[test]
fn requests_wait_for_their_kick_and_are_served_with_it() {
    let mut scene = Scene::new();
    for count in [1, 2, 30, 60] {
        let mut heads = Vec::new();
        for _ in 0..count {
            let placed = scene.place(&getattr());
            let links = placed.links();
            let segments = [
                vfsd_testkit::frontend::ring::Segment::readable(links[0].address, links[0].len),
                vfsd_testkit::frontend::ring::Segment::writable(links[1].address, links[1].len),
            ];
            let head = scene.guest.channel.ring.prepare(&segments).unwrap();
            heads.push((head, placed));
        }
        for (head, _) in &heads {
            scene.guest.channel.ring.offer(*head).unwrap();
        }
        scene.check("requests without a kick");
        scene.guest.channel.ring.kick().unwrap();
        for _ in &heads {
            let used = scene.guest.channel.ring.wait().unwrap();
            assert!(heads.iter().any(|(head, _)| *head == used.head));
            assert_eq!(used.len, 120);
        }
        scene.check_served("a late kick");
    }
    scene.finish();
}

#[test]
fn forgets_without_end_starve_nobody() {
    let mut scene = Scene::new();
    let mut urgent = [Channel::new(scene.device.ring(0).unwrap(), 1 << 50)];
    let load = Load {
        requests: 50_000,
        depth: 60,
    };
    let outcome = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let make = |number: u64| {
                let body = Encoder::new().u64(number).bytes();
                Request::new(opcode::FORGET, 1 << 40 | number, body).without_reply()
            };
            load::run(&mut urgent, load, make, |_, returned| returned.silence())
        });
        while !storm.is_finished() {
            scene.check_served("a storm of FORGETs");
        }
        storm.join().unwrap()
    });
    assert_eq!(outcome.unwrap().completed, load.requests);
    scene.finish();
}

#[test]
fn every_chain_of_many_in_flight_over_many_queues_returns_once() {
    for event_idx in [true, false] {
        for indirect in [true, false] {
            let device = Options {
                request_queues: 5,
                event_idx,
                indirect,
                ..Options::default()
            };
            let mut scene = Scene::set(Setting {
                device,
                ..Setting::default()
            });
            let mut channels: Vec<Channel> = [1, 3, 4, 5]
                .map(|ring| Channel::new(scene.device.ring(ring).unwrap(), u64::from(ring) << 50))
                .into();
            // The scene's guest has used ring 1; what it left there is not a fresh ring.
            channels.remove(0);
            for channel in &mut channels {
                channel.indirect = indirect;
            }
            let make = |number: u64| match number % 4 {
                0 => getattr(),
                1 => Request::new(opcode::LOOKUP, ROOT, b"file\0".to_vec()),
                2 => Request::new(opcode::LOOKUP, ROOT, b"absent\0".to_vec()),
                _ => Request::new(opcode::LOOKUP, ROOT, b"../file\0".to_vec()),
            };
            let check = |number: u64, returned: &vfsd_testkit::frontend::channel::Returned| {
                let row = format!("request {number}");
                match number % 4 {
                    0 | 1 => Answer::Fine.judge(&row, returned),
                    2 => Answer::FineOr(&[libc::ENOENT]).judge(&row, returned),
                    _ => crate::answer::EINVAL.judge(&row, returned),
                }
                Ok(())
            };
            let load = Load {
                requests: 20_000,
                depth: 48,
            };
            let outcome = load::run(&mut channels, load, make, check).unwrap();
            assert_eq!(outcome.completed, load.requests);
            scene.check_served("many in flight");
            scene.finish();
        }
    }
}

#[test]
fn a_driver_without_interrupts_finds_its_chains_by_looking() {
    for event_idx in [true, false] {
        let device = Options {
            event_idx,
            ..Options::default()
        };
        let mut scene = Scene::set(Setting {
            device,
            ..Setting::default()
        });
        for _ in 0..200 {
            scene.guest.channel.ring.refuse_interrupts().unwrap();
            let used = scene.guest.channel.ring.used_index().unwrap();
            scene.guest.channel.submit(&getattr()).unwrap();
            let deadline = std::time::Instant::now() + vfsd_testkit::frontend::LIMIT;
            while scene.guest.channel.ring.used_index().unwrap() == used {
                assert!(
                    std::time::Instant::now() < deadline,
                    "the chain does not come back"
                );
                std::thread::yield_now();
            }
            let returned = scene.guest.channel.wait_any().unwrap();
            Answer::Fine.judge("without interrupts", &returned);
        }
        scene.check_served("without interrupts");
        scene.finish();
    }
}

#[test]
fn rings_of_every_size_wrap_around() {
    for queue_size in [2, 4, 16, 1024, 32_768] {
        let device = Options {
            queue_size,
            ..Options::default()
        };
        let mut scene = Scene::set(Setting {
            device,
            ..Setting::default()
        });
        for _ in 0..300 {
            scene.guest.getattr(ROOT).unwrap();
        }
        scene.check_served("a small ring");
        scene.finish();
    }
}

#[test]
fn indices_wrap_at_16_bits() {
    let mut scene = Scene::new();
    scene.device.stop_ring(HOSTILE).unwrap();
    scene.guest.channel.reset().unwrap();
    scene.device.start_ring(HOSTILE).unwrap();
    for _ in 0..70_000 {
        scene.guest.getattr(ROOT).unwrap();
    }
    scene.check_served("70,000 requests");
    scene.finish();
}

#[test]
fn a_reply_written_over_the_rings_hurts_only_its_guest() {
    let mut scene = Scene::new();
    let layout = scene.guest.channel.ring.layout();
    for (what, address) in [
        ("descriptors", layout.descriptors),
        ("available", layout.available),
        ("used", layout.used),
    ] {
        let row = format!("a reply over the {what} ring");
        let read = Request::new(opcode::GETATTR, ROOT, vec![0; 16]);
        let placed = scene.place(&read);
        let links = crate::raw::line([placed.links()[0], crate::raw::writable(address, 120)]);
        scene.send(&links);
        scene.guest.channel.ring.kick().unwrap();
        scene.check(&row);
        scene.revive_ring(&row);
    }
    scene.finish();
}

#[test]
fn a_ring_stopped_with_requests_waiting_goes_on_where_it_stopped() {
    let mut scene = Scene::new();
    for _ in 0..50 {
        for _ in 0..10 {
            scene.guest.channel.submit(&getattr()).unwrap();
        }
        let base = scene.device.stop_ring(HOSTILE).unwrap();
        // What was popped came back before the answer; the rest waits.
        let used = scene.guest.channel.ring.used_index().unwrap();
        assert_eq!(
            used, base,
            "requests run on after GET_VRING_BASE was answered"
        );
        scene.device.start_ring_at(HOSTILE, base).unwrap();
        scene.guest.channel.ring.kick().unwrap();
        for _ in 0..10 {
            let returned = scene.guest.channel.wait_any().unwrap();
            Answer::Fine.judge("after a stop", &returned);
        }
    }
    scene.check_served("stopped and started");
    scene.finish();
}

#[test]
fn garbage_in_all_rings_ends_nothing() {
    let mut scene = Scene::new();
    let layout = scene.guest.channel.ring.layout();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for seed in 0..200 {
        let memory = std::sync::Arc::clone(scene.device.memory());
        let mut garbage = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect()
        };
        let table = garbage(128 * 16);
        let heads = garbage(128 * 2);
        memory.write(layout.descriptors, &table).unwrap();
        memory.write(layout.available + 4, &heads).unwrap();
        let jump = u16::from(garbage(1)[0]);
        let ring = &mut scene.guest.channel.ring;
        let index = ring.available_index().wrapping_add(jump % 130);
        ring.set_available_index(index).unwrap();
        ring.kick().unwrap();
        if seed % 10 == 9 {
            scene.revive_ring("garbage");
        }
    }
    scene.revive_ring("garbage");
    let row = Row::new("after garbage", getattr(), Answer::Fine);
    scene.ask(&row);
    scene.finish();
}
