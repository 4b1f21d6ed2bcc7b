//! A plugin that answers with whatever bytes.

#[path = "../../../plugins/host/tests/scripted/replies.rs"]
#[allow(dead_code, reason = "the tests that it belongs to use more of it")]
mod replies;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vfsd_backend::{Backend, LockKind, SeekFrom};
use vfsd_fuse::wire::{InHeader, OutHeader};
use vfsd_fuse::{Opcode, ReplyKind};
use vfsd_memory::{Memory, Settings};
use vfsd_plugin_host::{BackOff, Connector, Options, Plugin};
use vfsd_plugin_protocol::{Features, HostHello, PluginHello, Receiver, send_all};
use vfsd_testkit::place::Place;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::reader::Reader;

/// What is left of the input, for all connections one after the other.
type Script = Arc<Mutex<Vec<u8>>>;

struct Scripted(Script);

impl Connector for Scripted {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let script = Arc::clone(&self.0);
        std::thread::spawn(move || answer(&theirs, &script));
        Ok(ours)
    }

    fn name(&self) -> String {
        "scripted".to_owned()
    }
}

/// Makes calls of each kind, whose replies are the input's: for each one a byte that says what is done to a good
/// reply, and what it is done with. Behind the end of the input all replies are good.
///
/// Each call ends, and what it ends with is something that a backend may say.
pub(crate) fn run(data: &[u8]) {
    let script = Script::new(Mutex::new(data.to_vec()));
    let options = Options {
        back_off: BackOff {
            shortest: Duration::from_micros(100),
            longest: Duration::from_millis(1),
        },
        ..Options::default()
    };
    let plugin = Plugin::new(Scripted(Arc::clone(&script)), options).unwrap();
    let root = Place(plugin.root());
    for _ in 0..4 {
        calls(&root);
        if script.lock().unwrap().is_empty() {
            break;
        }
    }
    script.lock().unwrap().clear();
    // It is given up at most once more.
    let mut healed = false;
    for _ in 0..1000 {
        healed |= root.lookup("file").is_ok();
        if healed {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(healed, "a plugin that behaves again is not used");
}

fn calls(root: &Place) {
    let _ = root.attributes();
    if let Ok(listed) = root.list() {
        assert!(listed.iter().all(|entry| !entry.name.contains(&b'/')));
    }
    let _ = root.xattr_names();
    let _ = root.getxattr("user.name");
    let _ = root.mkdir("directory").and_then(|made| made.names());
    if let Ok(target) = root.lookup("link").and_then(|link| link.readlink()) {
        assert!(!target.is_empty() && !target.contains(&0));
    }
    if let Ok(handle) = root.lookup("file").and_then(|file| file.open_both()) {
        if let Ok(data) = handle.read(0, 100) {
            assert!(data.len() <= 100);
        }
        if let Ok(written) = handle.write(0, b"four") {
            assert!(written <= 4);
        }
        let _ = handle.seek(SeekFrom::Data, 0);
        let _ = handle.conflict(1, LockKind::Write, (0, 9));
        let _ = handle.fsync();
    }
}

/// The plugin's side of one connection.
fn answer(stream: &UnixStream, script: &Mutex<Vec<u8>>) -> Option<()> {
    let mut receiver = Receiver::new(stream);
    let mut hello = HostHello::new_zeroed();
    receiver.exactly(hello.as_mut_bytes()).ok()?;
    let capabilities = Memory::new(Settings::default()).ok()?.capabilities();
    let greeting = PluginHello::new(capabilities, Features::DESCRIPTORS, 64);
    send_all(stream, &[greeting.as_bytes()], None).ok()?;
    let mut begun = false;
    loop {
        let header = receiver.header::<40>().ok()??;
        let header = InHeader::read_from_bytes(&header).ok()?;
        let mut body = vec![0; usize::try_from(header.len).ok()?.checked_sub(40)?];
        receiver.exactly(&mut body).ok()?;
        let opcode = Opcode::from_number(header.opcode)?;
        if opcode.reply() == ReplyKind::Nothing {
            continue;
        }
        let good = replies::good(opcode, header.unique.0, &body);
        // INIT and the first look at the root, without which there is no plugin.
        begun |= !matches!(opcode, Opcode::Init | Opcode::Getattr | Opcode::Statx);
        let reply = match begun {
            true => changed(good, &mut script.lock().unwrap()),
            false => good,
        };
        send_all(stream, &[&reply], None).ok()?;
        // Less than was announced may have been sent.
        let announced = reply
            .first_chunk()
            .map(|length| u32::from_le_bytes(*length));
        if announced.and_then(|length| usize::try_from(length).ok()) != Some(reply.len()) {
            return None;
        }
    }
}

/// A reply to which is done what the script says.
fn changed(mut reply: Vec<u8>, script: &mut Vec<u8>) -> Vec<u8> {
    let mut reader = Reader::new(script);
    let mut used = 2_usize;
    let (what, amount) = (reader.byte(), usize::from(reader.byte()));
    let header = size_of::<OutHeader>();
    match what % 8 {
        0 => {}
        // Another errno, or what is none.
        1 => {
            reply[4..8].copy_from_slice(&reader.array::<4>());
            used += 4;
        }
        // Other bytes somewhere.
        2 | 3 => {
            let bytes = reader.bytes(1 + amount % 16);
            let at = (usize::from(what) >> 3) * 4 % reply.len();
            for (place, byte) in reply[at..].iter_mut().zip(bytes) {
                *place = *byte;
            }
            used += bytes.len();
        }
        // Another body, of the length that it has.
        4..=6 => {
            let bytes = reader.bytes(amount);
            used += bytes.len();
            reply.truncate(header);
            reply.extend_from_slice(bytes);
            let length = u32::try_from(reply.len()).unwrap();
            reply[..4].copy_from_slice(&length.to_le_bytes());
        }
        // Something that is no reply.
        _ => {
            let bytes = reader.bytes(amount);
            used += bytes.len();
            reply = bytes.to_vec();
        }
    }
    script.drain(..used.min(script.len()));
    reply
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let script = |steps: &[&[u8]]| steps.concat();
    let body = |bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[4, length][..], bytes].concat()
    };
    let dirent = [
        &[
            7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0,
        ][..],
        b"name\0\0\0\0",
    ]
    .concat();
    vec![
        script(&[&[0, 0], &[0, 0], &[0, 0]]),
        script(&[&[0, 0], &body(&dirent), &[0, 0], &body(b"")]),
        script(&[
            &[1, 0],
            &(-5_i32).to_le_bytes(),
            &[1, 0],
            &(-38_i32).to_le_bytes(),
        ]),
        script(&[
            &[0, 0],
            &[2, 8, 1, 2, 3, 4, 5, 6, 7, 8],
            &body(b"user.a\0user.b\0"),
        ]),
        script(&[&[0, 0], &[7, 4, 1, 2, 3, 4]]),
    ]
}
