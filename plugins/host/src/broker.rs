//! Connections from outside a sandbox: who is confined asks who is not.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use vfsd_plugin_protocol::{Receiver, send_all};

use crate::connector::Connector;

/// What is asked: one byte.
const CONNECT: [u8; 1] = *b"c";

/// A [`Connector`] that gets its connections from [`serve_broker`] at the other end of a socket. All that it needs inside a
/// sandbox is to send and receive on that socket.
#[derive(Debug)]
pub struct Broker {
    receiver: Receiver<UnixStream>,
    stream: UnixStream,
    name: String,
}

impl Broker {
    /// Asks at the other end of `stream`. `name` is how the plugin is called in the log.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new(stream: UnixStream, name: impl Into<String>) -> io::Result<Self> {
        Ok(Self {
            receiver: Receiver::new(stream.try_clone()?),
            stream,
            name: name.into(),
        })
    }
}

impl Connector for Broker {
    fn connect(&mut self) -> io::Result<UnixStream> {
        send_all(&self.stream, &[&CONNECT], None)?;
        let answer = self.receiver.header::<4>().map_err(io::Error::other)?;
        let errno = match answer.map(i32::from_ne_bytes) {
            Some(errno) => errno,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match self.receiver.descriptor() {
            Some(descriptor) if errno == 0 => Ok(UnixStream::from(descriptor)),
            _ => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Gets connections for the [`Broker`] at the other end of `stream`, until that is closed. Runs outside the sandbox.
///
/// # Errors
/// When the socket fails.
pub fn serve_broker(mut connector: impl Connector, stream: &UnixStream) -> io::Result<()> {
    let mut receiver = Receiver::new(stream);
    while let Some(asked) = receiver.header().map_err(io::Error::other)? {
        if asked != CONNECT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match connector.connect() {
            Ok(connection) => {
                let success = 0_i32.to_ne_bytes();
                send_all(stream, &[&success], Some(connection.as_fd()))?;
            }
            Err(error) => {
                let unknown = rustix::io::Errno::IO.raw_os_error();
                let errno = error.raw_os_error().unwrap_or(unknown);
                send_all(stream, &[&errno.to_ne_bytes()], None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Refuses first, then connects to itself.
    struct Stubborn(bool);

    impl Connector for Stubborn {
        fn connect(&mut self) -> io::Result<UnixStream> {
            if !std::mem::replace(&mut self.0, true) {
                return Err(rustix::io::Errno::NOENT.into());
            }
            let (ours, mut theirs) = UnixStream::pair()?;
            theirs.write_all(b"hello")?;
            Ok(ours)
        }

        fn name(&self) -> String {
            "stubborn".to_owned()
        }
    }

    #[test]
    fn connections_and_refusals_come_through() {
        let (inside, outside) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve_broker(Stubborn(false), &outside));
        let mut broker = Broker::new(inside, "stubborn").unwrap();
        let refused = broker.connect().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let mut text = String::new();
        broker.connect().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(broker);
        server.join().unwrap().unwrap();
    }
}
