//! Plugins that do not answer, and what is no plugin at all.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vfsd_backend::Errno;
use vfsd_fuse::Opcode;
use vfsd_plugin_host::{Deadlines, Options, Plugin, StartError};
use zerocopy::IntoBytes;

use super::scripted::replies::{FILE, entry, message};
use super::scripted::{self, Asked, Script, Then, patiently};

/// Short for fsync, which the scripts do not answer. What is answered has the time that a busy machine takes.
pub(super) fn short() -> Deadlines {
    let long = Duration::from_secs(60);
    Deadlines {
        greeting: long,
        metadata: long,
        data: long,
        durability: Duration::from_millis(300),
    }
}

#[test]
fn a_plugin_that_says_nothing_is_eio_after_the_deadline_and_given_up() {
    let script = Script::new(|asked: &Asked| match asked.opcode {
        Opcode::Fsync => Then::Nothing,
        _ => Then::Well,
    });
    let ended = script.ended();
    let options = Options {
        deadlines: short(),
        ..Options::default()
    };
    let plugin = Plugin::new(script, options).unwrap();
    let root = scripted::root(&plugin);
    let handle = root.lookup("file").unwrap().open_both().unwrap();
    assert_eq!(handle.fsync(), Err(Errno::IO));
    patiently("ended", || ended.load(Ordering::Acquire));
    patiently("healed", || root.attributes().is_ok());
}

#[test]
fn a_plugin_that_only_one_request_is_too_much_for_is_kept() {
    // The lookup that waits for its reply until the other request has come.
    let held = Arc::new(Mutex::new(None));
    let script = {
        let held = Arc::clone(&held);
        Script::new(move |asked: &Asked| match asked.opcode {
            Opcode::Lookup if asked.body.starts_with(b"held") => {
                *held.lock().unwrap() = Some(asked.unique);
                Then::Nothing
            }
            Opcode::Fsync => {
                let unique = held.lock().unwrap().expect("the lookup came before");
                Then::Send(message(unique, 0, entry(5, FILE).as_bytes()), None)
            }
            _ => Then::Well,
        })
    };
    let ended = script.ended();
    let options = Options {
        deadlines: short(),
        ..Options::default()
    };
    let plugin = Plugin::new(script, options).unwrap();
    let root = scripted::root(&plugin);
    let handle = root.lookup("file").unwrap().open_both().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| root.lookup("held").map(drop));
        patiently("held", || held.lock().unwrap().is_some());
        assert_eq!(handle.fsync(), Err(Errno::IO));
        assert_eq!(other.join().unwrap(), Ok(()));
    });
    assert!(!ended.load(Ordering::Acquire));
    root.lookup("file").unwrap();
}

/// A peer that answers the greeting with these bytes.
fn greeting(bytes: &'static [u8], stay: bool) -> Result<Plugin, StartError> {
    let mut deadlines = short();
    if stay && bytes.is_empty() {
        deadlines.greeting = Duration::from_millis(300);
    }
    let options = Options {
        deadlines,
        ..Options::default()
    };
    let connector = scripted::Raw(move |mut stream: std::os::unix::net::UnixStream| {
        let _ = stream.write_all(bytes);
        if stay {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    Plugin::new(connector, options)
}

#[test]
fn what_is_no_plugin_is_refused_with_a_reason() {
    assert!(matches!(greeting(&[], true), Err(StartError::Silent)));
    assert!(matches!(
        greeting(&[0; 64], true),
        Err(StartError::Hello(_))
    ));
    assert!(matches!(
        greeting(&[b'H'; 1000], true),
        Err(StartError::Hello(_))
    ));
    let left = greeting(b"vfsdplug", false);
    assert!(matches!(
        left,
        Err(StartError::Left | StartError::Connect(_))
    ));
    let error = greeting(&[0; 64], true).unwrap_err().to_string();
    assert!(
        error.contains("does not speak the plugin protocol"),
        "{error}"
    );
}
