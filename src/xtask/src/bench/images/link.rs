//! A link between a host and a registry: it counts what comes over it, and may be narrow.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// A way to a server for all connections together. It is cut when dropped.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    /// Bytes a second from the server, for all connections together.
    rate: Option<u64>,
    /// When the link is free for the next piece.
    free: Mutex<Instant>,
    bytes: AtomicU64,
    cut: AtomicBool,
}

impl Link {
    /// A link to a server: as wide as loopback, or of `rate` bytes a second from the server.
    ///
    /// # Errors
    /// There is no free port.
    pub(super) fn to(server: SocketAddr, rate: Option<u64>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?;
        let state = Arc::new(State {
            server,
            rate,
            free: Mutex::new(Instant::now()),
            bytes: AtomicU64::new(0),
            cut: AtomicBool::new(false),
        });
        let listening = thread::spawn({
            let state = Arc::clone(&state);
            move || listen(&listener, &state)
        });
        Ok(Self {
            address,
            state,
            listening: Some(listening),
        })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it ends.
    pub(super) fn server(&self) -> SocketAddr {
        self.state.server
    }

    /// Bytes that came from the server until now.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.cut.store(true, Ordering::Relaxed);
        // The listener is woken by a last connection.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

impl State {
    /// Waits until the link has carried a piece.
    fn carry(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(rate) = self.rate else { return };
        let there = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let time = Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free = (*free).max(Instant::now()) + time;
            *free
        };
        thread::sleep(there.saturating_duration_since(Instant::now()));
    }
}

fn listen(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.cut.load(Ordering::Relaxed) {
            return;
        }
        let joined = client.and_then(|client| Ok((client, TcpStream::connect(state.server)?)));
        // A client that is not joined to the server finds its connection closed.
        if let Ok((client, server)) = joined {
            let _ = join(client, server, state);
        }
    }
}

/// Passes on what both say, until one ends.
fn join(client: TcpStream, server: TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asks, mut asked) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut asks, &mut asked);
        let _ = asked.shutdown(Shutdown::Write);
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let _ = answer(server, &client, &state);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn answer(mut server: TcpStream, mut client: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = server.read(&mut piece)?;
        if length == 0 || state.cut.load(Ordering::Relaxed) {
            return Ok(());
        }
        state.carry(length);
        client.write_all(&piece[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: usize = 64 << 10;

    /// A server that sends each client the same bytes, for one client.
    fn server() -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || -> std::io::Result<()> {
            let (mut client, _) = listener.accept()?;
            let mut asked = [0; 3];
            client.read_exact(&mut asked)?;
            assert_eq!(&asked, b"all");
            client.write_all(&[7; SENT])
        });
        Ok(address)
    }

    fn fetched(link: &Link) -> Result<Vec<u8>> {
        let mut client = TcpStream::connect(link.address())?;
        client.write_all(b"all")?;
        let mut got = Vec::new();
        client.read_to_end(&mut got)?;
        Ok(got)
    }

    #[test]
    fn a_link_passes_on_what_both_say_and_counts_what_the_server_says() -> Result<()> {
        let link = Link::to(server()?, None)?;
        assert_eq!(fetched(&link)?, [7; SENT]);
        assert_eq!(link.bytes(), SENT as u64);
        Ok(())
    }

    #[test]
    fn a_narrow_link_takes_its_time() -> Result<()> {
        let link = Link::to(server()?, Some(4 * SENT as u64))?;
        let begin = Instant::now();
        assert_eq!(fetched(&link)?, [7; SENT]);
        // At least the quarter of a second that it takes; a busy machine takes more.
        assert!(begin.elapsed() >= Duration::from_millis(250));
        Ok(())
    }
}
