//! The config space, and what lies beside it.

use vfsd_testkit::frontend::Error;
use vfsd_testkit::frontend::connection::request;

use crate::listener::{Listener, assert_refused};
use crate::scene::Scene;

#[test]
fn the_config_space_is_the_tag_and_the_number_of_queues() {
    let mut scene = Scene::new();
    let config = scene.device.connection.get_config(0, 40).unwrap();
    assert_eq!(&config[..8], b"hostile\0");
    assert!(config[8..36].iter().all(|byte| *byte == 0));
    let queues = u32::from_le_bytes(config[36..].try_into().unwrap());
    assert!(queues >= 1, "{queues} request queues");
    for (offset, size) in [(0, 1), (0, 36), (36, 4), (39, 1), (20, 20)] {
        let part = scene.device.connection.get_config(offset, size).unwrap();
        assert_eq!(part, config[offset as usize..(offset + size) as usize]);
    }
    scene.finish();
}

#[test]
fn config_space_that_is_not_there_is_refused_or_zero() {
    let mut listener = Listener::new();
    for (offset, size) in [
        (0, 0),
        (0, 41),
        (0, 256),
        (0, 257),
        (40, 1),
        (39, 2),
        (u32::MAX, 1),
        (1, u32::MAX),
    ] {
        let row = format!("config {offset}+{size}");
        let mut device = listener.device();
        let mut body = Vec::new();
        for word in [offset, size, 0] {
            body.extend_from_slice(&u32::to_le_bytes(word));
        }
        body.resize(12 + size.min(1000) as usize, 0);
        device
            .connection
            .send(request::GET_CONFIG, 0, &body, &[])
            .unwrap();
        match device.connection.receive(request::GET_CONFIG) {
            // An empty payload says that there is nothing; otherwise what is not there is zero.
            Ok(reply) if reply.len() <= 12 => {}
            Ok(reply) => {
                let from = 12 + 40_usize.saturating_sub(offset as usize);
                assert!(
                    reply[from.min(reply.len())..].iter().all(|byte| *byte == 0),
                    "{row}"
                );
            }
            Err(error) => assert!(matches!(error, Error::Closed), "{row}: {error}"),
        }
        drop(device);
        listener.check(&row);
    }
    let mut device = listener.device();
    let body = [&[0; 4][..], &4_u32.to_le_bytes(), &[0; 8]].concat();
    let outcome = device.connection.set(request::SET_CONFIG, &body, &[]);
    assert_refused("SET_CONFIG", outcome);
    drop(device);
    listener.check("SET_CONFIG");
}
