//! What a plugin says of a file besides its content.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vfsd_backend::{AttributeChanges, Attributes, Error, Result, SetTime};
use vfsd_fuse::Opcode;
use vfsd_fuse::wire::{
    AttrOut, GETATTR_FH, GetattrIn, HandleId, NodeId, SetattrIn, StatxIn, StatxOut, fattr,
};
use zerocopy::FromZeros;

use crate::link::Link;
use crate::records::Record;
use crate::reply::{self, Breach};
use crate::request::Request;

/// The attributes, through the open file if there is one.
pub(crate) async fn ask_attributes(
    record: &Record,
    link: &Arc<Link>,
    node: NodeId,
    handle: Option<HandleId>,
) -> Result<Attributes> {
    let getattr_flags = if handle.is_some() { GETATTR_FH } else { 0 };
    let fh = handle.unwrap_or(HandleId::NONE);
    if link.statx.load(Ordering::Relaxed) {
        let arg = StatxIn {
            getattr_flags,
            fh,
            // STATX_BASIC_STATS and STATX_BTIME of linux/stat.h.
            sx_mask: 0xfff,
            ..StatxIn::new_zeroed()
        };
        let request = Request::new(Opcode::Statx, node)
            .arg(&arg)
            .fixed::<StatxOut>();
        match link.ask(request).await {
            Err(Error::NotSupported) => link.statx.store(false, Ordering::Relaxed),
            Err(error) => return Err(error),
            Ok(body) => return link.checked(same_kind(record, reply::statx(&body))),
        }
    }
    let arg = GetattrIn {
        getattr_flags,
        fh,
        dummy: 0,
    };
    let request = Request::new(Opcode::Getattr, node)
        .arg(&arg)
        .fixed::<AttrOut>();
    let body = link.ask(request).await?;
    link.checked(same_kind(record, reply::getattr(&body)))
}

fn same_kind(
    record: &Record,
    attributes: reply::Checked<Attributes>,
) -> reply::Checked<Attributes> {
    match attributes {
        Ok(attributes) if attributes.kind != record.kind => Err(Breach("a file changes its type")),
        other => other,
    }
}

/// Changes attributes, through the open file if there is one.
pub(crate) async fn set_attributes(
    record: &Record,
    link: &Arc<Link>,
    node: NodeId,
    handle: Option<HandleId>,
    changes: &AttributeChanges,
) -> Result<Attributes> {
    let mut arg = SetattrIn {
        fh: handle.unwrap_or(HandleId::NONE),
        mode: changes.permissions.unwrap_or(0),
        uid: changes.uid.unwrap_or(0),
        gid: changes.gid.unwrap_or(0),
        size: changes.size.unwrap_or(0),
        ..SetattrIn::new_zeroed()
    };
    let mut set = |condition: bool, bit: u32| {
        if condition {
            arg.valid |= bit;
        }
    };
    set(handle.is_some(), fattr::FH);
    set(changes.permissions.is_some(), fattr::MODE);
    set(changes.uid.is_some(), fattr::UID);
    set(changes.gid.is_some(), fattr::GID);
    set(changes.size.is_some(), fattr::SIZE);
    set(changes.kill_privileges, fattr::KILL_SUIDGID);
    set(changes.accessed.is_some(), fattr::ATIME);
    set(changes.modified.is_some(), fattr::MTIME);
    set(changes.accessed == Some(SetTime::Now), fattr::ATIME_NOW);
    set(changes.modified == Some(SetTime::Now), fattr::MTIME_NOW);
    if let Some(SetTime::At(time)) = changes.accessed {
        (arg.atime, arg.atimensec) = (time.seconds.cast_unsigned(), time.nanoseconds);
    }
    if let Some(SetTime::At(time)) = changes.modified {
        (arg.mtime, arg.mtimensec) = (time.seconds.cast_unsigned(), time.nanoseconds);
    }
    let request = Request::new(Opcode::Setattr, node)
        .arg(&arg)
        .fixed::<AttrOut>();
    let body = link.ask(request).await?;
    link.checked(same_kind(record, reply::getattr(&body)))
}
