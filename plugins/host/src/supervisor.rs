//! Gets a plugin, listens to it, and gets another one when it is gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use vfsd_backend::{Capabilities, FileKind};
use vfsd_fuse::wire::{AttrOut, GetattrIn, InitOut, NodeId, OutHeader, Unique};
use vfsd_fuse::{InitFlags, MAJOR, MINOR, MINOR_MIN, Opcode, REPLY_HEADER, ROOT_ID};
use vfsd_plugin_protocol::{
    Features, HostHello, MAX_DATA, PluginHello, ReceiveError, Receiver, send_all,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::area::Area;
use crate::connector::Connector;
use crate::ear::Ear;
use crate::link::{Agreed, Link, Ways};
use crate::options::Options;
use crate::outbox::Outbox;
use crate::plugin::StartError;
use crate::reply::attributes;
use crate::request::Request;
use crate::shared::Shared;

/// What is agreed on if the plugin can do it. All else concerns the kernel that asks, not the storage.
const OFFERED: InitFlags = InitFlags::POSIX_LOCKS
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::FLOCK_LOCKS)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::POSIX_ACL)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::SUBMOUNTS)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::SECURITY_CTX)
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::ALLOW_IDMAP);

/// The thread that keeps a plugin there.
pub(crate) struct Supervisor<C> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connector: C,
    pub(crate) name: Arc<str>,
    /// Who waits for the first connection, and learns what the storage can do.
    pub(crate) first: Option<SyncSender<Result<(Capabilities, FileKind), StartError>>>,
    /// What it could do at first, and what its root was.
    pub(crate) was: Option<(Capabilities, FileKind)>,
    pub(crate) generation: u64,
}

impl<C: Connector> Supervisor<C> {
    /// Runs until the plugin is closed, or cannot be had at first.
    pub(crate) fn run(mut self) {
        let back_off = self.shared.options.back_off;
        let mut pause = back_off.shortest;
        let mut complained = false;
        loop {
            let began = Instant::now();
            match self.establish() {
                Ok(link) => {
                    if complained {
                        tracing::info!(plugin = &*self.name, "the plugin is back");
                    }
                    complained = false;
                    self.shared.set_link(Some(Arc::clone(&link)));
                    if let Some((first, is)) = self.first.take().zip(self.was) {
                        let _ = first.send(Ok(is));
                    }
                    self.listen(&link);
                }
                Err(error) => {
                    if let Some(first) = self.first.take() {
                        let _ = first.send(Err(error));
                        return;
                    }
                    if !std::mem::replace(&mut complained, true) && !self.shared.is_closing() {
                        let plugin = &*self.name;
                        tracing::error!(plugin, "no plugin: {error}; it is tried again");
                    }
                }
            }
            if began.elapsed() >= back_off.longest {
                pause = back_off.shortest;
            }
            if !self.shared.pause(pause) {
                return;
            }
            pause = pause.saturating_mul(2).min(back_off.longest);
        }
    }

    /// Listens until the link ends, for whichever reason.
    fn listen(&self, link: &Link) {
        let result = link.listen();
        self.shared.set_link(None);
        match result {
            _ if self.shared.is_closing() => link.shut(),
            Ok(()) => link.fail("it has closed it"),
            Err(error) => link.fail(&error.to_string()),
        }
    }

    fn establish(&mut self) -> Result<Arc<Link>, StartError> {
        let stream = self.connector.connect().map_err(StartError::Connect)?;
        let options = self.shared.options;
        let deadline = Some(options.deadlines.greeting);
        stream
            .set_read_timeout(deadline)
            .map_err(StartError::Connect)?;
        stream
            .set_write_timeout(deadline)
            .map_err(StartError::Connect)?;
        let mut receiver = Receiver::new(stream.try_clone().map_err(StartError::Connect)?);
        let area = Area::new(options.limits.area);
        let hello = greet(&stream, &mut receiver, &options, area.as_deref())?;
        let capabilities = hello.capabilities();
        let area = area.filter(|_| hello.features().contains(Features::AREA));
        let init = init(&stream, &mut receiver, area.as_deref())?;
        let is = (capabilities, root_kind(&stream, &mut receiver)?);
        if *self.was.get_or_insert(is) != is {
            return Err(StartError::Changed);
        }
        stream.set_read_timeout(None).map_err(StartError::Connect)?;
        stream
            .set_write_timeout(None)
            .map_err(StartError::Connect)?;
        let agreed = Agreed {
            flags: init,
            max_data: usize::try_from(MAX_DATA).unwrap_or(usize::MAX),
            in_flight: hello.in_flight.min(options.limits.in_flight).max(1),
            capabilities,
        };
        self.generation = self.generation.saturating_add(1);
        let sending = stream.try_clone().map_err(StartError::Connect)?;
        let outbox = Arc::new(Outbox::new(sending, options.limits.payload));
        let writer = Arc::clone(&outbox);
        std::thread::Builder::new()
            .name("plugin-send".to_owned())
            .spawn(move || writer.write())
            .map_err(StartError::Connect)?;
        let name = Arc::clone(&self.name);
        let ways = Ways {
            ear: Ear::new(stream, receiver),
            outbox,
            area,
        };
        let link = Link::new(self.generation, name, ways, agreed, options);
        Ok(Arc::new(link))
    }
}

/// Exchanges greetings.
fn greet(
    stream: &UnixStream,
    receiver: &mut Receiver<UnixStream>,
    options: &Options,
    area: Option<&Area>,
) -> Result<PluginHello, StartError> {
    let limits = options.limits;
    let hello = HostHello::new(MAX_DATA, limits.in_flight.max(1), limits.descriptors)
        .with_area(area.map_or(0, Area::size));
    send_all(stream, &[hello.as_bytes()], None).map_err(unheard)?;
    let mut answer = PluginHello::new_zeroed();
    receiver.exactly(answer.as_mut_bytes()).map_err(silent)?;
    answer.check(hello.features())?;
    Ok(answer)
}

/// INIT, as a kernel says it; the area's descriptor goes with it.
fn init(
    stream: &UnixStream,
    receiver: &mut Receiver<UnixStream>,
    area: Option<&Area>,
) -> Result<InitFlags, StartError> {
    let (low, high) = OFFERED.words();
    let words: [u32; 16] = [MAJOR, MINOR, 0, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = Request::new(Opcode::Init, NodeId::NONE).bytes(words.as_bytes());
    let descriptor = area.map(Area::descriptor);
    let out: InitOut = ask(stream, receiver, request, descriptor)?;
    let flags = (u64::from(out.flags2) << 32) | u64::from(out.flags);
    let flags = InitFlags::from_bits_retain(flags);
    if out.major != MAJOR || out.minor < MINOR_MIN || !OFFERED.contains(flags) {
        return Err(StartError::Init);
    }
    Ok(flags)
}

/// A directory, or a file for a storage that is a single one.
fn root_kind(
    stream: &UnixStream,
    receiver: &mut Receiver<UnixStream>,
) -> Result<FileKind, StartError> {
    let arg = GetattrIn::new_zeroed();
    let request = Request::new(Opcode::Getattr, ROOT_ID).arg(&arg);
    let out: AttrOut = ask(stream, receiver, request, None)?;
    let attributes = attributes(&out.attr).map_err(|_| StartError::Init)?;
    Ok(attributes.kind)
}

/// Asks when nothing else is asked yet.
fn ask<T: FromZeros + FromBytes + IntoBytes>(
    stream: &UnixStream,
    receiver: &mut Receiver<UnixStream>,
    request: Request,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<T, StartError> {
    const UNIQUE: Unique = Unique(1);
    let request = request.numbered(UNIQUE);
    send_all(stream, &[&request], descriptor).map_err(unheard)?;
    let mut answer = OutHeader::new_zeroed();
    receiver.exactly(answer.as_mut_bytes()).map_err(silent)?;
    let length = size_of::<T>().saturating_add(REPLY_HEADER);
    let whole = usize::try_from(answer.len) == Ok(length);
    if answer.unique != UNIQUE || answer.error != 0 || !whole {
        return Err(StartError::Init);
    }
    let mut out = T::new_zeroed();
    receiver.exactly(out.as_mut_bytes()).map_err(silent)?;
    Ok(out)
}

/// What it says of a plugin that nothing can be sent to it.
fn unheard(error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => StartError::Left,
        _ => StartError::Connect(error),
    }
}

fn silent(error: ReceiveError) -> StartError {
    match error {
        ReceiveError::Socket(error) if error.kind() == io::ErrorKind::WouldBlock => {
            StartError::Silent
        }
        ReceiveError::Cut => StartError::Left,
        ReceiveError::Socket(error) => unheard(error),
        error => StartError::Connect(io::Error::other(error)),
    }
}
