//! Takes what a plugin says apart: replies, and descriptors that it hands over.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vfsd_backend::Errno;
use vfsd_fuse::wire::{
    EntryOut, FileLock, HandleId, NodeId, OpenOut, OutHeader, ReleaseIn, Unique,
};
use vfsd_fuse::{Opcode, REPLY_HEADER, ROOT_ID};
use vfsd_plugin_protocol::{
    DESCRIPTOR_DROP, DESCRIPTOR_PUT, EXTENT, ExtentOut, Note, ReceiveError, Receiver,
    check_descriptor,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::link::{Ending, Link, Pending, Reply};
use crate::reply::Breach;
use crate::request::{Expected, Request, Undo};

/// Why a plugin is not listened to any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Breach(#[from] Breach),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

/// Takes the next message, whose beginning has been received.
///
/// # Errors
/// When the plugin does not keep to the protocol, or the socket fails.
pub(crate) fn take_message(link: &Link, receiver: &mut Receiver<UnixStream>) -> Result<(), Broken> {
    let mut header = [0; REPLY_HEADER];
    receiver.exactly(&mut header)?;
    let header: OutHeader = zerocopy::transmute!(header);
    let length = usize::try_from(header.len).ok();
    let body = length.and_then(|length| length.checked_sub(REPLY_HEADER));
    let body = body.ok_or(Breach("a reply is shorter than its header"))?;
    match header.unique {
        Unique::NONE => take_note(link, receiver, header.error, body)?,
        _ => take_reply(link, receiver, header, body)?,
    }
    link.hear();
    Ok(())
}

fn take_reply(
    link: &Link,
    receiver: &mut Receiver<UnixStream>,
    header: OutHeader,
    body: usize,
) -> Result<(), Broken> {
    let pending = link.answered(header.unique);
    let pending = pending.ok_or(Breach("a reply is to no request"))?;
    match header.error {
        0 if pending.expected.allows(body) => {
            let mut bytes = vec![0; body];
            receiver.exactly(&mut bytes)?;
            deliver(link, pending, Ok(Reply::Bytes(bytes)));
        }
        0 => Err(Breach("a reply is too long or too short"))?,
        EXTENT => {
            let extent = extent(link, receiver, pending.expected, body)?;
            deliver(link, pending, Ok(extent));
        }
        errno @ -511..=-1 if body == 0 => {
            let errno = Errno::from_raw_os_error(errno.saturating_neg());
            deliver(link, pending, Err(errno));
        }
        _ => Err(Breach("an errno is none"))?,
    }
    Ok(())
}

fn deliver(link: &Link, pending: Pending, ending: Ending) {
    let Pending { waiting, undo, .. } = pending;
    let unwanted = match waiting {
        Some(sender) => sender.send(ending).err(),
        None => Some(ending),
    };
    if let Some(Ok(reply)) = unwanted {
        give_back(link, undo, &reply);
    }
}

/// The reply to a READ that points into a descriptor.
fn extent(
    link: &Link,
    receiver: &mut Receiver<UnixStream>,
    expected: Expected,
    body: usize,
) -> Result<Reply, Broken> {
    let Expected::Data(most) = expected else {
        return Err(Breach("a reply points to data where there are none").into());
    };
    if body != size_of::<ExtentOut>() {
        return Err(Breach("a reply is too long or too short").into());
    }
    let mut extent = ExtentOut::new_zeroed();
    receiver.exactly(extent.as_mut_bytes())?;
    let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
    let end = extent.offset.checked_add(u64::from(extent.length));
    let fits = end.is_some_and(|end| i64::try_from(end).is_ok());
    if length > most || !fits {
        return Err(Breach("a reply points to more data than were asked for").into());
    }
    let descriptor = link.descriptors.lock().get(&extent.descriptor).cloned();
    Ok(Reply::Extent {
        descriptor: descriptor.ok_or(Breach("a reply points into no descriptor"))?,
        offset: extent.offset,
        length,
    })
}

/// A descriptor is handed over, or taken back.
fn take_note(
    link: &Link,
    receiver: &mut Receiver<UnixStream>,
    what: i32,
    body: usize,
) -> Result<(), Broken> {
    let limit = link.options.limits.descriptors;
    let known = matches!(what, DESCRIPTOR_PUT | DESCRIPTOR_DROP);
    if body != size_of::<Note>() || !known || limit == 0 {
        return Err(Breach("a reply is to no request").into());
    }
    let mut note = Note::new_zeroed();
    receiver.exactly(note.as_mut_bytes())?;
    let mut descriptors = link.descriptors.lock();
    if what == DESCRIPTOR_DROP {
        let dropped = descriptors.remove(&note.descriptor);
        return dropped
            .map(drop)
            .ok_or(Breach("a descriptor that is not there is taken back").into());
    }
    let descriptor = receiver.descriptor();
    let descriptor = descriptor.ok_or(Breach("a descriptor is announced and does not come"))?;
    if note.descriptor >= limit || descriptors.contains_key(&note.descriptor) {
        return Err(Breach("a descriptor has a number that is not free").into());
    }
    check_descriptor(&descriptor).map_err(|unfit| {
        tracing::debug!("a descriptor is not taken: {unfit}");
        Breach("a descriptor is not one of a regular file, or of a sealed memfd")
    })?;
    descriptors.insert(note.descriptor, Arc::new(descriptor));
    Ok(())
}

/// Gives back what a reply grants that nobody waits for.
pub(crate) fn give_back(link: &Link, undo: Undo, reply: &Reply) {
    let Reply::Bytes(body) = reply else { return };
    let release = |node, directory, body: &[u8]| {
        if let Ok((open, _)) = OpenOut::read_from_prefix(body) {
            link.tell(release(node, directory, open.fh));
        }
    };
    match undo {
        Undo::Nothing => {}
        Undo::Open { node, directory } => release(node, directory, body),
        Undo::Entry | Undo::Created => {
            let Ok((entry, rest)) = EntryOut::read_from_prefix(body) else {
                return;
            };
            if undo == Undo::Created {
                release(entry.nodeid, false, rest);
            }
            if entry.nodeid > ROOT_ID {
                link.forget(entry.nodeid, 1);
            }
        }
        Undo::Lock { node, mut lock } => {
            /// `F_UNLCK` of asm-generic/fcntl.h.
            const F_UNLCK: u32 = 2;
            lock.lk = FileLock {
                r#type: F_UNLCK,
                ..lock.lk
            };
            link.tell(Request::new(Opcode::Setlk, node).arg(&lock));
        }
    }
}

/// Closes a file or directory.
pub(crate) fn release(node: NodeId, directory: bool, handle: HandleId) -> Request {
    let opcode = match directory {
        true => Opcode::Releasedir,
        false => Opcode::Release,
    };
    Request::new(opcode, node).arg(&ReleaseIn {
        fh: handle,
        ..ReleaseIn::new_zeroed()
    })
}
