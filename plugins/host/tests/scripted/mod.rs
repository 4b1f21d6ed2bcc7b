//! A plugin that follows a script, and is followed by one that behaves.

pub(crate) mod replies;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vfsd_backend::Backend;
use vfsd_fuse::wire::InHeader;
use vfsd_fuse::{Opcode, ReplyKind};
use vfsd_memory::{Memory, Settings};
use vfsd_plugin_host::{Connector, Plugin};
use vfsd_plugin_protocol::{Features, HostHello, PluginHello, Receiver, send_all};
use vfsd_testkit::place::Place;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use replies::message;

/// A request.
pub(crate) struct Asked {
    pub(crate) opcode: Opcode,
    pub(crate) unique: u64,
    pub(crate) body: Vec<u8>,
    /// What came with it.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// What the script does about it.
pub(crate) enum Then {
    /// Answers as a plugin should.
    Well,
    /// Sends this instead, with a descriptor.
    Send(Vec<u8>, Option<OwnedFd>),
    /// Sends this first, and then answers as a plugin should.
    Before(Vec<u8>, Option<OwnedFd>),
    /// Does not answer.
    Nothing,
    /// Sends so many bytes, each with a descriptor.
    Flood(usize),
}

type Rules = dyn Fn(&Asked) -> Then + Send + Sync;

/// The first connection follows the rules; all later ones are to a memory file system.
pub(crate) struct Script {
    rules: Option<Arc<Rules>>,
    features: Features,
    ended: Arc<AtomicBool>,
}

impl Script {
    pub(crate) fn new(rules: impl Fn(&Asked) -> Then + Send + Sync + 'static) -> Self {
        Self {
            rules: Some(Arc::new(rules)),
            features: Features::DESCRIPTORS,
            ended: Arc::default(),
        }
    }

    /// What the first connection uses of what the host has.
    pub(crate) fn with(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// Becomes true when the first connection was closed by the host.
    pub(crate) fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }
}

impl Connector for Script {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (ended, features) = (Arc::clone(&self.ended), self.features);
        match self.rules.take() {
            Some(rules) => std::thread::spawn(move || {
                follow(&theirs, features, rules.as_ref());
                ended.store(true, Ordering::Release);
            }),
            None => {
                let memory = Arc::new(Memory::new(Settings::default())?);
                let runtime = vfsd_testkit::runtime().handle().clone();
                std::thread::spawn(move || {
                    let _ = vfsd_plugin::serve_connection(theirs, memory, &runtime);
                })
            }
        };
        Ok(ours)
    }

    fn name(&self) -> String {
        "scripted".to_owned()
    }
}

/// A peer that does what it likes with each connection.
pub(crate) struct Raw<F>(pub(crate) F);

impl<F: Fn(UnixStream) + Clone + Send + 'static> Connector for Raw<F> {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let run = self.0.clone();
        std::thread::spawn(move || run(theirs));
        Ok(ours)
    }

    fn name(&self) -> String {
        "raw".to_owned()
    }
}

/// Answers until the host closes the connection.
fn follow(stream: &UnixStream, features: Features, rules: &Rules) -> Option<()> {
    let mut receiver = Receiver::new(stream);
    let mut hello = HostHello::new_zeroed();
    receiver.exactly(hello.as_mut_bytes()).ok()?;
    // As the memory file system can, which comes next: it is the same storage that comes back.
    let capabilities = Memory::new(Settings::default()).ok()?.capabilities();
    let answer = PluginHello::new(capabilities, features, 64);
    send_all(stream, &[answer.as_bytes()], None).ok()?;
    loop {
        let header = receiver.header::<40>().ok()??;
        let header = InHeader::read_from_bytes(&header).ok()?;
        let mut body = vec![0; usize::try_from(header.len).ok()?.checked_sub(40)?];
        receiver.exactly(&mut body).ok()?;
        let opcode = Opcode::from_number(header.opcode)?;
        let asked = Asked {
            opcode,
            unique: header.unique.0,
            body,
            descriptor: receiver.descriptor(),
        };
        let send = |bytes: &[u8], descriptor: Option<OwnedFd>| {
            let descriptor = descriptor.as_ref().map(AsFd::as_fd);
            // What the host does not want to hear any more is no reason to stop.
            let _ = send_all(stream, &[bytes], descriptor);
        };
        if opcode.reply() == ReplyKind::Nothing {
            continue;
        }
        match rules(&asked) {
            Then::Well => send(&good(&asked), None),
            Then::Send(bytes, descriptor) => send(&bytes, descriptor),
            Then::Before(bytes, descriptor) => {
                send(&bytes, descriptor);
                send(&good(&asked), None);
            }
            Then::Nothing => {}
            Then::Flood(count) => {
                (0..count).for_each(|_| send(b"\x20", Some(sealed(b""))));
            }
        }
    }
}

/// What a plugin should answer.
pub(crate) fn good(asked: &Asked) -> Vec<u8> {
    replies::good(asked.opcode, asked.unique, &asked.body)
}

/// A good reply.
pub(crate) fn reply(asked: &Asked, body: &[u8]) -> Vec<u8> {
    message(asked.unique, 0, body)
}

/// A memfd that cannot shrink.
pub(crate) fn sealed(content: &[u8]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create(c"sealed", flags).unwrap();
    rustix::io::pwrite(&memfd, content, 0).unwrap();
    fcntl_add_seals(&memfd, SealFlags::SHRINK).unwrap();
    memfd
}

/// The root of a plugin.
pub(crate) fn root(plugin: &Plugin) -> Place {
    Place(plugin.root())
}

/// Waits for what has to come.
pub(crate) fn patiently(what: &str, mut come: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !come() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
