//! Regions of guest memory that cannot be.

use std::os::fd::{AsFd, BorrowedFd};

use vfsd_testkit::frontend::connection::{region_bytes, region_fields, request};
use vfsd_testkit::frontend::memory::{Extent, Region, USER_OFFSET};

use crate::listener::{Listener, assert_refused};

#[test]
fn regions_that_cannot_be_are_refused() {
    let mut listener = Listener::new();
    let region = Region::new(
        Extent {
            start: 1 << 32,
            size: 1 << 20,
        },
        0,
    )
    .unwrap();
    let fd = region.file.as_fd();
    let (size, user) = (1 << 20, USER_OFFSET + (1 << 32));
    let rows = [
        (
            "overlaps another from below",
            region_fields(0xf_f000, 0x2000, user, 0),
        ),
        (
            "lies within another",
            region_fields(0x20_0000, 0x1000, user, 0),
        ),
        (
            "is another",
            region_fields(0x10_0000, 16 << 20, USER_OFFSET + 0x10_0000, 0),
        ),
        ("is empty", region_fields(1 << 32, 0, user, 0)),
        ("wraps", region_fields(u64::MAX - 0xfff, 0x2000, user, 0)),
        (
            "ends at 2^64",
            region_fields(u64::MAX - 0xfff, 0x1000, user, 0),
        ),
        (
            "wraps in the front end",
            region_fields(1 << 32, size, u64::MAX - 0xfff, 0),
        ),
        ("has 2^63 bytes", region_fields(1 << 32, 1 << 63, user, 0)),
        (
            "has 2^64 - 1 bytes",
            region_fields(1 << 32, u64::MAX, user, 0),
        ),
        (
            "has an unaligned offset",
            region_fields(1 << 32, size, user, 1),
        ),
        (
            "has an offset that wraps",
            region_fields(1 << 32, size, user, u64::MAX - 0xfff),
        ),
    ];
    for (what, fields) in rows {
        let mut device = listener.device();
        let body = [&[0; 8][..], &fields].concat();
        let outcome = device.connection.set(request::ADD_MEM_REG, &body, &[fd]);
        assert_refused(&format!("a region that {what}"), outcome);
        drop(device);
        listener.check(what);
    }
    for (what, fds) in [("no descriptor", vec![]), ("two descriptors", vec![fd, fd])] {
        let mut device = listener.device();
        let body = [&[0; 8][..], &region_bytes(&region)].concat();
        let outcome = device.connection.set(request::ADD_MEM_REG, &body, &fds);
        assert_refused(what, outcome);
        drop(device);
        listener.check(what);
    }
    let mut device = listener.device();
    assert_refused(
        "an unknown region",
        device.connection.remove_mem_region(&region),
    );
    drop(device);
    listener.check("an unknown region removed");
}

#[test]
fn tables_of_regions_that_cannot_be_are_refused() {
    let mut listener = Listener::new();
    let region = |start: u64| {
        Region::new(
            Extent {
                start,
                size: 1 << 20,
            },
            0,
        )
        .unwrap()
    };
    let (low, high) = (region(1 << 20), region(1 << 32));
    let table = |count: u32, regions: &[&Region]| {
        let mut body = count.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 4]);
        for region in regions {
            body.extend_from_slice(&region_bytes(region));
        }
        body
    };
    let rows = [
        ("no regions", table(0, &[]), 0),
        ("more than there are", table(2, &[&low]), 1),
        ("fewer than there are", table(1, &[&low, &high]), 2),
        ("u32::MAX regions", table(u32::MAX, &[&low]), 1),
        ("the same twice", table(2, &[&low, &low]), 2),
        ("too few descriptors", table(2, &[&low, &high]), 1),
        ("too many descriptors", table(1, &[&low]), 2),
        ("33 regions", table(33, &[&low; 33]), 33),
    ];
    let files = [&low.file, &high.file];
    for (what, body, count) in rows {
        let mut device = listener.device();
        let fds: Vec<BorrowedFd<'_>> = (0..count).map(|at| files[at % 2].as_fd()).collect();
        let outcome = device.connection.set(request::SET_MEM_TABLE, &body, &fds);
        assert_refused(what, outcome);
        drop(device);
        listener.check(what);
    }
}
