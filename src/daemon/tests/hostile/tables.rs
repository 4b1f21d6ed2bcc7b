//! Tables of indirect descriptors that are none, or too long.

use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::ring::{DESC_SIZE, DESC_WRITE};

use crate::answer::Answer;
use crate::chains::{BAD_LENGTH, HIDDEN, REFUSED, getattr};
use crate::raw::{Next, indirect, line, readable, writable};
use crate::scene::{Scene, Setting};

#[test]
fn indirect_tables_that_are_none_are_refused() {
    let mut scene = Scene::new();
    let placed = scene.place(&getattr());
    let good = scene.table(&line(placed.links()));
    scene.play_chain("a good table", &placed, &[indirect(good, 32)], Answer::Fine);

    for len in [0, 1, 8, 15, 17, 24, 31, 33, 40, u32::MAX, u32::MAX - 15] {
        let placed = scene.place(&getattr());
        let table = scene.table(&line(placed.links()));
        let name = format!("a table of {len} bytes");
        scene.play_chain(&name, &placed, &[indirect(table, len)], HIDDEN);
    }
    for address in [0, 0x110_0000, 0x110_0000 - 16, u64::MAX - 15, u64::MAX] {
        let placed = scene.place(&getattr());
        let name = format!("a table at {address:#x}");
        scene.play_chain(&name, &placed, &[indirect(address, 32)], HIDDEN);
    }
    for (name, next) in [("2", Next::Entry(2)), ("65,535", Next::Entry(u16::MAX))] {
        let placed = scene.place(&getattr());
        let [request, reply] = placed.links();
        let table = scene.table(&[request.to(Next::To(1)), reply.to(next)]);
        let name = format!("a table whose last leads to {name}");
        scene.play_chain(&name, &placed, &[indirect(table, 32)], REFUSED);
    }
    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let table = scene.table(&[request.to(Next::To(1)), reply.to(Next::To(0))]);
    scene.play_chain(
        "a table that loops",
        &placed,
        &[indirect(table, 32)],
        REFUSED,
    );

    let placed = scene.place(&getattr());
    let inner = scene.table(&line(placed.links()));
    let outer = scene.table(&[indirect(inner, 32)]);
    scene.play_chain(
        "a table in a table",
        &placed,
        &[indirect(outer, 16)],
        HIDDEN,
    );

    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let inner = scene.table(&[reply]);
    let outer = scene.table(&line([request, indirect(inner, 16)]));
    scene.play_chain(
        "a table at the end of a table",
        &placed,
        &[indirect(outer, 32)],
        HIDDEN,
    );

    let placed = scene.place(&getattr());
    let table = scene.table(&line(placed.links()));
    let chain = line([indirect(table, 32), placed.links()[1]]);
    scene.play_chain("a table and more", &placed, &chain, HIDDEN);
    scene.finish();
}

#[test]
fn indirect_tables_that_the_specification_allows_are_served() {
    let mut scene = Scene::new();
    // Virtio 1.2, 2.7.5.3.2: the write flag of such a descriptor is ignored, and plain
    // descriptors may come before it.
    let placed = scene.place(&getattr());
    let table = scene.table(&line(placed.links()));
    let chain = [indirect(table, 32).flag(DESC_WRITE)];
    scene.play_chain("a table with the write flag", &placed, &chain, Answer::Fine);

    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let table = scene.table(&[reply]);
    let chain = line([request, indirect(table, 16)]);
    scene.play_chain("a table after a descriptor", &placed, &chain, Answer::Fine);
    scene.finish();
}

#[test]
fn chains_of_more_entries_than_any_request_needs_are_refused() {
    let mut scene = Scene::new();
    for entries in [1024_u32, 65_535] {
        let placed = scene.place(&getattr());
        let [request, reply] = placed.links();
        let padding = (0..entries as usize - 2).map(|_| readable(placed.request, 1));
        let links = line([request].into_iter().chain(padding).chain([reply]));
        let table = scene.table(&links);
        let chain = [indirect(table, entries * DESC_SIZE as u32)];
        scene.play_chain(&format!("{entries} entries"), &placed, &chain, HIDDEN);
        scene
            .device
            .memory()
            .release(table, u64::from(entries) * DESC_SIZE);
    }
    scene.finish();
}

#[test]
fn chains_of_more_than_4_gib_are_refused() {
    let mut scene = Scene::new();
    let (start, len) = (0x10_0000, 16 << 20);
    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let much = (0..257).map(|_| readable(start, len));
    let table = scene.table(&line([request].into_iter().chain(much).chain([reply])));
    let chain = [indirect(table, 259 * 16)];
    scene.play_chain("4 GiB to read", &placed, &chain, HIDDEN);

    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let much = (0..257).map(|_| writable(start, len));
    let table = scene.table(&line([request, reply].into_iter().chain(much)));
    let chain = [indirect(table, 259 * 16)];
    scene.play_chain("4 GiB to write", &placed, &chain, BAD_LENGTH);
    scene.finish();
}

#[test]
fn indirect_tables_are_refused_where_they_were_not_agreed_on() {
    let device = Options {
        indirect: false,
        ..Options::default()
    };
    let mut scene = Scene::set(Setting {
        device,
        ..Setting::default()
    });
    let placed = scene.place(&getattr());
    let table = scene.table(&line(placed.links()));
    scene.play_chain("a table", &placed, &[indirect(table, 32)], HIDDEN);
    let placed = scene.place(&getattr());
    let [request, reply] = placed.links();
    let table = scene.table(&[readable(placed.request, 8)]);
    let chain = line([request, reply, indirect(table, 16)]);
    scene.play_chain("a table at the end", &placed, &chain, REFUSED);
    scene.finish();
}
