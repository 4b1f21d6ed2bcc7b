//! Guest memory that comes, goes and shrinks under the device.

use std::sync::Arc;

use rustix::fs::ftruncate;
use vfsd_testkit::frontend::bodies::{read_body, write_body};
use vfsd_testkit::frontend::channel::Request;
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::memory::{Extent, Region};
use vfsd_testkit::frontend::wire::{ROOT, opcode};

use crate::answer::Answer;
use crate::raw::{Link, indirect, line, readable, writable};
use crate::scene::{HOSTILE, Scene, Setting};

const LOW: Extent = Extent {
    start: 0x10_0000,
    size: 16 << 20,
};
const HIGH: Extent = Extent {
    start: 1 << 32,
    size: 2 << 20,
};

/// A fault of memory: refused if header and room for a reply could still be reached.
const LOST: Answer = Answer::RefusedOrSilent(&[libc::EIO, libc::EFAULT, libc::EINVAL]);

fn getattr() -> Request {
    Request::new(opcode::GETATTR, ROOT, vec![0; 16]).with_room(104)
}

fn two_regions(arguments: &[&str]) -> Setting {
    let device = Options {
        regions: vec![LOW, HIGH],
        ..Options::default()
    };
    Setting {
        device,
        ..Setting::launched_with(arguments)
    }
}

#[test]
fn regions_are_added_and_removed_while_requests_run() {
    let mut scene = Scene::new();
    for round in 0..100 {
        scene.device.add_region(HIGH).unwrap();
        let placed = scene.place_at(&getattr(), HIGH.start, HIGH.end() - 120);
        scene.play_chain(
            "a region added",
            &placed,
            &line(placed.links()),
            Answer::Fine,
        );
        scene.device.remove_region(HIGH.start).unwrap();
        let lost = scene.place(&getattr());
        let chain = line([readable(HIGH.start, 56), lost.links()[1]]);
        scene.play_chain("a region removed, request", &lost, &chain, LOST);
        let lost = scene.place(&getattr());
        let chain = line([lost.links()[0], writable(HIGH.start, 120)]);
        scene.play_chain("a region removed, reply", &lost, &chain, LOST);
        if round % 10 == 0 {
            scene.check_served("regions");
        }
    }
    scene.finish();
}

#[test]
fn a_region_may_start_anywhere_in_its_file() {
    let mut scene = Scene::new();
    let region = Region::new(HIGH, 3 << 20).unwrap();
    scene.device.connection.add_mem_region(&region).unwrap();
    scene.device.memory().add(region).unwrap();
    let placed = scene.place_at(&getattr(), HIGH.start, HIGH.end() - 120);
    scene.play_chain(
        "a region with an offset",
        &placed,
        &line(placed.links()),
        Answer::Fine,
    );
    scene.device.remove_region(HIGH.start).unwrap();
    scene.finish();
}

#[test]
fn a_payload_in_memory_that_is_truncated_fails_its_request() {
    let mut scene = Scene::set(two_regions(&[]));
    let region = scene.device.memory().regions().pop().unwrap();
    let target = crate::opcodes::Target::open(&mut scene.guest);
    ftruncate(&*region.file, 0).unwrap();
    let refused = Answer::Refused(&[libc::EFAULT, libc::EIO]);
    for _ in 0..10 {
        let mut write = Request::new(
            opcode::WRITE,
            target.file,
            write_body(target.fh, 0, 4096, &[]),
        );
        write.len = Some(80 + 4096);
        let placed = scene.place(&write);
        let [request, reply] = placed.links();
        let chain = line([request, readable(HIGH.start, 4096), reply]);
        scene.play_chain("a payload that is gone", &placed, &chain, refused);
        let read = Request::new(opcode::READ, target.file, read_body(target.fh, 0, 4096));
        let placed = scene.place(&read.with_room(0));
        let chain = line([
            placed.links()[0],
            placed.links()[1],
            writable(HIGH.start, 4096),
        ]);
        scene.play_chain("room for a payload that is gone", &placed, &chain, refused);
    }
    ftruncate(&*region.file, HIGH.size).unwrap();
    target.close(&mut scene.guest);
    scene.finish();
}

#[test]
fn a_request_in_memory_that_is_truncated_fails_or_stops_its_rings() {
    let mut scene = Scene::set(two_regions(&["--reconnect"]));
    type Build = fn([Link; 2]) -> Vec<Link>;
    let rows: [(&str, Build); 3] = [
        ("a request that is gone", |[_, reply]| {
            line([readable(HIGH.start, 56), reply])
        }),
        ("room that is gone", |[request, _]| {
            line([request, writable(HIGH.start, 120)])
        }),
        ("a table that is gone", |_| vec![indirect(HIGH.start, 32)]),
    ];
    for (row, build) in rows {
        // The front end harms its own guest: all of its rings may stop.
        drop(scene.pause_neighbour());
        let region = scene.device.memory().regions().pop().unwrap();
        let placed = scene.place_at(&getattr(), HIGH.start, HIGH.start + 4096);
        scene.play_chain(row, &placed, &line(placed.links()), Answer::Fine);
        ftruncate(&*region.file, 0).unwrap();
        let placed = scene.place(&getattr());
        let head = scene.send(&build(placed.links()));
        scene.check(row);
        if scene.guest.channel.ring.used_index().unwrap() != scene.guest.channel.ring.next_used() {
            let returned = scene.receive(row, &placed, head);
            LOST.judge(row, &returned);
        }
        scene.reconnect();
        scene.check_served(row);
    }
    scene.finish();
}

#[test]
fn rings_in_memory_that_is_truncated_stop_and_the_next_front_end_is_served() {
    let mut scene = Scene::set(Setting::launched_with(&["--reconnect"]));
    for _ in 0..3 {
        drop(scene.pause_neighbour());
        let region = scene.device.memory().regions().remove(0);
        scene.guest.getattr(ROOT).unwrap();
        ftruncate(&*region.file, 0).unwrap();
        for _ in 0..10 {
            scene.guest.channel.ring.kick().unwrap();
        }
        scene.check("rings that are gone");
        scene.reconnect();
        scene.check_served("the next front end");
    }
    scene.finish();
}

#[test]
fn rings_in_a_region_that_is_removed_stop_and_nothing_else() {
    let mut scene = Scene::set(two_regions(&["--reconnect"]));
    let region = scene.device.memory().regions().remove(0);
    // The neighbour's ring lies there as well.
    drop(scene.pause_neighbour());
    let removed = scene.device.connection.remove_mem_region(&region);
    for _ in 0..10 {
        scene.guest.channel.ring.kick().unwrap();
    }
    scene.check(&format!("the rings' region removed: {removed:?}"));
    scene.reconnect();
    scene.check_served("the next front end");
    scene.finish();
}

#[test]
fn a_table_of_regions_replaced_under_traffic_loses_nothing() {
    let mut scene = Scene::new();
    let memory = Arc::clone(scene.device.memory());
    for _ in 0..100 {
        scene
            .device
            .connection
            .set_mem_table(&memory.regions())
            .unwrap();
        scene.check_served("SET_MEM_TABLE while rings run");
    }
    scene.device.stop_ring(HOSTILE).unwrap();
    scene.guest.channel.reset().unwrap();
    scene.device.start_ring(HOSTILE).unwrap();
    scene.check_served("set up anew");
    scene.finish();
}

#[test]
fn as_many_regions_as_announced_are_served_and_one_more_is_refused() {
    let mut scene = Scene::set(Setting::launched_with(&["--reconnect"]));
    let get = vfsd_testkit::frontend::connection::request::GET_MAX_MEM_SLOTS;
    let slots = scene.device.connection.get_u64(get).unwrap();
    assert!((8..=509).contains(&slots), "{slots} slots");
    let extent = |slot: u64| Extent {
        start: (1 << 32) + slot * 8192,
        size: 4096,
    };
    for slot in 1..slots {
        scene
            .device
            .add_region(extent(slot))
            .unwrap_or_else(|e| panic!("slot {slot}: {e}"));
    }
    let last = extent(slots - 1).start;
    let placed = scene.place_at(&getattr(), last, last + 2048);
    scene.play_chain(
        "the last slot",
        &placed,
        &line(placed.links()),
        Answer::Fine,
    );
    drop(scene.pause_neighbour());
    assert!(
        scene.device.add_region(extent(slots)).is_err(),
        "one slot too many"
    );
    scene.ground.assert_outside_unchanged("slots");
    scene.reconnect();
    scene.check_served("the next front end");
    scene.finish();
}
