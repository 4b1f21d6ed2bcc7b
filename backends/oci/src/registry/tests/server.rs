//! A registry on loopback that serves a layout, and fails as it is told to.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::blob::Sha256Digest;
use crate::testing::{Layout, MANIFEST};

use super::pushes::Pushes;

/// What happens to one request for a blob.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// It is answered as it should be.
    None,
    /// A status, and a header.
    Status(u16, &'static str),
    /// The whole blob, whatever was asked for.
    Whole,
    /// A piece that begins so much later than it should.
    Shifted(usize),
    /// The right piece, said to be of a blob that is longer.
    Longer,
    /// A piece without a `Content-Range`.
    Unnamed,
    /// A piece that ends after so many bytes, and says so.
    Piece(usize),
    /// The connection ends after so many bytes.
    Cut(usize),
    /// The byte at this place of the answer is another.
    Wrong(usize),
    /// A few bytes come one by one, then nothing any more.
    Drip,
    /// It is answered as it should be, once another request came.
    Late,
    /// It is answered elsewhere, by a URL that is good so often.
    Elsewhere(usize),
    /// It leads to itself.
    Loop,
}

/// What is wanted of a client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wants {
    Nothing,
    /// The name `user` and the password `secret`.
    Password,
    /// A token, each good for so many requests, which is given to everybody or to `user` alone.
    Token {
        uses: usize,
        to_all: bool,
    },
}

/// A request that came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct Shared {
    address: SocketAddr,
    folder: PathBuf,
    tags: HashMap<String, Sha256Digest>,
    pushes: Pushes,
    wants: Wants,
    faults: Mutex<VecDeque<Fault>>,
    /// Faults of requests for manifests.
    manifest_faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Seen>>,
    sent: AtomicUsize,
    ends: AtomicBool,
    /// How often each token, and each URL elsewhere, is still good.
    uses: Mutex<HashMap<String, usize>>,
}

pub(crate) struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(layout: &Layout, tags: &[(&str, Sha256Digest)], wants: Wants) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tags = tags
            .iter()
            .map(|(tag, digest)| ((*tag).to_owned(), *digest));
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            folder: layout.path().join("blobs/sha256"),
            tags: tags.collect(),
            pushes: Pushes::default(),
            wants,
            faults: Mutex::default(),
            manifest_faults: Mutex::default(),
            seen: Mutex::default(),
            sent: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            uses: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if server.ends.load(Ordering::SeqCst) {
                        break;
                    }
                    let (server, stream) = (&server, stream.unwrap());
                    // A client that goes away in the middle is no failure of the test.
                    scope.spawn(move || drop(server.answer(stream)));
                }
            });
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What happens to the next requests for blobs, in this order.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.shared.faults.lock() = faults.into_iter().collect();
    }

    pub(crate) fn manifest_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.shared.manifest_faults.lock() = faults.into_iter().collect();
    }

    /// The faults that have not happened.
    pub(crate) fn left(&self) -> usize {
        self.shared.faults.lock().len() + self.shared.manifest_faults.lock().len()
    }

    /// What was pushed.
    pub(crate) fn pushes(&self) -> &Pushes {
        &self.shared.pushes
    }

    /// The requests since this was asked last.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock())
    }

    /// The bytes of bodies sent since this was asked last.
    pub(crate) fn sent(&self) -> usize {
        self.shared.sent.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.shared.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let mut body = vec![0; header("content-length").map_or(0, |it| it.parse().unwrap())];
        stream.read_exact(&mut body)?;
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let seen = Seen {
            range: header("range"),
            authorization: header("authorization"),
            method: head.split(' ').next().unwrap().to_owned(),
            target: target.clone(),
        };
        self.seen.lock().push(seen.clone());
        if target.starts_with("/token?") {
            return self.token(&mut stream, &seen);
        }
        if let Some(rest) = target.strip_prefix("/elsewhere/") {
            let hex = rest.split('?').next().unwrap();
            return match self.is_good(rest) && seen.authorization.is_none() {
                true => self.blob(&mut stream, hex, &seen, &Fault::None),
                false => reply(&mut stream, "403 Forbidden", "", b""),
            };
        }
        if !self.lets_in(&seen) {
            let challenge = match self.wants {
                Wants::Password => "Basic realm=\"r\"".to_owned(),
                _ => format!(
                    "Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:a/b:pull\"",
                    self.address
                ),
            };
            let challenge = format!("WWW-Authenticate: {challenge}\r\n");
            return reply(&mut stream, "401 Unauthorized", &challenge, b"{}");
        }
        if let Some((status, headers, body)) = self.pushes.answer(&seen, &body, &self.folder) {
            return reply(&mut stream, status, &headers, &body);
        }
        if let Some(name) = target.strip_prefix("/v2/a/b/manifests/") {
            let fault = self.manifest_faults.lock().pop_front();
            let tagged = || {
                self.tags
                    .get(name)
                    .copied()
                    .or_else(|| self.pushes.tag(name))
            };
            let digest = name.parse().ok().or_else(tagged);
            let path = digest.map(|digest| self.folder.join(digest.hex()));
            return match path.and_then(|path| std::fs::read(path).ok()) {
                Some(bytes) => self.manifest(&mut stream, bytes, fault),
                None => reply(&mut stream, "404 Not Found", "", b"{}"),
            };
        }
        match target.strip_prefix("/v2/a/b/blobs/sha256:") {
            Some(hex) if self.folder.join(hex).is_file() => {
                let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
                self.blob(&mut stream, hex, &seen, &fault)
            }
            _ => reply(&mut stream, "404 Not Found", "", b"{}"),
        }
    }

    fn token(&self, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
        let Wants::Token { uses, to_all } = self.wants else {
            return reply(stream, "404 Not Found", "", b"");
        };
        let is_for_us = seen
            .target
            .contains("service=s&scope=repository%3Aa%2Fb%3Apull");
        if !is_for_us || !(to_all || is_user(seen)) {
            return reply(stream, "401 Unauthorized", "", b"{}");
        }
        let mut tokens = self.uses.lock();
        let may = match seen.target.contains("%3Apull%2Cpush") {
            true => "push",
            false => "pull",
        };
        let token = format!("{may}-{}", tokens.len());
        tokens.insert(token.clone(), uses);
        let body = format!(r#"{{"token":"{token}","expires_in":300}}"#);
        reply(stream, "200 OK", "", body.as_bytes())
    }

    fn lets_in(&self, seen: &Seen) -> bool {
        match self.wants {
            Wants::Nothing => true,
            Wants::Password => is_user(seen),
            Wants::Token { .. } => {
                let token = seen.authorization.as_deref().unwrap_or_default();
                let token = token.strip_prefix("Bearer ").unwrap_or_default();
                let changes = matches!(seen.method.as_str(), "POST" | "PUT");
                self.is_good(token) && (!changes || token.starts_with("push-"))
            }
        }
    }

    fn is_good(&self, name: &str) -> bool {
        let mut uses = self.uses.lock();
        let left = uses.get_mut(name).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    fn manifest(
        &self,
        stream: &mut TcpStream,
        mut bytes: Vec<u8>,
        fault: Option<Fault>,
    ) -> std::io::Result<()> {
        let digest = Sha256Digest::of(&bytes);
        match fault {
            Some(Fault::Status(status, header)) => {
                return reply(stream, &format!("{status} X"), header, b"{}");
            }
            Some(Fault::Wrong(at)) => bytes[at] ^= 1,
            _ => {}
        }
        let headers = format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}\r\n");
        reply(stream, "200 OK", &headers, &bytes)
    }

    fn blob(
        &self,
        stream: &mut TcpStream,
        hex: &str,
        seen: &Seen,
        fault: &Fault,
    ) -> std::io::Result<()> {
        let blob = std::fs::read(self.folder.join(hex))?;
        let range = seen.range.as_deref().map(|range| {
            let (first, last) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            let end = match last {
                "" => blob.len(),
                last => last.parse::<usize>().unwrap() + 1,
            };
            first.parse::<usize>().unwrap()..end
        });
        let (mut first, mut end) = match &range {
            Some(range) => (range.start, range.end),
            None => (0, blob.len()),
        };
        let mut total = blob.len();
        match fault {
            Fault::Late => {
                let begin = std::time::Instant::now();
                while self.seen.lock().last() == Some(seen)
                    && begin.elapsed() < Duration::from_secs(60)
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Fault::Status(status, header) => {
                return reply(stream, &format!("{status} X"), header, b"{}");
            }
            Fault::Loop => {
                let to = format!("Location: {}\r\n", seen.target);
                return reply(stream, "302 Found", &to, b"");
            }
            Fault::Elsewhere(times) => {
                let mut uses = self.uses.lock();
                let place = format!("{hex}?signed={}", uses.len());
                uses.insert(place.clone(), *times);
                let to = format!("Location: /elsewhere/{place}\r\n");
                return reply(stream, "307 Temporary Redirect", &to, b"");
            }
            Fault::Shifted(by) => {
                first += *by;
                end = (end + *by).min(blob.len());
            }
            Fault::Longer => total += 1,
            Fault::Piece(most) => end = end.min(first + *most),
            _ => {}
        }
        let is_whole = range.is_none() || *fault == Fault::Whole;
        let mut body = match *fault {
            Fault::Whole => blob.clone(),
            _ => blob[first..end].to_vec(),
        };
        if let Fault::Wrong(at) = fault {
            body[*at] ^= 1;
        }
        let status = if is_whole {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        let mut head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        if !is_whole && *fault != Fault::Unnamed {
            head += &format!("Content-Range: bytes {first}-{}/{total}\r\n", end - 1);
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        let sent = match fault {
            Fault::Cut(after) => &body[..(*after).min(body.len())],
            Fault::Drip => {
                for byte in &body[..20] {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(30));
                }
                // Until the client has had enough.
                let _ = stream.read(&mut [0]);
                return Ok(());
            }
            _ => &body,
        };
        self.sent.fetch_add(sent.len(), Ordering::SeqCst);
        stream.write_all(sent)
    }
}

fn is_user(seen: &Seen) -> bool {
    // user:secret
    seen.authorization.as_deref() == Some("Basic dXNlcjpzZWNyZXQ=")
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// Bytes that no compression makes fewer.
pub(crate) fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 32) as u32
    });
    let mut bytes = Vec::with_capacity(length + 4);
    for word in words.take(length.div_ceil(4)) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
