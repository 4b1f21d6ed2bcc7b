//! What goes over the wire to a service whose connections break, and to one of Google's kind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by a panic"
)]

mod google;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use vfsd_object_store::{FlatBucket, FlatOptions, RetryPolicy, Store, StoreOptions, StoreUrl};

/// What becomes of one request.
#[derive(Clone, Copy)]
enum Fate {
    Whole,
    /// The connection is closed after half of the body.
    Half,
    /// An error that passes.
    Busy,
    /// The connection stays open, and nothing comes after half of the body.
    Silent,
    /// The connection is closed without a reply.
    Closed,
    /// The part, with the status of a whole object.
    Unmarked,
    /// As [`Self::Unmarked`], and another part.
    Other,
    /// All of a large object, whatever was asked for.
    Everything,
}

/// Bytes of that object.
const LARGE: usize = 400 << 20;

fn body() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Answers each connection's one request with the next fate, and with all of it after the last. Says of each whether the
/// client took it.
fn service(fates: Vec<Fate>) -> (SocketAddr, Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (done, taken) = channel();
    std::thread::spawn(move || {
        // Silent connections have to stay open.
        let mut open = Vec::new();
        let mut fates = fates.into_iter();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let fate = fates.next().unwrap_or(Fate::Whole);
            // The client may be gone already.
            let answered = answer(&mut connection, fate);
            let _ = done.send(answered.is_ok());
            if matches!(fate, Fate::Silent) {
                open.push(connection);
            }
        }
    });
    (address, taken)
}

fn answer(connection: &mut TcpStream, fate: Fate) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let (_, range) = request.split_once("range: bytes=").unwrap();
    let (first, last) = range.lines().next().unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let body = body();
    let part = &body[first..=last];
    match fate {
        Fate::Closed => return Ok(()),
        Fate::Everything => {
            write!(
                connection,
                "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
                 Content-Length: {LARGE}\r\n\r\n"
            )?;
            for _ in 0..LARGE >> 20 {
                connection.write_all(&[0; 1 << 20])?;
            }
            return Ok(());
        }
        Fate::Busy => {
            let busy = "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            return connection.write_all(busy.as_bytes());
        }
        Fate::Whole | Fate::Half | Fate::Silent | Fate::Unmarked | Fate::Other => {}
    }
    let status = match fate {
        Fate::Unmarked | Fate::Other => "200 OK",
        _ => "206 Partial Content",
    };
    let named = match fate {
        Fate::Other => first + 1,
        _ => first,
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"1\"\r\n\
         Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nContent-Range: bytes {named}-{last}/{}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len(),
        part.len()
    )?;
    match fate {
        Fate::Whole | Fate::Unmarked | Fate::Other => connection.write_all(part),
        _ => connection.write_all(&part[..part.len() / 2]),
    }
}

fn read(fates: Vec<Fate>, policy: RetryPolicy) -> object_store::Result<Vec<u8>> {
    let (address, _taken) = service(fates);
    read_from(address, policy)
}

fn read_from(address: SocketAddr, policy: RetryPolicy) -> object_store::Result<Vec<u8>> {
    let mut options = StoreOptions::default();
    for option in [
        format!("endpoint=http://{address}"),
        "skip_signature=true".into(),
    ] {
        options.set(&option).unwrap();
    }
    let url: StoreUrl = "s3://bucket".parse().unwrap();
    let store = Store::open(&url, &options, policy).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let read = async {
        store
            .objects()
            .get_range(&Path::from("k"), 1000..190_000)
            .await
    };
    Ok(runtime.block_on(read)?.to_vec())
}

#[test]
fn a_body_is_whole_however_often_its_connection_breaks() {
    use Fate::{Busy, Closed, Half, Silent};
    let fates = vec![Half, Closed, Busy, Half, Silent, Busy, Half];
    let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_millis(500));
    assert!(read(fates, policy).unwrap() == body()[1000..190_000]);
}

#[test]
fn a_service_that_is_always_busy_is_given_up() {
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_millis(500));
    assert!(read(vec![Fate::Busy; 1000], policy).is_err());
}

#[test]
fn all_of_an_object_in_place_of_a_part_is_refused_at_once_and_not_read() {
    let (address, taken) = service(vec![Fate::Everything]);
    let error = read_from(address, RetryPolicy::default()).unwrap_err();
    let words = error.to_string();
    let told = "all of an object, where a part was asked for";
    let store = format!("http://{address}/bucket/k");
    assert!(words.contains(told) && words.contains(&store), "{words}");
    // The connection is closed long before the service has sent it.
    assert!(!taken.recv().unwrap());
}

#[test]
fn a_part_that_is_named_counts_as_one_whatever_its_status() {
    let read_with = |fate| {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_millis(500));
        read(vec![fate; 1000], policy)
    };
    assert!(read_with(Fate::Unmarked).unwrap() == body()[1000..190_000]);
    // Its place is looked at.
    assert!(read_with(Fate::Other).is_err());
}

#[test]
fn plain_http_to_another_host_is_refused_with_what_allows_it() {
    let mut options = StoreOptions::default();
    for option in ["endpoint=http://store.invalid", "skip_signature=true"] {
        options.set(option).unwrap();
    }
    let url: StoreUrl = "s3://bucket".parse().unwrap();
    let store = Store::open(&url, &options, RetryPolicy::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let opened = runtime.block_on(FlatBucket::open(store, "", FlatOptions::default()));
    let refusal = opened.unwrap_err().to_string();
    for named in ["s3://bucket", "AWS_ALLOW_HTTP", "allow_http=true"] {
        assert!(refusal.contains(named), "{refusal}");
    }
}
