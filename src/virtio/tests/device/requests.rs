//! Requests and replies through a real vhost-user socket and guest memory in a memfd.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::stage::{DROP, ECHO, LIE, PANIC, READ, SILENT, Served, WRITE, channel, request};
use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::device::Options;
use vfsd_virtio::DeviceOptions;

#[test]
fn requests_are_answered_on_every_queue_with_and_without_each_feature() {
    for (request_queues, event_idx, indirect) in [
        (1, true, true),
        (2, false, true),
        (4, true, false),
        (8, false, false),
        (16, true, true),
    ] {
        let served = Served::patient();
        let options = Options {
            request_queues,
            event_idx,
            indirect,
            ..Options::default()
        };
        let front_end = served.connect(&options);
        for index in 0..=request_queues {
            let mut channel = channel(&front_end, index);
            channel.indirect = indirect;
            for number in 0..300_u32 {
                let body = number.to_le_bytes();
                assert_eq!(channel.call(&request(ECHO, &body)).unwrap(), body);
                channel.tell(&request(SILENT, &[])).unwrap();
            }
        }
        assert_eq!(served.popped_less_pushed(), 0);
    }
}

#[test]
fn many_requests_in_flight_come_back_once_each() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let mut waited_for = std::collections::BTreeSet::new();
    for round in 0..2_000_u32 {
        while channel.in_flight() < 50 {
            assert!(
                waited_for.insert(
                    channel
                        .submit(&request(ECHO, &round.to_le_bytes()))
                        .unwrap()
                )
            );
        }
        let returned = channel.wait_any().unwrap();
        assert_eq!(returned.reply().unwrap().len(), 4);
        assert!(waited_for.remove(&returned.unique));
    }
}

#[test]
fn a_request_that_panics_is_dropped_or_lies_is_answered_with_eio() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    for opcode in [PANIC, DROP, LIE] {
        let answer = channel.call(&request(opcode, b"body"));
        assert!(
            matches!(answer, Err(Error::Errno(5))),
            "{opcode}: {answer:?}"
        );
    }
    assert_eq!(channel.call(&request(ECHO, b"alive")).unwrap(), b"alive");
    assert_eq!(served.device.counters().wrong_replies, 1);
}

#[test]
fn a_request_without_room_for_a_reply_that_is_dropped_is_ended_in_silence() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 0);
    channel.tell(&request(DROP, b"").without_reply()).unwrap();
}

#[test]
fn file_data_go_straight_into_a_reply_and_out_of_a_request() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let data: Vec<u8> = (0..100_000_u32)
        .map(|number| number as u8 ^ (number >> 8) as u8)
        .collect();
    let mut body = vec![0; 40];
    body.extend(&data);
    let reply = channel.call(&request(WRITE, &body)).unwrap();
    assert_eq!(reply[..8], (data.len() as u64).to_le_bytes(), "written");
    assert_eq!(reply[8..], [0; 8], "left");
    let mut stored = vec![0; data.len()];
    served.play.file.read_exact_at(&mut stored, 0).unwrap();
    assert!(stored == data);

    let reply = channel
        .call(&request(READ, &[0; 40]).with_room(64 << 10))
        .unwrap();
    assert!(reply == data[..64 << 10], "a reply has only what fits");
    let reply = channel
        .call(&request(READ, &[0; 40]).with_room(128 << 10))
        .unwrap();
    assert!(reply == data, "and only what there is");
}

#[test]
fn bytes_beyond_the_length_that_a_write_claims_are_not_its_data() {
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    let mut channel = channel(&front_end, 1);
    let mut write = request(WRITE, &[&[0; 40][..], b"datagarbage"].concat());
    write.len = Some(40 + 40 + 4);
    let reply = channel.call(&write).unwrap();
    assert_eq!(reply[..8], 4_u64.to_le_bytes());
    assert_eq!(served.play.file.metadata().unwrap().len(), 4);
}

#[test]
fn the_configuration_space_has_the_tag_and_the_number_of_queues() {
    let served = Served::new(&DeviceOptions {
        tag: Some("root".into()),
        max_request_queues: 3,
        reconnect: true,
        ..DeviceOptions::default()
    });
    let mut front_end = served.connect(&Options {
        request_queues: 3,
        ..Options::default()
    });
    let space = front_end.connection.get_config(0, 40).unwrap();
    assert_eq!(&space[..5], b"root\0");
    assert_eq!(space[36..], [3, 0, 0, 0]);
    assert_eq!(front_end.connection.get_config(0, 64).unwrap().len(), 64);
    assert_eq!(
        front_end.connection.get_u64(17).unwrap(),
        4,
        "GET_QUEUE_NUM"
    );
}

#[test]
fn a_device_without_a_tag_offers_no_configuration_space() {
    use vfsd_testkit::frontend::connection::protocol;
    let served = Served::patient();
    let front_end = served.connect(&Options::default());
    assert_eq!(front_end.protocol_features() & protocol::CONFIG, 0);
    assert_eq!(served.play.lost.load(Ordering::SeqCst), 0);
}
