//! Mounting without privileges, through the set-uid program `fusermount3`.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::device::Device;

const PROGRAM: &str = "fusermount3";

/// Why `fusermount3` did not do it.
#[derive(Debug, thiserror::Error)]
pub enum FusermountError {
    /// It is not installed.
    #[error(
        "an ordinary user mounts through {PROGRAM}, which is not installed: install the package \
         fuse3, or mount as root"
    )]
    Missing,
    /// It may not be executed, or a directory of PATH before it may not be searched.
    #[error(
        "an ordinary user mounts through {PROGRAM}, which this user may not execute: look at its \
         permissions, and for a directory in PATH that cannot be searched"
    )]
    Forbidden,
    /// It refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// It could not be talked to.
    #[error("cannot talk to {PROGRAM}: {0}")]
    Conversation(#[source] io::Error),
}

impl From<rustix::io::Errno> for FusermountError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Conversation(errno.into())
    }
}

/// Mounts at `point` and gives the device of the connection.
pub(crate) fn mount(point: &Path, options: &str) -> Result<Device, FusermountError> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The program sends the device over the socket that this variable names; standard input is the
    // one descriptor that it inherits without a window in which others would, too.
    let mut command = Command::new(PROGRAM);
    command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(theirs));
    let output = run(command.arg("-o").arg(options).arg("--").arg(point))?;
    if !output.status.success() {
        return Err(refusal(&output));
    }
    receive(&ours)
}

/// Unmounts `point`, `lazily` even if it is in use.
pub(crate) fn unmount(point: &Path, lazily: bool) -> Result<(), FusermountError> {
    let mut command = Command::new(PROGRAM);
    command
        .arg("-u")
        .args(lazily.then_some("-z"))
        .arg("--")
        .arg(point)
        .stdin(Stdio::null());
    let output = run(&mut command)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(refusal(&output))
    }
}

fn run(command: &mut Command) -> Result<Output, FusermountError> {
    command
        .stdout(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FusermountError::Missing,
            io::ErrorKind::PermissionDenied => FusermountError::Forbidden,
            _ => FusermountError::Conversation(error),
        })
}

fn refusal(output: &Output) -> FusermountError {
    let words = String::from_utf8_lossy(&output.stderr);
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    FusermountError::Refused(if line.is_empty() {
        format!("{PROGRAM} ended with {}", output.status)
    } else {
        line
    })
}

fn receive(socket: &OwnedFd) -> Result<Device, FusermountError> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.map(Device::from).ok_or_else(|| {
        FusermountError::Conversation(io::Error::other("it sent no descriptor of /dev/fuse"))
    })
}
