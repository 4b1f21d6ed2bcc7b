//! A whole session over a small tree in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use vfsd_fuse::Opcode;
use vfsd_memory::{Limits, Memory, Settings};
use vfsd_server::{Exports, HEADER_LENGTH, Incoming, Session, SessionOptions, inline_length};

use crate::exchange::Way;
use crate::reader::Reader;

/// Requests of one input.
const MOST: usize = 200;

/// How long the last request may take to end once the session has.
const TIME_LIMIT: Duration = Duration::from_secs(20);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
});

/// A session of a small tree in memory.
pub(crate) fn on_memory() -> Arc<Session> {
    let settings = Settings {
        limits: Limits {
            bytes: 4 << 20,
            inodes: 100,
        },
        ..Settings::default()
    };
    let memory = Arc::new(Memory::new(settings).unwrap());
    let exports = Exports::single(memory, false);
    Session::new(exports, SessionOptions::default(), RUNTIME.handle().clone())
}

/// Requests one after another. Each byte of the input that says how a request begins is followed by
/// the place of its node and handle among those that are known, and by its body.
///
/// Each request is answered once, also those that wait when the session ends.
pub(crate) fn run(data: &[u8]) {
    let session = on_memory();
    let open = Arc::new(AtomicUsize::new(0));
    let (replies, answered) = channel();
    // What looks like a node or a handle: the beginnings of replies.
    let mut known = VecDeque::from([1_u64]);
    let mut script = Reader::new(data);
    for number in 0..MOST {
        if script.is_empty() {
            break;
        }
        let how = script.byte();
        let opcode = match how {
            250.. => u32::from(script.word()),
            _ => u32::from(how) % 55,
        };
        let mut pick = || {
            let at = script.byte();
            match at {
                200.. => u64::from_le_bytes(script.array()),
                at => known[usize::from(at) % known.len()],
            }
        };
        let (node, first) = (pick(), pick());
        let shape = script.byte();
        let mut body = script.bytes(usize::from(shape % 128)).to_vec();
        if shape >= 128 && body.len() >= 8 {
            body[..8].copy_from_slice(&first.to_le_bytes());
        }
        let mut request = request(opcode, number, node, &body);
        if how == 255 {
            let lie = u32::from(script.word());
            request[..4].copy_from_slice(&lie.to_le_bytes());
        }
        let capacity = usize::from(script.byte()) * 64 + 16;
        submit(&session, request, |payload| {
            Way::new(payload, capacity, replies.clone(), &open)
        });
        for reply in answered.try_iter() {
            if let Some(first) = reply.get(16..24) {
                known.push_back(u64::from_le_bytes(first.try_into().unwrap()));
            }
        }
        while known.len() > 64 {
            known.remove(1);
        }
    }
    session.reset();
    let begin = Instant::now();
    while open.load(Ordering::Relaxed) > 0 {
        assert!(begin.elapsed() < TIME_LIMIT, "a request has no answer");
        sleep(Duration::from_millis(1));
    }
}

fn submit(session: &Arc<Session>, request: Vec<u8>, way: impl FnOnce(&[u8]) -> Way) {
    let mut header = [0; HEADER_LENGTH];
    header.copy_from_slice(&request[..HEADER_LENGTH]);
    let split = inline_length(&header, request.len());
    let (inline, payload) = request.split_at(split);
    let incoming = Incoming {
        inline: inline.to_vec(),
        readable: request.len(),
        exchange: way(payload),
    };
    session.worker().submit(incoming);
}

fn request(opcode: u32, number: usize, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_LENGTH + body.len()).unwrap();
    let unique = 2 + 2 * u64::try_from(number).unwrap();
    let mut request = Vec::with_capacity(HEADER_LENGTH + body.len());
    request.extend(length.to_le_bytes());
    request.extend(opcode.to_le_bytes());
    request.extend(unique.to_le_bytes());
    request.extend(node.to_le_bytes());
    request.resize(HEADER_LENGTH, 0);
    request.extend(body);
    request
}

/// Scripts that begin a session, and do something in it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let init = step(Opcode::Init, 0, false, &init_body());
    let name = |opcode, arguments: usize| {
        let mut body = vec![0; arguments];
        body.extend(b"f\0");
        step(opcode, 0, false, &body)
    };
    let make_file = {
        let mut body = [2_u32, 0o644, 0, 0].map(u32::to_le_bytes).concat();
        body.extend(b"f\0");
        step(Opcode::Create, 0, false, &body)
    };
    let handle = |opcode, length| step(opcode, 1, true, &vec![0; length]);
    let mut all = vec![init.clone()];
    for (opcode, length) in [
        (Opcode::Read, 40),
        (Opcode::Write, 44),
        (Opcode::Setlkw, 48),
        (Opcode::Setlk, 48),
        (Opcode::Getlk, 48),
        (Opcode::Flush, 24),
        (Opcode::Release, 24),
        (Opcode::Fallocate, 32),
        (Opcode::Lseek, 24),
        (Opcode::Ioctl, 32),
        (Opcode::Fsync, 16),
        (Opcode::Getattr, 16),
        (Opcode::Setattr, 88),
        (Opcode::CopyFileRange, 56),
    ] {
        all.push([init.clone(), make_file.clone(), handle(opcode, length)].concat());
    }
    for (opcode, arguments) in [
        (Opcode::Lookup, 0),
        (Opcode::Mkdir, 8),
        (Opcode::Mknod, 16),
        (Opcode::Unlink, 0),
        (Opcode::Getxattr, 8),
        (Opcode::Removexattr, 0),
    ] {
        all.push([init.clone(), make_file.clone(), name(opcode, arguments)].concat());
    }
    all.push(
        [
            init,
            step(Opcode::Opendir, 0, false, &[0; 8]),
            handle(Opcode::Readdirplus, 40),
        ]
        .concat(),
    );
    all
}

fn init_body() -> Vec<u8> {
    let mut body = [7_u32, 45, 131_072, u32::MAX, u32::MAX]
        .map(u32::to_le_bytes)
        .concat();
    body.resize(64, 0);
    body
}

fn step(opcode: Opcode, node: u8, with_handle: bool, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap();
    let shape = if with_handle { 128 + length } else { length };
    let mut step = vec![u8::try_from(opcode.number()).unwrap(), node, node, shape];
    step.extend(body);
    step.push(64);
    step
}
