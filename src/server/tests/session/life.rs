//! From INIT to DESTROY.

use vfsd_fuse::{InitFlags, Opcode, ReplyKind};
use vfsd_server::{CacheMode, CachePolicy, SessionOptions};
use zerocopy::IntoBytes;

use crate::guest::{Answer, Guest, memory};

const EIO: i32 = 5;
const EPROTO: i32 = 71;
const ESTALE: i32 = 116;

#[test]
fn nothing_is_served_before_init_and_after_destroy() {
    let guest = Guest::on_memory();
    assert_eq!(
        guest.call(Opcode::Destroy, 0, &[]),
        Ok(vec![]),
        "DESTROY has an empty reply"
    );
    for opcode in Opcode::ALL {
        if *opcode == Opcode::Init || opcode.reply() == ReplyKind::Nothing {
            continue;
        }
        assert_eq!(
            guest.call(*opcode, 1, &[&[0; 64]]),
            Err(EIO),
            "{}",
            opcode.name()
        );
    }
    guest.forget(1, 1);
    guest.init().unwrap();
    assert!(guest.mkdir(1, "a").is_ok());
}

#[test]
fn destroy_forgets_and_closes_everything() {
    let guest = Guest::on_memory();
    guest.mkdir(1, "a").unwrap();
    guest.create(1, "b").unwrap();
    assert_eq!((guest.nodes(), guest.handles()), (3, 1));
    guest.call(Opcode::Destroy, 0, &[]).unwrap();
    assert_eq!((guest.nodes(), guest.handles()), (0, 0));
}

#[test]
fn a_second_init_begins_anew() {
    let guest = Guest::on_memory();
    let old = guest.mkdir(1, "a").unwrap();
    guest.mkdir(1, "b").unwrap();
    guest.init().unwrap();
    assert_eq!(guest.nodes(), 1);
    assert_eq!(
        guest.call(Opcode::Getattr, old.nodeid.0, &[&[0; 16]]),
        Err(ESTALE)
    );
    assert!(guest.lookup(1, "a").is_ok(), "the files are still there");
}

#[test]
fn a_guest_with_a_newer_major_version_is_asked_to_come_back() {
    let guest = Guest::on_memory();
    let body = [8u32, 0, 0, 0];
    let reply = guest.call(Opcode::Init, 0, &[body.as_bytes()]).unwrap();
    assert_eq!(reply[..4], 7u32.to_le_bytes());
    assert_eq!(
        guest.lookup(1, "a").unwrap_err(),
        EIO,
        "nothing is agreed yet"
    );
    assert!(guest.init().is_ok());
}

#[test]
fn an_init_of_an_old_guest_is_16_bytes_long() {
    let guest = Guest::on_memory();
    let body = [7u32, 31, 0, u32::MAX];
    let reply = guest.call(Opcode::Init, 0, &[body.as_bytes()]).unwrap();
    assert_eq!(reply.len(), 64);
    assert_eq!(
        guest.call(
            Opcode::Init,
            0,
            &[&[7, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        ),
        Err(EPROTO)
    );
    assert_eq!(guest.call(Opcode::Init, 0, &[&[0; 15]]), Err(22));
}

#[test]
fn of_many_inits_at_the_same_time_each_is_answered_and_the_session_runs() {
    let guest = Guest::on_memory();
    let (low, high) = InitFlags::all().words();
    let body = [7u32, 45, 0, low, high];
    let request = guest.request(26, 0, &[body.as_bytes(), &[0; 44]]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let rival = guest.same_session();
            let request = request.clone();
            scope.spawn(move || {
                for _ in 0..200 {
                    let answer = rival.submit_bytes(request.clone()).recv().unwrap();
                    assert!(matches!(answer, Answer::Reply(_)));
                }
            });
        }
    });
    guest.init().unwrap();
    assert!(guest.mkdir(1, "a").is_ok());
}

#[test]
fn lifetimes_follow_the_cache_policy() {
    for (mode, seconds) in [
        (CacheMode::Never, 0),
        (CacheMode::Auto, 1),
        (CacheMode::Always, 86_400),
    ] {
        let cache = CachePolicy::new(mode);
        let guest = Guest::with(
            memory(),
            SessionOptions {
                cache,
                ..SessionOptions::default()
            },
        );
        let entry = guest.mkdir(1, "a").unwrap();
        assert_eq!(
            (entry.entry_valid, entry.attr_valid),
            (seconds, seconds),
            "{mode:?}"
        );
    }
}

#[test]
fn a_missing_name_is_remembered_only_if_the_policy_says_so() {
    let guest = Guest::on_memory();
    assert_eq!(guest.lookup(1, "none").unwrap_err(), 2);
    let negative_ttl = std::time::Duration::from_millis(2500);
    let cache = CachePolicy {
        negative_ttl,
        ..CachePolicy::default()
    };
    let guest = Guest::with(
        memory(),
        SessionOptions {
            cache,
            ..SessionOptions::default()
        },
    );
    let entry = guest.lookup(1, "none").unwrap();
    assert_eq!(
        (entry.nodeid.0, entry.entry_valid, entry.entry_valid_nsec),
        (0, 2, 500_000_000)
    );
    assert_eq!(guest.nodes(), 1);
}
