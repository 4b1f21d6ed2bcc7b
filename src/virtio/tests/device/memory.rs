//! Guest memory that grows, shrinks, and is taken away.

use std::sync::atomic::Ordering;

use rustix::fs::ftruncate;
use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::connection::{region_fields, request as message};
use vfsd_testkit::frontend::device::Options;
use vfsd_testkit::frontend::memory::{Extent, Region};
use vfsd_testkit::frontend::ring::Segment;

use crate::stage::{ECHO, HOLD, KEEP, READ, Served, channel, request};

const MIB: u64 = 1 << 20;

#[test]
fn a_region_can_be_added_used_and_removed_while_rings_run() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let extent = Extent {
        start: 256 * MIB,
        size: MIB,
    };
    let reply = 0x10_0000 + 15 * MIB;
    for _ in 0..10 {
        front_end.add_region(extent).unwrap();
        front_end
            .memory()
            .write(extent.start, &request(ECHO, b"new memory").bytes(7))
            .unwrap();
        channel
            .ring
            .submit(&[
                Segment::readable(extent.start, 50),
                Segment::writable(reply, 64),
            ])
            .unwrap();
        assert_eq!(channel.ring.wait().unwrap().len, 26);
        assert_eq!(
            front_end.memory().read(reply + 16, 10).unwrap(),
            b"new memory"
        );
        front_end.remove_region(extent.start).unwrap();
        channel
            .ring
            .submit(&[
                Segment::readable(extent.start, 50),
                Segment::writable(reply, 64),
            ])
            .unwrap();
        assert_eq!(channel.ring.wait().unwrap().len, 0, "no header, no answer");
    }
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
}

#[test]
fn a_request_in_flight_keeps_the_memory_that_is_removed() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let extent = Extent {
        start: 256 * MIB,
        size: MIB,
    };
    front_end.add_region(extent).unwrap();
    front_end
        .memory()
        .write(extent.start, &request(KEEP, b"body").bytes(7))
        .unwrap();
    let chain = [
        Segment::readable(extent.start, 44),
        Segment::writable(extent.start + 4096, 64),
    ];
    channel.ring.submit(&chain).unwrap();
    served.play.wait_kept(1);
    // Answered although the request has not ended: nothing waits for it for ever.
    front_end.remove_region(extent.start).unwrap();
    served.play.release();
    assert_eq!(channel.ring.wait().unwrap().len, 20);
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
}

#[test]
fn a_table_of_many_regions_is_taken_and_a_buffer_may_span_them() {
    let regions: Vec<_> = (0..32)
        .map(|number| Extent {
            start: (1 + number) * MIB,
            size: MIB,
        })
        .collect();
    let served = Served::patient();
    let front_end = served.connect(&Options {
        regions,
        ..Options::default()
    });
    let mut channel = channel(&front_end, 1);
    let (at, data) = (21 * MIB - 50, vec![7; 100]);
    front_end
        .memory()
        .write(at, &request(ECHO, &data).bytes(7))
        .unwrap();
    let reply = 30 * MIB - 8;
    channel
        .ring
        .submit(&[Segment::readable(at, 140), Segment::writable(reply, 200)])
        .unwrap();
    assert_eq!(channel.ring.wait().unwrap().len, 116);
    assert_eq!(front_end.memory().read(reply + 16, 100).unwrap(), data);
}

#[test]
fn regions_that_make_no_sense_end_the_connection_only() {
    let whole = Extent {
        start: 0x10_0000,
        size: 16 * MIB,
    };
    for (name, guest, size, user, offset) in [
        ("overlap at the start", whole.start - 4096, 8192, 0, 0),
        ("overlap at the end", whole.end() - 4096, 8192, 0, 0),
        ("the same", whole.start, whole.size, 0, 0),
        ("inside", whole.start + MIB, 4096, 0, 0),
        ("empty", 1 << 40, 0, 0, 0),
        ("wraps for the guest", u64::MAX - 4095, 8192, 0, 0),
        ("ends at 2^64", u64::MAX - 4095, 4096, 0, 0),
        ("wraps for the front end", 1 << 40, 8192, u64::MAX - 4095, 0),
        ("wraps in the file", 1 << 40, 8192, 0, u64::MAX - 4095),
        (
            "past the end of the file",
            1 << 40,
            8192,
            0,
            16 * MIB - 4096,
        ),
        ("offset within a page", 1 << 40, 4096, 0, 1),
        ("larger than can be mapped", 1 << 40, 1 << 62, 0, 0),
    ] {
        let served = Served::patient();
        let mut front_end = served.connect(&Options::default());
        let region = Region::new(whole, 0).unwrap();
        let mut body = vec![0; 8];
        body.extend(region_fields(guest, size, user, offset));
        let fds = [std::os::fd::AsFd::as_fd(&*region.file)];
        let answer = front_end.connection.set(message::ADD_MEM_REG, &body, &fds);
        assert!(
            matches!(answer, Err(Error::Refused { .. })),
            "{name}: {answer:?}"
        );
        front_end.connection.wait_closed().unwrap();
        let front_end = served.connect(&Options::default());
        assert_eq!(
            channel(&front_end, 1).call(&request(ECHO, b"x")).unwrap(),
            b"x",
            "{name}"
        );
    }
}

#[test]
fn no_more_regions_are_taken_than_the_device_says() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let slots = front_end
        .connection
        .get_u64(message::GET_MAX_MEM_SLOTS)
        .unwrap();
    assert_eq!(slots, 509);
    for number in 1..slots {
        front_end
            .add_region(Extent {
                start: (1 << 40) + number * MIB,
                size: 4096,
            })
            .unwrap();
    }
    assert!(
        front_end
            .add_region(Extent {
                start: 1 << 41,
                size: 4096
            })
            .is_err()
    );
}

#[test]
fn memory_that_the_front_end_truncates_costs_it_its_rings_and_nobody_else_anything() {
    let served = Served::patient();
    let other = Served::patient();
    let other_end = other.connect(&Options::default());
    let mut other_channel = channel(&other_end, 1);
    {
        let front_end = served.connect(&Options::default());
        let mut channel = channel(&front_end, 1);
        channel.submit(&request(KEEP, b"kept")).unwrap();
        served.play.wait_kept(1);
        let file = front_end.memory().regions()[0].file.clone();
        let (_, events) = front_end.ring_parts(1).unwrap();
        ftruncate(&*file, 0).unwrap();
        rustix::io::write(&events.kick, &1_u64.to_ne_bytes()).unwrap();
        // The device says so through the error eventfd.
        let mut fds = [rustix::event::PollFd::new(
            &events.error,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        served.play.release();
        assert_eq!(served.play.lost.load(Ordering::SeqCst), 1);
        assert_eq!(other_channel.call(&request(ECHO, b"x")).unwrap(), b"x");
    }
    let front_end = served.connect(&Options::default());
    assert_eq!(
        channel(&front_end, 1)
            .call(&request(ECHO, b"again"))
            .unwrap(),
        b"again"
    );
    let lost = served.device.counters().broken_rings;
    assert!(
        lost.iter()
            .any(|&(why, count)| why == "memory_lost" && count > 0),
        "{lost:?}"
    );
}

#[test]
fn data_for_truncated_memory_fail_with_efault() {
    let served = Served::patient();
    let regions = vec![
        Extent {
            start: 0x10_0000,
            size: 16 * MIB,
        },
        Extent {
            start: 256 * MIB,
            size: MIB,
        },
    ];
    let front_end = served.connect(&Options {
        regions,
        ..Options::default()
    });
    let mut channel = channel(&front_end, 1);
    rustix::io::pwrite(&served.play.file, &[1; 8192], 0).unwrap();
    let at = 0x10_0000 + 15 * MIB;
    front_end
        .memory()
        .write(at, &request(READ, &[0; 40]).bytes(7))
        .unwrap();
    ftruncate(&*front_end.memory().regions()[1].file, 4096).unwrap();
    // The session unwraps what preadv answers, so an error shows as a panic: EIO.
    let chain = [
        Segment::readable(at, 80),
        Segment::writable(at + 4096, 16),
        Segment::writable(256 * MIB, 8192),
    ];
    channel.ring.submit(&chain).unwrap();
    assert_eq!(channel.ring.wait().unwrap().len, 16);
    assert_eq!(
        front_end.memory().read(at + 4096 + 4, 4).unwrap(),
        (-5_i32).to_le_bytes()
    );
    assert_eq!(
        channel.call(&request(ECHO, b"x")).unwrap(),
        b"x",
        "a system call harms nothing"
    );
}

#[test]
fn a_whole_new_table_takes_over_from_a_running_one() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(HOLD, b"held")).unwrap();
    let regions = front_end.memory().regions();
    for round in 0..20_u8 {
        front_end.connection.set_mem_table(&regions).unwrap();
        channel.submit(&request(ECHO, &[round])).unwrap();
        assert_eq!(channel.wait_any().unwrap().reply().unwrap(), [round]);
    }
    front_end.stop_ring(1).unwrap();
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"held");
}

#[test]
fn memory_announced_anew_in_other_pieces_goes_on_where_it_was() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    channel.submit(&request(KEEP, b"kept")).unwrap();
    served.play.wait_kept(1);
    let whole = front_end.memory().regions()[0].clone();
    let half = whole.extent.size / 2;
    let pieces = [0, half].map(|offset| Region {
        extent: Extent {
            start: whole.extent.start + offset,
            size: half,
        },
        file_offset: offset,
        file: std::sync::Arc::clone(&whole.file),
    });
    front_end.connection.set_mem_table(&pieces).unwrap();
    served.play.release();
    assert_eq!(channel.wait_any().unwrap().reply().unwrap(), b"kept");
    assert_eq!(channel.call(&request(ECHO, b"x")).unwrap(), b"x");
}

#[test]
fn a_ring_whose_memory_is_removed_stops() {
    let served = Served::patient();
    let mut front_end = served.connect(&Options::default());
    let (_, events) = front_end.ring_parts(1).unwrap();
    front_end.remove_region(0x10_0000).unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &events.error,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
    front_end.synchronise().unwrap();
}
