use std::sync::atomic::AtomicBool;

use super::super::memory::Extent;
use super::super::ring::{DESC_NEXT, DESC_WRITE};
use super::super::wire::opcode;
use super::*;

/// A device on a thread of its own that answers each request with what it carries, and READ with
/// bytes that count up; it tells errno 5 for node 5.
struct Echo {
    memory: Arc<Memory>,
    layout: Layout,
    events: Events,
    stop: Arc<AtomicBool>,
}

impl Echo {
    fn serve(self) {
        let mut next = 0_u16;
        let layout = self.layout;
        while !self.stop.load(Ordering::SeqCst) {
            let index = self.memory.load_u16(layout.available + 2).unwrap();
            if index == next {
                let event = layout.used + 4 + 8 * u64::from(layout.size);
                self.memory.store_u16(event, next).unwrap();
                fence(Ordering::SeqCst);
                std::thread::yield_now();
                continue;
            }
            let place = u64::from(next % layout.size);
            let head = self
                .memory
                .load_u16(layout.available + 4 + 2 * place)
                .unwrap();
            let len = self.answer(head);
            let mut element = u32::from(head).to_le_bytes().to_vec();
            element.extend_from_slice(&len.to_le_bytes());
            self.memory
                .write(layout.used + 4 + 8 * place, &element)
                .unwrap();
            next = next.wrapping_add(1);
            self.memory.store_u16(layout.used + 2, next).unwrap();
            rustix::io::write(&self.events.call, &1_u64.to_ne_bytes()).unwrap();
        }
    }

    fn numbers(&self, at: u64) -> (u64, u32, u16, u16) {
        let bytes = self.memory.read(at, 16).unwrap();
        (
            u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            u16::from_le_bytes(bytes[12..14].try_into().unwrap()),
            u16::from_le_bytes(bytes[14..].try_into().unwrap()),
        )
    }

    fn answer(&self, head: u16) -> u32 {
        let (table, table_len, ..) = self.numbers(self.layout.descriptors + 16 * u64::from(head));
        let (mut request, mut room) = (Vec::new(), Vec::new());
        let mut index = 0;
        loop {
            assert!(
                u32::from(index) * 16 < table_len,
                "the chain leaves its table"
            );
            let (address, len, flags, next) = self.numbers(table + 16 * u64::from(index));
            if flags & DESC_WRITE == 0 {
                assert!(room.is_empty(), "readable after writable");
                request.extend(self.memory.read(address, len as usize).unwrap());
            } else {
                room.push((address, len));
            }
            if flags & DESC_NEXT == 0 {
                break;
            }
            index = next;
        }
        let claimed = u32::from_le_bytes(request[..4].try_into().unwrap());
        assert_eq!(claimed as usize, request.len());
        if room.is_empty() {
            return 0;
        }
        let space: u32 = room.iter().map(|(_, len)| len).sum();
        let number = u32::from_le_bytes(request[4..8].try_into().unwrap());
        let (errno, body) = match number {
            _ if request[16] == 5 => (5, Vec::new()),
            opcode::READ => (0, (0..space - 16).map(|at| (at / 8) as u8).collect()),
            _ => (0, request[40..].to_vec()),
        };
        let len = 16 + body.len() as u32;
        let mut reply = len.to_le_bytes().to_vec();
        reply.extend_from_slice(&i32::to_le_bytes(-errno));
        reply.extend_from_slice(&request[8..16]);
        reply.extend_from_slice(&body);
        let mut rest = &reply[..];
        for (address, len) in room {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            self.memory.write(address, now).unwrap();
            rest = later;
        }
        assert!(rest.is_empty(), "no room for the reply");
        len
    }
}

struct Stage {
    pump: Pump,
    stop: Arc<AtomicBool>,
    device: Option<std::thread::JoinHandle<()>>,
}

impl Stage {
    fn new(forms: &[Form], depth: usize) -> Self {
        let extent = Extent {
            start: 0x10_0000,
            size: 8 << 20,
        };
        let memory = Memory::new(&[extent]).unwrap();
        let layout = Layout::allocate(&memory, 128).unwrap();
        let events = Events::new().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let echo = Echo {
            memory: Arc::clone(&memory),
            layout,
            events: events.clone(),
            stop: Arc::clone(&stop),
        };
        let parts = (layout, events);
        let pump = Pump::over(memory, parts, Position::default(), forms, depth).unwrap();
        Self {
            pump,
            stop,
            device: Some(std::thread::spawn(move || echo.serve())),
        }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.device.take().unwrap().join().unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Sends a counter and expects it back; a cycle is a request with and one without an answer.
struct Counting {
    sent: Vec<[u8; 8]>,
    left: u64,
    count: u64,
    silent: Vec<bool>,
}

impl Work for Counting {
    fn request(&mut self, slot: usize) -> Option<Request<'_>> {
        if self.silent[slot] {
            self.sent[slot] = [9; 8];
        } else {
            self.left = self.left.checked_sub(1)?;
            self.count += 1;
            self.sent[slot] = self.count.to_le_bytes();
        }
        Some(Request {
            form: usize::from(self.silent[slot]),
            node: self.count << 8,
            arguments: &self.sent[slot],
        })
    }

    fn answer(&mut self, slot: usize, answer: &Answer<'_>) -> Result<u64> {
        let silent = self.silent[slot];
        self.silent[slot] = !silent;
        if silent {
            assert!(answer.is_empty());
            return Ok(1);
        }
        assert_eq!(answer.success()?, 8);
        assert_eq!(answer.bytes::<8>(0)?, self.sent[slot]);
        Ok(0)
    }
}

fn counting(depth: usize, left: u64) -> Counting {
    Counting {
        sent: vec![[0; 8]; depth],
        left,
        count: 0,
        silent: vec![false; depth],
    }
}

const COUNTED: [Form; 2] = [
    Form {
        opcode: opcode::LOOKUP,
        arguments: 8,
        reply: Some(8),
        data: Data::None,
    },
    Form {
        opcode: opcode::FORGET,
        arguments: 8,
        reply: None,
        data: Data::None,
    },
];

#[test]
fn every_request_of_every_slot_is_answered_once_and_rings_wrap() {
    let mut stage = Stage::new(&COUNTED, 8);
    let mut work = counting(8, 1000);
    let done = stage.pump.run(&mut work, Duration::from_secs(60)).unwrap();
    assert_eq!((done.operations, done.requests), (1000, 2000));
    stage.end();
}

#[test]
fn a_run_ends_with_whole_operations_when_its_time_is_over() {
    let mut stage = Stage::new(&COUNTED, 4);
    stage.pump.waits = Waits::Looking(Duration::ZERO);
    let mut work = counting(4, u64::MAX);
    let done = stage
        .pump
        .run(&mut work, Duration::from_millis(20))
        .unwrap();
    assert_eq!(done.requests, 2 * done.operations);
    assert!(work.silent.iter().all(|silent| !silent));
    stage.end();
}

#[test]
fn a_driver_that_sleeps_gets_every_answer_by_its_interrupt() {
    let mut stage = Stage::new(&COUNTED, 4);
    stage.pump.waits = Waits::Sleeping;
    let mut work = counting(4, 500);
    let done = stage.pump.run(&mut work, LIMIT).unwrap();
    assert_eq!((done.operations, done.requests), (500, 1000));
    stage.end();
}

#[test]
fn an_errno_ends_the_run() {
    struct Failing;
    impl Work for Failing {
        fn request(&mut self, _: usize) -> Option<Request<'_>> {
            Some(Request {
                form: 0,
                node: 5,
                arguments: &[0; 8],
            })
        }
        fn answer(&mut self, _: usize, answer: &Answer<'_>) -> Result<u64> {
            answer.success().map(u64::from)
        }
    }
    let mut stage = Stage::new(&COUNTED[..1], 1);
    let error = stage.pump.run(&mut Failing, LIMIT).unwrap_err();
    assert_eq!(error.errno(), Some(5));
    stage.end();
}

#[test]
fn data_is_read_across_pages_that_lie_apart() {
    struct Reading(Vec<u64>);
    impl Work for Reading {
        fn request(&mut self, _: usize) -> Option<Request<'_>> {
            self.0.is_empty().then_some(Request {
                form: 0,
                node: 1,
                arguments: &[],
            })
        }
        fn answer(&mut self, _: usize, answer: &Answer<'_>) -> Result<u64> {
            assert_eq!(answer.success()?, 10_000);
            assert!(answer.bytes::<8>(9_993).is_err());
            self.0 = vec![answer.u64(8)?, answer.u64(4092)?, answer.u64(8188)?];
            Ok(1)
        }
    }
    let form = Form::new(opcode::READ, 0, 0).with(Data::Received(10_000));
    let mut stage = Stage::new(&[form], 1);
    let mut work = Reading(Vec::new());
    assert_eq!(stage.pump.run(&mut work, LIMIT).unwrap().operations, 1);
    let straddling = |at: u64| {
        let bytes: [u8; 8] = std::array::from_fn(|n| ((at + n as u64) / 8) as u8);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(work.0, [straddling(8), straddling(4092), straddling(8188)]);
    stage.end();
}

#[test]
fn arguments_of_another_length_are_refused_before_they_are_sent() {
    struct Wrong;
    impl Work for Wrong {
        fn request(&mut self, _: usize) -> Option<Request<'_>> {
            Some(Request {
                form: 0,
                node: 1,
                arguments: &[0; 9],
            })
        }
        fn answer(&mut self, _: usize, _: &Answer<'_>) -> Result<u64> {
            Ok(1)
        }
    }
    let mut stage = Stage::new(&COUNTED[..1], 1);
    assert!(stage.pump.run(&mut Wrong, LIMIT).is_err());
    assert_eq!(stage.pump.position(), Position::default());
    stage.end();
}
