//! Replies that no plugin should send: each is EIO to whoever asked, ends the connection, and harms nobody else. The next
//! plugin serves on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod cases;
mod descriptors;
#[path = "../scripted/mod.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod scripted;
mod silence;

use std::sync::atomic::Ordering;
use std::time::Duration;

use vfsd_backend::{Errno, LockKind, SeekFrom};
use vfsd_fuse::Opcode;
use vfsd_plugin_host::{Deadlines, Options, Plugin};
use vfsd_testkit::place::Place;

use cases::{CASES, dirent};
use scripted::{Asked, Script, Then, patiently, reply};

#[test]
fn a_bad_reply_is_eio_and_the_next_plugin_serves_on() {
    for (name, call, opcode, bad) in CASES {
        let script = Script::new(move |asked: &Asked| match asked.opcode == *opcode {
            true => Then::Send(bad(asked), None),
            false => Then::Well,
        });
        let ended = script.ended();
        let plugin = Plugin::new(script, Options::default()).expect(name);
        let root = scripted::root(&plugin);
        assert_eq!(call(&root), Err(Errno::IO), "{name}");
        patiently(name, || ended.load(Ordering::Acquire));
        patiently(name, || root.attributes().is_ok());
        root.put("healed", b"by another plugin").expect(name);
    }
}

#[test]
fn a_reply_that_comes_twice_ends_the_connection() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Unlink => Then::Send([reply(asked, &[]), reply(asked, &[])].concat(), None),
        _ => Then::Well,
    });
    let ended = script.ended();
    let plugin = Plugin::new(script, Options::default()).unwrap();
    let root = scripted::root(&plugin);
    // The first of them is a good answer.
    let _ = root.unlink("file");
    patiently("ended", || ended.load(Ordering::Acquire));
}

/// Calls that between them read every kind of reply that the script knows.
fn everything(root: &Place) {
    let _ = root.lookup("dir").and_then(|dir| dir.list());
    let _ = root.lookup("link").and_then(|link| link.readlink());
    let _ = root.list();
    let _ = root.attributes();
    let _ = root.xattr_names();
    let _ = root.mkdir("new");
    if let Ok(handle) = root.lookup("file").and_then(|file| file.open_both()) {
        let _ = handle.read(0, 100);
        let _ = handle.write(0, b"four");
        let _ = handle.seek(SeekFrom::Data, 0);
        let _ = handle.conflict(1, LockKind::Write, (0, 9));
    }
}

#[test]
fn replies_with_random_bytes_break_nothing_but_their_connection() {
    for seed in 1..=60_u64 {
        let state = std::sync::Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let script = Script::new(move |asked: &Asked| {
            // xorshift64.
            let mut state = state.lock().unwrap();
            let mut random = move || {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state >> 16).unwrap()
            };
            if matches!(asked.opcode, Opcode::Init) || asked.unique == 1 {
                return Then::Well;
            }
            let mut bytes = match random() % 3 {
                0 => scripted::good(asked),
                1 => reply(asked, &vec![0; random() % 300]),
                _ => reply(asked, &dirent(b"a name", |_| ())),
            };
            for _ in 0..random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random().to_ne_bytes()[0];
            }
            Then::Send(bytes, None)
        });
        let options = Options {
            deadlines: Deadlines {
                greeting: Duration::from_secs(5),
                metadata: Duration::from_millis(50),
                data: Duration::from_millis(50),
                durability: Duration::from_millis(50),
            },
            ..Options::default()
        };
        let plugin = Plugin::new(script, options).unwrap();
        let root = scripted::root(&plugin);
        everything(&root);
        // Silence ends it, if nothing else has.
        patiently("healed", || {
            root.put("healed", b"by another plugin").is_ok() || {
                everything(&root);
                false
            }
        });
    }
}
